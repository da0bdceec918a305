"""What a network of mmdetection reads, which its weights do not show: its configuration does."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBERS = r"\s*=\s*[\[(]([\d.,\s]+)[\])]"

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class TheirInputs:
    """Pixels and strides of a network.

    Attributes:
        mean, std: of red, green and blue, in 0..255.
        reads_bgr: its first convolution sees blue first.
        stride_in_1x1: blocks of its ResNet step in their first convolution ("caffe" style).
    """

    mean: Channels = (123.675, 116.28, 103.53)
    std: Channels = (58.395, 57.12, 57.375)
    reads_bgr: bool = False
    stride_in_1x1: bool = False

    @classmethod
    def told_by(cls, text: str) -> TheirInputs:
        """By the text of a configuration of version 1, 2 or 3; what it leaves out is as usual."""
        reads_bgr = re.search(r"\b(?:bgr_)?to_rgb\s*=\s*False", text) is not None
        found = {}
        for name in ("mean", "std"):
            match = re.search(rf"\b{name}{_NUMBERS}", text)
            numbers = [float(n) for n in match[1].replace(",", " ").split()] if match else []
            if len(numbers) == 3:
                red, green, blue = reversed(numbers) if reads_bgr else numbers
                found[name] = (red, green, blue)
        return cls(
            **found,
            reads_bgr=reads_bgr,
            stride_in_1x1=re.search(r"\bstyle\s*=\s*['\"]caffe['\"]", text) is not None,
        )
