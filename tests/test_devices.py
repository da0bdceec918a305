"""Whatever computes does so where its inputs are, and where a GPU is waited for is written down."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
import torch

from seamless_pr.inference.exported import WholePrediction
from seamless_pr.models.networks.views import ViewedNet
from seamless_pr.ops.masks import BoxMasks, pooled_masks
from seamless_pr.ops.soft_nms import SoftNMS, soft_nms
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.views import View
from tests.support.device_runs import FAMILIES, SIZES, device_run
from tests.support.model_keys import batch
from tests.support.numbered_gpu import DEVICE, LIBRARY, numbered_gpu, on_gpu
from tests.support.tiny_maskformer import scene

ROOMS = ("ops", "layers", "models", "training", "inference", "structures")
MAKERS = {
    *("zeros", "ones", "empty", "full", "arange", "tensor", "linspace", "eye", "as_tensor"),
    *("from_numpy", "rand", "randn", "randint", "randperm", "zeros_", "logspace", "tril_indices"),
}


# Functions that make tensors on the host, and why.
ON_THE_HOST = {
    "ops/generators.py:seeded_by": "draws of images are the same on every device",
    "ops/matching.py:_draw": "draws of images are the same on every device",
    "ops/refinement.py:uniform_drawer.draw": "draws of images are the same on every device",
    "ops/images.py:_tensor_of_array": "pixels come from the host",
    "ops/class_maps.py:_gap_pixels": "the way of the CPU",
    "ops/class_maps.py:_first_largest": "the way of the CPU",
    "ops/resize.py:resize_as_pillow": "by Pillow itself, for comparisons",
    "layers/window_attention.py:_relative_positions": "when a network is built",
    "models/fusion/by_query.py:query_segments": "the table, after the transfer",
    "models/fusion/by_query.py:class_segments": "the table, after the transfer",
    "models/fusion/by_score.py:_paint_instances": "one after the other: the way of the CPU",
    "models/fusion/by_score.py:_number_segments": "the way of the CPU",
    "models/fusion/on_device.py:unpack": "after the transfer",
    "training/distributed.py:of_first_worker": "several workers, for a limit of time",
    "training/distributed.py:padded_to_largest": "several workers agree on a size",
    "training/losses.py:mean_losses": "counts of several workers, whose copy nobody waits for",
    "training/trainer.py:Trainer._report": "with the log",
    "inference/mosaic_folder.py:_coco_instance": "tiles are joined on the host",
    "inference/mosaic_folder.py:_overlay": "tiles are joined on the host",
    "inference/predictor.py:usable_device": "asks whether there is a GPU",
    "inference/tile_grid.py:Axis.weights": "tiles are joined on the host",
    "inference/tile_labels.py:_things": "tiles are joined on the host",
    "inference/tile_labels.py:_votes": "tiles are joined on the host",
    "inference/tiled_predictor.py:TiledPredictor._label": "tiles are joined on the host",
    "structures/panoptic_segmentation.py:PanopticSegmentation.semantic_map": "maps that are read",
}

# Where the host waits for the GPU in a training step, and why it still does.
_COUNTS = "so many anchors, boxes or objects there are; draws of images need their number"
_ROWS = "rows of one image or object are picked out"
TRAINING_WAITS = {
    "structures/panoptic_target.py:PanopticTarget.object_indices": _COUNTS,
    "ops/boxes.py:crowd_overlap": "work for crowd is left out where there is none",
    "ops/boxes.py:nms": "proposals of training are as many as are left",
    "ops/matching.py:assign_anchors": _COUNTS,
    "ops/matching.py:assign_proposals": _COUNTS,
    "ops/matching.py:sample_matches": _COUNTS,
    "models/instances/cascade.py:refined_boxes.<locals>.<listcomp>": _COUNTS,
    "models/instances/positive_rois.py:PositiveRoIs.rois_per_image": _ROWS,
    "models/instances/positive_rois.py:targets_of_masks": _ROWS,
    "ops/mask_targets.py:aligned_mask_targets": "each object is cut out of its id map",
    "ops/mask_targets.py:pixel_mask_targets": "each object is cut out of its id map",
    "ops/points.py:sample_membership": _ROWS,
    "models/instances/mask_rcnn.py:mask_loss": "cells that are not void are counted",
    "models/instances/mask_iou.py:visible_shares": _ROWS,
    "models/instances/mask_iou.py:mask_iou_loss": _ROWS,
    "models/instances/solo_targets.py:solo_target": _COUNTS,
    "models/instances/solo_targets.py:_level_target": _COUNTS,
    "models/instances/solo_targets.py:SoloTarget.__post_init__.<locals>.<genexpr>": _COUNTS,
    "models/semantics/points.py:semantic_point_loss": "points that are not void are counted",
    "models/networks/per_pixel.py:PerPixelNet.losses": "pixels that are not void are counted",
    "models/queries/targets.py:segment_targets": _COUNTS,
    "models/queries/targets.py:class_targets": _COUNTS,
    "ops/assignment.py:cheapest_assignments": "scipy assigns queries, on the host",
    "models/queries/set_losses.py:_class_loss": _ROWS,
    "elsewhere": "gradients of rows that a mask picked out",
}


def calls_of_makers() -> Iterator[tuple[str, str, range]]:
    """File, function and lines of each call that makes a tensor of no other, but for layers'."""
    for room in ROOMS:
        for path in sorted((LIBRARY / room).rglob("*.py")):
            file = str(path.relative_to(LIBRARY))
            for function, node in _calls(ast.parse(path.read_text()), ()):
                made = node.func
                if (
                    isinstance(made, ast.Attribute)
                    and isinstance(made.value, ast.Name)
                    and made.value.id == "torch"
                    and made.attr in MAKERS
                    # A network is built on the host and moved whole.
                    and function[-1:] != ("__init__",)
                ):
                    assert node.end_lineno is not None
                    yield file, ".".join(function), range(node.lineno, node.end_lineno + 1)


def _calls(node: ast.AST, inside: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield inside, child
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield from _calls(child, (*inside, child.name))
        else:
            yield from _calls(child, inside)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gpu_trains_and_predicts_as_the_processor_and_waits_where_it_is_written(family):
    run = device_run(family)
    for name, (expected, found) in run.losses.items():
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    for theirs, ours in zip(*run.predictions, strict=True):
        expected, found = theirs.require_panoptic(), ours.require_panoptic()
        assert expected.segments
        names = [(s.segment_id, s.train_id, s.area, s.is_crowd) for s in expected.segments]
        assert [(s.segment_id, s.train_id, s.area, s.is_crowd) for s in found.segments] == names
        assert torch.equal(found.id_map, expected.id_map)
    assert run.training_waits.keys() <= TRAINING_WAITS.keys()
    # Once a batch; networks without instances to fuse, once an image.
    assert run.prediction_waits in (
        {"models/fusion/on_device.py:read": 1},
        {"ops/fixed_shapes.py:read_together": len(SIZES)},
    )


def test_every_wait_that_is_written_down_is_still_there():
    found = set().union(*(device_run(family).training_waits for family in FAMILIES))
    assert found == TRAINING_WAITS.keys()


def other_makers() -> set[tuple[str, int]]:
    """What no prediction and no step of a network does by itself: views, pools, graphs."""
    views = [View(), View(flip=True)]
    with numbered_gpu() as gpu:
        for family in ("maskformer", "solov2"):
            network = ViewedNet(on_gpu(FAMILIES[family]()), views).eval()
            images = batch()[0].images if family == "solov2" else scene(64, 96)[0][None]
            size = (images.shape[-2], images.shape[-1])
            there = ImageBatch(on_gpu(images), (size,) * len(images))
            with torch.no_grad():
                network.predict(there, [size] * len(images))
        exported = WholePrediction(on_gpu(FAMILIES["point_rend"]()).eval())
        with torch.no_grad():
            exported(on_gpu(batch()[0].images))
        boxes = on_gpu(torch.tensor([[1.0, 1.0, 7.0, 6.0], [2.0, 1.0, 7.0, 6.0]]))
        masks = BoxMasks(on_gpu(torch.randn(2, 4, 4)), boxes)
        pooled = pooled_masks([masks, masks], DEVICE)
        assert pooled.paste((8, 8), 0.5).device == DEVICE
        assert pooled.crop(1, (8, 8), 0.5).mask.device == DEVICE
        soft_nms(boxes, on_gpu(torch.tensor([0.9, 0.8])), SoftNMS())
    return gpu.makers


def test_every_line_that_makes_a_tensor_makes_it_on_the_gpu():
    makers = other_makers().union(*(device_run(family).makers for family in FAMILIES))
    on_the_host, untried = set(), []
    for file, function, lines in calls_of_makers():
        if any((file, line) in makers for line in lines):
            continue
        if f"{file}:{function}" in ON_THE_HOST:
            on_the_host.add(f"{file}:{function}")
        else:
            untried.append(f"{file}:{lines[0]} in {function}")
    assert untried == []
    assert on_the_host == ON_THE_HOST.keys()
