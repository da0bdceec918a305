"""Semantic head and the loss over the hardest pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.semantics.mini_dl import MiniDLHead
from seamless_pr.models.semantics.pixels import semantic_loss
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import SemanticLossSettings
from tests.support.golden import load_golden

VOID = LabelSpace.IGNORE_TRAIN_ID
NUM_CLASSES = 7
LABELS = LabelSpace(
    "seven", tuple(Category(i, f"class {i}", i >= 4, (i, i, i)) for i in range(NUM_CLASSES))
)


def target_of(semantic_map: Tensor) -> PanopticTarget:
    """One segment per class of a map of train ids with VOID."""
    classes = semantic_map[semantic_map != VOID].unique()
    lookup = torch.zeros(VOID + 1, dtype=torch.int32)
    lookup[classes] = torch.arange(1, len(classes) + 1, dtype=torch.int32)
    is_crowd = torch.zeros(len(classes), dtype=torch.bool)
    return PanopticTarget(lookup[semantic_map], classes, is_crowd, LABELS, image_key="drawn")


def settings(fraction: float = 0.25) -> SemanticLossSettings:
    return SemanticLossSettings(hard_pixel_fraction=fraction)


def obvious_loss(
    logits: Tensor, maps: Sequence[Tensor], padded_size: tuple[int, int], fraction: float
) -> Tensor:
    total = logits.new_zeros(())
    for image_logits, semantic_map in zip(logits, maps):
        height, width = semantic_map.shape
        full = F.interpolate(image_logits[None], padded_size, mode="bilinear")
        pixel_losses = F.cross_entropy(
            full[..., :height, :width], semantic_map[None], ignore_index=VOID, reduction="none"
        )
        num_hard = math.ceil(fraction * height * width)
        total = total + pixel_losses.flatten().sort(descending=True).values[:num_hard].mean()
    return total


def random_case(dtype: torch.dtype = torch.float32) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, NUM_CLASSES, 6, 8, generator=generator, dtype=dtype) * 2
    maps = [
        torch.randint(0, NUM_CLASSES, size, generator=generator) for size in ((24, 29), (19, 32))
    ]
    maps[1][:6] = VOID
    return logits, maps


@pytest.mark.parametrize("name, fraction", [("ohem_25", 0.25), ("ohem_none", 1.0)])
def test_loss_of_the_reference(name, fraction):
    golden = load_golden("seamseg/ops")
    total = torch.zeros(())
    for index in range(2):
        logits, semantic_map = golden[f"ohem_logits{index}"][None], golden[f"ohem_gt{index}"]
        semantic_map = torch.where(semantic_map == 255, VOID, semantic_map)
        size = semantic_map.shape
        losses = semantic_loss(logits, [target_of(semantic_map)], [size], size, settings(fraction))
        total += losses["semantic"].total
    torch.testing.assert_close(total / 2, golden[name])


@pytest.mark.parametrize("fraction", [0.1, 0.25, 1.0])
def test_loss_and_gradient_equal_the_obvious_way(fraction):
    logits, maps = random_case()
    logits.requires_grad_()
    expected = obvious_loss(logits, maps, (24, 32), fraction)
    sizes = [tuple(semantic_map.shape) for semantic_map in maps]
    targets = [target_of(semantic_map) for semantic_map in maps]
    loss = semantic_loss(logits, targets, sizes, (24, 32), settings(fraction))["semantic"]
    assert loss.count == 2
    torch.testing.assert_close(loss.total, expected)
    (expected_grad,) = torch.autograd.grad(3 * expected, logits)
    (grad,) = torch.autograd.grad(3 * loss.total, logits)
    torch.testing.assert_close(grad, expected_grad)


def test_void_costs_nothing_but_counts_as_a_pixel():
    logits = torch.zeros(1, NUM_CLASSES, 2, 2)
    semantic_map = torch.tensor([[1, VOID], [VOID, VOID]])
    losses = semantic_loss(logits, [target_of(semantic_map)], [(2, 2)], (2, 2), settings(0.5))
    torch.testing.assert_close(losses["semantic"].total, torch.tensor(math.log(NUM_CLASSES) / 2))


def test_an_image_of_pure_void_has_a_loss_of_zero_with_a_gradient():
    logits = torch.randn(1, NUM_CLASSES, 2, 3, requires_grad=True)
    targets = [target_of(torch.full((8, 12), VOID))]
    loss = semantic_loss(logits, targets, [(8, 12)], (8, 12), settings())["semantic"]
    assert loss.total.item() == 0
    loss.total.backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


def test_a_batch_without_images_has_a_loss_of_zero_with_a_gradient():
    logits = torch.zeros(0, NUM_CLASSES, 2, 3, requires_grad=True)
    loss = semantic_loss(logits, [], [], (8, 12), settings())["semantic"]
    assert (loss.total.item(), loss.count) == (0, 0)
    loss.total.backward()


def test_logits_of_half_precision_are_summed_in_float32():
    logits, maps = random_case()
    logits = logits.bfloat16().requires_grad_()
    targets, sizes = [target_of(each) for each in maps], [tuple(each.shape) for each in maps]
    loss = semantic_loss(logits, targets, sizes, (24, 32), settings())["semantic"].total
    expected = obvious_loss(logits.detach().float(), maps, (24, 32), 0.25)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16


def test_padding_gets_the_gradient_of_valid_pixels_only():
    logits = torch.randn(1, NUM_CLASSES, 4, 8, requires_grad=True)
    targets = [target_of(torch.ones(16, 12, dtype=torch.int64))]
    semantic_loss(logits, targets, [(16, 12)], (16, 32), settings())["semantic"].total.backward()
    # Columns from 4 on lie at least one cell beyond the 12 valid pixels.
    assert (logits.grad[..., 4:] == 0).all()
    assert (logits.grad[..., :3] != 0).any()


def test_a_target_of_another_size_is_refused_with_its_name():
    logits = torch.zeros(1, NUM_CLASSES, 2, 2)
    targets = [target_of(torch.ones(8, 7, dtype=torch.int64))]
    with pytest.raises(ValueError, match=r"image 'drawn' has size \(8, 7\); expected .*\(8, 8\)"):
        semantic_loss(logits, targets, [(8, 8)], (8, 8), settings())


def test_logits_have_the_size_of_the_finest_level_and_all_parts_learn():
    head = MiniDLHead(6, NUM_CLASSES, make_norm_act(), hidden_channels=4, pooling_size=8)
    sizes = [(17, 25), (9, 13), (5, 7), (3, 4), (2, 2)]
    features = [torch.randn(2, 6, *size) for size in sizes]
    logits = head(features)
    assert logits.shape == (2, NUM_CLASSES, 17, 25)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_too_few_levels_are_refused():
    head = MiniDLHead(6, NUM_CLASSES, make_norm_act(), hidden_channels=4)
    with pytest.raises(ValueError, match="at least 4 levels, finest first; got 1"):
        head([torch.zeros(1, 6, 8, 8)])
