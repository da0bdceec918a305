from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from seamless_pr.drawing.panoptic import draw_panoptic
from seamless_pr.id_maps.id_png import decode_id_png
from seamless_pr.serving.answers import (
    Answer,
    Labelled,
    check_number,
    choose_format,
    encode,
    encode_image,
)
from seamless_pr.serving.limits import RequestRefusedError
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from tests.support.color_network import TOY_SPACE
from tests.support.color_server import color_predictor, flag

BAD = Labelled("b.jpg", status=422, error="b.jpg cannot be read")


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.from_numpy(flag()).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def found(image: Tensor) -> PanopticSegmentation:
    return color_predictor()(image)


def answered(image: Tensor, found: PanopticSegmentation, answer_format: str) -> Answer:
    labelled = encode_image("a.jpg", image, found, answer_format)
    return encode([labelled], TOY_SPACE, answer_format)


def parts(answer: Answer) -> dict[str, bytes]:
    """The files of a form, by name."""
    boundary = answer.media_type.partition("boundary=")[2].encode()
    pieces = answer.body.split(b"--" + boundary)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    found = {}
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        found[head.split(b'name="')[1].split(b'"')[0].decode()] = content.removesuffix(b"\r\n")
    return found


def test_a_form_is_a_coco_panoptic_json_with_its_png(
    image: Tensor, found: PanopticSegmentation
) -> None:
    answer = answered(image, found, "coco")
    files = parts(answer)
    assert list(files) == ["panoptic.json", "1.png"]
    document = json.loads(files["panoptic.json"])
    assert document["images"] == [{"id": 1, "file_name": "a.jpg", "height": 48, "width": 80}]
    (annotation,) = document["annotations"]
    assert annotation["file_name"] == "1.png"
    ids = decode_id_png(files["1.png"])
    assert np.array_equal(ids, found.id_map.numpy())
    areas = {s["id"]: s["area"] for s in annotation["segments_info"]}
    assert areas == {int(i): int((ids == i).sum()) for i in np.unique(ids) if i}
    assert [c["name"] for c in document["categories"]] == ["road", "sky", "car"]
    assert document["errors"] == []


def test_run_lengths_are_the_same_map(image: Tensor, found: PanopticSegmentation) -> None:
    answer = answered(image, found, "json")
    document = json.loads(answer.body)
    ids = np.zeros((48, 80), np.int32)
    for segment in document["annotations"][0]["segments_info"]:
        ids[coco_mask.decode(segment["segmentation"]) == 1] = segment["id"]
    assert np.array_equal(ids, found.id_map.numpy())


def test_a_png_and_a_picture_stand_alone(image: Tensor, found: PanopticSegmentation) -> None:
    answer = answered(image, found, "png")
    assert answer.media_type == "image/png"
    assert np.array_equal(decode_id_png(answer.body), found.id_map.numpy())
    answer = answered(image, found, "overlay")
    assert answer.media_type == "image/jpeg"
    picture = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    drawn = draw_panoptic(image, found)
    assert picture.shape == drawn.shape
    assert np.abs(picture.astype(int) - drawn).mean() < 5


def test_a_bad_image_among_others_is_named_and_the_others_have_their_maps(
    image: Tensor, found: PanopticSegmentation
) -> None:
    labelled = encode_image("a.jpg", image, found, "json")
    document = json.loads(encode([BAD, labelled], TOY_SPACE, "json").body)
    assert document["errors"] == [{"image_id": 1, "file_name": "b.jpg", "reason": BAD.error}]
    assert [image["id"] for image in document["images"]] == [2]


def test_without_any_map_the_answer_is_the_reason() -> None:
    with pytest.raises(RequestRefusedError, match=r"b.jpg cannot be read") as refused:
        encode([BAD], TOY_SPACE, "png")
    assert refused.value.status == 422


def test_a_picture_of_several_images_is_refused() -> None:
    with pytest.raises(RequestRefusedError, match="png holds one image; got 2") as refused:
        check_number(2, "png")
    assert refused.value.status == 406


def test_an_image_that_no_jpeg_holds_is_refused_as_a_picture_alone() -> None:
    high = PanopticSegmentation(torch.zeros(70_000, 1, dtype=torch.int32), (), TOY_SPACE)
    image = torch.zeros(3, 70_000, 1, dtype=torch.uint8)
    with pytest.raises(RequestRefusedError, match=r"a\.jpg: a JPEG has at most 65500 pixels"):
        encode_image("a.jpg", image, high, "overlay")
    assert decode_id_png(answered(image, high, "png").body).shape == (70_000, 1)


@pytest.mark.parametrize(
    ("wanted", "accept", "chosen"),
    [
        (None, "", "json"),
        (None, "*/*", "json"),
        (None, "image/png", "png"),
        (None, "image/*", "png"),
        (None, "text/html, image/jpeg;q=0.9, image/png;q=0.5", "overlay"),
        (None, "image/png;q=0, application/json", "json"),
        (None, "multipart/form-data", "coco"),
        ("overlay", "image/png", "overlay"),
    ],
)
def test_the_format_follows_the_wish_of_the_client(
    wanted: str | None, accept: str, chosen: str
) -> None:
    assert choose_format(wanted, accept) == chosen


@pytest.mark.parametrize(("wanted", "accept"), [("gif", "*/*"), (None, "text/html")])
def test_an_unknown_format_is_refused(wanted: str | None, accept: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        choose_format(wanted, accept)
    assert refused.value.status == 406
