"""Attention inside the windows of a map, and the block of Swin around it.

Letters: N images, H, W cells of a map, C channels, A heads, M cells along a window's side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

# Added to the scores of cells that a shift made neighbours; softmax turns it into nothing.
_APART = -100.0
# Standard deviation of initial weights, as in Swin.
INIT_STD = 0.02


class WindowAttention(nn.Module):
    """Attention among the cells of each M x M window, with a learned bias per relative position.

    `forward`: windows [N, M * M, C], and a bias [N, M * M, M * M] of pairs of cells or None ->
    [N, M * M, C].

    Args:
        channels: C.
        num_heads: A; divides C.
        window_size: M.
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        num_offsets = 2 * window_size - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(num_offsets**2, num_heads))
        self.register_buffer(
            "relative_position_index", _relative_positions(window_size), persistent=False
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=INIT_STD)

    def forward(self, windows: Tensor, pair_bias: Tensor | None = None) -> Tensor:
        # [N, M M, 3 C] -> three of [N, A, M M, C / A]
        queries, keys, values = self.qkv(windows).unflatten(2, (3, self.num_heads, -1)).unbind(2)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[
            None
        ]
        if pair_bias is not None:
            bias = bias + pair_bias[:, None]
        attended = F.scaled_dot_product_attention(
            queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=bias
        )
        result: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return result


class SwinBlock(nn.Module):
    """Window attention and a perceptron, each behind its norm and inside a residual sum.

    Swin Transformer, section 3.2, as its authors' detection and segmentation networks compute it:
    behind the norm the map is padded with zeros at the bottom and the right, which take part in the
    attention; the windows are shifted also where the map is a single one.

    `forward`: [N, H, W, C], and `shift_bias` of the padded map -> [N, H, W, C].

    Args:
        channels, num_heads, window_size: as in `WindowAttention`.
        shift: cells by which the windows are moved up and left; 0: none.
        mlp_ratio: width of the perceptron over C.
        drop_path: share of images that skip a step of this block in training.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        window_size: int,
        *,
        shift: int,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        hidden = int(channels * mlp_ratio)
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, num_heads, window_size)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(channels, hidden))
        self.mlp.add_module("activation", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(hidden, channels))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, shift_bias: Tensor) -> Tensor:
        x = x + self.drop_path(self._attended(self.norm1(x), shift_bias))
        result: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return result

    def _attended(self, x: Tensor, shift_bias: Tensor) -> Tensor:
        num_images, height, width, _ = x.shape
        x = pad_to_multiple(x, self.window_size)
        padded = (x.shape[1], x.shape[2])
        bias = None
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
            bias = shift_bias.repeat(num_images, 1, 1)
        windows = self.attn(_windows(x, self.window_size), bias)
        x = _joined(windows, padded, self.window_size)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :height, :width]


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """[N, H, W, C] -> zeros at the bottom and the right until `divisor` divides H and W."""
    bottom, right = -x.shape[1] % divisor, -x.shape[2] % divisor
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if bottom or right else x


def shift_bias(size: tuple[int, int], window_size: int, like: Tensor) -> Tensor:
    """What keeps cells apart that only a cyclic shift by half a window has brought together.

    Args:
        size: (height, width) of the map before padding.
        window_size: M.
        like: gives type and device.

    Returns:
        [windows of the padded map, M * M, M * M]; 0, or -100 between cells of different regions.
    """
    shift = window_size // 2
    rows, columns = (_regions(length, window_size, shift, like.device) for length in size)
    regions = (3 * rows[:, None] + columns)[None, :, :, None]
    cells = _windows(regions, window_size).squeeze(2)
    apart = cells[:, :, None] != cells[:, None, :]
    return apart.to(like.dtype) * _APART


def _regions(length: int, window_size: int, shift: int, device: torch.device) -> Tensor:
    """0, 1, 2: whole windows, the part of the last one that stays, and the part from the front."""
    padded = length + -length % window_size
    positions = torch.arange(padded, device=device)
    return (positions >= padded - window_size).long() + (positions >= padded - shift).long()


def _windows(x: Tensor, side: int) -> Tensor:
    """[N, H, W, C] -> [N * windows, M * M, C], image by image, row by row."""
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    # [N, rows, M, columns, M, C] -> [N, rows, columns, M, M, C] -> windows
    return x.transpose(2, 3).reshape(-1, side * side, x.shape[-1])


def _joined(windows: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """The inverse of `_windows` for maps of `size`."""
    height, width = size
    x = windows.reshape(-1, height // side, width // side, side, side, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def _relative_positions(side: int) -> Tensor:
    """[M * M, M * M] rows of the bias table: (dy + M - 1) (2 M - 1) + dx + M - 1."""
    positions = torch.arange(side)
    offsets = positions[:, None] - positions + side - 1
    rows, columns = offsets[:, None, :, None], offsets[None, :, None, :]
    return (rows * (2 * side - 1) + columns).reshape(side * side, side * side)
