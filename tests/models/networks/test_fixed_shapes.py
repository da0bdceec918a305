"""The prediction of fixed shapes: equal to the one step by step, and never waiting for the host."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.build.predictor import load_predictor
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.fusion.on_device import pack
from seamless_pr.models.networks.ensemble import EnsembleNet, Member
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.models.networks.views import ViewedNet
from seamless_pr.ops.fixed_shapes import fixed_shapes
from seamless_pr.street_scenes.dataset import draw_street_scene
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.views import View, views_of
from tests.support.fake_gpu import DEVICE, fake_gpu, moved
from tests.support.fixed_path import check_fixed_path
from tests.support.golden import every_golden_case

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
CHECKPOINT = ROOT / "checkpoints/street_scenes_256x512.safetensors"
SMALL = "debug/street_scenes.yaml"
# The tables and the map, at the end.
READING = ["aten._to_copy.default ['cuda'] -> ['cpu']"]
# Only pixels between two classes or masks whose numbers are equal but for rounding.
TIED_PIXELS = 3

# That a GPU is asked to start for an image, views aside.
MOST_OPERATIONS = 1500

# For speed alone.
FEW = [
    *("model.instances.box.max_detections=30", "model.instances.points.output_size=56"),
    *("model.instances.rpn.pre_nms_test=400", "model.instances.rpn.post_nms_test=100"),
]
VARIANTS = {
    "as published": [],
    "levels on their own": [
        "model.instances.rpn.nms_per_level=true",
        "model.instances.rpn.drop_empty=true",
        "model.instances.rpn.post_nms_test=40",
    ],
    "detectron2": [
        "model.instances.roi.sampler=aligned",
        "model.fusion.mask_threshold_included=true",
    ],
    "mmdetection": [
        *("model.instances.roi.sampler=unaligned", "model.instances.rpn.whole_pixels=true"),
        *("model.instances.box.whole_pixels=true", "model.instances.mask.whole_pixels=true"),
    ],
    "few detections": ["model.instances.box.max_detections=7", "model.fusion.size=network"],
}


def network(config: str, overrides: list[str]) -> TwoBranchNet:
    loaded = load_config(CONFIGS / config, overrides)
    torch.manual_seed(0)
    net = build_network(loaded.model, load_label_space(loaded.data.label_space)).eval()
    assert isinstance(net, TwoBranchNet)
    return net


def undecided(net: TwoBranchNet) -> TwoBranchNet:
    """Random heads with opinions: objects of all classes, sizes and scores, and regions."""
    with torch.no_grad():
        branch = net.instances
        for layer, std in (
            *((branch.rpn_head.objectness, 0.05), (branch.rpn_head.box_deltas, 0.01)),
            *((branch.box_head.class_logits, 0.06), (branch.box_head.box_deltas, 0.1)),
            *((branch.masks.coarse_head.prediction, 0.05), (net.semantics.head.predictor, 0.5)),
        ):
            layer.weight.normal_(std=std)
    return net


def images(height: int = 96, width: int = 160) -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 12, 20, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return ImageBatch(
        (255 * pixels.clamp(0, 1)).byte(), ((height, width), (height - 9, width - 30))
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_map_is_that_of_painting_step_by_step(variant):
    net = undecided(network(SMALL, FEW + VARIANTS[variant]))
    sizes = [(96, 160), (120, 190)]
    expected = net.predict(images(), sizes)
    with fixed_shapes():
        predicted = net.predict_fixed(images(), sizes)
        assert all(bool(fused.settled) for fused in predicted.fusions)
        found = net.predict(images(), sizes)
    for ours, theirs in zip(found, expected, strict=True):
        moved_pixels = ours.panoptic.id_map != theirs.panoptic.id_map
        assert int(moved_pixels.sum()) <= TIED_PIXELS
        names = [(s.segment_id, s.train_id, s.is_crowd) for s in theirs.panoptic.segments]
        assert [(s.segment_id, s.train_id, s.is_crowd) for s in ours.panoptic.segments] == names
        best = theirs.instances.best_first()
        torch.testing.assert_close(ours.instances.scores, best.scores)
        torch.testing.assert_close(ours.instances.boxes, best.boxes)
        assert int((ours.semantic_map != theirs.semantic_map).sum()) <= TIED_PIXELS
    assert len(expected[0].panoptic.segments) > 4
    assert len(expected[0].instances) > 5


@pytest.mark.parametrize("index", [0, *(pytest.param(i, marks=every_golden_case) for i in (1, 2))])
def test_a_street_scene_is_that_of_painting_step_by_step(index):
    net = load_predictor(CHECKPOINT, "cpu").network
    scene = draw_street_scene(0, "val", index, (256, 512))
    batch = ImageBatch.from_images([torch.from_numpy(scene.image).permute(2, 0, 1)])
    ((expected, moved),) = check_fixed_path(net, batch, [(256, 512)])
    segments = expected.require_panoptic().segments
    assert sum(net.label_space.is_thing(s.train_id) and not s.is_crowd for s in segments) > 3
    assert moved <= TIED_PIXELS


@pytest.mark.parametrize("several", ["views", "networks"])
def test_views_and_ensembles_are_merged_to_the_same_maps(several):
    """Their boxes are merged step by step on every device, out of numbers of both ways."""
    net = undecided(network(SMALL, [*FEW, "model.instances.box.max_detections=10"]))
    if several == "views":
        whole = ViewedNet(net, views_of((1.0,), flip=True))
    else:
        whole = EnsembleNet([Member(net), Member(net, 0.9, View(flip=False, scale=0.75))])
    batch, sizes = ImageBatch.from_images([images().images[0]]), [(96, 160)]
    (expected,) = whole.predict(batch, sizes)
    with fixed_shapes():
        (found,) = whole.predict(batch, sizes)
    moved_pixels = found.panoptic.id_map != expected.panoptic.id_map
    assert int(moved_pixels.sum()) <= TIED_PIXELS
    names = [[(s.segment_id, s.train_id) for s in p.panoptic.segments] for p in (found, expected)]
    assert names[0] == names[1]
    torch.testing.assert_close(found.instances.scores, expected.instances.scores)
    assert sum(net.label_space.is_thing(s.train_id) for s in expected.panoptic.segments) > 2


def test_what_does_not_converge_is_computed_again_step_by_step(monkeypatch):
    net = undecided(network(SMALL, FEW))
    (expected, *_) = net.predict(images(), [(96, 160)] * 2)
    monkeypatch.setattr("seamless_pr.models.fusion.on_device.NUM_SWEEPS", 1)
    with fixed_shapes():
        assert None in net.predict_fixed(images(), [(96, 160)] * 2).read(net.label_space)
        (found, *_) = net.predict(images(), [(96, 160)] * 2)
    assert torch.equal(found.panoptic.id_map, expected.panoptic.id_map)


@pytest.mark.parametrize(
    "config, size",
    [
        (SMALL, (256, 512)),
        ("cityscapes/seamless_r50.yaml", (1024, 2048)),
        ("cityscapes/seamless_pointrend_r50.yaml", (1024, 2048)),
    ],
)
def test_a_gpu_gets_few_operations_and_is_read_once(config, size):
    """On a GPU without numbers: asking for one would be an error, and a copy would be seen."""
    net = network(config, ["model.backbone.weights="])
    with torch.no_grad(), fake_gpu() as watch:
        twin = moved(net)
        pixels = torch.empty(1, 3, *size, dtype=torch.uint8, device=DEVICE)
        batch = ImageBatch(pixels, (size,))
        watch.operations.clear()
        predicted = twin.predict_fixed(batch, [size])
        packed = pack(predicted.fusions)
        assert watch.copies == []
        assert packed.device.type == "cuda"
        packed.cpu()
    assert watch.copies == READING
    assert watch.operations.total() < MOST_OPERATIONS
