"""Sizes of the published network: exact, because everything else is built on its layers."""

from __future__ import annotations

import pytest

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from tools.measure import count_parameters as tool


@pytest.mark.slow
def test_the_joint_and_the_separate_networks_have_the_sizes_of_the_paper():
    config = load_config(tool.ROOT / "configs/cityscapes/seamless_r50.yaml")
    net = build_network(config.model, load_label_space("cityscapes"))
    sizes = tool.part_sizes(net)
    total = tool.sum_sizes(sizes.values())
    assert total.parameters == 51_434_387
    assert round(total.multiply_adds / 1e9, 2) == 579.36
    assert tool.separate_sizes(net, sizes)[tool.BOTH].parameters == 78_063_507

    document = (tool.ROOT / "docs/model_size.md").read_text(encoding="utf-8")
    assert tool.table("part", sizes, total) in document, "run tools/measure/count_parameters.py"
