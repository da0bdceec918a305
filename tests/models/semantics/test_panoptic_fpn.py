"""The head of SemanticFPN: which levels it reads, and of which sizes."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.semantics.panoptic_fpn import SemanticFPNHead


@pytest.mark.parametrize("first_level, sides", [(0, (17, 9, 5, 3)), (1, (17, 9, 5, 3))])
def test_the_semantic_fpn_head_adds_levels_of_any_size(first_level: int, sides) -> None:
    head = SemanticFPNHead(
        4,
        3,
        make_norm_act("group_norm", slope=0.0, num_groups=32),
        hidden_channels=8,
        first_level=first_level,
        num_levels=4 - first_level,
    )
    levels = [torch.randn(2, 4, side, side + 1, requires_grad=True) for side in sides]
    logits = head(levels)
    assert logits.shape == (2, 3, sides[first_level], sides[first_level] + 1)
    logits.sum().backward()
    assert [level.grad is not None for level in levels] == [
        index >= first_level for index in range(4)
    ]
    assert [len(branch) for branch in head.branches] == [1, 1, 2, 3][: 4 - first_level]
    with pytest.raises(ValueError, match="expected at least 4 levels"):
        head(levels[:3])
