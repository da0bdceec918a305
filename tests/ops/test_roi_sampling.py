"""RoI sampling against the reference's numbers and against simple maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import Tensor

from seamless_pr.ops.roi_sampling import pool_rois, roi_levels, sample_rois
from seamless_pr.structures.settings import RoISettings
from tests.support.golden import load_golden, xyxy

# Boxes of 16 to 256 px then read from all four levels.
SETTINGS = RoISettings(size=4, canonical_size_pixels=56.0)
PADDED_SIZE = (512, 640)


def pyramid(num_images: int = 2, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    height, width = PADDED_SIZE
    return [
        torch.randn(num_images, channels, height // stride, width // stride, generator=generator)
        for stride in (4, 8, 16, 32)
    ]


def boxes_of_all_levels(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    side = 2 ** (torch.rand(count, 1, generator=generator) * 4 + 4)
    start = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([start, start + side], dim=1)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["border", "zero"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_samples_are_the_references(
    mode: str, padding: str, memory_format: torch.memory_format
) -> None:
    golden = load_golden("seamseg/ops")
    features = golden["roi_x"].contiguous(memory_format=memory_format)
    boxes, images = xyxy(golden["roi_bbx"]), golden["roi_idx"]
    sampled = sample_rois(features, boxes, images, (6, 9), mode, padding)
    torch.testing.assert_close(sampled, golden[f"roi_{mode}_{padding}"], rtol=0, atol=1e-6)


def test_gradient_is_the_references() -> None:
    golden = load_golden("seamseg/ops")
    features = golden["roi_x"].clone().requires_grad_()
    sampled = sample_rois(features, xyxy(golden["roi_bbx"]), golden["roi_idx"], (6, 9))
    sampled.backward(golden["roi_dy"])
    torch.testing.assert_close(features.grad, golden["roi_dx"], rtol=0, atol=1e-5)


def test_gradient_of_every_mode_is_that_of_the_linear_map() -> None:
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    boxes, images = torch.tensor([[-2.0, 0.3, 3.1, 9], [1, 1, 1.5, 2]]), torch.tensor([1, 0])
    for mode in ("bilinear", "nearest"):
        for padding in ("border", "zero"):
            assert torch.autograd.gradcheck(
                lambda x, mode=mode, padding=padding: sample_rois(
                    x, boxes, images, (3, 2), mode, padding
                ),
                features,
            )


def test_image_boxes_are_mapped_as_in_the_reference_at_odd_sizes() -> None:
    golden = load_golden("seamseg/ops")
    boxes, images = xyxy(golden["rois_bbx"]), golden["rois_idx"]
    size = tuple(golden["rois_img_size"].tolist())
    per_image = [boxes[images == 0], boxes[images == 1]]
    pooled = pool_rois([golden["roi_x"]], per_image, size, RoISettings(num_levels=1))
    expected = golden["rois_out"][images.argsort(stable=True)]
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-6)


def test_levels_are_the_references() -> None:
    golden = load_golden("seamseg/ops")
    levels = roi_levels(xyxy(golden["level_bbx"]), RoISettings())
    assert torch.equal(levels, golden["level_out"].long())


def test_levels_change_at_powers_of_two_of_the_canonical_size() -> None:
    sides = torch.tensor([0.0, 111.9, 112, 223.9, 224, 447.9, 448, 5000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert roi_levels(boxes, RoISettings()).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert roi_levels(boxes, RoISettings(num_levels=2)).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


def test_ramp_is_read_at_the_centres_of_the_bins() -> None:
    ramp = torch.arange(10).float().expand(1, 1, 8, 10)
    sampled = sample_rois(ramp, torch.tensor([[2.0, 1, 8, 5]]), torch.tensor([0]), (2, 3))
    # Bins of 2 cells: centres 3, 5, 7; the value of a ramp at position x is x - 0.5.
    assert sampled.tolist() == [[[[2.5, 4.5, 6.5], [2.5, 4.5, 6.5]]]]


def test_reads_outside_repeat_the_border_or_give_0() -> None:
    ramp = torch.arange(1.0, 5).expand(1, 1, 3, 4)
    box, image = torch.tensor([[-30.0, 0, 30, 3]]), torch.tensor([0])
    assert sample_rois(ramp, box, image, (1, 2)).tolist() == [[[[1, 4]]]]
    assert sample_rois(ramp, box, image, (1, 2), padding="zero").tolist() == [[[[0, 0]]]]


def test_nearest_reads_integer_maps_unchanged() -> None:
    ids = torch.tensor([[7, 8, 9], [2**30, 5, 6]], dtype=torch.int32)[None, None]
    box, image = torch.tensor([[0.0, 0, 3, 2]]), torch.tensor([0])
    sampled = sample_rois(ids, box, image, (2, 3), mode="nearest")
    assert sampled.dtype == torch.int32
    assert torch.equal(sampled, ids)


@pytest.mark.parametrize(
    ("sampler", "size", "count"),
    [("seamless", 4, 20), ("seamless", 14, 90), ("aligned", 4, 20)],
    ids=["few boxes", "many boxes", "aligned"],
)
def test_every_box_gets_what_it_gets_alone(sampler: str, size: int, count: int) -> None:
    settings = replace(SETTINGS, sampler=sampler, size=size)
    features = pyramid()
    boxes = [boxes_of_all_levels(count, seed=0), boxes_of_all_levels(count + 10, seed=1)]
    assert set(roi_levels(boxes[0], settings).tolist()) == {0, 1, 2, 3}
    pooled = pool_rois(features, boxes, PADDED_SIZE, settings)
    assert pooled.shape == (2 * count + 10, 3, size, size)
    nobody = torch.zeros(0, 4)
    alone = [pool_rois(features, [box[None], nobody], PADDED_SIZE, settings) for box in boxes[0]]
    alone += [pool_rois(features, [nobody, box[None]], PADDED_SIZE, settings) for box in boxes[1]]
    torch.testing.assert_close(pooled, torch.cat(alone))


@pytest.mark.parametrize("count", [3, 90], ids=["few boxes", "many boxes"])
def test_gradient_of_a_batch_is_the_sum_of_the_gradients_of_its_boxes(count: int) -> None:
    features = [level.requires_grad_() for level in pyramid(1)]
    settings = replace(SETTINGS, size=14)
    boxes = boxes_of_all_levels(count, seed=3)
    together = pool_rois(features, [boxes], PADDED_SIZE, settings).square().sum()
    alone = [pool_rois(features, [box[None]], PADDED_SIZE, settings) for box in boxes]
    apart = torch.stack([roi.square().sum() for roi in alone]).sum()
    expected = torch.autograd.grad(apart, features, materialize_grads=True)
    actual = torch.autograd.grad(together, features, materialize_grads=True)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_seamless_sampling_is_one_aligned_sample_on_shifted_boxes() -> None:
    features, boxes = pyramid(1)[:1], boxes_of_all_levels(20, seed=2)
    settings = replace(SETTINGS, num_levels=1)
    shifted = torch.cat([torch.zeros(20, 1), boxes - 0.5 + 0.5 * 4], dim=1)
    expected = torchvision.ops.roi_align(features[0], shifted, 4, 1 / 4, 1, aligned=True)
    pooled = pool_rois(features, [boxes], PADDED_SIZE, settings)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=2e-5)


def test_aligned_sampling_is_torchvisions_at_the_stride_of_the_level() -> None:
    features, boxes = pyramid(1), torch.tensor([[10.0, 20, 150, 170], [5, 5, 60, 40]])
    pooled = pool_rois(features, [boxes], PADDED_SIZE, RoISettings(size=4, sampler="aligned"))
    for roi, box, level in zip(pooled, boxes, (1, 0), strict=True):
        rois = torch.cat([torch.zeros(1), box])[None]
        expected = torchvision.ops.roi_align(features[level], rois, 4, 0.25 / 2**level, 0, True)
        torch.testing.assert_close(roi, expected[0])


@pytest.mark.parametrize("sampler", ["seamless", "aligned"])
def test_no_boxes_give_no_rois_and_a_gradient_of_zero(sampler: str) -> None:
    features = [level.requires_grad_() for level in pyramid()]
    none = [torch.zeros(0, 4), torch.zeros(0, 4)]
    pooled = pool_rois(features, none, PADDED_SIZE, replace(SETTINGS, sampler=sampler))
    assert pooled.shape == (0, 3, 4, 4)
    pooled.sum().backward()
    assert features[0].grad is not None
    assert not features[0].grad.any()


def test_half_precision_features_stay_half_and_close() -> None:
    features, boxes = pyramid(1), [boxes_of_all_levels(30, seed=4)]
    exact = pool_rois(features, boxes, PADDED_SIZE, SETTINGS)
    half = pool_rois([level.bfloat16() for level in features], boxes, PADDED_SIZE, SETTINGS)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.02, atol=0.05)


def test_wrong_arguments_name_what_is_possible() -> None:
    box, image = torch.zeros(1, 4), torch.tensor([0])
    with pytest.raises(ValueError, match="'bilinear' or 'nearest'; got 'cubic'"):
        sample_rois(torch.zeros(1, 1, 2, 2), box, image, (1, 1), mode="cubic")
    with pytest.raises(ValueError, match="'border' or 'zero'; got 'wrap'"):
        sample_rois(torch.zeros(1, 1, 2, 2), box, image, (1, 1), padding="wrap")
    with pytest.raises(ValueError, match=r"'unaligned'.*; got 'adaptive'"):
        pool_rois(pyramid(), [box, box], PADDED_SIZE, replace(SETTINGS, sampler="adaptive"))
    with pytest.raises(ValueError, match="reads 4 levels; got features of 2"):
        pool_rois(pyramid()[:2], [box, box], PADDED_SIZE, SETTINGS)


def test_boxes_that_are_not_finite_read_from_a_level_that_there_is() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[nan] * 4, [0, 0, inf, inf], [0, 0, 1e15, 1e15], [0, 0, 8, 8]])
    levels = roi_levels(boxes, RoISettings())
    assert levels.dtype == torch.int64
    assert ((levels >= 0) & (levels < 4)).all()
    assert levels[2:].tolist() == [3, 0]
