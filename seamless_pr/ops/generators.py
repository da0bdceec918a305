"""Random generators keyed by what they are for, so that nobody's draws depend on another's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


def keyed_seed(*key: int | str) -> int:
    """A seed in 0..2**63 - 1 that depends on every part of the key and on nothing else."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator for one purpose, for example (seed, step, image key)."""
    return torch.Generator().manual_seed(keyed_seed(*key))


@contextmanager
def seeded_by(generators: Sequence[torch.Generator], device: torch.device | str) -> Iterator[None]:
    """Inside, the global generators of the CPU and of a device follow from `generators`.

    For layers that draw by themselves (dropout): the same images draw the same, wherever and after
    whatever they are computed. Outside nothing changes.

    Args:
        generators: on the CPU, one per image; each gives one number.
        device: where the layers compute.
    """
    seed = sum(int(torch.randint(1 << 31, (), generator=generator)) for generator in generators)
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
