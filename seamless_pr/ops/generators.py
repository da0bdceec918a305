"""Random generators keyed by what they are for, so that nobody's draws depend on another's."""

from __future__ import annotations

import hashlib

import torch


def keyed_seed(*key: int | str) -> int:
    """A seed in 0..2**63 - 1 that depends on every part of the key and on nothing else."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator for one purpose, for example (seed, step, image key)."""
    return torch.Generator().manual_seed(keyed_seed(*key))
