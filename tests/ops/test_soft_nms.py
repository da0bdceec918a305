"""Soft-NMS against mmcv, mmdetection 1.x and the winner's ensemble."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.ops.boxes import class_nms, nms
from seamless_pr.ops.score_weights import interpolated_weights
from seamless_pr.ops.soft_nms import SoftNMS, class_soft_nms, soft_nms
from tests.oracles.suppression import soft_nms as plain_soft_nms
from tests.support.golden import load_golden

MMDET, WINNER = load_golden("mmdet/ops_mmdet3"), load_golden("mmdet/ops_winner")
# mmdetection 1.x counts pixels: a box ends at the end of its last one.
LAST_PIXEL = torch.tensor([0.0, 0.0, 1.0, 1.0])
ENSEMBLE = SoftNMS(includes_threshold=False, tests_all=False)


def check(found, boxes, indices, scores):
    order, new_scores = found
    torch.testing.assert_close(order, indices.long())
    torch.testing.assert_close(new_scores, scores, rtol=0, atol=1e-6)
    assert len(boxes) >= len(order)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(
    "name, settings",
    [
        ("linear", SoftNMS("linear")),
        ("gaussian", SoftNMS("gaussian")),
        ("naive", SoftNMS("hard")),
        ("linear_min0.3", SoftNMS("linear", min_score=0.3)),
    ],
)
def test_selection_and_scores_are_those_of_mmcv(name, settings, offset):
    boxes = MMDET["nms_boxes"] + offset * LAST_PIXEL
    key = f"softnms_{name}_offset{offset}"
    check(
        soft_nms(boxes, MMDET["nms_scores"], settings),
        boxes,
        MMDET[f"{key}_keep"],
        MMDET[f"{key}_dets"][:, 4],
    )


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_selection_and_scores_are_those_of_mmdetection_1(method):
    boxes = WINNER["nms_boxes"] + LAST_PIXEL
    expected = WINNER[f"v1_softnms_{method}_0.5"]
    settings = SoftNMS(method, includes_threshold=False)
    check(soft_nms(boxes, WINNER["nms_scores"], settings), boxes, expected[:, 5], expected[:, 4])


@pytest.mark.parametrize(
    "name, changes",
    [
        ("linear", {}),
        ("gaussian", {"method": "gaussian"}),
        ("linear_min0.3", {"min_score": 0.3}),
    ],
)
def test_selection_and_scores_are_those_of_the_winners_ensemble(name, changes):
    boxes = WINNER["nms_boxes"] + LAST_PIXEL
    settings = SoftNMS(**{"includes_threshold": False, "tests_all": False} | changes)
    key = f"ensemble_softnms_{name}"
    check(
        soft_nms(boxes, WINNER["nms_scores"], settings),
        boxes,
        WINNER[f"{key}_keep"],
        WINNER[f"{key}_dets"][:, 4],
    )


@pytest.mark.parametrize("tests_all", [True, False])
@pytest.mark.parametrize("includes_threshold", [True, False])
@pytest.mark.parametrize("method", ["linear", "gaussian", "hard"])
@pytest.mark.parametrize("seed", range(4))
def test_selection_and_scores_are_those_of_a_plain_loop(
    seed, method, includes_threshold, tests_all
):
    generator = torch.Generator().manual_seed(seed)
    # Few corners and few scores: many boxes repeat, touch, and overlap by exactly one half.
    corners = torch.randint(0, 6, (40, 2), generator=generator)
    sizes = torch.randint(1, 5, (40, 2), generator=generator)
    boxes = torch.cat([corners, corners + sizes], 1).float()
    scores = torch.randint(1, 9, (40,), generator=generator) / 8
    options = {
        "method": method,
        "iou_threshold": 0.5,
        "includes_threshold": includes_threshold,
        "sigma": 0.4,
        "min_score": 0.15,
        "tests_all": tests_all,
    }
    order, lowered = soft_nms(boxes, scores, SoftNMS(**options))
    expected = plain_soft_nms(boxes.tolist(), scores.tolist(), **options)
    assert order.tolist() == [index for index, _ in expected]
    torch.testing.assert_close(lowered, torch.tensor([score for _, score in expected]))


def test_plain_suppression_agrees_with_all_of_them():
    boxes, scores = MMDET["nms_boxes"], MMDET["nms_scores"]
    shifted = boxes + LAST_PIXEL
    expected = {
        "offset 0": (nms(boxes, scores, 0.5), MMDET["nms_offset0_keep"]),
        "offset 1": (nms(shifted, scores, 0.5), MMDET["nms_offset1_keep"]),
        "ensemble": (nms(shifted, scores, 0.5), WINNER["ensemble_nms_keep"]),
    }
    for found, kept in expected.values():
        torch.testing.assert_close(found, kept.long())
    v1_kept = WINNER["v1_nms_0.5_keep"].long()
    assert set(v1_kept.tolist()) == set(nms(shifted, scores, 0.5).tolist())
    by_class = class_nms(boxes, scores, MMDET["nms_labels"].long(), 0.5)
    by_score = by_class[scores[by_class].argsort(descending=True)]
    torch.testing.assert_close(by_score, MMDET["batched_nms_keep"].long())
    dets = torch.cat([boxes, scores[:, None]], 1)[by_score]
    torch.testing.assert_close(dets, MMDET["batched_nms_dets"])


def test_an_ensemble_pools_weighs_and_suppresses_as_the_winner():
    weights = interpolated_weights(WINNER["ensemble_val_scores"].tolist())
    torch.testing.assert_close(weights, WINNER["ensemble_weights"].tolist())
    published = interpolated_weights([77.21, 77.32, 77.38, 77.37, 76.95])
    torch.testing.assert_close(published, WINNER["ensemble_weights_published"].tolist())
    boxes, scores, classes = (
        [WINNER[f"ensemble_m{model}_{part}"] for model in range(3)]
        for part in ("boxes", "scores", "classes")
    )
    weighed = torch.cat([score * weight for score, weight in zip(scores, weights, strict=True)])
    indices, new_scores = class_soft_nms(
        torch.cat(boxes) + LAST_PIXEL, weighed, torch.cat(classes).long(), ENSEMBLE, 100
    )
    rows = torch.stack([indices // 45, indices % 45], dim=1)
    torch.testing.assert_close(rows, WINNER["ensemble_out_model_row"].long())
    torch.testing.assert_close(torch.cat(classes)[indices], WINNER["ensemble_out_classes"])
    torch.testing.assert_close(torch.cat(boxes)[indices], WINNER["ensemble_out_boxes"])
    # The winner writes three decimals.
    torch.testing.assert_close(
        new_scores.double(), WINNER["ensemble_out_scores"], rtol=0, atol=5.01e-4
    )


def test_equal_models_weigh_the_same_and_no_model_is_refused():
    assert interpolated_weights([70.0, 70.0]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="got none"):
        interpolated_weights([])


def test_the_first_box_stays_however_low_its_score():
    order, scores = soft_nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1e-6]), SoftNMS())
    assert order.tolist() == [0]
    torch.testing.assert_close(scores, torch.tensor([1e-6]))


def test_no_box_gives_no_box():
    order, scores = soft_nms(torch.zeros(0, 4), torch.zeros(0), SoftNMS())
    assert order.dtype == torch.int64
    assert scores.dtype == torch.float32
    assert len(order) == len(scores) == 0
    empty = torch.zeros(0, dtype=torch.int64)
    indices, _ = class_soft_nms(torch.zeros(0, 4), torch.zeros(0), empty, SoftNMS())
    assert len(indices) == 0


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match=r"'hard'.*got 'soft'"):
        SoftNMS("soft")
    with pytest.raises(ValueError, match="sigma must be positive; got 0"):
        SoftNMS("gaussian", sigma=0)
