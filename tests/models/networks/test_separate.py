"""The pair of independent networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seamless_pr.build.networks import build_model, build_network
from seamless_pr.config.load import load_config
from seamless_pr.config.schema import loss_names
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.networks.separate import SeparateNets
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import FusionSettings
from tests.support.golden_network import ROOT
from tests.support.snapshots import tiny_seamless_config

SPACE = load_label_space("cityscapes")
CONFIG = replace(
    tiny_seamless_config().model,
    branches="separate",
    fusion=FusionSettings(stuff_area_fraction=0.0),
)


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
    assert set(losses) == set(loss_names(CONFIG))
    losses["semantic"].total.backward()
    assert all(p.grad is None for p in network.instance_net.parameters())
    assert any(p.grad is not None for p in network.semantic_net.parameters())


def test_results_are_those_of_either_network_fused():
    network = pair().eval()
    batch, _ = batch_with_target()
    sizes = [(64, 96)]
    ((segmentation, detections),) = network.predict(batch, sizes)
    ((_, alone),) = network.instance_net.predict(batch, sizes)
    torch.testing.assert_close(detections.boxes, alone.boxes)
    torch.testing.assert_close(detections.scores, alone.scores)
    ((semantics, _),) = network.semantic_net.predict(batch, sizes)
    classes = {segment.train_id for segment in semantics.segments}
    rest = {s.train_id for s in segmentation.segments if s.score == 1.0 or s.is_crowd}
    assert rest
    assert rest <= classes


def test_networks_with_both_branches_or_other_classes_are_refused():
    both = build_model(replace(CONFIG, branches="both"), SPACE)
    network = pair()
    with pytest.raises(ValueError, match="got one with both"):
        SeparateNets(both, network.semantic_net)
    idd = build_model(replace(CONFIG, branches="semantic"), load_label_space("idd"))
    with pytest.raises(ValueError, match="got 'cityscapes' and 'idd'"):
        SeparateNets(network.instance_net, idd)


def test_the_shipped_pair_has_the_parameters_of_the_paper():
    config = load_config(ROOT / "configs/cityscapes/separate_r50.yaml")
    with torch.device("meta"):
        network = build_network(config.model, SPACE)
    parameters = list(network.parameters())
    frozen = sum(p.numel() for p in parameters if not p.requires_grad) // 2
    assert sum(p.numel() for p in parameters) - frozen == 78_063_507
