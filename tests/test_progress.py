"""Progress of long runs."""

from __future__ import annotations

import io

from seamless_pr.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_log_file_gets_lines_and_no_control_characters() -> None:
    stream = io.StringIO()
    progress = Progress(3, "image", stream=stream, seconds_between_lines=0)
    for _ in range(3):
        progress.update()
    progress.message("all done")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "1 of 3 images",
        "2 of 3 images",
        "3 of 3 images",
        "all done",
    ]
    assert "images/s" in lines[0]
    assert lines[2].endswith("00:00 left")
    assert "\r" not in stream.getvalue()


def test_log_file_is_not_flooded_but_the_last_line_is_there() -> None:
    stream = io.StringIO()
    progress = Progress(500, "image", stream=stream, seconds_between_lines=60)
    for _ in range(500):
        progress.update()
    progress.close()
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("500 of 500 images")


def test_terminal_gets_a_bar() -> None:
    stream = Terminal()
    progress = Progress(2, "image", stream=stream)
    progress.update()
    progress.message("failed: a.png")
    progress.update()
    progress.close()
    assert "\r" in stream.getvalue()
    assert "2/2" in stream.getvalue()
    assert "failed: a.png\n" in stream.getvalue()
