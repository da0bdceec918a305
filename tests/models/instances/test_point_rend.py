"""Masks of PointRend: batches, empty images, regular grids of training points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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
from tests.oracles.point_refinement import bilinear, refined
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


@dataclass
class Drawn:
    """Boxes of two images, maps of three levels in float64, and the heads that see them."""

    background: bool
    whole_pixels: bool
    grid: int = 4

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        sizes = ((9, 13), (5, 7), (2, 2))
        self.strides = (4, 8, 32)
        channels = (3, 2, 4)
        self.levels = tuple(
            torch.randn(2, count, *size).double()
            for count, size in zip(channels, sizes, strict=True)
        )
        self.coarse_head = CoarseMaskHead(
            9,
            3,
            roi_size=2 * self.grid,
            hidden_channels=8,
            conv_channels=5,
            mixes_first=True,
            background=self.background,
        ).double()
        self.point_head = PointHead(
            9, 3 + self.background, hidden_channels=6, num_layers=2
        ).double()
        for head in (self.coarse_head, self.point_head):
            for parameter in head.parameters():
                nn.init.normal_(parameter, std=0.5)
        # The last one lies beyond the image, where the levels end one after the other.
        self.boxes = torch.tensor(
            [[3.0, 4.0, 40.5, 30.0], [20.5, 10.0, 47.0, 33.0], [30.0, 20.0, 70.0, 60.0]]
        )
        self.things, self.images = torch.tensor([2, 0, 1]), torch.tensor([0, 1, 1])
        self.reader = PointReader.of_levels(self.levels, self.strides)

    def at(self, row: int, x: float, y: float) -> tuple[float, float]:
        """Pixels of the image, of a point in [0, 1] of a box."""
        x0, y0, x1, y1 = self.boxes[row].tolist()
        last = 1 if self.whole_pixels else 0
        return x0 + x * (x1 - last - x0), y0 + y * (y1 - last - y0)

    def fine(self, row: int, x: float, y: float) -> Tensor:
        """What all levels say there."""
        column, line = self.at(row, x, y)
        image = int(self.images[row])
        said = [
            bilinear(level[image].numpy(), column / stride, line / stride)
            for level, stride in zip(self.levels, self.strides, strict=True)
        ]
        return torch.from_numpy(np.concatenate(said))

    def coarse(self, row: int) -> Tensor:
        """[K, grid, grid] logits."""
        side = 2 * self.grid
        centres = [(index + 0.5) / side for index in range(side)]
        said = torch.stack([self.fine(row, x, y) for y in centres for x in centres], 1)
        hidden = said.unflatten(1, (side, side))[None]
        for layer, stride in ((self.coarse_head.mix, 1), (self.coarse_head.reduce, 2)):
            hidden = F.relu(F.conv2d(hidden, layer.weight, layer.bias, stride=stride))
        hidden = hidden.flatten()
        for layer in (self.coarse_head.fc1, self.coarse_head.fc2):
            hidden = F.relu(layer.weight @ hidden + layer.bias)
        last = self.coarse_head.prediction
        return (last.weight @ hidden + last.bias).view(-1, self.grid, self.grid)

    def predictor(self, row: int) -> Callable[[float, float], Tensor]:
        """(x, y) in [0, 1] of a box -> logits of all classes."""
        coarse = self.coarse(row)

        def predict(x: float, y: float) -> Tensor:
            seen = torch.from_numpy(bilinear(coarse.numpy(), x * self.grid, y * self.grid))
            hidden = self.fine(row, x, y)
            for layer in self.point_head.layers:
                hidden = F.relu(layer.weight @ torch.cat([hidden, seen]) + layer.bias)
            last = self.point_head.predictor
            return last.weight @ torch.cat([hidden, seen]) + last.bias

        return predict


@pytest.mark.parametrize("start, num_points", [(0, 30), (8, 30), (0, 10**6)])
@pytest.mark.parametrize("version_1", [False, True])
def test_masks_of_several_levels_are_those_of_a_plain_loop(version_1, start, num_points):
    drawn = Drawn(version_1, version_1)
    settings = PointSettings(
        num_levels=3, subdivision_points=num_points, start_size=start, output_size=16
    )
    found = Instances(torch.ones(3), drawn.things, drawn.boxes)
    per_image = [found.select(drawn.images == image) for image in range(2)]
    masks = point_rend.point_mask_logits(
        drawn.coarse_head,
        drawn.point_head,
        drawn.reader,
        per_image,
        settings,
        whole_pixels=version_1,
    )
    with torch.no_grad():
        for row, (thing, mask) in enumerate(
            zip(drawn.things.tolist(), torch.cat(masks), strict=True)
        ):
            predict, channel = drawn.predictor(row), thing + version_1
            grid = drawn.coarse(row)[channel].numpy()
            if start:
                centres = [(index + 0.5) / start for index in range(start)]
                grid = np.array([[predict(x, y)[channel] for x in centres] for y in centres])
            expected = refined(
                grid,
                lambda x, y, predict=predict, channel=channel: float(predict(x, y)[channel]),
                num_points,
                int(math.log2(16 / len(grid))),
            )
            torch.testing.assert_close(mask, torch.from_numpy(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("version_1", [False, True])
def test_losses_of_several_levels_are_those_of_a_plain_loop(version_1):
    drawn = Drawn(version_1, version_1)
    settings = PointSettings(num_levels=3, num_train_points=20)
    targets = [target_of([[3] * 30 + [0] * 10 + [4] * 8] * 36), target_of([[4] * 48] * 36)]
    ids = torch.tensor([3, 4, 4], dtype=torch.int32)
    extents = torch.stack(
        [targets[image].boxes[index - 1] for image, index in zip([0, 1, 1], ids.tolist())]
    )
    rois = PositiveRoIs(drawn.boxes, drawn.images, drawn.things, ids, extents)
    heads = drawn.coarse_head, drawn.point_head
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    losses = point_rend.point_mask_losses(
        *heads, drawn.reader, rois, targets, settings, generators, whole_pixels=version_1
    )
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    candidates, fresh = (
        torch.cat([torch.rand(n, count, 2, generator=g) for n, g in zip((1, 2), generators)])
        for count in (60, 5)
    )
    total = 0.0
    with torch.no_grad():
        for row, thing in enumerate(drawn.things.tolist()):
            coarse = drawn.coarse(row)[thing + version_1].numpy()[None]
            places = candidates[row].double().tolist()
            sure = [abs(bilinear(coarse, 4 * x, 4 * y)[0]) for x, y in places]
            chosen = [places[index] for index in np.argsort(sure)[:15]]
            predict = drawn.predictor(row)
            id_map = targets[int(drawn.images[row])].id_map
            mask = (id_map == ids[row]).double().numpy()[None]
            for x, y in [*chosen, *fresh[row].double().tolist()]:
                label = float(bilinear(mask, *drawn.at(row, x, y))[0])
                logit = float(predict(x, y)[thing + version_1])
                total += max(logit, 0) - logit * label + math.log1p(math.exp(-abs(logit)))
    assert losses["mask_point"].count == 60
    assert losses["mask_point"].total.item() == pytest.approx(total, rel=1e-5)
    assert losses["mask_coarse"].count == 48


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


@pytest.mark.parametrize(("start", "output"), [(0, 223), (0, 21), (5, 28)])
def test_points_that_do_not_double_into_masks_are_refused_before_a_training(
    start: int, output: int
) -> None:
    heads = CoarseMaskHead(8, 3, hidden_channels=16), PointHead(8, 3)
    settings = PointSettings(start_size=start, output_size=output)
    with pytest.raises(ValueError, match=f"-cell start cannot double into output_size {output}"):
        point_rend.PointRendMasks(*heads, settings)
