"""SOLOv2's masks beside what the golden cases show."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.models.instances.solo_head import SoloOutput
from seamless_pr.models.instances.solov2 import mask_probs, solo_instances
from seamless_pr.structures.settings import SoloSettings
from tests.oracles.suppression import matrix_nms


def test_masks_of_kernels_are_the_same_under_autocast():
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(5, 16, generator=generator)
    features = torch.randn(16, 12, 20, generator=generator)
    probs = mask_probs(kernels, features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mask_probs(kernels, features), probs)


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize("seed, limit", [(0, 500), (1, 500), (2, 9)])
def test_objects_of_an_image_are_those_of_a_plain_loop(seed, limit, kernel):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    grids, strides = (6, 5, 4, 3, 2), (8, 8, 16, 32, 32)
    output = SoloOutput(
        tuple(draw(2, 3, side, side) for side in grids),
        tuple(draw(2, 4, side, side) - 0.5 for side in grids),
        draw(2, 4, 9, 14),
    )
    settings = SoloSettings(
        score_threshold=0.6,
        mask_threshold=0.4,
        max_before_nms=limit,
        max_detections=12,
        nms_kernel=kernel,
        nms_sigma=1.5,
        min_score=0.2,
    )
    found = solo_instances(output, 1, (36, 56), (33, 50), settings)
    scores, things, masks = [], [], []
    for logits, kernels, stride in zip(
        output.category_logits, output.kernels, strides, strict=True
    ):
        probs = logits[1].sigmoid()
        side = probs.shape[1]
        for row in range(side):
            for column in range(side):
                for thing in range(3):
                    own = float(probs[thing, row, column])
                    before = probs[
                        thing, max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1
                    ]
                    if own <= 0.6 or own < float(before.max()):
                        continue
                    mask = sum(
                        weight * features
                        for weight, features in zip(
                            kernels[1, :, row, column], output.mask_features[1]
                        )
                    ).sigmoid()
                    inside = mask > 0.4
                    if int(inside.sum()) <= stride:
                        continue
                    scores.append(own * float(mask[inside].mean()))
                    things.append(thing)
                    masks.append(mask)
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[:limit]
    scores, things, masks = ([x[index] for index in best] for x in (scores, things, masks))
    pixels = [set((mask > 0.4).flatten().nonzero().flatten().tolist()) for mask in masks]
    lowered = matrix_nms(pixels, scores, things, kernel=kernel, sigma=1.5)
    expected = sorted(((-score, index) for index, score in lowered.items() if score >= 0.2))[:12]
    assert len(expected) > 3
    assert found.scores.tolist() == pytest.approx([-score for score, _ in expected], rel=1e-6)
    assert found.thing_indices.tolist() == [things[index] for _, index in expected]
    torch.testing.assert_close(found.masks.probs, torch.stack([masks[i] for _, i in expected]))


def test_an_image_without_a_probable_cell_has_no_object():
    output = SoloOutput(
        tuple(torch.full((1, 3, side, side), -5.0) for side in (6, 5, 4, 3, 2)),
        tuple(torch.randn(1, 4, side, side) for side in (6, 5, 4, 3, 2)),
        torch.randn(1, 4, 9, 14),
    )
    found = solo_instances(output, 0, (36, 56), (33, 50), SoloSettings())
    assert len(found) == 0
    assert found.masks.probs.shape == (0, 9, 14)
