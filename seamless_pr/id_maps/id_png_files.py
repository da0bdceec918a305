"""Id PNGs of the COCO panoptic format: 8-bit RGB, segment id = R + 256 G + 65536 B, 0 = void."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.files import write_whole
from seamless_pr.id_maps.id_png import PngError, decode_id_png
from seamless_pr.id_maps.segments import MAX_SEGMENT_ID
from seamless_pr.input_files import read_regular


def read_id_png(path: str | os.PathLike[str]) -> NDArray[np.int32]:
    """Reads segment ids.

    Returns:
        [H, W] int32 in 0..2**24 - 1; 0 = void.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, truncated, or not a PNG of 24-bit ids; the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no id PNG at {path}; check the PNG folder or prepare it again")
    try:
        return decode_id_png(read_regular(path)).view(np.int32)
    except PngError as error:
        raise ValueError(f"{path}: {error}") from error


def write_id_png(path: str | os.PathLike[str], id_map: NDArray[Any]) -> None:
    """Writes segment ids, [H, W] of any integer dtype, as a PNG that is whole or absent."""
    encoded = io.BytesIO()
    Image.fromarray(ids_to_rgb(id_map)).save(encoded, "PNG")
    write_whole(Path(path), encoded.getvalue())


def ids_to_rgb(id_map: NDArray[Any]) -> NDArray[np.uint8]:
    """[H, W] integers -> [H, W, 3] uint8."""
    if id_map.ndim != 2 or not np.issubdtype(id_map.dtype, np.integer):
        raise ValueError(f"an id map must be [H, W] integers; got {id_map.shape} {id_map.dtype}")
    if id_map.size and (id_map.min() < 0 or id_map.max() > MAX_SEGMENT_ID):
        raise ValueError(
            f"segment ids must fit 24 bits (0..{MAX_SEGMENT_ID}); "
            f"got {id_map.min()}..{id_map.max()}; number the segments of an image from 1"
        )
    # Wide first: 16-bit arithmetic on ids overflows.
    little_endian = np.ascontiguousarray(id_map.astype("<u4"))
    return np.ascontiguousarray(little_endian.view(np.uint8).reshape(*id_map.shape, 4)[..., :3])
