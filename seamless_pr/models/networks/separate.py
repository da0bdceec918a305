"""Two independent networks, one for objects and one for semantics: the baseline of Seamless."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from seamless_pr.models.networks.two_branch import BranchOutputs, PanopticNet
from seamless_pr.structures.detections import Detections
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.panoptic_target import PanopticTarget


class SeparateNets(nn.Module):
    """An instance and a semantic network that share nothing but the fusion of their results.

    Seamless Scene Segmentation, section 5, compares its joint network with this pair. `losses` and
    `predict` are those of `PanopticNet`. Each network gets gradients from its own losses only, so
    one run trains both as two runs would.

    Args:
        instance_net: a `PanopticNet` without semantic branch; its settings are used for the fusion.
        semantic_net: one without instance branch, for the same classes.
    """

    def __init__(self, instance_net: PanopticNet, semantic_net: PanopticNet) -> None:
        super().__init__()
        if instance_net.semantic_head is not None or semantic_net.rpn_head is not None:
            raise ValueError(
                "expected a network with the instance branch alone and one with the semantic "
                "branch alone; got one with both"
            )
        if instance_net.label_space != semantic_net.label_space:
            raise ValueError(
                f"both networks must have the same classes; got '{instance_net.label_space.name}' "
                f"and '{semantic_net.label_space.name}'"
            )
        self.instance_net = instance_net
        self.semantic_net = semantic_net

    @property
    def label_space(self) -> LabelSpace:
        return self.instance_net.label_space

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        losses = self.instance_net.losses(batch, targets, generators)
        return losses | self.semantic_net.losses(batch, targets, generators)

    @torch.no_grad()
    def predict(
        self, batch: ImageBatch, original_sizes: Sequence[tuple[int, int]]
    ) -> list[tuple[PanopticSegmentation, Detections]]:
        """Panoptic map and detections of each image, as `PanopticNet.predict`."""
        return self.fuse_batch(self.branches(batch), original_sizes)

    def branches(self, batch: ImageBatch) -> BranchOutputs:
        """Runs both networks up to the fusion."""
        batch = batch.padded_to(self.instance_net.size_divisor)
        detections = self.instance_net.detect(self.instance_net.features(batch), batch)
        levels = self.semantic_net.features(batch)
        logits = self.semantic_net.semantic_logits(levels, batch.padded_size)
        return BranchOutputs(batch, detections, logits)

    def fuse_batch(
        self, outputs: BranchOutputs, original_sizes: Sequence[tuple[int, int]]
    ) -> list[tuple[PanopticSegmentation, Detections]]:
        """The results of both networks, put together by the settings of the instance network."""
        return self.instance_net.fuse_batch(outputs, original_sizes)
