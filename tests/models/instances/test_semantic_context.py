"""HTC's semantic context against mmdetection's numbers."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.instances.semantic_context import SemanticContext, context_loss
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_target import PanopticTarget
from tests.support.golden import load_golden
from tests.support.mmdet_recipe import recipe_normal, recipe_tensor

SEED = 20
SIZES = ((24, 32), (12, 16), (6, 8), (3, 4), (2, 2))
GOLDEN = load_golden("mmdet/ops_mmdet3")
SPACE = LabelSpace(
    "stuff", tuple(Category(index + 1, str(index), False, (0, 0, 0)) for index in range(9))
)
THEIR_PARTS = {"lateral.": "lateral_convs.", "embedding.": "conv_embedding."}


def their_name(key: str) -> str:
    for ours, theirs in THEIR_PARTS.items():
        key = key.replace(ours, theirs)
    return key.replace("predictor.", "conv_logits.").replace("norm.bias", "conv.bias")


def test_logits_embedding_and_loss_are_those_of_mmdetection():
    relu = make_norm_act("bias", slope=0.0)
    context = SemanticContext(16, 9, relu, hidden_channels=16)
    context.load_state_dict(
        {
            key: recipe_tensor(f"sem.{their_name(key)}", tuple(value.shape), SEED)
            for key, value in context.state_dict().items()
        }
    )
    levels = [recipe_normal(f"sem_x{i}", (1, 16, *size), SEED) for i, size in enumerate(SIZES)]
    logits, embedding = context(levels)
    torch.testing.assert_close(logits, GOLDEN["sem_logits"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(embedding, GOLDEN["sem_embedding"], rtol=1e-4, atol=1e-4)
    labels = GOLDEN["sem_labels"][0, 0].int()
    # Ids are train ids + 1, and 0 what is ignored.
    id_map = torch.where(labels == 255, 0, labels + 1).int()
    target = PanopticTarget(id_map, torch.arange(9), torch.zeros(9).bool(), SPACE)
    loss = context_loss(logits, [target], (96, 128))["context"]
    mean = 0.2 * loss.total.item() / loss.count
    assert mean == pytest.approx(GOLDEN["sem_loss"].item(), rel=1e-4)


def test_an_image_of_pure_void_costs_nothing():
    target = PanopticTarget(
        torch.zeros(16, 24, dtype=torch.int32), torch.zeros(0).long(), torch.zeros(0).bool(), SPACE
    )
    logits = torch.randn(1, 9, 2, 4, requires_grad=True)
    loss = context_loss(logits, [target], (16, 32))["context"]
    assert loss.total.item() == 0
    loss.total.backward()
