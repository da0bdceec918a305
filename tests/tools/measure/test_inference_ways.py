"""The ways of a processor: each computes the same, and the table says what is measured."""

from __future__ import annotations

import json

import pytest
import torch

from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from tests.support.snapshots import tiny_seamless_config
from tools.measure import inference_ways as tool
from tools.measure.inference_ways import COMPILED, EAGER, FOLDED, HALF, SINGLE, Way


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes minutes; here the dense part stays what it is."""
    modules = {}
    monkeypatch.setattr(tool, "exported_program", lambda module, pixels: module)
    monkeypatch.setattr(
        tool, "compile_program", lambda module, path: modules.update({str(path): module})
    )
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: modules[path])


def test_every_way_says_the_same(uncompiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "convolution_rate", lambda mode, rounds: 1e11)
    torch.manual_seed(0)
    net = build_network(tiny_seamless_config().model, load_label_space("cityscapes")).eval()
    ways = (*(Way(SINGLE, how) for how in (EAGER, FOLDED, COMPILED)), Way(HALF, FOLDED, images=2))
    result = tool.measure(net, (64, 96), 1, ways)
    assert [row["images"] for row in result["rows"]] == [1, 1, 1, 2]
    differences = [row["logit_difference"] for row in result["rows"]]
    assert differences[0] == 0
    assert max(differences[1:3]) < 1e-5 < differences[3] < 0.1
    row = result["rows"][0]
    assert row["times_convolutions"] == pytest.approx(
        row["seconds"] * 1e11 / result["multiply_adds"]
    )
    result |= {"size": [64, 96], "threads": 1, "rounds": 1, "torch": "2", "cpu": "a", "load": 0.5}
    assert json.loads(json.dumps(result)) == result
    text = tool.section(result)
    assert "| bf16, norms folded | 2 |" in text
    page = tool.PAGE.read_text(encoding="utf-8")
    assert text in tool.replaced(page, text, tool.MARKS)
