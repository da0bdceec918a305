"""Labels and losses of semantic logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.models.semantics.pixels import (
    PixelSemantics,
    num_semantic_classes,
    semantic_labels,
    semantic_loss,
)
from seamless_pr.structures.features import Features
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.settings import SemanticLossSettings
from tests.support.street_targets import SPACE, target_of

IGNORE = LabelSpace.IGNORE_TRAIN_ID


def test_all_things_can_be_one_class_after_the_stuff() -> None:
    target = target_of([[1, 2, 3], [4, 0, 2]])
    merged = SemanticLossSettings(things="merged")
    assert semantic_labels(target, merged_things=True).tolist() == [[0, 1, 2], [2, IGNORE, 1]]
    assert semantic_labels(target, merged_things=False).tolist() == [[0, 1, 2], [3, IGNORE, 1]]
    assert num_semantic_classes(SPACE, merged) == 3
    assert num_semantic_classes(SPACE, SemanticLossSettings()) == 4


def test_the_mean_of_valid_pixels_is_that_of_cross_entropy_over_the_batch() -> None:
    targets = [target_of([[1, 2], [0, 3]]), target_of([[0, 0], [4, 0]])]
    logits = torch.randn(2, 4, 2, 2, requires_grad=True)
    settings = SemanticLossSettings(loss="valid_mean")
    loss = semantic_loss(logits, targets, [(2, 2), (2, 2)], (2, 2), settings)["semantic"]
    labels = torch.stack([target.semantic_map for target in targets])
    expected = F.cross_entropy(logits, labels, ignore_index=IGNORE)
    assert loss.count == 4
    torch.testing.assert_close(loss.total / loss.count, expected)


def test_hard_pixels_are_the_dearest_of_each_image_and_void_is_free() -> None:
    targets = [target_of([[1, 2, 3], [4, 0, 2]]), target_of([[0, 0, 0], [0, 4, 0]])]
    logits = torch.randn(2, 4, 2, 3, requires_grad=True)
    settings = SemanticLossSettings(hard_pixel_fraction=0.5)
    loss = semantic_loss(logits, targets, [(2, 3), (2, 3)], (2, 3), settings)["semantic"]
    labels = torch.stack([target.semantic_map for target in targets])
    costs = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten(1)
    expected = costs.topk(math.ceil(0.5 * 6), dim=1).values.mean(1).sum()
    assert loss.count == 2
    torch.testing.assert_close(loss.total, expected)
    (ours,) = torch.autograd.grad(loss.total, logits)
    (theirs,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["hard_pixels", "valid_mean"])
def test_no_images_cost_exactly_nothing_and_keep_a_gradient(kind: str) -> None:
    logits = torch.randn(0, 4, 2, 2, requires_grad=True)
    settings = SemanticLossSettings(loss=kind)
    loss = semantic_loss(logits, [], [], (2, 2), settings)["semantic"]
    assert (float(loss.total.detach()), loss.count) == (0, 0)
    loss.total.backward()
    assert logits.grad is not None
    # As many as a process may have that waits for others: logits, and no image of its own.
    logits = torch.randn(1, 4, 2, 2, requires_grad=True)
    loss = semantic_loss(logits, [], [], (2, 2), settings)["semantic"]
    assert float(loss.total.detach()) == 0
    loss.total.backward()
    assert not logits.grad.any()


class FirstLevel(nn.Module):
    def forward(self, levels: tuple[Tensor, ...]) -> Tensor:
        return levels[0]


def test_logits_are_those_of_the_head_and_of_the_network_input_on_demand() -> None:
    features = Features((torch.randn(1, 4, 3, 5),), (4,))
    plain = PixelSemantics(FirstLevel(), SemanticLossSettings())
    assert plain.logits(features, (12, 20)) is features.levels[0]
    large = PixelSemantics(FirstLevel(), SemanticLossSettings(), upsample_to_input=True)
    expected = F.interpolate(features.levels[0], size=(12, 20), mode="bilinear")
    torch.testing.assert_close(large.logits(features, (12, 20)), expected)
