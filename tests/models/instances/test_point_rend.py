"""Masks of PointRend: batches, empty images, regular grids of training points."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.instances import point_rend
from seamless_pr.models.instances.box_branch import BoxOutput, SampledRoIs
from seamless_pr.models.instances.coarse_masks import CoarseMaskHead
from seamless_pr.models.instances.positive_rois import PositiveRoIs
from seamless_pr.models.instances.two_stage import SampledBatch
from seamless_pr.ops.points import PointReader
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.settings import BoxSettings, PointSettings, RoISettings
from tests.support.street_targets import target_of


def test_masks_of_a_batch_are_those_of_its_images_and_no_detection_gives_no_mask() -> None:
    torch.manual_seed(0)
    coarse_head, point_head = CoarseMaskHead(8, 3, hidden_channels=16), PointHead(8, 3)
    for parameter in (coarse_head.prediction.weight, point_head.predictor.weight):
        nn.init.normal_(parameter)
    fine_map, size = torch.randn(3, 8, 12, 16), (48, 64)
    boxes = torch.tensor([[3.0, 4.0, 40.0, 30.0], [20.5, 10.0, 60.0, 47.0], [0.0, 0.0, 9.0, 48.0]])
    found = Instances(torch.ones(3), torch.tensor([2, 0, 1]), boxes)
    per_image = [found.select(torch.tensor(rows, dtype=torch.int64)) for rows in ([0], [], [1, 2])]
    settings = PointSettings(subdivision_points=50, start_size=7, output_size=28)
    reader = PointReader((fine_map,), (size,))
    masks = point_rend.point_mask_logits(coarse_head, point_head, reader, per_image, settings)
    assert [tuple(mask.shape) for mask in masks] == [(1, 28, 28), (0, 28, 28), (2, 28, 28)]
    for index, instances in enumerate(per_image):
        single = PointReader((fine_map[index : index + 1],), (size,))
        (alone,) = point_rend.point_mask_logits(
            coarse_head, point_head, single, [instances], settings
        )
        torch.testing.assert_close(masks[index], alone, rtol=1e-4, atol=1e-4)


def grid_losses(monkeypatch, num_points: int) -> list[Tensor]:
    """The points at which the mask losses read, with a regular grid demanded."""
    seen: list[Tensor] = []
    gather = point_rend.gather_point_features

    def watched(reader: PointReader, coarse: Tensor, coords: Tensor, *rest):
        seen.append(coords)
        return gather(reader, coarse, coords, *rest)

    monkeypatch.setattr(point_rend, "gather_point_features", watched)
    box = torch.tensor([[1.0, 1.0, 7.0, 7.0]])
    one = torch.ones(1, dtype=torch.int64)
    rois = PositiveRoIs(box, 0 * one, 0 * one, 3 * one.int(), box)
    settings = PointSettings(num_train_points=num_points, train_points="grid")
    point_rend.point_mask_losses(
        CoarseMaskHead(4, 2, hidden_channels=8),
        PointHead(4, 2, hidden_channels=8),
        PointReader((torch.randn(1, 4, 2, 2),), ((8, 8),)),
        rois,
        [target_of([[3] * 8] * 8)],
        settings,
        [torch.Generator()],
    )
    return seen


def test_training_points_may_be_a_regular_grid(monkeypatch) -> None:
    (coords,) = grid_losses(monkeypatch, 4)
    assert coords.tolist() == [[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]]
    with pytest.raises(
        ValueError, match=r"must be a square for 'train_points: grid'; got 5; use 4 or 9"
    ):
        grid_losses(monkeypatch, 5)


def test_the_point_loss_teaches_the_coarse_head_too() -> None:
    torch.manual_seed(0)
    coarse_head, point_head = CoarseMaskHead(4, 2, hidden_channels=8), PointHead(4, 2)
    nn.init.normal_(point_head.predictor.weight)
    box, one = torch.tensor([[1.0, 1.0, 7.0, 7.0]]), torch.ones(1, dtype=torch.int64)
    losses = point_rend.point_mask_losses(
        coarse_head,
        point_head,
        PointReader((torch.randn(1, 4, 2, 2),), ((8, 8),)),
        PositiveRoIs(box, 0 * one, 0 * one, 3 * one.int(), box),
        [target_of([[3] * 4 + [0] * 4] * 8)],
        PointSettings(num_train_points=16),
        [torch.Generator().manual_seed(0)],
    )
    losses["mask_point"].total.backward()
    assert coarse_head.prediction.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("on_predicted_boxes", [True, False])
def test_masks_are_learned_on_the_boxes_that_the_settings_say(
    monkeypatch, on_predicted_boxes: bool
) -> None:
    proposal = torch.tensor([[2.0, 2.0, 6.0, 6.0]])
    one = torch.ones(1, dtype=torch.int64)
    box = BoxSettings()
    # One box width to the right, in units of the delta weights.
    deltas = torch.zeros(1, 8)
    deltas[0, 0] = box.delta_weights[0]
    sampled = SampledBatch(
        Features((torch.randn(1, 4, 4, 4),), (4,)),
        ImageBatch(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), ((16, 16),)),
        [target_of([[3] * 16] * 16)],
        [torch.Generator()],
        [SampledRoIs(proposal, 2 * one, 0 * one, 1)],
        torch.zeros(1, 4, 7, 7),
        RoISettings(),
        BoxOutput(torch.zeros(1, 3), deltas),
        box,
    )
    seen: list[Tensor] = []

    def watched(coarse_head, point_head, reader, rois: PositiveRoIs, *rest, **options):
        seen.append(rois.boxes)
        return {}

    monkeypatch.setattr(point_rend, "point_mask_losses", watched)
    settings = PointSettings(train_on_predicted_boxes=on_predicted_boxes)
    heads = CoarseMaskHead(4, 2, hidden_channels=8), PointHead(4, 2, hidden_channels=8)
    point_rend.PointRendMasks(*heads, settings).losses(sampled)
    expected = [[6.0, 2.0, 10.0, 6.0]] if on_predicted_boxes else proposal.tolist()
    assert seen[0].tolist() == expected
