"""Prediction on pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from seamless_pr.datasets.images import read_image
from seamless_pr.inference.predictor import Predictor
from seamless_pr.ops.images import image_tensor
from tests.support.color_network import BLUE, GREEN, RED, ColorNetwork


def striped(height: int, width: int) -> torch.Tensor:
    """Sky above, road below, a car in the middle of the road."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, : height // 2] = torch.tensor(GREEN, dtype=torch.uint8)[:, None, None]
    image[:, height // 2 :] = torch.tensor(RED, dtype=torch.uint8)[:, None, None]
    image[:, height * 3 // 4 :, width // 4 : width // 2] = torch.tensor(BLUE, dtype=torch.uint8)[
        :, None, None
    ]
    return image


def predictor(**options: object) -> tuple[Predictor, ColorNetwork]:
    network = ColorNetwork().train()
    settings = {"shortest_side_pixels": 16, **options}
    return Predictor(network, **settings), network  # type: ignore[arg-type]


def test_result_has_the_size_of_the_image_and_the_network_sees_its_own_size() -> None:
    predict, network = predictor()
    segmentation = predict(striped(32, 64))
    assert segmentation.image_size == (32, 64)
    assert network.batches == [(1, 16, 32)]
    assert {segment.train_id for segment in segmentation.segments} == {0, 1, 2}
    assert segmentation.semantic_map()[0, 0] == 1
    assert segmentation.semantic_map()[-1, 20] == 2


def test_tensors_arrays_and_pictures_give_the_same_result() -> None:
    predict, _ = predictor()
    tensor = striped(32, 64)
    array = tensor.permute(1, 2, 0).numpy()
    expected = predict(tensor).id_map
    forms = [
        array,
        np.ascontiguousarray(array[:, ::-1])[:, ::-1],
        Image.fromarray(array),
        Image.fromarray(array).convert("RGBA"),
    ]
    for form in forms:
        assert torch.equal(predict(form).id_map, expected)


def test_grey_images_are_read_as_three_equal_channels() -> None:
    predict, _ = predictor()
    assert predict(np.full((20, 20), 200, np.uint8)).image_size == (20, 20)


def test_only_images_of_one_size_share_a_batch_and_order_is_kept() -> None:
    predict, network = predictor(batch_size=2)
    images = [striped(32, 64), striped(16, 16), striped(64, 128), striped(48, 96)]
    results = predict.predict(images)
    assert [prediction.require_panoptic().image_size for prediction in results] == [
        (32, 64), (16, 16), (64, 128), (48, 96),
    ]  # fmt: skip
    assert sorted(network.batches) == [(1, 16, 16), (1, 16, 32), (2, 16, 32)]
    box = results[2].instances.boxes[0].tolist()
    assert box == [32, 48, 64, 64]


def test_no_images_give_no_results() -> None:
    predict, network = predictor()
    assert predict.predict([]) == []
    assert network.batches == []


def test_longest_side_caps_the_network_size() -> None:
    predict, network = predictor(longest_side_pixels=40)
    predict(striped(10, 100))
    assert network.batches == [(1, 4, 40)]


def test_settings_are_described_for_the_record_of_a_run() -> None:
    predict, _ = predictor(settings={"weights_sha256": "ab"}, batch_size=3)
    assert predict.describe() == {
        "weights_sha256": "ab",
        "label_space": "toy",
        "shortest_side_pixels": 16,
        "longest_side_pixels": None,
        "rounded_sides": False,
        "amp": "none",
    }


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (torch.zeros(3, 4, 4), TypeError, "uint8; got torch.float32"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), ValueError, r"\[3, H, W\]; got \(4, 4, 3\)"),
        (np.zeros((4, 4, 3)), TypeError, "uint8; got float64"),
        (np.zeros((3, 4, 4), np.uint8), ValueError, r"\[H, W, 3\] or \[H, W\]; got \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "at least one pixel"),
        (torch.zeros(3, 0, 4, dtype=torch.uint8), ValueError, "at least one pixel"),
        ("nowhere/street.png", FileNotFoundError, "no image file at nowhere/street.png"),
        (Image.new("F", (4, 4)), ValueError, "32 bits a pixel .mode F"),
        (Image.new("I", (4, 4)), ValueError, "32 bits a pixel .mode I"),
        (4, TypeError, "got int"),
    ],
)
def test_other_forms_of_images_are_refused(
    image: object, error: type[Exception], message: str
) -> None:
    predict, _ = predictor()
    with pytest.raises(error, match=message):
        predict(image)  # type: ignore[arg-type]


KINDS = {
    "16 bit grey": (Image.fromarray(np.arange(0, 65536, 32, np.uint16).reshape(32, 64)), "png"),
    "grey TIFF with 16 bits": (
        Image.fromarray(np.arange(0, 65536, 32, np.uint16).reshape(32, 64)),
        "tiff",
    ),
    "alpha": (Image.fromarray((np.arange(8192) % 251).astype(np.uint8).reshape(32, 64, 4)), "png"),
    "TIFF with alpha": (
        Image.fromarray((np.arange(8192) % 251).astype(np.uint8).reshape(32, 64, 4)),
        "tiff",
    ),
    "turned": (Image.fromarray((np.arange(6144) % 251).astype(np.uint8).reshape(32, 64, 3)), "png"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_same_result_on_every_way(tmp_path: Path, kind: str) -> None:
    picture, ending = KINDS[kind]
    path = tmp_path / f"street.{ending}"
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    picture.save(path, exif=exif)
    predict, _ = predictor()
    expected = read_image(path)
    assert expected.shape[1:] == ((64, 32) if kind == "turned" else (32, 64))
    with Image.open(path) as opened:
        assert torch.equal(image_tensor(opened), expected)
        results = [predict(way) for way in (str(path), path, f"file://{path}", opened, expected)]
    for result in results[1:]:
        assert torch.equal(result.id_map, results[0].id_map)
    # What the colours are is known.
    if "alpha" in kind:
        colors = np.array(picture)[..., :3].transpose(2, 0, 1)
        assert torch.equal(expected, torch.from_numpy(colors))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "RGBA", "LA"])
def test_a_tiff_of_any_colours_is_the_same_file_opened_or_not(
    tmp_path: Path, mode: str, orientation: int
) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    picture = Image.fromarray(colors)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray(colors[..., 1]))
        picture = picture.convert(mode)
    else:
        picture = picture.convert("RGB" if mode != "LAB" else "LAB")
        picture = picture if mode == "LAB" else picture.convert(mode)
    path = tmp_path / "a.tif"
    picture.save(path, tiffinfo={0x0112: orientation})
    turned = picture.convert("RGBA").convert("RGB") if mode == "LA" else picture.convert("RGB")
    if orientation == 6:
        turned = turned.transpose(Image.Transpose.ROTATE_270)
    expected = torch.from_numpy(np.array(turned)).permute(2, 0, 1)
    assert torch.equal(read_image(path), expected)
    with Image.open(path) as opened:
        assert torch.equal(image_tensor(opened), expected)
        assert opened.filename == str(path)


def test_sixteen_bits_that_pillow_would_cut_are_refused_with_the_way_that_keeps_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "wide.png"
    cv2.imwrite(str(path), np.full((4, 4, 3), 257 * 7 + 200, np.uint16))
    assert (read_image(path) == 8).all()
    with Image.open(path) as opened, pytest.raises(ValueError, match=r"8 of the 16 .* its path"):
        image_tensor(opened)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        predictor(batch_size=0)
    with pytest.raises(ValueError, match="amp must be one of none"):
        predictor(amp="half")


def test_images_of_two_sizes_are_refused_in_one_batch() -> None:
    predict, _ = predictor()
    with pytest.raises(ValueError, match="one batch holds images of one size"):
        predict.predict_resized([striped(16, 32), striped(16, 16)], [(16, 32), (16, 16)])


def test_fp16_on_a_cpu_is_refused_when_it_would_be_used() -> None:
    asked, _ = predictor(amp="fp16")
    assert asked.describe()["amp"] == "fp16"
    with pytest.raises(ValueError, match="'fp16' needs a GPU"):
        asked(torch.zeros(3, 8, 8, dtype=torch.uint8))
