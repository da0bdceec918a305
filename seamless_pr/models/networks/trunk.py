"""The trunk that branches share: pixels to features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from seamless_pr.models.networks.network import PixelNormalization
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch


class Trunk(nn.Module):
    """Normalisation, backbone and neck.

    forward: padded batch -> features, channels innermost in memory, as boxes and points read them.

    Args:
        normalization: raw pixels -> [N, 3, H, W].
        backbone: images -> stage maps C2..C5, finest first.
        neck: stage maps -> levels P2, P3, ...; `nn.Identity`: branches read the stage maps.
        strides: input pixels per cell of each level.
    """

    def __init__(
        self,
        normalization: PixelNormalization,
        backbone: nn.Module,
        neck: nn.Module,
        strides: Sequence[int],
    ) -> None:
        super().__init__()
        self.normalization = normalization
        self.backbone = backbone
        self.neck = neck
        self.strides = tuple(strides)

    def forward(self, batch: ImageBatch) -> Features:
        features = self.features(self.backbone(self.normalization(batch)))
        return replace(features, images=batch.images)

    def features(self, stages: Sequence[Tensor]) -> Features:
        """The features out of the stage maps of the backbone."""
        levels = [
            level.contiguous(memory_format=torch.channels_last) for level in self.neck(stages)
        ]
        return Features(tuple(levels), self.strides)
