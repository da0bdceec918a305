"""Padding of batches."""

from __future__ import annotations

import torch

from seamless_pr.structures.image_batch import ImageBatch


def test_batches_are_padded_to_a_multiple_once() -> None:
    batch = ImageBatch.from_images([torch.ones(3, 33, 64, dtype=torch.uint8)])
    padded = batch.padded_to(32)
    assert padded.padded_size == (64, 64)
    assert padded.image_sizes == ((33, 64),)
    assert int(padded.images.sum()) == 3 * 33 * 64
    assert padded.padded_to(32) is padded
