"""The boundary of every semantic branch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget


class SemanticBranch(nn.Module):
    """Says the class of every pixel.

    Attributes:
        loss_names: the names that `losses` returns, always all of them.
        merged_things: the last output stands for all things together (Panoptic FPN).
    """

    loss_names: tuple[str, ...]
    merged_things: bool

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
    def logits(self, features: Features, padded_size: tuple[int, int]) -> Tensor:
        """[N, K, h, w] covering the padded image, of any resolution."""

    @abstractmethod
    def hidden(self, features: Features) -> Tensor:
        """[N, C, h, w] before classes are named, for an instance branch that reads it.

        Raises:
            ValueError: the branch has none to give.
        """


class HeadSemantics(SemanticBranch):
    """A branch around a head, whose first half may have run already.

    Attributes:
        head: levels, finest first -> logits [N, K, h, w].
    """

    head: nn.Module

    def hidden(self, features: Features) -> Tensor:
        if not hasattr(self.head, "hidden"):
            raise ValueError(
                f"a {type(self.head).__name__} has nothing that an instance branch could read; "
                "take mini_dl or panoptic_fpn, or leave out model.instances.shares_semantics"
            )
        hidden: Tensor = self.head.hidden(features.levels)  # type: ignore[operator]
        return hidden

    def coarse_logits(self, features: Features) -> Tensor:
        """[N, K, h, w] of the head."""
        logits: Tensor
        if features.semantic is None:
            logits = self.head(features.levels)
        else:
            logits = self.head.predictor(features.semantic)  # type: ignore[operator]
        return logits
