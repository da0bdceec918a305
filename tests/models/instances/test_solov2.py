"""SOLOv2's masks beside what the golden cases show."""

from __future__ import annotations

import torch

from seamless_pr.models.instances.solov2 import mask_probs


def test_masks_of_kernels_are_the_same_under_autocast():
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(5, 16, generator=generator)
    features = torch.randn(16, 12, 20, generator=generator)
    probs = mask_probs(kernels, features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mask_probs(kernels, features), probs)
