"""Deformable convolution, with offsets only (v1) or offsets and a weight for each sample (v2).

Letters: N images, C channels, G groups, T taps of the kernel.
Sources: Deformable Convolutional Networks (ICCV 2017); Deformable ConvNets v2 (CVPR 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from seamless_pr.ops.precision import without_autocast

DEFORMABLE_KINDS = ("v1", "v2")


class DeformableConv2d(nn.Module):
    """A convolution whose taps read where a convolution of the input sends them.

    The offsets come from an ordinary convolution of the same kernel, stride, padding and dilation,
    dense and with bias, that starts at 0: at first every tap reads its own place. Its channels are
    (dy, dx) of each tap, row by row; v2 has one more per tap, whose sigmoid is a factor of the
    sample. Samples are bilinear, 0 outside the map. All groups share the offsets. Never
    computed in half precision: not every device has a kernel for it.

    `forward`: [N, in_channels, H, W] -> [N, out_channels, h, w], as the plain convolution would.

    Args:
        kind: "v1" or "v2".
        groups: of the convolution's channels.
        bias: of the convolution itself; its offsets have one always.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        kind: str = "v2",
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if kind not in DEFORMABLE_KINDS:
            raise ValueError(
                f"the kind of a deformable convolution must be one of {DEFORMABLE_KINDS}; "
                f"got '{kind}'"
            )
        self.kind, self.groups = kind, groups
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.num_offsets = 2 * kernel_size**2
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.conv_offset = nn.Conv2d(
            in_channels,
            kernel_size**2 * (2 if kind == "v1" else 3),
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He's weights, as the ResNets' own convolutions; no offset at the start."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.conv_offset.weight)
        assert self.conv_offset.bias is not None
        nn.init.zeros_(self.conv_offset.bias)

    @classmethod
    def in_place_of(cls, conv: nn.Conv2d, kind: str) -> DeformableConv2d:
        """A deformable twin of a plain convolution, with its weights and at first its results.

        Raises:
            ValueError: the kernel is not square, or sides of stride, padding or dilation differ.
        """
        (size, stride, padding, dilation) = (
            _side(conv, name) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        deformable = cls(
            conv.in_channels,
            conv.out_channels,
            size,
            kind=kind,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        deformable.weight = nn.Parameter(conv.weight.detach())
        if conv.bias is not None:
            deformable.bias = nn.Parameter(conv.bias.detach())
        return deformable

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        shifts = self.conv_offset(x).to(dtype)
        mask = shifts[:, self.num_offsets :].sigmoid() if self.kind == "v2" else None
        with without_autocast(x.device):
            result: Tensor = deform_conv2d(
                x.to(dtype),
                shifts[:, : self.num_offsets].contiguous(),
                self.weight.to(dtype),
                None if self.bias is None else self.bias.to(dtype),
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                mask=mask,
            )
        return result.to(x.dtype)

    def extra_repr(self) -> str:
        out_channels, in_channels, size, _ = self.weight.shape
        return (
            f"{in_channels * self.groups}, {out_channels}, {size}x{size}, {self.kind}, "
            f"stride={self.stride}, groups={self.groups}"
        )


def _side(conv: nn.Conv2d, name: str) -> int:
    sides = getattr(conv, name)
    if isinstance(sides, str) or sides[0] != sides[1]:
        raise ValueError(
            f"a deformable convolution needs equal sides; got {name} {sides} of {conv}; "
            "leave this layer out"
        )
    return int(sides[0])
