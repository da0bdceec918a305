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
    """An image with its map, or why it has none.

    Attributes:
        name: of the client's file.
        image: [3, H, W] uint8; None if there is no map.
        segmentation: at the size of the image; None if there is no map.
        status, error: of HTTP, and the reason, if there is no map.
    """

    name: str
    image: Tensor | None = None
    segmentation: PanopticSegmentation | None = None
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


def encode(labelled: Sequence[Labelled], label_space: LabelSpace, answer_format: str) -> Answer:
    """The answer of a request.

    Args:
        labelled: its images; numbered from 1 in their order.
        label_space: the network's classes.
        answer_format: of `choose_format`.

    Raises:
        RequestRefusedError: no image has a map; or several do, and the format holds one.
    """
    failed = [item for item in labelled if item.segmentation is None]
    if len(failed) == len(labelled):
        # The first speaks for all.
        raise RequestRefusedError(failed[0].status, "; ".join(item.error for item in failed))
    if answer_format in (PNG, OVERLAY):
        if len(labelled) > 1:
            raise RequestRefusedError(
                406, f"{answer_format} holds one image; got {len(labelled)}; ask for json or coco"
            )
        return _picture(labelled[0], answer_format)
    pictures: list[tuple[str, bytes]] = []
    document = _document(labelled, label_space, pictures, with_runs=answer_format == RUN_LENGTHS)
    text = json.dumps(document, ensure_ascii=False).encode()
    if answer_format == RUN_LENGTHS:
        return Answer(text, MEDIA_TYPES[RUN_LENGTHS])
    return _form(text, pictures)


def _document(
    labelled: Sequence[Labelled],
    label_space: LabelSpace,
    pictures: list[tuple[str, bytes]],
    *,
    with_runs: bool,
) -> dict[str, Any]:
    """A COCO panoptic JSON; its PNGs go to `pictures`, or its masks into it as run lengths."""
    document: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [category_json(category) for category in label_space.categories],
        "errors": [],
    }
    for image_id, item in enumerate(labelled, start=1):
        if item.segmentation is None:
            document["errors"].append(
                {"image_id": image_id, "file_name": item.name, "reason": item.error}
            )
            continue
        height, width = item.segmentation.image_size
        picture, segments_info = to_coco(item.segmentation)
        colors = segment_colors(item.segmentation)
        for info in segments_info:
            info["color"] = list(colors[info["id"]])
        document["images"].append(
            {"id": image_id, "file_name": item.name, "height": height, "width": width}
        )
        file_name = f"{image_id}.png"
        document["annotations"].append(
            {"image_id": image_id, "file_name": file_name, "segments_info": segments_info}
        )
        if with_runs:
            _add_runs(item.segmentation, segments_info)
        else:
            pictures.append((file_name, encode_png(picture)))
    return document


def _add_runs(segmentation: PanopticSegmentation, segments_info: list[dict[str, Any]]) -> None:
    size = segmentation.image_size
    for info in segments_info:
        left, top, width, height = info["bbox"]
        window = segmentation.id_map[top : top + height, left : left + width]
        crop = MaskCrop(window == info["id"], top=top, left=left)
        info["segmentation"] = encode_run_lengths(crop, size)


def _picture(item: Labelled, answer_format: str) -> Answer:
    assert item.segmentation is not None
    assert item.image is not None
    if answer_format == PNG:
        return Answer(encode_png(to_coco(item.segmentation)[0]), MEDIA_TYPES[PNG])
    drawn = draw_panoptic(item.image, item.segmentation)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return Answer(encode_picture(drawn, ".jpg", options), MEDIA_TYPES[OVERLAY])


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
