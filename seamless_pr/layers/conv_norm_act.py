"""A convolution without bias, followed by norm and activation."""

from __future__ import annotations

from torch import Tensor, nn

from seamless_pr.layers.abn import LEAKY_SLOPE, NormActFactory


class ConvNormAct(nn.Module):
    """Convolution (`conv`) and norm + activation (`norm`); spatial size is kept at stride 1.

    `forward`: [N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)] for
    odd kernels.

    Args:
        kernel_size: odd side of the kernel.
        norm_act: makes the norm + activation layer.
        activation: "leaky_relu" or "identity".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        norm_act: NormActFactory,
        *,
        stride: int = 1,
        dilation: int = 1,
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            bias=False,
        )
        self.norm = norm_act(out_channels, activation)
        init_before_activation(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(x))
        return result


def init_before_activation(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    """Xavier-normal weights with the gain of the leaky ReLU, zero bias (as the reference)."""
    nn.init.xavier_normal_(layer.weight, nn.init.calculate_gain("leaky_relu", LEAKY_SLOPE))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_predictor(layer: nn.Conv2d | nn.Linear, gain: float) -> None:
    """Xavier-normal weights with a small gain, zero bias: first predictions near chance."""
    nn.init.xavier_normal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
