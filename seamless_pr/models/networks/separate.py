"""Two independent networks, one for objects and one for semantics: the baseline of Seamless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from seamless_pr.models.networks.two_branch import (
    BranchOutputs,
    FixedOutputs,
    FusedNetwork,
    TwoBranchNet,
)
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.views import ChangedBatch


class SeparateNets(FusedNetwork):
    """An instance and a semantic network that share nothing but the fusion of their results.

    Seamless Scene Segmentation, section 5, compares its joint network with this pair. Each network
    gets gradients from its own losses only, so one run trains both as two runs would.

    Args:
        instance_net: a network without semantic branch; its fusion is used.
        semantic_net: one without instance branch, for the same classes.

    Raises:
        ValueError: a network with both branches, or other classes.
    """

    def __init__(self, instance_net: TwoBranchNet, semantic_net: TwoBranchNet) -> None:
        super().__init__()
        if instance_net.semantics is not None or semantic_net.instances is not None:
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
        self.label_space = instance_net.label_space
        self.fusion = instance_net.fusion
        self.merged_things = semantic_net.merged_things
        self.loss_names = (*instance_net.loss_names, *semantic_net.loss_names)

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        losses = self.instance_net.losses(batch, targets, generators)
        return losses | self.semantic_net.losses(batch, targets, generators)

    def outputs(self, batch: ImageBatch) -> BranchOutputs:
        found = self.instance_net.outputs(batch)
        logits = self.semantic_net.outputs(batch).semantic_logits
        return BranchOutputs(found.batch, found.instances, logits)

    @property
    def has_fixed_shapes(self) -> bool:
        return self.instance_net.has_fixed_shapes

    def fixed_outputs(self, batch: ImageBatch) -> FixedOutputs:
        found = self.instance_net.fixed_outputs(batch)
        logits = self.semantic_net.fixed_outputs(batch).semantic_logits
        return replace(found, semantic_logits=logits)

    def outputs_of_views(self, views: Sequence[ChangedBatch], base: ImageBatch) -> BranchOutputs:
        found = self.instance_net.outputs_of_views(views, base)
        logits = self.semantic_net.outputs_of_views(views, base).semantic_logits
        return BranchOutputs(found.batch, found.instances, logits)
