"""The weights of SOLOv2: category and kernel towers on grids, and the mask feature.

Letters: N images, C pyramid channels, K classes, E channels of kernels and mask feature, S side of
a grid, H, W network input.
Source: SOLOv2 (NeurIPS 2020), sections 3.1, 3.2; details of the released code, as in mmdetection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import ConvNormAct
from seamless_pr.layers.deformable import DeformableConv2d

# The category predictor starts with this probability for every class, as RetinaNet's.
_PRIOR = 0.01
_STD = 0.01
NUM_TOWER_CONVS = 4


@dataclass(frozen=True)
class SoloOutput:
    """Predictions of a batch.

    Attributes:
        category_logits: [N, K, S, S] per level, finest first.
        kernels: [N, E, S, S] per level.
        mask_features: [N, E, H / 4, W / 4].
    """

    category_logits: tuple[Tensor, ...]
    kernels: tuple[Tensor, ...]
    mask_features: Tensor


class SoloHead(nn.Module):
    """Towers shared by all levels, and the mask feature of the four finest levels.

    Each level, after its two coordinate channels, is resized to its grid; the kernel tower sees the
    coordinates, the category tower does not. The finest level is halved and the coarsest resized to
    the one before, so that strides are 8, 8, 16, 32, 32.

    `forward`: five levels, finest first (stride 4), [N, C, h_l, w_l] each, -> `SoloOutput`.

    Args:
        in_channels: C.
        num_things: K.
        norm_act: of towers and mask feature, such as group norm of 32 groups.
        grid_sizes: S per level.
        hidden_channels: width of the towers.
        feature_channels: width of the mask feature before its last layer.
        kernel_channels: E.
        deformable: "none", "v1" or "v2", for all convolutions of towers and mask feature.
    """

    def __init__(
        self,
        in_channels: int,
        num_things: int,
        norm_act: NormActFactory,
        *,
        grid_sizes: Sequence[int] = (40, 36, 24, 16, 12),
        hidden_channels: int = 512,
        feature_channels: int = 128,
        kernel_channels: int = 256,
        deformable: str = "none",
    ) -> None:
        super().__init__()
        self.grid_sizes = tuple(grid_sizes)
        self.in_channels = in_channels
        self.num_things = num_things

        def tower(channels: int) -> nn.Sequential:
            inputs = [channels] + [hidden_channels] * (NUM_TOWER_CONVS - 1)
            return nn.Sequential(*(ConvNormAct(c, hidden_channels, 3, norm_act) for c in inputs))

        self.category_tower = tower(in_channels)
        self.kernel_tower = tower(in_channels + 2)
        self.category_logits = nn.Conv2d(hidden_channels, num_things, 3, padding=1)
        self.kernels = nn.Conv2d(hidden_channels, kernel_channels, 3, padding=1)
        self.mask_feature = SoloMaskFeature(
            in_channels, norm_act, feature_channels, kernel_channels
        )
        self.reset_parameters()
        if deformable != "none":
            for part in (self.category_tower, self.kernel_tower, self.mask_feature):
                _deform(part, deformable)

    def reset_parameters(self) -> None:
        """Small normal weights; every class starts improbable."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.category_logits.bias is not None
        nn.init.constant_(self.category_logits.bias, -math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, levels: Sequence[Tensor]) -> SoloOutput:
        if len(levels) != len(self.grid_sizes):
            raise ValueError(
                f"{len(self.grid_sizes)} grids need as many levels, finest first; "
                f"got {len(levels)}; let the pyramid make as many"
            )
        resized = _tower_inputs(levels)
        categories, kernels = [], []
        for level, side in zip(resized, self.grid_sizes):
            grid = _resized(with_coordinates(level), (side, side))
            kernels.append(self.kernels(self.kernel_tower(grid)))
            hidden = self.category_tower(grid[:, : self.in_channels])
            categories.append(self.category_logits(hidden))
        return SoloOutput(tuple(categories), tuple(kernels), self.mask_feature(levels))


class SoloMaskFeature(nn.Module):
    """One map at stride 4 out of the four finest levels.

    A level n doublings coarser passes max(1, n) blocks of convolution, norm and activation, each
    followed by bilinear doubling (none at n = 0); the coarsest sees coordinates, too. The sum goes
    through a last 1x1 block.

    `forward`: levels, finest first -> [N, kernel_channels, h_0, w_0].
    """

    def __init__(
        self,
        in_channels: int,
        norm_act: NormActFactory,
        hidden_channels: int,
        kernel_channels: int,
        num_levels: int = 4,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for doublings in range(num_levels):
            first = in_channels + 2 * (doublings == num_levels - 1)
            inputs = [first] + [hidden_channels] * (max(1, doublings) - 1)
            blocks = (ConvNormAct(c, hidden_channels, 3, norm_act) for c in inputs)
            self.levels.append(nn.ModuleList(blocks))
        self.prediction = ConvNormAct(hidden_channels, kernel_channels, 1, norm_act)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        summed: Tensor | None = None
        for doublings, (blocks, level) in enumerate(zip(self.levels, levels)):
            assert isinstance(blocks, nn.ModuleList)
            if doublings == len(self.levels) - 1:
                level = with_coordinates(level)
            for index, block in enumerate(blocks):
                level = block(level)
                if doublings:
                    # To the exact size of the next finer level: odd sizes do not double evenly.
                    finer = levels[doublings - 1 - index].shape[-2:]
                    level = _resized(level, (finer[0], finer[1]))
            summed = level if summed is None else summed + level
        result: Tensor = self.prediction(summed)
        return result


def _deform(part: nn.Module, kind: str) -> None:
    for block in part.modules():
        if isinstance(block, ConvNormAct):
            block.set_submodule("conv", DeformableConv2d.in_place_of(block.conv, kind))


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _tower_inputs(levels: Sequence[Tensor]) -> list[Tensor]:
    finest = F.interpolate(
        levels[0],
        scale_factor=0.5,
        mode="bilinear",
        align_corners=False,
        recompute_scale_factor=False,
    )
    before_last = levels[-2].shape[-2:]
    coarsest = _resized(levels[-1], (before_last[0], before_last[1]))
    return [finest, *levels[1:-1], coarsest]


def with_coordinates(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C + 2, H, W]: x, then y, of every cell, from -1 to 1 over the map."""
    num_images, _, height, width = x.shape
    columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype)
    rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)
    y, x_coordinate = torch.meshgrid(rows, columns, indexing="ij")
    coordinates = torch.stack([x_coordinate, y]).expand(num_images, -1, -1, -1)
    return torch.cat([x, coordinates], dim=1)
