"""Balanced feature pyramid: all levels are averaged, refined together and given back.

Letters: N images, C channels.
Source: Libra R-CNN (CVPR 2019), section 3.2; details of the released code, as in mmdetection.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BalancedPyramid(nn.Module):
    """A pyramid whose levels also see what all of them saw.

    Levels are brought to the size of one of them (finer ones by adaptive max pooling, coarser ones
    by nearest upsampling) and averaged; what `refine` makes of the mean is brought back to each
    level's size the same way, and added.

    `forward`: stages -> levels as `pyramid` gives them, each [N, C, h_l, w_l].

    Args:
        pyramid: stages -> levels, finest first; has `out_channels`.
        refine: [N, C, h, w] -> the same shape; such as one or more non-local blocks.
        level: index of the level whose size is taken.
    """

    def __init__(self, pyramid: nn.Module, refine: nn.Module, level: int = 2) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.refine = refine
        self.level = level
        self.out_channels: int = pyramid.out_channels  # type: ignore[assignment]

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return balanced(self.pyramid(stages), self.refine, self.level)


def balanced(levels: Sequence[Tensor], refine: nn.Module, level: int) -> tuple[Tensor, ...]:
    """Levels plus the refined mean of all, see `BalancedPyramid`.

    Raises:
        ValueError: there is no such level.
    """
    if not 0 <= level < len(levels):
        raise ValueError(
            f"the level of a balanced pyramid must be in 0..{len(levels) - 1}; got {level}"
        )
    size = levels[level].shape[-2:]
    gathered = [
        F.adaptive_max_pool2d(features, (size[0], size[1]))
        if index < level
        else F.interpolate(features, size=size, mode="nearest")
        for index, features in enumerate(levels)
    ]
    mean = torch.stack(gathered).mean(0)
    refined = refine(mean)
    result = []
    for index, features in enumerate(levels):
        own_size = features.shape[-2:]
        if index < level:
            shared = F.interpolate(refined, size=own_size, mode="nearest")
        else:
            shared = F.adaptive_max_pool2d(refined, (own_size[0], own_size[1]))
        result.append(features + shared)
    return tuple(result)
