"""Networks of one trunk with an instance branch, a semantic branch, or both, and their fusion."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seamless_pr.models.fusion.by_score import FrameSizes, ScoreFusion
from seamless_pr.models.fusion.on_device import FixedFusion, read
from seamless_pr.models.instances.branch import FixedDetections, InstanceBranch
from seamless_pr.models.networks.network import Network
from seamless_pr.models.networks.trunk import Trunk
from seamless_pr.models.semantics.branch import SemanticBranch
from seamless_pr.models.semantics.views import averaged_logits
from seamless_pr.ops.fixed_shapes import needs_fixed_shapes
from seamless_pr.ops.resize import upsample_logits
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import LabelSpace
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


@dataclass(frozen=True)
class FixedOutputs:
    """The same in shapes that depend on no number; the host has read nothing.

    Attributes:
        batch, semantic_logits: as in `BranchOutputs`.
        detections: None without instance branch.
    """

    batch: ImageBatch
    detections: FixedDetections | None
    semantic_logits: Tensor | None


@dataclass(frozen=True)
class FixedPredictions:
    """Predictions of a batch that the host has not read.

    Attributes:
        fusions: panoptic maps.
        others: everything else, with all rows of instances.
    """

    fusions: tuple[FixedFusion, ...]
    others: tuple[Prediction, ...]

    def read(self, label_space: LabelSpace) -> list[Prediction | None]:
        """The predictions, in one transfer of what is panoptic; None: a chain was cut short.

        Semantic maps and instances stay on their device.
        """
        found: list[Prediction | None] = []
        for result, other in zip(read(self.fusions, label_space), self.others, strict=True):
            instances = other.instances
            if instances is not None:
                rows = torch.arange(result.count, device=instances.scores.device)
                instances = instances.select(rows)
            whole = Prediction(result.segmentation, other.semantic_map, instances)
            found.append(None if result.segmentation is None else whole)
        return found


class FusedNetwork(Network):
    """A network of branches whose outputs `ScoreFusion` merges.

    Attributes:
        fusion: puts the branches' outputs together; knows the classes.
        merged_things: the last semantic output stands for all things together.
    """

    fusion: ScoreFusion
    merged_things: bool

    @property
    @abstractmethod
    def has_fixed_shapes(self) -> bool:
        """Whether `fixed_outputs` and `predict_fixed` are there."""

    @abstractmethod
    def outputs(self, batch: ImageBatch) -> BranchOutputs: ...

    @abstractmethod
    def fixed_outputs(self, batch: ImageBatch) -> FixedOutputs:
        """`outputs` in shapes that depend on no number, so that nothing waits for the host."""

    @abstractmethod
    def outputs_of_views(self, views: Sequence[ChangedBatch], base: ImageBatch) -> BranchOutputs:
        """See `Network`: in pixels of the padded base batch; semantic probabilities are averaged,
        instances merged as `InstanceBranch.detect_views` says."""

    def predict(self, batch: ImageBatch, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """As `Network.predict`; on GPUs in fixed shapes, where the network has them.

        Where a chain of suppressions was longer than the fixed number of steps, the batch is
        computed again, step by step.
        """
        if not (needs_fixed_shapes(batch.images) and self.has_fixed_shapes):
            return super().predict(batch, sizes)
        found = self.predict_fixed(batch, sizes).read(self.label_space)
        if None in found:
            return super().predict(batch, sizes)
        return [prediction for prediction in found if prediction is not None]

    @torch.no_grad()
    def predict_fixed(
        self, batch: ImageBatch, sizes: Sequence[tuple[int, int]]
    ) -> FixedPredictions:
        """The whole prediction in shapes that depend on no number; nothing waits for the host."""
        return self.finish_fixed(self.fixed_outputs(batch), sizes)

    def finish(self, outputs: BranchOutputs, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        if needs_fixed_shapes(outputs.batch.images):
            return self._finish_on_device(outputs, sizes)
        return [
            self._fuse(outputs, index, frame)
            for index, frame in enumerate(_frames(outputs.batch, sizes))
        ]

    def dense_scores(
        self, outputs: BranchOutputs, index: int, original: tuple[int, int]
    ) -> Tensor | None:
        if outputs.semantic_logits is None:
            return None
        logits = upsample_logits(
            outputs.semantic_logits[index][None].float(), outputs.batch.padded_size
        )
        height, width = outputs.batch.image_sizes[index]
        valid = logits[..., :height, :width]
        return (valid if (height, width) == original else upsample_logits(valid, original))[0]

    def _fuse(self, outputs: BranchOutputs, index: int, frame: FrameSizes) -> Prediction:
        logits = None if outputs.semantic_logits is None else outputs.semantic_logits[index]
        instances = None if outputs.instances is None else outputs.instances[index]
        return self.fusion(logits, instances, frame, merged_things=self.merged_things)

    def _finish_on_device(
        self, outputs: BranchOutputs, sizes: Sequence[tuple[int, int]]
    ) -> list[Prediction]:
        detections = None
        if outputs.instances is not None:
            ranked = [instances.best_first() for instances in outputs.instances]
            detections = FixedDetections(ranked)
        fixed = FixedOutputs(outputs.batch, detections, outputs.semantic_logits)
        found = self.finish_fixed(fixed, sizes).read(self.label_space)
        return [
            prediction or self._fuse(outputs, index, frame)
            for index, (prediction, frame) in enumerate(
                zip(found, _frames(outputs.batch, sizes), strict=True)
            )
        ]

    def finish_fixed(
        self, outputs: FixedOutputs, sizes: Sequence[tuple[int, int]]
    ) -> FixedPredictions:
        """The fusion of each image; nothing is read.

        Args:
            outputs: of `fixed_outputs`.
            sizes: (height, width) of each image file.
        """
        detections, logits = outputs.detections, outputs.semantic_logits
        fusions, others = [], []
        for index, frame in enumerate(_frames(outputs.batch, sizes)):
            instances = count = None
            if detections is not None:
                instances = detections.instances[index]
                count = None if detections.counts is None else detections.counts[index]
            fused, other = self.fusion.fixed(
                None if logits is None else logits[index],
                instances,
                count,
                frame,
                merged_things=self.merged_things,
            )
            if detections is not None and detections.converged is not None:
                fused = replace(fused, settled=fused.settled & detections.converged[index])
            fusions.append(fused)
            others.append(other)
        return FixedPredictions(tuple(fusions), tuple(others))


def _frames(batch: ImageBatch, sizes: Sequence[tuple[int, int]]) -> list[FrameSizes]:
    return [
        FrameSizes(batch.padded_size, image_size, (height, width))
        for image_size, (height, width) in zip(batch.image_sizes, sizes, strict=True)
    ]


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

    @property
    def has_fixed_shapes(self) -> bool:
        return self.instances is None or self.instances.has_fixed_shapes

    def fixed_outputs(self, batch: ImageBatch) -> FixedOutputs:
        batch = batch.padded_to(self.size_divisor)
        features = self.features(batch)
        detections = logits = None
        if self.instances is not None:
            detections = self.instances.detect_fixed(features, batch)
        if self.semantics is not None:
            logits = self.semantics.logits(features, batch.padded_size)
        return FixedOutputs(batch, detections, logits)

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
