"""Decoders of damaged files print nothing; everybody else does."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from seamless_pr.datasets.images import read_image, read_stored_pixels
from seamless_pr.datasets.quiet_decoding import quiet_decoding

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def damaged(kind: str) -> bytes:
    """A file over which the library that decodes it complains."""
    written = io.BytesIO()
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    Image.fromarray(NOISE).save(written, kind, **options)
    data = bytearray(written.getvalue())
    if kind == "JPEG":
        del data[300:320]
    else:
        data[60:64] = b"\xff\xff\xff\xff"
        data[-60] ^= 9
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_what_libraries_say_about_a_damaged_file_stays_off_the_console(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(damaged(kind))
    cv2.imdecode(np.frombuffer(damaged(kind), np.uint8), cv2.IMREAD_COLOR)
    assert capfd.readouterr().err, "the file shows nothing"
    for read in (read_image, read_stored_pixels):
        with suppress(ValueError):
            read(path)
    assert capfd.readouterr().err == ""
    # Who decodes without us hears it again.
    cv2.imdecode(np.frombuffer(damaged(kind), np.uint8), cv2.IMREAD_COLOR)
    assert capfd.readouterr().err


def test_messages_of_this_and_of_other_processes_arrive_meanwhile(
    capfd: pytest.CaptureFixture[str],
) -> None:
    level = cv2.utils.logging.getLogLevel()
    with quiet_decoding(), quiet_decoding():
        print("from Python", file=sys.stderr, flush=True)
        subprocess.run(["bash", "-c", "echo from a child >&2"], check=True)
        assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT
    assert cv2.utils.logging.getLogLevel() == level
    assert capfd.readouterr().err.split("\n")[:2] == ["from Python", "from a child"]


def test_many_threads_leave_everything_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    data = np.frombuffer(damaged("PNG"), np.uint8)

    def decode() -> None:
        for _ in range(100):
            with quiet_decoding():
                cv2.imdecode(data, cv2.IMREAD_COLOR)

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().err == ""
    cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert "libpng" in capfd.readouterr().err
