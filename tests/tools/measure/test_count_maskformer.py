"""Sizes of the published MaskFormers."""

from __future__ import annotations

import pytest

from tools.measure import count_maskformer as tool


@pytest.mark.parametrize("config", ["ade20k/maskformer_r50", "ade20k/maskformer_swin_tiny"])
def test_counts_are_those_of_the_released_code_but_for_norms_and_resizing(config):
    (published,) = (row for row in tool.PUBLISHED if row.config == config)
    network = tool.meta_network(published)
    assert tool.num_parameters(network) == published.parameters
    counted = tool.multiply_adds(network, published.size, published.num_classes) / tool.GIGA
    assert 0.98 * published.multiply_adds < counted < published.multiply_adds


def test_the_page_shows_every_network():
    page = (tool.ROOT / "docs" / "maskformer_size.md").read_text(encoding="utf-8")
    assert page.startswith(tool.INTRODUCTION)
    for published in tool.PUBLISHED:
        assert f"| {published.config} |" in page
        assert page.count(f"{published.parameters:,} | {published.parameters:,}") >= 1
