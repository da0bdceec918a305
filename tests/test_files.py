"""Files are written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from seamless_pr.files import write_json, write_picture, write_whole


def test_folder_is_created_and_nothing_else_is_left_beside_the_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "föld" / "a.bin"
    write_whole(target, b"first")
    write_whole(target, b"second")
    assert target.read_bytes() == b"second"
    assert list(target.parent.iterdir()) == [target]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"größe": 1})

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_json(target, {"größe": 2})
    assert json.loads(target.read_text(encoding="utf-8")) == {"größe": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_picture_is_stored_as_rgb(tmp_path: Path) -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[..., 0] = 200
    write_picture(tmp_path / "red.png", picture)
    stored = cv2.cvtColor(cv2.imread(str(tmp_path / "red.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(stored, picture)
