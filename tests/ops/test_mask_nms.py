"""Matrix NMS and local maxima against mmdetection and hand-drawn maps."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.ops.mask_nms import local_maxima, mask_iou, matrix_nms
from tests.oracles.suppression import matrix_nms as plain_matrix_nms
from tests.support.golden import load_golden
from tests.support.mmdet_recipe import unpacked

GOLDEN, WINNER = load_golden("mmdet/ops_mmdet3"), load_golden("mmdet/ops_winner")
MASKS = unpacked(GOLDEN["mnms_masks_packed"], 80)
SCORES, CLASSES = GOLDEN["mnms_scores"], GOLDEN["mnms_labels"].long()


@pytest.mark.parametrize("limits", [(None, None, None), (30, 0.05, 20)])
@pytest.mark.parametrize("kernel, sigma", [("gaussian", 2.0), ("gaussian", 0.5), ("linear", 2.0)])
def test_scores_and_order_are_those_of_mmdetection(kernel, sigma, limits):
    before, min_score, kept = limits
    key = f"mnms_{kernel}_{sigma}_{before or -1}_{min_score or -1}_{kept or -1}"
    indices, scores = matrix_nms(
        MASKS,
        SCORES,
        CLASSES,
        kernel=kernel,
        sigma=sigma,
        max_before=before,
        min_score=min_score,
        max_kept=kept,
    )
    torch.testing.assert_close(scores, GOLDEN[f"{key}_scores"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(indices, GOLDEN[f"{key}_keep"].long())


@pytest.mark.parametrize("kernel, sigma", [("gaussian", 2.0), ("gaussian", 0.5), ("linear", 2.0)])
@pytest.mark.parametrize("count", [1, 2, 17, 30])
def test_scores_are_those_of_a_plain_loop(count, kernel, sigma):
    generator = torch.Generator().manual_seed(count)
    masks = torch.zeros(count, 9, 14, dtype=torch.bool)
    # Rectangles that nest and repeat; some have no pixel at all.
    for mask in masks:
        top, left, height, width = torch.randint(0, 6, (4,), generator=generator).tolist()
        mask[top : top + height, left : left + 2 * width] = True
    scores = torch.randint(1, 20, (count,), generator=generator) / 20
    classes = torch.randint(0, 2, (count,), generator=generator)
    pixels = [set(mask.flatten().nonzero().flatten().tolist()) for mask in masks]
    expected = plain_matrix_nms(
        pixels, scores.tolist(), classes.tolist(), kernel=kernel, sigma=sigma
    )
    indices, lowered = matrix_nms(masks, scores, classes, kernel=kernel, sigma=sigma)
    found = dict(zip(indices.tolist(), lowered.tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-6)
    assert lowered.tolist() == sorted(found.values(), reverse=True)
    kept, best = matrix_nms(
        masks, scores, classes, kernel=kernel, sigma=sigma, min_score=0.3, max_kept=5
    )
    assert best.tolist() == [score for score in lowered.tolist() if score >= 0.3][:5]
    assert kept.tolist() == indices.tolist()[: len(kept)]


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_the_winners_ensemble_of_masks_is_the_same_suppression_of_one_class(kernel):
    same_class = torch.zeros_like(CLASSES)
    kept, lowered = matrix_nms(MASKS, SCORES, same_class, kernel=kernel, min_score=0.05)
    scores = torch.zeros_like(SCORES).index_copy(0, kept, lowered)
    by_score = SCORES.argsort(descending=True)
    key = f"ensemble_matrix_nms_{kernel}"
    torch.testing.assert_close(scores[by_score].double(), WINNER[f"{key}_scores"])
    expected = by_score[WINNER[f"{key}_keep_of_sorted"].long()]
    assert set(kept.tolist()) == set(expected.tolist())


def test_a_repeated_mask_is_lowered_by_its_original_alone():
    square = torch.zeros(1, 6, 6, dtype=torch.bool)
    square[:, 1:4, 1:4] = True
    masks = square.repeat(3, 1, 1)
    scores = torch.tensor([0.9, 0.8, 0.7])
    classes = torch.zeros(3, dtype=torch.int64)
    for kernel, factor in (("linear", 0.0), ("gaussian", torch.tensor(-2.0).exp().item())):
        indices, lowered = matrix_nms(masks, scores, classes, kernel=kernel)
        assert indices.tolist() == [0, 1, 2]
        torch.testing.assert_close(lowered, scores * torch.tensor([1.0, factor, factor]))


def test_other_classes_do_not_lower_and_no_mask_gives_no_mask():
    masks = torch.ones(2, 3, 3, dtype=torch.bool)
    _, scores = matrix_nms(masks, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]))
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.8]))
    indices, scores = matrix_nms(masks[:0], scores[:0], torch.zeros(0, dtype=torch.int64))
    assert indices.dtype == torch.int64
    assert len(indices) == len(scores) == 0
    with pytest.raises(ValueError, match=r"'linear'.*got 'cubic'"):
        matrix_nms(masks, scores, indices, kernel="cubic")


def test_a_cell_survives_unless_its_upper_or_left_neighbours_exceed_it():
    probs = torch.tensor([[0.1, 0.3, 0.2], [0.4, 0.3, 0.5], [0.4, 0.6, 0.1]])[None, None]
    expected = torch.tensor([[0.1, 0.3, 0.0], [0.4, 0.0, 0.5], [0.4, 0.6, 0.0]])[None, None]
    torch.testing.assert_close(local_maxima(probs), expected)


def test_autocast_changes_no_overlap_and_no_score():
    iou = mask_iou(MASKS, MASKS)
    indices, scores = matrix_nms(MASKS, SCORES, CLASSES)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mask_iou(MASKS, MASKS), iou)
        same_indices, same_scores = matrix_nms(MASKS, SCORES, CLASSES)
    assert torch.equal(same_indices, indices)
    assert torch.equal(same_scores, scores)
