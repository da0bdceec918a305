"""The golden networks of mmdetection with their seeded weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory, make_norm_act
from seamless_pr.models.backbones.stage_extras import StageExtras
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.models.instances.branch import InstanceBranch
from seamless_pr.models.instances.solo_head import SoloHead
from seamless_pr.models.instances.solo_targets import SoloSettings
from seamless_pr.models.instances.solov2 import SoloV2
from seamless_pr.models.necks.fpn import FPN
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.weights.mmdetection import our_name
from tests.support.golden import load_golden
from tests.support.mmdet_recipe import normalized, recipe_image, recipe_tensors

NUM_THINGS = 34
FIXED = make_norm_act("fixed_batch_norm", slope=0.0)
BIAS = make_norm_act("bias", slope=0.0)
GROUPS = make_norm_act("group_norm", slope=0.0, num_groups=32)
X101_DCN2_GC = ("resnext101_64x4d", StageExtras("v2", context_ratio=1 / 16))


class GoldenNetwork(nn.Module):
    """Trunk and instance branch, named as in a two-branch network."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, instances: InstanceBranch) -> None:
        super().__init__()
        self.trunk = nn.ModuleDict({"backbone": backbone, "neck": neck})
        self.instances = instances

    def features(self, batch: ImageBatch) -> Features:
        images = [
            normalized(image[:, :height, :width], batch.padded_size)
            for image, (height, width) in zip(batch.images, batch.image_sizes)
        ]
        levels = self.trunk["neck"](self.trunk["backbone"](torch.cat(images)))
        return Features(tuple(levels), (4, 8, 16, 32, 64))


def load(network: GoldenNetwork, name: str, seed: int) -> None:
    """Gives the network (on the meta device) the weights of a golden one; all keys must fit."""
    weights = {}
    for key, tensor in recipe_tensors(name, seed).items():
        if not key.endswith("num_batches_tracked"):
            ours = our_name(key)
            assert ours is not None, key
            weights[ours] = tensor
    network.load_state_dict(weights, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_()
    network.eval()


def make_fpn(backbone: TimmBackbone, norm_act: NormActFactory = BIAS) -> FPN:
    return FPN(backbone.out_channels, 256, norm_act, activation="identity", extra="pool")


@dataclass(frozen=True)
class SoloCase:
    """A golden file and the network behind it."""

    file: str
    network: str
    timm_name: str = "resnet50"
    extras: StageExtras | None = None
    deformable: str = "none"

    @property
    def golden(self) -> dict[str, Tensor]:
        return load_golden(f"mmdet/{self.file}")

    def build(self, **settings: Any) -> GoldenNetwork:
        """The network with the file's seed; weights are made once."""
        network = solo_network(self)
        network.instances.settings = SoloSettings(**settings)
        return network

    def batch(self) -> ImageBatch:
        height, width = self.golden["image_hw"].tolist()
        image = recipe_image(height, width, int(self.golden["seed"]))
        return ImageBatch.from_images([image]).padded_to(32)


@cache
def solo_network(case: SoloCase) -> GoldenNetwork:
    with torch.device("meta"):
        backbone = TimmBackbone(case.timm_name, FIXED, extras=case.extras)
        head = SoloHead(256, NUM_THINGS, GROUPS, deformable=case.deformable)
        network = GoldenNetwork(backbone, make_fpn(backbone), SoloV2(head, SoloSettings()))
    load(network, case.network, int(case.golden["seed"]))
    backbone.freeze(2)
    return network
