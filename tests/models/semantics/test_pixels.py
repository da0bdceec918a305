"""Labels and losses of semantic logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from seamless_pr.models.semantics.pixels import (
    num_semantic_classes,
    semantic_labels,
    semantic_loss,
)
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
