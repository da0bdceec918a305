"""What clients get: panoptic maps as COCO files, run lengths, an id PNG or a picture."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seamless_pr.datasets.coco_panoptic import category_json
from seamless_pr.datasets.coco_results import encode_run_lengths, to_coco
from seamless_pr.drawing.panoptic import draw_panoptic, segment_colors
from seamless_pr.files import MAX_JPEG_SIDE
from seamless_pr.serving.limits import RequestRefusedError
from seamless_pr.structures.instances import MaskCrop
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation

COCO, RUN_LENGTHS, PNG, OVERLAY = "coco", "json", "png", "overlay"
# format -> its media type; the first one is what a client gets who does not care.
MEDIA_TYPES = {
    RUN_LENGTHS: "application/json",
    COCO: "multipart/form-data",
    PNG: "image/png",
    OVERLAY: "image/jpeg",
}
JPEG_QUALITY = 90
# Fast; maps of a few colours are small in any case.
PNG_OPTIONS = [cv2.IMWRITE_PNG_COMPRESSION, 3]


@dataclass(frozen=True)
class Labelled:
    """The part of an image in an answer, or why it has none.

    Pixels are not in it: it waits for the other images of its request, and for a slow client.

    Attributes:
        name: of the client's file.
        image_size: (height, width); None if there is no map.
        label_space: of the map; None if there is none.
        segments_info: as in the JSON of COCO; with run lengths where the format has them.
        picture: encoded, where the format has one.
        status, error: of HTTP, and the reason, if there is no map.
    """

    name: str
    image_size: tuple[int, int] | None = None
    label_space: LabelSpace | None = None
    segments_info: tuple[dict[str, Any], ...] = ()
    picture: bytes = b""
    status: int = 200
    error: str = ""


@dataclass(frozen=True)
class Answer:
    """A body and what it is."""

    body: bytes
    media_type: str


def choose_format(wanted: str | None, accept: str) -> str:
    """The format of an answer.

    Args:
        wanted: `?format=`, which goes first.
        accept: the header: media types with qualities, as browsers and programs send it.

    Raises:
        RequestRefusedError: 406, nothing that is known.
    """
    if wanted is not None:
        if wanted not in MEDIA_TYPES:
            raise RequestRefusedError(
                406, f"format must be one of {', '.join(MEDIA_TYPES)}; got '{wanted[:40]}'"
            )
        return wanted
    ranked = sorted(_accepted(accept or "*/*"), key=lambda item: -item[1])
    for media_type, quality in ranked:
        for name, own in MEDIA_TYPES.items():
            same_kind = media_type.endswith("/*") and own.startswith(media_type[:-1])
            if quality > 0 and (media_type in ("*/*", own) or same_kind):
                return name
    known = ", ".join(MEDIA_TYPES.values())
    raise RequestRefusedError(406, f"Accept names none of {known}; got '{accept[:200]}'")


def _accepted(header: str) -> list[tuple[str, float]]:
    found = []
    for part in header.split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        found.append((media_type.lower(), quality))
    return found


def check_number(num_images: int, answer_format: str) -> None:
    """Refuses several images where the format holds one, before any is labelled.

    Raises:
        RequestRefusedError: 406.
    """
    if answer_format in (PNG, OVERLAY) and num_images > 1:
        raise RequestRefusedError(
            406, f"{answer_format} holds one image; got {num_images}; ask for json or coco"
        )


def encode_image(
    name: str, image: Tensor, segmentation: PanopticSegmentation, answer_format: str
) -> Labelled:
    """What the answer says of one image.

    Args:
        name: of the client's file.
        image: [3, H, W] uint8.
        segmentation: at the size of the image.
        answer_format: of `choose_format`.

    Raises:
        RequestRefusedError: 406, no picture of this format can be so large.
    """
    size, space = segmentation.image_size, segmentation.label_space
    if answer_format == OVERLAY:
        drawn = draw_panoptic(image, segmentation)
        if max(drawn.shape) > MAX_JPEG_SIDE:
            raise RequestRefusedError(
                406,
                f"{name}: a JPEG has at most {MAX_JPEG_SIDE} pixels a side, the picture would have "
                f"{drawn.shape[0]} x {drawn.shape[1]}; ask for png, json or coco",
            )
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        return Labelled(name, size, space, picture=encode_picture(drawn, ".jpg", options))
    pixels, segments_info = to_coco(segmentation)
    colors = segment_colors(segmentation)
    for info in segments_info:
        info["color"] = list(colors[info["id"]])
    if answer_format == RUN_LENGTHS:
        _add_runs(segmentation, segments_info)
        return Labelled(name, size, space, tuple(segments_info))
    return Labelled(name, size, space, tuple(segments_info), encode_png(pixels))


def encode(labelled: Sequence[Labelled], label_space: LabelSpace, answer_format: str) -> Answer:
    """The answer of a request.

    Args:
        labelled: of `encode_image` with the same format; numbered from 1 in their order.
        label_space: the network's classes.
        answer_format: of `choose_format`.

    Raises:
        RequestRefusedError: no image has a map; or several do, and the format holds one.
    """
    failed = [item for item in labelled if item.image_size is None]
    if len(failed) == len(labelled):
        # The first speaks for all.
        raise RequestRefusedError(failed[0].status, "; ".join(item.error for item in failed))
    check_number(len(labelled), answer_format)
    if answer_format in (PNG, OVERLAY):
        return Answer(labelled[0].picture, MEDIA_TYPES[answer_format])
    pictures: list[tuple[str, bytes]] = []
    document = _document(labelled, label_space, pictures)
    text = json.dumps(document, ensure_ascii=False).encode()
    if answer_format == RUN_LENGTHS:
        return Answer(text, MEDIA_TYPES[RUN_LENGTHS])
    return _form(text, pictures)


def _document(
    labelled: Sequence[Labelled], label_space: LabelSpace, pictures: list[tuple[str, bytes]]
) -> dict[str, Any]:
    """A COCO panoptic JSON; its PNGs, if there are any, go to `pictures`."""
    document: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [category_json(category) for category in label_space.categories],
        "errors": [],
    }
    for image_id, item in enumerate(labelled, start=1):
        if item.image_size is None:
            document["errors"].append(
                {"image_id": image_id, "file_name": item.name, "reason": item.error}
            )
            continue
        height, width = item.image_size
        document["images"].append(
            {"id": image_id, "file_name": item.name, "height": height, "width": width}
        )
        file_name = f"{image_id}.png"
        document["annotations"].append(
            {"image_id": image_id, "file_name": file_name, "segments_info": item.segments_info}
        )
        if item.picture:
            pictures.append((file_name, item.picture))
    return document


def _add_runs(segmentation: PanopticSegmentation, segments_info: list[dict[str, Any]]) -> None:
    size = segmentation.image_size
    for info in segments_info:
        left, top, width, height = info["bbox"]
        window = segmentation.id_map[top : top + height, left : left + width]
        crop = MaskCrop(window == info["id"], top=top, left=left)
        info["segmentation"] = encode_run_lengths(crop, size)


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] uint8 RGB as a PNG."""
    return encode_picture(picture, ".png", PNG_OPTIONS)


def encode_picture(picture: NDArray[np.uint8], suffix: str, options: list[int]) -> bytes:
    """[H, W, 3] uint8 RGB as a file of OpenCV's."""
    done, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"cannot encode a picture of shape {picture.shape} as {suffix}")
    return data.tobytes()


def _form(document: bytes, pictures: Sequence[tuple[str, bytes]]) -> Answer:
    """A multipart form, which browsers read by `response.formData()`.

    Parts: `panoptic.json`, then one file for each image, named as the JSON names it.
    """
    boundary = f"panoptic-{secrets.token_hex(16)}"
    parts = [("panoptic.json", "application/json", document)]
    parts += [(name, "image/png", data) for name, data in pictures]
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, media_type, data in parts
    )
    media_type = f"{MEDIA_TYPES[COCO]}; boundary={boundary}"
    return Answer(body + f"--{boundary}--\r\n".encode(), media_type)
