"""Costs of parts: what is counted, and that the page holds what is stored."""

from __future__ import annotations

import json

import torch
from torch import nn

from seamless_pr.layers.deformable import DeformableConv2d
from tools.measure import part_costs as tool


def test_a_deformable_layer_counts_as_a_plain_one_and_its_offsets():
    x = torch.randn(1, 8, 6, 10)
    plain, offsets = nn.Conv2d(8, 4, 3, groups=2, bias=False), nn.Conv2d(8, 18, 3)
    layer = DeformableConv2d(8, 4, 3, kind="v1", groups=2)
    cost = tool.measured(layer, lambda: layer(x), 1)
    assert cost.multiply_adds == (4 * 4 * 9 + 18 * 8 * 9) * 4 * 8
    assert cost.parameters == plain.weight.numel() + offsets.weight.numel() + 18
    assert cost.seconds > 0


def test_the_page_holds_the_stored_numbers_of_every_part():
    stored = json.loads(tool.STORED.read_text(encoding="utf-8"))
    names = [row["name"] for row in stored["parts"]]
    assert names == [*tool.BACKBONES, *tool.NECKS, *tool.HEADS, *tool.BRANCHES]
    page = (tool.ROOT / "docs/model_size.md").read_text(encoding="utf-8")
    assert tool.section(stored) in page, "run tools/measure/count_parameters.py"
