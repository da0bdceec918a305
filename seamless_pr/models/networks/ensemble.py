"""Several networks whose findings are pooled before they are fused.

Letters: N images, R objects of an image, K classes.
Source: technical report of team FineGrainedSeg, 3D AI Challenge 2020, and its published code: the
scores of each model are weighted, and soft-NMS runs over the boxes of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from seamless_pr.models.networks.network import Network
from seamless_pr.models.networks.two_branch import BranchOutputs, FusedNetwork
from seamless_pr.models.networks.views import ViewedNet, changed_batch
from seamless_pr.models.semantics.views import averaged_logits
from seamless_pr.ops.mask_nms import matrix_nms
from seamless_pr.ops.masks import mask_boxes, pooled_masks
from seamless_pr.ops.soft_nms import SoftNMS, class_soft_nms
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.views import ChangedBatch, View

# Of the winner's ensemble: IoU must exceed 0.5, and only boxes that overlap may be dropped.
WINNER_NMS = SoftNMS(method="linear", includes_threshold=False, tests_all=False)
MAX_DETECTIONS = 100
# Where no network has boxes: SOLOv2's own suppression.
_MASK_SIGMA = 2.0
_LEAST_MASK_SCORE = 0.05
# Input pixels per cell at which masks without boxes are compared.
_MASK_STRIDE = 4


@dataclass(frozen=True)
class Member:
    """A network of an ensemble.

    Attributes:
        network: of branches, as it is or over views.
        weight: its scores are multiplied by it.
        view: the size at which it sees images.
    """

    network: Network
    weight: float = 1.0
    view: View = field(default_factory=View)

    @property
    def fused(self) -> FusedNetwork:
        """The network of branches itself.

        Raises:
            ValueError: it is another kind of network.
        """
        inner = self.network.network if isinstance(self.network, ViewedNet) else self.network
        if not isinstance(inner, FusedNetwork):
            raise ValueError(
                f"an ensemble pools networks with an instance or a semantic branch; got a "
                f"{type(inner).__name__}: predict with it alone"
            )
        return inner


class EnsembleNet(Network):
    """Networks for the same classes, whose objects and class probabilities are pooled.

    Objects of all members, their scores times the member's weight, go through one soft-NMS by
    class, and keep their masks; where no member has boxes, through one matrix NMS. As published,
    boxes compete by their own scores, and factors of masks that were scored come in afterwards; not
    as published, every member is weighted, SOLOv2 too. Class probabilities of pixels are averaged.
    The first member's fusion makes the maps.

    Args:
        members: at least one.
        suppression: of boxes.
        max_detections: most objects of an image after it.

    Raises:
        ValueError: no member, one of another kind, or members that disagree about the classes.
    """

    loss_names = ()

    def __init__(
        self,
        members: Sequence[Member],
        *,
        suppression: SoftNMS = WINNER_NMS,
        max_detections: int = MAX_DETECTIONS,
    ) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one network; got none")
        self.members = tuple(members)
        self.networks = nn.ModuleList(member.network for member in members)
        first = members[0].fused
        self.label_space = first.label_space
        self.fusion = first.fusion
        for member in members[1:]:
            if member.fused.label_space.categories != self.label_space.categories:
                raise ValueError(
                    "all networks of an ensemble must have the same classes in the same order; got "
                    f"'{self.label_space.name}' and '{member.fused.label_space.name}'"
                )
            if member.fused.merged_things != first.merged_things:
                raise ValueError(
                    "the semantic outputs of an ensemble must all have the same classes; got some "
                    "with one output for all things and some with one for each class"
                )
        self.suppression = suppression
        self.max_detections = max_detections

    def losses(self, *arguments: Any) -> dict[str, LossSum]:
        raise ValueError("an ensemble is for prediction; train its networks by themselves")

    def outputs(self, batch: ImageBatch) -> BranchOutputs:
        seen = [changed_batch(batch, member.view).batch for member in self.members]
        found: list[BranchOutputs] = [
            member.network.outputs(images) for member, images in zip(self.members, seen)
        ]
        instances = [
            self._in_base(outputs, member.weight, batch)
            for member, outputs in zip(self.members, found)
            if outputs.instances is not None
        ]
        pooled = None
        if instances:
            pooled = [
                self.pooled(of_image, size)
                for of_image, size in zip(zip(*instances), batch.image_sizes)
            ]
        of_members, theirs = [], []
        for outputs in found:
            if outputs.semantic_logits is not None:
                of_members.append(outputs.semantic_logits)
                theirs.append(ChangedBatch(outputs.batch, flip=False))
        logits = averaged_logits(of_members, theirs, batch) if of_members else None
        return BranchOutputs(batch, pooled, logits)

    def _in_base(self, outputs: BranchOutputs, weight: float, base: ImageBatch) -> list[Instances]:
        """The objects of a member in pixels of the batch as it was, with weighted scores."""
        result = []
        assert outputs.instances is not None
        sizes = zip(outputs.batch.image_sizes, base.image_sizes)
        for found, (theirs, ours) in zip(outputs.instances, sizes):
            scaled = found.scaled(ours[1] / theirs[1], ours[0] / theirs[0])
            of_boxes = scaled.box_scores
            result.append(
                replace(
                    scaled,
                    scores=scaled.scores * weight,
                    box_scores=None if of_boxes is None else of_boxes * weight,
                )
            )
        return result

    def pooled(self, found: Sequence[Instances], image_size: tuple[int, int]) -> Instances:
        """One image's objects of all members after suppression, by descending score.

        Args:
            found: of each member, with masks, in pixels of the image.
            image_size: (height, width) of the image.
        """
        scores = torch.cat([instances.scores for instances in found])
        things = torch.cat([instances.thing_indices for instances in found])
        masks = pooled_masks([instances.require_masks() for instances in found], scores.device)
        limit = self.fusion.settings.mask_threshold
        if all(instances.boxes is None for instances in found):
            grid = tuple(-(-side // _MASK_STRIDE) for side in image_size)
            kept, new_scores = matrix_nms(
                _whole_masks(Instances(scores, things, None, masks), (grid[0], grid[1]), limit),
                scores,
                things,
                sigma=_MASK_SIGMA,
                min_score=_LEAST_MASK_SCORE,
                max_kept=self.max_detections,
            )
            return Instances(new_scores, things[kept], None, masks.select(kept))
        boxes = torch.cat(
            [
                mask_boxes(_whole_masks(instances, image_size, limit))
                if instances.boxes is None
                else instances.boxes
                for instances in found
            ]
        )
        of_boxes, of_masks = zip(*(instances.split_scores() for instances in found))
        kept, lowered = class_soft_nms(
            boxes, torch.cat(of_boxes), things, self.suppression, self.max_detections
        )
        new_scores = lowered * torch.cat(of_masks)[kept]
        pooled = Instances(new_scores, things[kept], boxes[kept], masks.select(kept), lowered)
        return pooled.best_first()

    def finish(self, outputs: BranchOutputs, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        return self.members[0].fused.finish(outputs, sizes)


def _whole_masks(instances: Instances, size: tuple[int, int], threshold: float) -> Tensor:
    """[R, *size] bool: the masks over the whole image."""
    masks = instances.require_masks()
    result = instances.scores.new_zeros(len(instances), *size, dtype=torch.bool)
    for index, row in enumerate(result):
        crop = masks.crop(index, size, threshold)
        row[crop.window] = crop.mask
    return result
