"""The boundary of every instance branch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.views import SeenView


@dataclass(frozen=True)
class FixedDetections:
    """Objects of a batch in rows whose number the settings fix; the host has read none of them.

    Attributes:
        instances: one record per image, all of the same length, best first.
        counts: [N] int64: so many rows from the first on are objects; what the others hold means
            nothing. None: all rows are objects.
        converged: [N] bool: no suppression was cut short; else the rows are not to be used. None:
            none could be.
    """

    instances: Sequence[Instances]
    counts: Tensor | None = None
    converged: Tensor | None = None

    @torch.no_grad()
    def rescored(self, instances: Sequence[Instances]) -> FixedDetections:
        """The same rows with other scores, best first; what is no object stays behind."""
        ranked = []
        for index, found in enumerate(instances):
            scores = found.scores
            if self.counts is not None:
                rows = torch.arange(len(scores), device=scores.device)
                scores = torch.where(rows < self.counts[index], scores, -1.0)
            order = scores.argsort(descending=True, stable=True)
            ranked.append(replace(found, scores=scores).select(order))
        return replace(self, instances=ranked)


class InstanceBranch(nn.Module):
    """Finds objects with masks in the features of a batch.

    Attributes:
        loss_names: the names that `losses` returns, always all of them.
        reads_semantics: it wants `Features.semantic`.
        has_fixed_shapes: `detect_fixed` is there.
    """

    loss_names: tuple[str, ...]
    reads_semantics = False
    has_fixed_shapes = False

    @abstractmethod
    def losses(
        self,
        features: Features,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        """Losses of a padded batch as sums and counts; see `Network.losses`."""

    @abstractmethod
    def detect(
        self,
        features: Features,
        batch: ImageBatch,
        proposals: Sequence[Tensor] | None = None,
    ) -> list[Instances]:
        """Objects of each image, with masks.

        Args:
            features: of the batch.
            batch: padded as the network wants it.
            proposals: [R, 4] xyxy per image, in pixels of the network input, in place of the
                branch's own; a branch without proposals leaves them aside.

        Returns:
            One record per image; boxes and masks in pixels of the network input.
        """

    def detect_fixed(self, features: Features, batch: ImageBatch) -> FixedDetections:
        """`detect` in shapes that depend on no number, so that nothing waits for the host.

        Raises:
            NotImplementedError: the branch has no such way.
        """
        raise NotImplementedError(f"{type(self).__name__} has no detection of fixed shapes")

    @abstractmethod
    def add_masks(
        self, features: Features, batch: ImageBatch, instances: Sequence[Instances]
    ) -> list[Instances]:
        """Masks for given objects, whose boxes are in pixels of the network input.

        A branch whose masks come with its objects returns them as they are.
        """

    def detect_views(self, views: Sequence[SeenView], base: ImageBatch) -> list[Instances]:
        """Objects of each image, with masks, by what several views of it say together.

        Args:
            views: of the batch; at least one.
            base: the batch as it was, padded as the network wants it.

        Returns:
            One record per image; boxes and masks in pixels of the base batch.

        Raises:
            ValueError: the branch cannot merge views.
        """
        raise ValueError(f"{type(self).__name__} cannot merge views; predict without them")
