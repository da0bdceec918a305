"""The semantic branch of Panoptic FPN: each level is upsampled step by step, and all are added.

Letters: N images, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import ConvNormAct
from seamless_pr.ops.resize import upsample_logits

_PREDICTOR_STD = 0.01


class SemanticFPNHead(nn.Module):
    """Class logits from pyramid levels (Panoptic Feature Pyramid Networks, section 3, figure 3).

    A level `n` doublings coarser than the finest one read passes max(1, n) blocks of 3x3
    convolution, norm and activation, each followed by bilinear doubling (none at n = 0); the sum
    of all levels goes through a 1x1 predictor with bias.

    `forward`: levels finest first, [N, in_channels, h_l, w_l], each half the size of the one before
    -> logits [N, K, h, w] at the size of the finest level read. `hidden` and `predictor` are its
    two halves.

    Args:
        hidden_channels: width of all blocks.
        first_level: index of the finest level read (0: p2, as published; 1: p3, PointRend's
            "P3-P5").
        num_levels: levels read, from `first_level` on.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        norm_act: NormActFactory,
        *,
        hidden_channels: int = 128,
        first_level: int = 0,
        num_levels: int = 4,
    ) -> None:
        super().__init__()
        self.first_level = first_level
        self.branches = nn.ModuleList()
        for doublings in range(num_levels):
            inputs = [in_channels, *[hidden_channels] * (max(1, doublings) - 1)]
            self.branches.append(
                nn.ModuleList(
                    ConvNormAct(channels, hidden_channels, 3, norm_act) for channels in inputs
                )
            )
        self.predictor = nn.Conv2d(hidden_channels, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=_PREDICTOR_STD)
        assert self.predictor.bias is not None
        nn.init.zeros_(self.predictor.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.predictor(self.hidden(features))
        return logits

    def hidden(self, features: Sequence[Tensor]) -> Tensor:
        """[N, hidden_channels, h, w] before the predictor."""
        levels = features[self.first_level : self.first_level + len(self.branches)]
        if len(levels) < len(self.branches):
            raise ValueError(
                f"expected at least {self.first_level + len(self.branches)} levels, finest first; "
                f"got {len(features)}"
            )
        summed: Tensor | None = None
        for doublings, (blocks, level) in enumerate(zip(self.branches, levels)):
            assert isinstance(blocks, nn.ModuleList)
            # To the exact size of the next finer level: odd sizes do not double evenly.
            finer_sizes = [finer.shape[-2:] for finer in reversed(levels[:doublings])]
            for index, block in enumerate(blocks):
                level = block(level)
                if doublings:
                    level = upsample_logits(level, finer_sizes[index])
            summed = level if summed is None else summed + level
        assert summed is not None
        return summed
