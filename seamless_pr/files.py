"""Writing files whole or not at all, so that a killed run never leaves half a result."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

JPEG_QUALITY = 92


def write_whole(path: Path, content: bytes) -> None:
    """Writes beside the file, then renames; creates the folder of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON in UTF-8, whole or not at all."""
    write_whole(path, json.dumps(content, ensure_ascii=False).encode())


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Writes [H, W, 3] uint8 RGB as PNG or JPEG, by the extension, whole or not at all."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"cannot encode a picture of shape {picture.shape} as {path}")
    write_whole(path, data.tobytes())
