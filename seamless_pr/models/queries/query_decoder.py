"""Queries that look at a map, and the heads that read them.

Letters: N images, Q queries, C channels, L decoder layers, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seamless_pr.layers.transformer import TransformerDecoder, TransformerEncoder
from seamless_pr.models.necks.pixel_decoder import init_pixel_conv
from seamless_pr.ops.position_code import sine_position_code


class QueryDecoder(nn.Module):
    """Learned queries that attend to each other and to the coarsest map of an image.

    MaskFormer, section 3.2: the decoder of DETR. The learned vectors are the positions of the
    queries, their contents start at zero. Without layers nobody looks at the map: the learned
    vectors are the contents, the same for every image.

    `forward`: memory [N, memory_channels, h, w] -> contents of the queries after every layer, or
    with `intermediate=False` only after the last one: [L, N, Q, C] or [1, N, Q, C].

    Args:
        memory_channels: of the map; projected to `channels` where they differ.
        channels: C.
        num_queries: Q.
        num_layers, num_heads, hidden_channels, dropout, norm_first, self_attention: of the decoder.
        num_encoder_layers: layers that the memory passes first, 0 in every published network.
    """

    def __init__(
        self,
        memory_channels: int,
        channels: int,
        num_queries: int,
        *,
        num_layers: int,
        num_heads: int,
        hidden_channels: int,
        dropout: float,
        norm_first: bool = False,
        self_attention: bool = True,
        num_encoder_layers: int = 0,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.input_proj: nn.Module = nn.Identity()
        looks = num_layers > 0
        if memory_channels != channels and looks:
            projection = nn.Conv2d(memory_channels, channels, 1)
            init_pixel_conv(projection)
            self.input_proj = projection
        self.query_embed = nn.Embedding(num_queries, channels)
        self.encoder = TransformerEncoder(
            num_encoder_layers,
            channels,
            num_heads,
            hidden_channels,
            dropout=dropout,
            norm_first=norm_first and looks,
        )
        self.decoder = TransformerDecoder(
            num_layers,
            channels,
            num_heads,
            hidden_channels,
            dropout=dropout,
            norm_first=norm_first,
            self_attention=self_attention,
        )

    @property
    def num_outputs(self) -> int:
        """L: one per layer, and one without layers."""
        return max(1, len(self.decoder.layers))

    def forward(self, memory: Tensor, *, intermediate: bool = True) -> Tensor:
        if not self.decoder.layers:
            learned: Tensor = self.decoder.norm(self.query_embed.weight)
            return learned.expand(1, len(memory), -1, -1)
        cells = self.input_proj(memory)
        code = sine_position_code((cells.shape[2], cells.shape[3]), self.channels, cells.device)
        cells = self.encoder(cells, code)
        contents: Tensor = self.decoder(
            self.query_embed.weight, cells, code, intermediate=intermediate
        )
        return contents


class MaskEmbedding(nn.Module):
    """Three layers: contents of queries [..., C] -> mask embeddings [..., C_mask]."""

    def __init__(self, channels: int, mask_channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Linear(channels, channels),
                nn.Linear(channels, channels),
                nn.Linear(channels, mask_channels),
            ]
        )

    def forward(self, contents: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            contents = torch.relu(layer(contents))
        result: Tensor = self.layers[-1](contents)
        return result


def query_masks(embeddings: Tensor, mask_features: Tensor) -> Tensor:
    """Mask logits of queries: [L, N, Q, C], [N, C, h, w] -> [L, N, Q, h, w]."""
    logits = embeddings @ mask_features.flatten(2)
    return logits.unflatten(-1, mask_features.shape[2:])
