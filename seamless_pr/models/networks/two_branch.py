"""Networks of one trunk with an instance branch, a semantic branch, or both, and their fusion."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seamless_pr.models.fusion.by_score import FrameSizes, ScoreFusion
from seamless_pr.models.instances.branch import InstanceBranch
from seamless_pr.models.networks.network import Network
from seamless_pr.models.networks.trunk import Trunk
from seamless_pr.models.semantics.branch import SemanticBranch
from seamless_pr.models.semantics.views import averaged_logits
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.views import ChangedBatch, SeenView


@dataclass(frozen=True)
class BranchOutputs:
    """What the branches say about a batch, before they are fused.

    Attributes:
        batch: the network input, padded as the network wants it.
        instances: of each image, with masks, in pixels of the network input; None without
            instance branch.
        semantic_logits: [N, K, h, w] covering the padded images; None without semantic branch.
    """

    batch: ImageBatch
    instances: list[Instances] | None
    semantic_logits: Tensor | None


class FusedNetwork(Network):
    """A network of branches whose outputs `ScoreFusion` merges.

    Attributes:
        fusion: puts the branches' outputs together; knows the classes.
        merged_things: the last semantic output stands for all things together.
    """

    fusion: ScoreFusion
    merged_things: bool

    @abstractmethod
    def outputs(self, batch: ImageBatch) -> BranchOutputs: ...

    @abstractmethod
    def outputs_of_views(self, views: Sequence[ChangedBatch], base: ImageBatch) -> BranchOutputs:
        """See `Network`: in pixels of the padded base batch; semantic probabilities are averaged,
        instances merged as `InstanceBranch.detect_views` says."""

    def finish(self, outputs: BranchOutputs, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        batch = outputs.batch
        predictions = []
        per_image = zip(batch.image_sizes, sizes, strict=True)
        for index, (image_size, (height, width)) in enumerate(per_image):
            logits = None if outputs.semantic_logits is None else outputs.semantic_logits[index]
            instances = None if outputs.instances is None else outputs.instances[index]
            frame = FrameSizes(batch.padded_size, image_size, (height, width))
            predictions.append(
                self.fusion(logits, instances, frame, merged_things=self.merged_things)
            )
        return predictions


class TwoBranchNet(FusedNetwork):
    """Seamless Scene Segmentation and its relatives: a shared trunk, two branches, one fusion.

    What a missing branch would give is void.

    Args:
        trunk: pixels -> features.
        instances: finds objects; None: a network for semantics.
        semantics: says the class of every pixel; None: a network for instances.
        fusion: puts both together; knows the classes.
        size_divisor: batches are padded further, to multiples of this height and width.

    Raises:
        ValueError: no branch at all.
    """

    def __init__(
        self,
        trunk: Trunk,
        instances: InstanceBranch | None,
        semantics: SemanticBranch | None,
        fusion: ScoreFusion,
        *,
        size_divisor: int = 1,
    ) -> None:
        super().__init__()
        if instances is None and semantics is None:
            raise ValueError("a network needs an instance or a semantic branch; got neither")
        if instances is not None and instances.reads_semantics and semantics is None:
            raise ValueError(
                "the instance branch reads what the semantic branch sees, but there is none; give "
                "one, or leave out model.instances.shares_semantics"
            )
        self.trunk = trunk
        self.instances = instances
        self.semantics = semantics
        self.fusion = fusion
        self.size_divisor = size_divisor
        self.label_space = fusion.label_space
        self.merged_things = semantics is not None and semantics.merged_things
        self.loss_names = tuple(name for branch in self.branches for name in branch.loss_names)

    @property
    def branches(self) -> tuple[InstanceBranch | SemanticBranch, ...]:
        """The branches that there are, instances first."""
        return tuple(branch for branch in (self.instances, self.semantics) if branch is not None)

    def features(self, batch: ImageBatch) -> Features:
        """What the branches read of a padded batch."""
        features: Features = self.trunk(batch)
        if self.instances is not None and self.instances.reads_semantics:
            assert self.semantics is not None
            features = replace(features, semantic=self.semantics.hidden(features))
        return features

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        batch = batch.padded_to(self.size_divisor)
        features = self.features(batch)
        losses: dict[str, LossSum] = {}
        for branch in self.branches:
            losses |= branch.losses(features, batch, targets, generators)
        return losses

    def outputs(self, batch: ImageBatch) -> BranchOutputs:
        batch = batch.padded_to(self.size_divisor)
        features = self.features(batch)
        instances = None if self.instances is None else self.instances.detect(features, batch)
        logits = None
        if self.semantics is not None:
            logits = self.semantics.logits(features, batch.padded_size)
        return BranchOutputs(batch, instances, logits)

    def outputs_of_views(self, views: Sequence[ChangedBatch], base: ImageBatch) -> BranchOutputs:
        base = base.padded_to(self.size_divisor)
        seen = [self._see(view) for view in views]
        instances = None if self.instances is None else self.instances.detect_views(seen, base)
        logits = None
        if self.semantics is not None:
            of_views = [self.semantics.logits(v.features, v.batch.padded_size) for v in seen]
            logits = averaged_logits(of_views, seen, base)
        return BranchOutputs(base, instances, logits)

    def _see(self, view: ChangedBatch) -> SeenView:
        batch = view.batch.padded_to(self.size_divisor)
        return SeenView(batch, view.flip, self.features(batch))
