"""The pair of independent networks."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.config.networks import SeparateSettings, TwoBranchSettings
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.fusion.on_device import pack
from seamless_pr.models.networks.separate import SeparateNets
from seamless_pr.ops.fixed_shapes import fixed_shapes
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import FusionSettings
from tests.support.fake_gpu import DEVICE, fake_gpu, moved
from tests.support.golden_network import ROOT
from tests.support.snapshots import SEAMLESS_LOSSES, tiny_seamless_config

SPACE = load_label_space("cityscapes")
JOINT = replace(tiny_seamless_config().model, fusion=FusionSettings(stuff_area_fraction=0.0))
PARTS = {field.name: getattr(JOINT, field.name) for field in fields(TwoBranchSettings)}
CONFIG = SeparateSettings(**PARTS | {"kind": "separate"})


def pair(seed: int = 0) -> SeparateNets:
    torch.manual_seed(seed)
    network = build_network(CONFIG, SPACE)
    assert isinstance(network, SeparateNets)
    return network


def batch_with_target() -> tuple[ImageBatch, PanopticTarget]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8)
    id_map = torch.ones(64, 96, dtype=torch.int32)
    id_map[10:50, 20:70] = 2
    train_ids = torch.tensor([0, SPACE.num_stuff])
    target = PanopticTarget(id_map, train_ids, torch.zeros(2, dtype=torch.bool), SPACE, "drawn")
    return ImageBatch.from_images([image]), target


def test_each_network_learns_from_its_own_losses_only():
    network = pair().train()
    batch, target = batch_with_target()
    losses = network.losses(batch, [target], [torch.Generator().manual_seed(0)])
    assert set(losses) == set(network.loss_names) == set(SEAMLESS_LOSSES)
    losses["semantic"].total.backward()
    assert all(p.grad is None for p in network.instance_net.parameters())
    assert any(p.grad is not None for p in network.semantic_net.parameters())


def test_results_are_those_of_either_network_fused():
    network = pair().eval()
    batch, _ = batch_with_target()
    sizes = [(64, 96)]
    (both,) = network.predict(batch, sizes)
    (alone,) = network.instance_net.predict(batch, sizes)
    assert both.instances is not None
    assert alone.instances is not None
    torch.testing.assert_close(both.instances.boxes, alone.instances.boxes)
    torch.testing.assert_close(both.instances.scores, alone.instances.scores)
    (semantics,) = network.semantic_net.predict(batch, sizes)
    assert semantics.instances is None
    classes = {segment.train_id for segment in semantics.require_panoptic().segments}
    segments = both.require_panoptic().segments
    rest = {s.train_id for s in segments if s.score == 1.0 or s.is_crowd}
    assert rest
    assert rest <= classes


def test_the_prediction_of_fixed_shapes_is_the_one_step_by_step():
    network = pair().eval()
    with torch.no_grad():
        # Random heads with opinions, so that there are objects.
        branch = network.instance_net.instances
        branch.rpn_head.objectness.weight.normal_(std=0.05)
        branch.box_head.class_logits.weight.normal_(std=0.3)
        network.semantic_net.semantics.head.predictor.weight.normal_(std=0.5)
    batch, _ = batch_with_target()
    (expected,) = network.predict(batch, [(64, 96)])
    with fixed_shapes():
        fixed = network.predict_fixed(batch, [(64, 96)])
        (found,) = network.predict(batch, [(64, 96)])
    assert bool(fixed.fusions[0].settled)
    assert torch.equal(found.require_panoptic().id_map, expected.require_panoptic().id_map)
    names = [
        [(s.train_id, s.area) for s in p.require_panoptic().segments] for p in (found, expected)
    ]
    assert names[0] == names[1]
    things = [SPACE.is_thing(s.train_id) for s in expected.require_panoptic().segments]
    assert True in things[:-1]
    assert False in things


def test_a_gpu_is_read_once_for_both_networks():
    network = pair().eval()
    with torch.no_grad(), fake_gpu() as watch:
        twin = moved(network)
        pixels = torch.empty(1, 3, 64, 96, dtype=torch.uint8, device=DEVICE)
        predicted = twin.predict_fixed(ImageBatch(pixels, ((64, 96),)), [(64, 96)])
        pack(predicted.fusions).cpu()
    assert watch.copies == ["aten._to_copy.default ['cuda'] -> ['cpu']"]


def test_networks_with_both_branches_or_other_classes_are_refused():
    both = build_network(JOINT, SPACE)
    network = pair()
    with pytest.raises(ValueError, match="got one with both"):
        SeparateNets(both, network.semantic_net)
    idd = build_network(replace(JOINT, instances=None), load_label_space("idd"))
    with pytest.raises(ValueError, match="got 'cityscapes' and 'idd'"):
        SeparateNets(network.instance_net, idd)


def test_the_shipped_pair_has_the_parameters_of_the_paper():
    config = load_config(ROOT / "configs/cityscapes/separate_r50.yaml")
    with torch.device("meta"):
        network = build_network(config.model, SPACE)
    parameters = list(network.parameters())
    frozen = sum(p.numel() for p in parameters if not p.requires_grad) // 2
    assert sum(p.numel() for p in parameters) - frozen == 78_063_507
