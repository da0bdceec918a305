"""Fewer anchors on the finest level: the same numbers where there are any, and what that costs."""

from __future__ import annotations

import json

import pytest
import torch

from seamless_pr.build.predictor import load_predictor
from seamless_pr.models.instances.rpn import RPNOutput
from tools.measure import finest_level as tool
from tools.measure.finest_level import WEIGHTS, branch_of, measure, scored_anchors, section

# For speed alone.
FEW = [
    *("model.instances.rpn.pre_nms_test=100", "model.instances.rpn.post_nms_test=30"),
    *("model.instances.box.max_detections=10", "model.instances.points.output_size=56"),
    "model.semantics.points.subdivision_points=512",
]
SIZE = (96, 192)


@pytest.fixture(scope="module")
def predictor():
    return load_predictor(WEIGHTS, "cpu", overrides=FEW)


@torch.no_grad()
def test_the_cells_that_are_left_say_what_they_said(predictor):
    network, branch = branch_of(predictor)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, 64, 128), generator=generator, dtype=torch.uint8)
    features = network.features(tool.ImageBatch(pixels, ((64, 128),)))
    output, anchors = branch.score_anchors(features)

    def numbers(found: tuple[RPNOutput, tuple[torch.Tensor, ...]]) -> list[torch.Tensor]:
        return [*found[0].objectness_logits, *found[0].box_deltas, *found[1]]

    for ours, theirs in zip(
        numbers(scored_anchors(branch, 1, features)), numbers((output, anchors)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    fewer, places = scored_anchors(branch, 2, features)
    torch.testing.assert_close(
        fewer.objectness_logits[0], output.objectness_logits[0][..., ::2, ::2],
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    assert len(places[0]) == fewer.flat_logits().shape[1] - sum(map(len, places[1:]))
    assert torch.equal(places[0][:3], anchors[0][:3])
    assert torch.equal(places[0][3:6], anchors[0][6:9])
    none, left = scored_anchors(branch, 0, features)
    assert torch.equal(none.objectness_logits[0], output.objectness_logits[1])
    assert torch.equal(left[0], anchors[1])


def test_a_scene_is_labelled_in_every_way_and_the_table_says_how(predictor):
    result = measure(predictor, SIZE, 1)
    ways = list(result["ways"].values())
    work = [way["multiply_adds"] for way in ways]
    assert work == sorted(work, reverse=True)
    assert work[0] > 1.02 * work[-1]
    assert ways[0]["ratio"] == 1
    starts = result["starts"]
    assert 0 < starts["finest_proposals"] <= starts["proposals"] == 30
    assert starts["finest_objects"] <= starts["objects"]
    result |= {"threads": 1, "torch": "2", "cpu": "a processor", "load": 0.5}
    assert json.loads(json.dumps(result)) == result
    text = section(result)
    page = tool.PAGE.read_text(encoding="utf-8")
    assert text in tool.replaced(page, text, tool.MARKS)
