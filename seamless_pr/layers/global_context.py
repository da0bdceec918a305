"""Global context block: every cell gets the same summary of the whole map.

Letters: N images, C channels, H, W map.
Source: GCNet (ICCV workshops 2019), figure 4(d).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GlobalContext(nn.Module):
    """Attention-pooled context, passed through a bottleneck, added to every cell.

    context = sum over cells of softmax(conv_mask(x)) * x; y = x + transform(context), where the
    transform is 1x1 to `ratio * C` channels, layer norm, ReLU, 1x1 back. The last layer starts at
    0: at first y = x. Under autocast the softmax is float32, as everywhere.

    `forward`: [N, C, H, W] -> the same shape.

    Args:
        channels: C.
        ratio: width of the bottleneck in C.
    """

    def __init__(self, channels: int, ratio: float = 1 / 16) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        if hidden < 1:
            raise ValueError(
                f"ratio {ratio} leaves no channel of {channels}; use at least {1 / channels}"
            )
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LayerNorm([hidden, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He's weights for the attention; the last layer starts at 0."""
        nn.init.kaiming_normal_(self.conv_mask.weight, mode="fan_in")
        last = self.transform[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.conv_mask(x).flatten(2).softmax(dim=2)
        context = torch.bmm(x.flatten(2), attention.transpose(1, 2).to(x.dtype))[..., None]
        result: Tensor = x + self.transform(context)
        return result
