"""Swin Transformer as MaskFormer uses it.

Letters: N images, C channels, H, W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.recomputation import recomputed
from seamless_pr.layers.window_attention import (
    INIT_STD,
    SwinBlock,
    pad_to_multiple,
    shift_bias,
)

PATCH_SIZE = 4
MLP_RATIO = 4.0
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class SwinShape:
    """Numbers of one Swin Transformer.

    Attributes:
        channels: of the first stage; every further one has twice as many.
        depths: blocks of each stage.
        num_heads: of each stage.
        window_size: cells along a window's side.
    """

    channels: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int


# The published networks; the two large ones were trained on windows of 12 cells (384 pixels).
SWIN_SHAPES = {
    "swin_tiny": SwinShape(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "swin_small": SwinShape(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "swin_base": SwinShape(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "swin_large": SwinShape(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}


class SwinTransformer(nn.Module):
    """Stages at strides 4, 8, 16, 32, each through a layer norm of its own.

    Differs from the Swin of timm and torchvision: images of any size are padded, windows are
    shifted also where the map is a single one (c5 of images up to 224 pixels at 7 cells), and the
    outputs are normed. No position is absolute. Weights have the names of the authors' release.

    `forward`: [N, 3, H, W] normalised images -> c2, c3, c4, c5: [N, C_l, ceil(H / s), ceil(W / s)]
    for s in `strides`, C_l in `out_channels`.

    Args:
        shape: numbers of the network.
        drop_path: share of images that skip a step of the last block in training; it rises from 0
            linearly over the blocks.
        checkpointing: in training only what blocks pass on is kept; the rest is computed again in
            the backward pass.
    """

    strides = STRIDES

    def __init__(
        self, shape: SwinShape, *, drop_path: float = 0.0, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.out_channels = tuple(shape.channels * 2**stage for stage in range(len(shape.depths)))
        self.patch_embed = PatchEmbedding(shape.channels)
        last_block = max(1, sum(shape.depths) - 1)
        rates = iter(drop_path * block / last_block for block in range(last_block + 1))
        self.layers = nn.ModuleList(
            SwinStage(
                channels,
                num_heads,
                shape.window_size,
                drop_paths=[next(rates) for _ in range(depth)],
                is_last=channels == self.out_channels[-1],
                checkpointing=checkpointing,
            )
            for channels, depth, num_heads in zip(
                self.out_channels, shape.depths, shape.num_heads, strict=True
            )
        )
        for stage, channels in enumerate(self.out_channels):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))
        self.apply(_init_linear)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.patch_embed(images)
        outputs = []
        for stage, layer in enumerate(self.layers):
            x, following = layer(x)
            outputs.append(getattr(self, f"norm{stage}")(x).permute(0, 3, 1, 2).contiguous())
            x = following
        return tuple(outputs)

    def freeze(self, num_stages: int) -> None:
        """Stops the training of the first parts: 1 = patches, 2 = patches and c2, ..., 5 = all."""
        parts: list[Sequence[nn.Module]] = [(self.patch_embed,)]
        parts += [(layer, getattr(self, f"norm{i}")) for i, layer in enumerate(self.layers)]
        if not 0 <= num_stages <= len(parts):
            raise ValueError(
                f"num_stages must be in 0..{len(parts)} (0 = none, 1 = patches); got {num_stages}"
            )
        for part in parts[:num_stages]:
            for module in part:
                module.requires_grad_(False)


class PatchEmbedding(nn.Module):
    """Squares of 4 x 4 pixels -> cells: [N, 3, H, W] -> [N, ceil(H / 4), ceil(W / 4), C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH_SIZE, stride=PATCH_SIZE)
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> Tensor:
        bottom, right = (-side % PATCH_SIZE for side in images.shape[-2:])
        cells = self.proj(F.pad(images, (0, right, 0, bottom)))
        result: Tensor = self.norm(cells.permute(0, 2, 3, 1))
        return result


class SwinStage(nn.Module):
    """Blocks on maps of one size; every second one with shifted windows.

    `forward`: [N, H, W, C] -> the same shape, and what the next stage reads: the maps at half the
    size with 2 C channels, or the result itself after the last stage.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        window_size: int,
        *,
        drop_paths: Sequence[float],
        is_last: bool,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.window_size = window_size
        self.blocks = nn.ModuleList(
            SwinBlock(
                channels,
                num_heads,
                window_size,
                shift=(index % 2) * (window_size // 2),
                mlp_ratio=MLP_RATIO,
                drop_path=drop_path,
            )
            for index, drop_path in enumerate(drop_paths)
        )
        self.downsample = None if is_last else PatchMerging(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bias = shift_bias((x.shape[1], x.shape[2]), self.window_size, x)
        is_recomputed = self.checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            x = recomputed(block, x, bias) if is_recomputed else block(x, bias)
        return x, x if self.downsample is None else self.downsample(x)


class PatchMerging(nn.Module):
    """Four neighbours become one cell: [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), 2 C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, 2)
        neighbours = [x[:, row::2, column::2] for column in range(2) for row in range(2)]
        result: Tensor = self.reduction(self.norm(torch.cat(neighbours, dim=-1)))
        return result


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
