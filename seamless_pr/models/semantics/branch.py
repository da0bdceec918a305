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
