"""Table 2 of PointRend, from the shapes of our layers."""

from __future__ import annotations

import re

import pytest

from seamless_pr.structures.settings import PointSettings
from tools.measure import count_mask_flops as tool


def test_the_counts_are_those_of_the_paper_rounded():
    costs = tool.costs(80)
    small, large, points = costs.values()
    assert (round(small.multiply_adds / 1e9, 1), round(small.activations / 1e6, 1)) == (0.5, 0.5)
    assert (round(large.multiply_adds / 1e9), round(large.activations / 1e6)) == (34, 33)
    assert (round(points.multiply_adds / 1e9, 1), round(points.activations / 1e6, 1)) == (0.9, 0.7)


def test_the_counts_are_those_worked_out_by_hand():
    small, _, points = tool.costs(80).values()
    # Four 3x3 convolutions at 14x14, a 2x2 upsampling, a predictor at 28x28.
    assert small.multiply_adds == 196 * (4 * 9 * 256**2 + 4 * 256**2) + 784 * 256 * 80
    assert small.outputs == 464_128
    # Three layers and a predictor on 256 + 80 inputs.
    assert tool.point_cost(80).multiply_adds == 336 * (3 * 256 + 80)
    assert points.multiply_adds == pytest.approx(924.29e6, rel=1e-5)
    assert points.outputs == 683_344


def test_points_of_both_starts():
    assert tool.num_points(PointSettings()) == [784] * 4
    assert sum(tool.num_points(PointSettings(start_size=0))) == tool.PAPER_POINTS


def test_every_strategy_of_table_4_is_a_valid_choice():
    for override in re.findall(r"`(\w+: [\w.]+)`", tool.section().partition("(table 4)")[2]):
        key, _, value = override.partition(": ")
        typed = type(getattr(PointSettings(), key))(value)
        assert getattr(PointSettings(**{key: typed}), key) == typed
    assert "grid" in tool.section()


def test_the_section_is_printed(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["count_mask_flops.py"])
    assert tool.main() == 0
    assert "| PointRend, 224x224 | 0.9 B, 0.7 M | 924.29 M | 733,520 |" in capsys.readouterr().out
