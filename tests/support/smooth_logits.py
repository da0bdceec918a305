"""Logits that change slowly over an image, as those of a network."""

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth_logits(seed: int, num_classes: int = 7, size: tuple[int, int] = (13, 17)) -> Tensor:
    """[num_classes, *size]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, num_classes, 4, 5, generator=generator)
    return F.interpolate(coarse, size=size, mode="bicubic")[0]
