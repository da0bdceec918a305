"""What clients send: bodies of HTTP requests as images, every limit asked before it costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from torch import Tensor

from seamless_pr.datasets.images import decode_image
from seamless_pr.datasets.remote_files import read_bounded_uri
from seamless_pr.serving.limits import RequestRefusedError, ServingLimits, check_uri
from seamless_pr.structures.limits import TooManyPixelsError

UNNAMED = "image"
MAX_NAME = 200
MAX_FIELD_BYTES = 4096


@dataclass(frozen=True)
class Photo:
    """An image as it came.

    Attributes:
        name: of the client's file, without folders; for messages and records, never a place.
        data: the content of the file; None: it is behind `uri`.
        uri: an allowed one, or empty.
    """

    name: str
    data: bytes | None
    uri: str = ""


async def read_photos(request: Any, limits: ServingLimits) -> list[Photo]:
    """The images of a request.

    A form has them as files under any name, and URIs as fields `uri`; JSON has
    {"uris": [...]}; any other body is one image.

    Args:
        request: of Starlette, its body not read yet.
        limits: what is granted.

    Raises:
        RequestRefusedError: 413 too large, 400 not readable as what it says it is, 403 a URI that
            is not allowed, 422 no or too many images.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    max_bytes = limits.max_bytes
    if kind == "application/json":  # A list of addresses, whose values take far more memory.
        max_bytes = min(max_bytes, limits.max_images * MAX_FIELD_BYTES)
    body = await _read_body(request, max_bytes)
    if kind == "multipart/form-data":
        photos = await _photos_of_form(request, body, limits)
    elif kind == "application/json":
        photos = [_behind(uri, limits) for uri in _uris_of_json(body)]
    else:
        photos = [Photo(UNNAMED, body)] if body else []
    if not 1 <= len(photos) <= limits.max_images:
        raise RequestRefusedError(
            422,
            f"a request holds 1 to {limits.max_images} images; got {len(photos)}; send a file as "
            "the body, or files in a form",
        )
    return photos


async def _read_body(request: Any, max_bytes: int) -> bytes:
    """The body; not read further than it may be long."""
    from starlette.requests import ClientDisconnect

    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and float(stated) > max_bytes:
        raise _too_long(max_bytes)
    parts, length = [], 0
    try:
        async for part in request.stream():
            length += len(part)
            if length > max_bytes:
                raise _too_long(max_bytes)
            parts.append(part)
    except ClientDisconnect as error:  # No fault of the server; nobody reads the answer.
        raise RequestRefusedError(400, "the client hung up within its request") from error
    return b"".join(parts)


def _too_long(max_bytes: int) -> RequestRefusedError:
    return RequestRefusedError(
        413,
        f"such a request has at most {max_bytes / 2**20:g} MiB; send fewer or smaller images",
        # What is still on its way is not read.
        {"Connection": "close"},
    )


async def _photos_of_form(request: Any, body: bytes, limits: ServingLimits) -> list[Photo]:
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    class InMemoryParser(MultiPartParser):
        # It is in memory already.
        spool_max_size = limits.max_bytes

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await InMemoryParser(
            request.headers,
            stream(),
            max_files=limits.max_images,
            max_fields=limits.max_images,
            max_part_size=MAX_FIELD_BYTES,
        ).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise RequestRefusedError(400, f"the form cannot be read ({reason})") from error
    photos = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            photos.append(Photo(_plain_name(value.filename or ""), await value.read()))
        elif name == "uri":
            photos.append(_behind(value, limits))
        else:
            raise RequestRefusedError(
                422, f"{name!r:.{MAX_NAME}} is no file; a form holds files, and fields named uri"
            )
    await form.close()
    return photos


def _uris_of_json(body: bytes) -> Sequence[str]:
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefusedError(400, f"the body is no JSON ({error})") from error
    uris = content.get("uris") if isinstance(content, dict) else None
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        raise RequestRefusedError(
            422, 'JSON names images as {"uris": ["s3://bucket/image.jpg", ...]}'
        )
    return uris


def _behind(uri: str, limits: ServingLimits) -> Photo:
    check_uri(uri, limits)
    return Photo(_plain_name(uri), None, uri)


def _plain_name(name: str) -> str:
    """The last part of a name in the manner of any system, letters that can be shown only."""
    last = PureWindowsPath(PurePosixPath(name).name).name
    return "".join(letter for letter in last if letter.isprintable())[:MAX_NAME] or UNNAMED


async def load_photo(photo: Photo, limits: ServingLimits) -> Tensor:
    """Fetches and decodes an image, as a folder of images is read.

    Returns:
        [3, H, W] uint8.

    Raises:
        RequestRefusedError: 413 too many bytes or pixels, 422 no image, 502 storage that does not
            answer.
    """
    return await asyncio.to_thread(_load, photo, limits)


def _load(photo: Photo, limits: ServingLimits) -> Tensor:
    data = _fetch(photo.uri, limits) if photo.data is None else photo.data
    try:
        return decode_image(data, photo.name, max_pixels=limits.max_pixels)
    except TooManyPixelsError as error:
        raise RequestRefusedError(413, str(error)) from error
    except ValueError as error:
        raise RequestRefusedError(422, str(error)) from error


def _fetch(uri: str, limits: ServingLimits) -> bytes:
    try:
        data = read_bounded_uri(uri, limits.max_bytes)
    except FileNotFoundError as error:
        raise RequestRefusedError(422, str(error)) from error
    except OSError as error:
        raise RequestRefusedError(502, str(error)) from error
    if len(data) > limits.max_bytes:
        raise RequestRefusedError(
            413, f"{uri} has more than {limits.max_bytes / 2**20:g} MiB; make it smaller"
        )
    return data
