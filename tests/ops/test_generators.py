from __future__ import annotations

import torch

from seamless_pr.ops.generators import keyed_generator, keyed_seed


def test_the_same_key_draws_the_same_numbers_whatever_was_drawn_before() -> None:
    first = torch.rand(3, generator=keyed_generator(1, 2, "frankfurt_0"))
    torch.rand(5)
    assert torch.equal(first, torch.rand(3, generator=keyed_generator(1, 2, "frankfurt_0")))


def test_every_part_of_a_key_counts() -> None:
    keys = [(1, 2, "a"), (2, 1, "a"), (1, 2, "b"), (12, "a"), (1, "2", "a"), (1, 2), ("a", 1, 2)]
    seeds = {keyed_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_on_every_machine() -> None:
    # A hash that differed between processes would make runs irreproducible.
    assert keyed_seed(0, 7, "straße") == 1895142196944175032
