"""Progress of long runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from seamless_pr.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(Terminal):
    """A terminal whose window was closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


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


def test_a_title_stands_before_the_count() -> None:
    stream = io.StringIO()
    with Progress(1, "image", title="verify", stream=stream) as progress:
        progress.update()
    assert stream.getvalue().startswith("verify: 1 of 1 images, ")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["log", "terminal"])
def test_what_is_not_shown_and_what_is_empty_leaves_no_trace(stream: io.StringIO) -> None:
    with Progress(2, "image", stream=stream, is_shown=False) as progress:
        progress.update()
        progress.update()
    with Progress(0, "image", stream=stream):
        pass
    assert stream.getvalue() == ""


@pytest.mark.parametrize("kind", [io.StringIO, Terminal], ids=["log", "terminal"])
def test_a_stream_that_lacks_letters_gets_question_marks(
    kind: type[io.StringIO], tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as stream:
        stream.isatty = lambda: kind is Terminal  # type: ignore[method-assign]
        with Progress(1, "image", title="größe", stream=stream) as progress:
            progress.message("failed: 日本.png")
            progress.update()
    text = (tmp_path / "log").read_text()
    assert "failed: ??.png\n" in text
    assert "gr??e: " in text


def test_a_stream_that_is_gone_or_closed_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", None)
    for stream in (Gone(), closed, None):
        done = 0
        with Progress(3, "image", stream=stream, seconds_between_lines=0) as progress:
            for _ in range(3):
                progress.update()
                progress.message("text")
                done += 1
        assert done == 3
