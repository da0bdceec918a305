"""Reading image files of any common kind as RGB tensors."""

from __future__ import annotations

import io
import os
import re
import struct
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, ImageFileDirectory_v2
from torch import Tensor

from seamless_pr.datasets.quiet_decoding import quiet_decoding
from seamless_pr.datasets.remote_files import is_uri, read_uri
from seamless_pr.input_files import read_regular
from seamless_pr.ops.images import pillow_pixels, sixteen_to_eight_bit
from seamless_pr.structures.limits import MAX_PIXELS, TooManyPixelsError

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BIG_TIFF = ord("+")
# What is opened, by its first bytes, whatever the file is called: decoders of other formats are
# seldom tried ones, and Pillow's for EPS starts another program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_BEGINNINGS = (
    b"BM",
    b"GIF8",
    _JPEG,
    _PNG,
    *_TIFF_BEGINNINGS,
)
# Of a segment of JPEG; zeros and restarts stand inside of compressed data.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SCAN, _END_OF_JPEG = b"\xff\xda", b"\xff\xd9"
# Programs write up to twenty, and each costs a pass over all pixels, however small it is.
MAX_SCANS = 100
EXIF_ORIENTATION = 0x0112
# Orientations from here on exchange height and width.
FIRST_TRANSPOSED_ORIENTATION = 5


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Reads an image file as it is meant to be looked at.

    Grey becomes three equal channels, an alpha channel is dropped, 16 bit is scaled to 8 bit
    (65535 -> 255) and the EXIF orientation is applied. OpenCV decodes (faster than Pillow on JPEG
    and PNG; torchvision's decoders are about to be removed); what it refuses goes to Pillow.

    Args:
        path: JPEG, PNG, WebP, TIFF, BMP or GIF, whatever its name; also a URI.
        max_pixels: larger pictures are refused before they take memory.

    Returns:
        [3, H, W] uint8 RGB, contiguous.

    Raises:
        FileNotFoundError: no such file.
        OSError: the storage of a URI cannot be reached.
        ValueError: the file is empty, truncated, too large or not an image; the message names it.
    """
    return torch.from_numpy(read_pixels(path, max_pixels=max_pixels)).permute(2, 0, 1).contiguous()


def read_pixels(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """As `read_image`, as the array that was decoded.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    return _decode(read_bytes(path), path, max_pixels)


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """As `read_image`, of a file's content in memory.

    Args:
        data: the content.
        name: what errors call it.
        max_pixels: as in `read_image`.

    Raises:
        TooManyPixelsError: (a ValueError) refused for its size.
        ValueError: as `read_image`.
    """
    if not data:
        raise ValueError(f"{name} is empty; send the file again")
    return torch.from_numpy(_decode(data, name, max_pixels)).permute(2, 0, 1).contiguous()


def _decode(data: bytes, path: str | os.PathLike[str], max_pixels: int) -> NDArray[np.uint8]:
    suits_opencv = _check_header(data, path, max_pixels)
    pixels = _decode_fast(data) if suits_opencv else None
    if pixels is None:
        pixels = _decode_with_pillow(data, path)
    return _to_eight_bit(pixels, path)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of an image file or URI; errors name it."""
    if is_uri(path):
        data = read_uri(os.fspath(path))
    elif not os.path.isfile(path):
        raise FileNotFoundError(f"no image file at {path}; check the folder and the file name")
    else:
        data = read_regular(path)
    if not data:
        raise ValueError(f"{path} is empty; copy or create the file again")
    return data


def _check_header(data: bytes, path: str | os.PathLike[str], max_pixels: int) -> bool:
    """Refuses other formats and pictures that are too large, before anything is decoded.

    Returns:
        Whether OpenCV gives the colours as they are meant.
    """
    if not data.startswith(_BEGINNINGS) and not (
        data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    ):
        raise _unreadable(path, f"unknown format; expected one of {', '.join(FORMATS)}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            suits_opencv = not _has_other_colors(image)
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(
            f"{path} has too many pixels ({error}); make it smaller"
        ) from error
    except Exception as error:
        # What Pillow stumbles over OpenCV may read, and make room for.
        try:
            width, height = _size_in_header(data)
        except Exception:
            raise _unreadable(path, _pillow_reason(error)) from error
        suits_opencv = True
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"{path} has {width} x {height} pixels, more than {max_pixels / 1e6:g} million; "
            "make it smaller, or allow more (--max-pixels) where the memory suffices"
        )
    if data.startswith(_JPEG) and _has_many_scans(data):
        raise _unreadable(path, f"more than {MAX_SCANS} scans, which would take minutes")
    return suits_opencv


def _size_in_header(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG or TIFF, whatever else it holds; any exception if it has none."""
    if data.startswith(_PNG):
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    assert data.startswith(_TIFF_BEGINNINGS)
    file = io.BytesIO(data)
    is_large = data[2] == _BIG_TIFF
    directory = ImageFileDirectory_v2(file.read(16 if is_large else 8))
    file.seek(directory.next)
    directory.load(file)
    return int(directory[IMAGEWIDTH]), int(directory[IMAGELENGTH])


def _has_many_scans(data: bytes) -> bool:
    """Whether a JPEG goes over its picture more often than any program writes it."""
    # Video behind the picture and notes before it may hold these bytes by chance.
    if data.count(_SCAN) <= MAX_SCANS:
        return False
    num_scans, place = 0, len(_JPEG) - 1
    while marker := _MARKER.search(data, place):
        kind, place = marker.group(), marker.end()
        if kind == _END_OF_JPEG:
            break
        num_scans += kind == _SCAN
        place += int.from_bytes(data[place : place + 2], "big")
    return num_scans > MAX_SCANS


def _decode_fast(data: bytes) -> NDArray[np.generic] | None:
    """[H, W, 3] RGB of any depth, or None when the data is better left to Pillow."""
    if not looks_complete(data):
        return None
    # Not IMREAD_UNCHANGED: that would ignore the orientation and keep alpha.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    pixels = _opencv_pixels(data, flags)
    if pixels is None or pixels.ndim != 3:
        return None
    if pixels.dtype not in (np.uint8, np.uint16):
        return pixels  # OpenCV turns colours of few types around; these are refused by theirs.
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _opencv_pixels(data: bytes, flags: int) -> NDArray[np.integer[Any] | np.floating[Any]] | None:
    with quiet_decoding(), suppress(cv2.error):
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None


def _has_other_colors(image: Image.Image) -> bool:
    """Whether OpenCV reads these otherwise than Pillow.

    It takes L*a*b* for RGB, rounds CMYK and YCbCr in its own way, and of TIFFs with alpha and 8
    bits it gives the colours multiplied by alpha.
    """
    if image.mode in ("CMYK", "YCbCr", "LAB"):
        return True
    modes = [str(tile[3]) for tile in getattr(image, "tile", ()) if len(tile) > 3]
    has_alpha = image.format == "TIFF" and image.mode in ("RGBA", "RGBa", "RGBX")
    return has_alpha and not any(";16" in mode for mode in modes)


def looks_complete(data: bytes) -> bool:
    """False for files without an end: several OpenCV releases fill the missing part with grey.

    Inside compressed JPEG data 0xFF is escaped: the last end marker follows the last scan marker.
    """
    if data.startswith(_JPEG[:2]):
        return data.rfind(_END_OF_JPEG) > data.rfind(_SCAN)
    if data.startswith(_PNG):
        return b"IEND" in data[-64:] and _has_whole_chunks(data)
    # Only Pillow takes the first frame of an animation in every release; WebP carries its length.
    return not data.startswith(b"GIF8")


def _has_whole_chunks(data: bytes) -> bool:
    """Whether all chunks of a PNG lie in the file; libpng makes room for what their lengths say."""
    place = len(_PNG)
    while place + 8 <= len(data):
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return place <= len(data)


def _decode_with_pillow(data: bytes, path: str | os.PathLike[str]) -> NDArray[np.generic]:
    try:
        with quiet_decoding(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return pillow_pixels(image)
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to.
        raise _unreadable(path, _pillow_reason(error)) from error


def _pillow_reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # Its text names the memory address of the data.
        return "unknown format"
    return str(error) or type(error).__name__


def _unreadable(path: str | os.PathLike[str], reason: str) -> ValueError:
    return ValueError(
        f"{path} cannot be read as an image ({reason}); it is damaged or of another kind: "
        "copy it again, convert it to PNG or leave it out"
    )


def _to_eight_bit(pixels: NDArray[np.generic], path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    if pixels.dtype == np.uint16:
        return sixteen_to_eight_bit(pixels)
    raise ValueError(
        f"{path} has {pixels.dtype} pixels; expected 8 or 16 bits without sign: "
        "convert it to PNG or JPEG"
    )


def read_label_image(path: str | os.PathLike[str]) -> NDArray[np.int32]:
    """Reads a one-channel label picture (8 or 16 bit) as it is stored.

    Returns:
        [H, W] int32; wide, because products of 16-bit labels overflow.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, truncated, or not a one-channel picture; the message names the file.
    """
    labels = read_stored_pixels(path)
    # A TIFF may hold 32 bits, and any table over its values would be as long as the largest.
    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"{path} must be a one-channel picture of 8 or 16 bit labels; got {labels.dtype} with "
            f"shape {labels.shape}; is it a colour picture of the labels?"
        )
    return labels.astype(np.int32)


def read_stored_pixels(path: str | os.PathLike[str]) -> NDArray[np.generic]:
    """Reads the values of a picture that holds labels: nothing is turned, scaled or looked up.

    Returns:
        [H, W], or [H, W, 3] in the order red, green, blue; another number of channels as OpenCV
        gives them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, truncated, too large or not a picture; the message names the file.
    """
    data = read_bytes(path)
    _check_header(data, path, MAX_PIXELS)
    pixels = _opencv_pixels(data, cv2.IMREAD_UNCHANGED) if looks_complete(data) else None
    if pixels is None:
        raise ValueError(f"{path} is truncated or not a picture; copy or create the file again")
    return pixels[..., ::-1] if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels


def read_pillow_pixels(path: str | os.PathLike[str]) -> tuple[str, NDArray[Any]]:
    """As `read_stored_pixels`, with palettes left as indices, which OpenCV looks up.

    Returns:
        Pillow's mode, such as "P" or "L", and the values.
    """
    data = read_bytes(path)
    _check_header(data, path, MAX_PIXELS)
    try:
        with quiet_decoding(), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return picture.mode, np.asarray(picture)
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to.
        raise ValueError(
            f"{path} is truncated or not a picture; copy or create the file again"
        ) from error


def whole_picture_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of an image file after its EXIF orientation; decodes no pixel.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, without its end, or not an image; the message names the file.
    """
    data = read_bytes(path)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            # Asking a PNG for EXIF that its header lacks decodes the whole picture.
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(EXIF_ORIENTATION, 1) if has_exif else 1
    except Exception as error:
        raise _unreadable(path, _pillow_reason(error)) from error
    if not data.startswith(b"GIF8") and not looks_complete(data):
        raise ValueError(f"{path}: the end of the file is missing; copy it again")
    is_turned = isinstance(orientation, int) and orientation >= FIRST_TRANSPOSED_ORIENTATION
    return (width, height) if is_turned else (height, width)
