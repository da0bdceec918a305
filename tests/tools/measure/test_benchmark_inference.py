"""The inference benchmark: its parts are those of a prediction, and its section is complete."""

from __future__ import annotations

import json
import re

import pytest
import torch

from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.structures.image_batch import ImageBatch
from tests.support.snapshots import tiny_seamless_config
from tools.measure import benchmark_inference as tool
from tools.measure import mask_refinement_timing as masks

SPACE = load_label_space("cityscapes")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build_network(tiny_seamless_config().model, SPACE).eval()


def test_timed_parts_compute_what_a_prediction_computes(net):
    batch = ImageBatch.from_images([torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)])
    found = tool.forward_pass(net, batch, "contiguous")
    with torch.no_grad():
        logits = net.semantics.logits(net.trunk(batch), batch.padded_size)
        (prediction,) = net.predict(batch, [(64, 96)])
    torch.testing.assert_close(found.semantic_logits, logits)
    assert found.num_masks == len(prediction.instances)
    parts = {tool.BACKBONE, tool.PYRAMID, tool.PROPOSALS, tool.ROIS, tool.SEMANTICS, tool.POOLING}
    assert set(found.seconds) == {*parts, tool.NETWORK}
    total = sum(found.seconds[part] for part in parts)
    assert found.seconds[tool.NETWORK] == pytest.approx(total)


def test_results_make_a_table_for_the_page(net, monkeypatch):
    monkeypatch.setattr(tool, "convolution_rate", lambda mode, rounds: 1e11)
    result = tool.measure(net, (64, 96), rounds=1)
    result |= {"size": [64, 96], "threads": 1, "rounds": 1, "torch": "2", "cpu": "a", "load": 0.5}
    assert json.loads(json.dumps(result)) == result
    text = tool.section(result)
    header = (
        "| seconds | contiguous | channels_last | channels_last, bf16 |\n|---|---:|---:|---:|\n"
    )
    assert text.startswith(header)
    assert "released code" not in text, "the reference was timed at another size"
    at_full_size = tool.section({**result, "size": [1024, 2048]})
    assert re.search(r"\| wide pooling \|( \d\.\d\d \|){3} 29\.80 \|", at_full_size)
    assert tool.replaced(f"a\n{tool.BEGIN}\nold\n{tool.END}\nb", "new") == (
        f"a\n{tool.BEGIN}\nnew\n{tool.END}\nb"
    )
    with pytest.raises(ValueError, match="add them"):
        tool.replaced("a page without marks", "new")


def test_mask_heads_are_timed_on_boxes_inside_the_image_and_shown_beside_detectron2(monkeypatch):
    monkeypatch.setattr(masks, "CHANNELS", 8)
    monkeypatch.setattr(masks, "NUM_BOXES", 2)
    boxes = masks.street_boxes((512, 1024), torch.Generator().manual_seed(0))
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([1024, 512, 1024, 512])).all()
    found = masks.measure_mask_heads(threads=1, rounds=1)
    found["giga_multiply_adds_per_second"] = 100.0
    for parts in found["seconds"].values():
        assert parts[masks.SUBDIVISION] + parts[masks.COARSE] == pytest.approx(parts[masks.WHOLE])
    text = masks.mask_section(found)
    assert "| subdivision to 224x224 |" in text
    assert "1.550 |" in text
