"""Non-local block: every cell reads every other cell of its map.

Letters: N images, C channels, H, W map.
Source: Non-local Neural Networks (CVPR 2018), equation 6, the embedded Gaussian.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NonLocal2d(nn.Module):
    """y = x + out(sum over cells of softmax(theta(x) . phi(x)) g(x)).

    All four are 1x1 convolutions with bias; products are not scaled by the width. `out` starts at
    0: at first y = x.

    `forward`: [N, C, H, W] -> the same shape; the attention is [N, H W, H W].

    Args:
        channels: C.
        hidden_channels: width of theta, phi and g; None: C.
    """

    def __init__(self, channels: int, hidden_channels: int | None = None) -> None:
        super().__init__()
        hidden = hidden_channels or channels
        self.theta = nn.Conv2d(channels, hidden, 1)
        self.phi = nn.Conv2d(channels, hidden, 1)
        self.g = nn.Conv2d(channels, hidden, 1)
        self.out = nn.Conv2d(hidden, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small normal weights; the last layer starts at 0."""
        for layer in (self.theta, self.phi, self.g):
            nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(self.out.weight)
        for layer in (self.theta, self.phi, self.g, self.out):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))
        # [N, HW (reader), HW (read)]; softmax is float32 under autocast.
        attention = torch.bmm(theta.transpose(1, 2), phi).softmax(dim=2).to(g.dtype)
        read = torch.bmm(g, attention.transpose(1, 2)).unflatten(2, x.shape[2:])
        result: Tensor = x + self.out(read)
        return result
