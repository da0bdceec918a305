"""Implicit PointRend: the form of its point networks, and its weights from detectron2."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.instances.coarse_masks import BoxVectorHead
from seamless_pr.models.instances.implicit_point_rend import (
    ImplicitPointHead,
    ImplicitPointMasks,
)
from seamless_pr.models.instances.positive_rois import PositiveRoIs
from seamless_pr.ops.points import PointReader
from seamless_pr.structures.features import Features
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.settings import ImplicitPointSettings
from seamless_pr.weights.detectron2 import fit_zoo_weights
from seamless_pr.weights.detectron2_config import zoo_config_values
from tests.oracles.point_refinement import bilinear, refined
from tests.support.mmdet_networks import mask_targets
from tests.support.zoo_networks import zoo_shapes


def small() -> ImplicitPointMasks:
    torch.manual_seed(0)
    head = ImplicitPointHead(4, 3, hidden_channels=5, num_layers=2)
    weight_head = BoxVectorHead(4, head.num_weights, hidden_channels=8, roi_size=4)
    torch.nn.init.normal_(weight_head.prediction.weight, std=0.3)
    settings = ImplicitPointSettings(
        num_train_points=10, subdivision_points=12, start_size=4, output_size=16
    )
    return ImplicitPointMasks(weight_head, head, settings)


def test_the_released_head_has_its_number_of_weights():
    assert ImplicitPointHead(256, 80).num_weights == 283472


def test_points_that_do_not_double_into_masks_are_refused_before_a_training():
    masks = small()
    with pytest.raises(ValueError, match="a 4-cell start cannot double into output_size 12"):
        ImplicitPointMasks(
            masks.weight_head,
            masks.point_head,
            ImplicitPointSettings(start_size=4, output_size=12),
        )


def test_a_point_passes_the_network_of_its_box():
    head = small().point_head
    weights = torch.randn(2, head.num_weights)
    coords, fine = torch.rand(2, 6, 2), torch.randn(2, 6, 4)
    found = head(fine, coords, weights)
    for row in range(2):
        for point in range(6):
            angles = 2 * math.pi * (2 * coords[row, point] - 1) @ head.frequencies
            hidden = torch.cat([angles.sin(), angles.cos(), fine[row, point]])
            # All matrices, then all biases.
            matrices, start = [], 0
            for rows, columns in ((5, 260), (5, 5), (3, 5)):
                size = rows * columns
                matrices.append(weights[row, start : start + size].view(rows, columns))
                start += size
            for index, (matrix, bias) in enumerate(
                zip(matrices, weights[row, start:].split([5, 5, 3]), strict=True)
            ):
                hidden = matrix @ hidden + bias
                hidden = F.relu(hidden) if index < 2 else hidden
            torch.testing.assert_close(found[row, point], hidden, rtol=1e-4, atol=1e-4)
    classes = torch.tensor([2, 0])
    own = head(fine, coords, weights, classes)
    torch.testing.assert_close(own[0, :, 0], found[0, :, 2])
    torch.testing.assert_close(own[1, :, 0], found[1, :, 0])


def test_losses_are_means_over_points_and_weights():
    masks = small()
    level = torch.randn(1, 4, 8, 8)
    bits = torch.zeros(1, 32, 32)
    bits[0, 8:24, 8:24] = 1
    box = torch.tensor([[4.0, 4, 28, 28]])
    zero = torch.zeros(1, dtype=torch.int64)
    rois = PositiveRoIs(box, zero, zero + 1, zero.int() + 1, box)
    reader = PointReader.of_levels([level], [4])
    coords = torch.rand(1, 10, 2)
    losses = masks.losses_at(reader, rois, mask_targets(bits, zero), coords)
    weights = masks.point_weights(reader, box, zero)
    logits = masks.point_logits(reader, weights, coords, box, zero, zero + 1)
    inside = ((coords * 24 + 4 > 8) & (coords * 24 + 4 < 24)).all(-1)
    near = ((coords * 24 + 4 - 8).abs() < 0.5) | ((coords * 24 + 4 - 24).abs() < 0.5)
    clear = ~near.any(-1)
    expected = F.binary_cross_entropy_with_logits(logits, inside.float(), reduction="none")
    if bool(clear.all()):
        assert losses["mask_point"].total.item() == pytest.approx(expected.sum().item(), rel=1e-4)
    assert losses["mask_point"].count == 10
    mean = losses["mask_weights"].total / losses["mask_weights"].count
    torch.testing.assert_close(mean, weights.square().mean())


@pytest.mark.parametrize("num_points", [12, 10**6])
def test_masks_of_two_levels_are_those_of_a_plain_loop(num_points):
    torch.manual_seed(1)
    head = ImplicitPointHead(5, 3, hidden_channels=4, num_layers=2).double()
    weight_head = BoxVectorHead(5, head.num_weights, hidden_channels=8, roi_size=4).double()
    torch.nn.init.normal_(weight_head.prediction.weight, std=0.3)
    settings = ImplicitPointSettings(
        num_levels=2, subdivision_points=num_points, start_size=4, output_size=16
    )
    masks = ImplicitPointMasks(weight_head, head, settings)
    levels = torch.randn(2, 3, 9, 13).double(), torch.randn(2, 2, 5, 7).double()
    boxes = torch.tensor([[3.0, 4, 40.5, 30], [20.5, 10, 47, 33], [30, 20, 70, 60]])
    things, images = torch.tensor([2, 0, 1]), [0, 1, 1]
    found = Instances(torch.ones(3), things, boxes)
    per_image = [found.select(torch.tensor(images) == image) for image in range(2)]
    masked = masks.add_masks(Features(levels, (4, 8)), per_image, (36, 52))
    refined_logits = torch.cat([image.require_masks().logits for image in masked])
    reader = PointReader.of_levels(levels, (4, 8))
    weights = masks.point_weights(reader, boxes, torch.tensor(images)).detach()
    for row in range(3):
        predict = plain_predictor(head, levels, weights[row], boxes[row], images[row], things[row])
        centres = [(index + 0.5) / 4 for index in range(4)]
        grid = np.array([[predict(x, y) for x in centres] for y in centres])
        expected = torch.from_numpy(refined(grid, predict, num_points, 2))
        torch.testing.assert_close(refined_logits[row], expected, rtol=1e-4, atol=1e-4)


def plain_predictor(
    head: ImplicitPointHead,
    levels: tuple[Tensor, Tensor],
    weights: Tensor,
    box: Tensor,
    image: int,
    thing: Tensor,
) -> Callable[[float, float], float]:
    """(x, y) in [0, 1] of a box -> the logit of its class, of two levels at strides 4 and 8."""
    x0, y0, x1, y1 = box.tolist()
    sizes = [(4, 261), (4, 4), (3, 4)]
    parts = weights.split([rows * columns for rows, columns in sizes] + [rows for rows, _ in sizes])

    def predict(x: float, y: float) -> float:
        column, line = x0 + x * (x1 - x0), y0 + y * (y1 - y0)
        place = torch.tensor([2 * x - 1, 2 * y - 1], dtype=torch.float64)
        angles = 2 * math.pi * place @ head.frequencies
        said = [
            torch.from_numpy(bilinear(level[image].numpy(), column / stride, line / stride))
            for level, stride in zip(levels, (4, 8), strict=True)
        ]
        hidden = torch.cat([angles.sin(), angles.cos(), *said])
        for index, size in enumerate(sizes):
            hidden = parts[index].view(size) @ hidden + parts[3 + index]
            hidden = F.relu(hidden) if index < 2 else hidden
        return float(hidden[thing])

    return predict


def test_masks_of_a_batch_are_those_of_its_images():
    masks = small()
    level = torch.randn(2, 4, 8, 8)
    boxes = torch.tensor([[4.0, 4, 28, 28], [0.0, 0, 20, 12], [8.0, 8, 30, 30]])
    found = Instances(torch.ones(3), torch.tensor([0, 2, 1]), boxes)
    features = Features((level,), (4,))
    first, rest = found.select(torch.tensor([0])), found.select(torch.tensor([1, 2]))
    both = masks.add_masks(features, [first, rest], (32, 32))
    alone = masks.add_masks(Features((level[1:],), (4,)), [rest], (32, 32))
    assert both[0].require_masks().logits.shape == (1, 16, 16)
    torch.testing.assert_close(both[1].masks.logits, alone[0].masks.logits, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_detectron2_fits_completely():
    shapes = zoo_shapes("instance_coco")
    shapes = {
        name: shape for name, shape in shapes.items() if not name.startswith("roi_heads.mask_head.")
    }
    parameter_head = "roi_heads.mask_head.parameter_head"
    shapes |= {
        f"{parameter_head}.reduce_spatial_dim_conv.weight": (256, 256, 2, 2),
        f"{parameter_head}.reduce_spatial_dim_conv.bias": (256,),
        f"{parameter_head}.fc1.weight": (1024, 12544),
        f"{parameter_head}.fc1.bias": (1024,),
        f"{parameter_head}.fc2.weight": (1024, 1024),
        f"{parameter_head}.fc2.bias": (1024,),
        f"{parameter_head}.prediction.weight": (283472, 1024),
        f"{parameter_head}.prediction.bias": (283472,),
        "roi_heads.mask_head.point_head.positional_encoding_gaussian_matrix": (2, 128),
    }
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
        values = zoo_config_values(tensors)
        config = config_from_dict(values, "test")
        network = build_network(config.model, load_label_space(config.data.label_space))
        _, report = fit_zoo_weights(tensors, network.state_dict())
    assert config.model.instances.kind == "implicit_point_rend"
    report.check("test")
    # 346.4 million, as published.
    assert sum(value.numel() for value in network.parameters()) // 10**5 == 3464


def test_autocast_moves_no_point():
    head = small().point_head
    places = torch.rand(2, 50, 2, generator=torch.Generator().manual_seed(0))
    positions = head.positions(places)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.positions(places), positions)
