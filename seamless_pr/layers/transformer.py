"""Encoder and decoder layers of DETR: attention with the position code added in every layer.

Letters: N images, Q queries, S cells of the memory, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class _Layer(nn.Module):
    """What both kinds of layer share: a two-layer perceptron and residual sums."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        hidden_channels: int,
        *,
        dropout: float,
        norm_first: bool,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.self_attn = _attention(channels, num_heads, dropout)
        self.linear1 = nn.Linear(channels, hidden_channels)
        self.linear2 = nn.Linear(hidden_channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def _added(self, x: Tensor, norm: nn.Module, step: Callable[[Tensor], Tensor]) -> Tensor:
        """The sum of `x` and a step, with the norm before the step or after the sum."""
        if self.norm_first:
            return x + self.dropout(step(norm(x)))
        result: Tensor = norm(x + self.dropout(step(x)))
        return result

    def _perceptron(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear2(self.dropout(torch.relu(self.linear1(x))))
        return result


class EncoderLayer(_Layer):
    """Self-attention among the cells of a map, then a perceptron.

    `forward`: cells [N, S, C], their position code [S, C] -> [N, S, C]. The code is added to
    queries and keys, not to values.

    Args:
        channels: C.
        num_heads: of the attention; divides C.
        hidden_channels: width of the perceptron.
        dropout: of attention weights, inside the perceptron and before each sum.
        norm_first: norm each step's input instead of each sum.
    """

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        def attend(cells: Tensor) -> Tensor:
            return _attended(self.self_attn, cells + positions, cells + positions, cells)

        x = self._added(x, self.norm1, attend)
        return self._added(x, self.norm2, self._perceptron)


class DecoderLayer(_Layer):
    """Self-attention among queries, attention to the memory, then a perceptron.

    `forward`: contents of the queries [N, Q, C], their positions [Q, C], the memory [N, S, C] and
    its position code [S, C] -> [N, Q, C].

    Args:
        channels, num_heads, hidden_channels, dropout, norm_first: as in `EncoderLayer`.
        self_attention: False leaves it out, with its weights (an ablation of MaskFormer).
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        hidden_channels: int,
        *,
        dropout: float,
        norm_first: bool,
        self_attention: bool = True,
    ) -> None:
        super().__init__(
            channels, num_heads, hidden_channels, dropout=dropout, norm_first=norm_first
        )
        self.multihead_attn = _attention(channels, num_heads, dropout)
        self.norm3 = nn.LayerNorm(channels)
        self.self_attention = self_attention
        if not self_attention:
            del self.self_attn, self.norm1

    def forward(
        self, x: Tensor, query_positions: Tensor, memory: Tensor, memory_positions: Tensor
    ) -> Tensor:
        keys = memory + memory_positions

        def among_queries(contents: Tensor) -> Tensor:
            placed = contents + query_positions
            return _attended(self.self_attn, placed, placed, contents)

        def to_memory(contents: Tensor) -> Tensor:
            return _attended(self.multihead_attn, contents + query_positions, keys, memory)

        if self.self_attention:
            x = self._added(x, self.norm1, among_queries)
        x = self._added(x, self.norm2, to_memory)
        return self._added(x, self.norm3, self._perceptron)


class TransformerEncoder(nn.Module):
    """Encoder layers over the cells of a map.

    `forward`: map [N, C, H, W], its position code [C, H, W] -> [N, C, H, W].

    Args:
        num_layers: 0: only the norm that `norm_first` asks for.
        norm_first: norm each step's input, and the result once more at the end.
        channels, num_heads, hidden_channels, dropout: as in `EncoderLayer`.
    """

    def __init__(
        self,
        num_layers: int,
        channels: int,
        num_heads: int,
        hidden_channels: int,
        *,
        dropout: float,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(
                channels, num_heads, hidden_channels, dropout=dropout, norm_first=norm_first
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels) if norm_first else nn.Identity()
        init_transformer(self)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        cells, places = as_cells(x), positions.to(x.dtype).flatten(1).t()
        for layer in self.layers:
            cells = layer(cells, places)
        return self.norm(cells).mT.unflatten(2, x.shape[2:])


class TransformerDecoder(nn.Module):
    """Decoder layers of queries whose contents start at zero.

    `forward`: positions of the queries [Q, C], memory map [N, C, H, W], its position code
    [C, H, W] -> the normed contents after every layer, [L, N, Q, C]; with `intermediate=False`
    only after the last one, [1, N, Q, C]. One norm serves all layers, and the contents go on to the
    next layer without it.

    Args:
        num_layers: L; with 0 there is only the norm, for the caller to use.
        channels, num_heads, hidden_channels, dropout, norm_first, self_attention: as in
            `DecoderLayer`.
    """

    def __init__(
        self,
        num_layers: int,
        channels: int,
        num_heads: int,
        hidden_channels: int,
        *,
        dropout: float,
        norm_first: bool = False,
        self_attention: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(
                channels,
                num_heads,
                hidden_channels,
                dropout=dropout,
                norm_first=norm_first,
                self_attention=self_attention,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)
        init_transformer(self)

    def forward(
        self,
        query_positions: Tensor,
        memory: Tensor,
        memory_positions: Tensor,
        *,
        intermediate: bool = True,
    ) -> Tensor:
        cells, places = as_cells(memory), memory_positions.to(memory.dtype).flatten(1).t()
        contents = torch.zeros_like(query_positions).expand(len(memory), -1, -1)
        outputs = []
        for layer in self.layers:
            contents = layer(contents, query_positions, cells, places)
            outputs.append(contents)
        result: Tensor = self.norm(torch.stack(outputs if intermediate else outputs[-1:]))
        return result


def as_cells(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H W, C]."""
    return x.flatten(2).mT


def init_transformer(transformer: nn.Module) -> None:
    """Xavier-uniform matrices, as DETR; the projections of attention as one matrix.

    The biases of the perceptrons are drawn once and are the same in every layer: the published code
    makes its layers as copies of one.
    """
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    layers = [module for module in transformer.modules() if isinstance(module, _Layer)]
    for layer in layers[1:]:
        for mine, first in (
            (layer.linear1, layers[0].linear1),
            (layer.linear2, layers[0].linear2),
        ):
            mine.bias.data.copy_(first.bias.data)


def _attention(channels: int, num_heads: int, dropout: float) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(channels, num_heads, dropout=dropout, batch_first=True)


def _attended(
    attention: nn.MultiheadAttention, queries: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    result: Tensor = attention(queries, keys, values, need_weights=False)[0]
    return result
