"""The sequence of batches depends on data, batch size and seed only."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from seamless_pr.datasets.batch_sampler import AspectRatioBatchSampler

WIDE, TALL = (10, 20), (20, 10)
SIZES = [WIDE, WIDE, TALL, WIDE, TALL, WIDE, WIDE, TALL, WIDE, WIDE, WIDE]


def batches(
    batch_size: int = 4, num_steps: int = 30, **options: int
) -> list[list[tuple[int, int]]]:
    return list(AspectRatioBatchSampler(SIZES, batch_size, num_steps=num_steps, **options))


def test_images_of_a_batch_have_similar_aspect() -> None:
    for batch in batches():
        assert len({SIZES[index] for index, _ in batch}) == 1


def test_every_image_occurs_equally_often() -> None:
    counts = Counter(index for batch in batches(num_steps=220) for index, _ in batch)
    # 220 steps are 80 epochs; groups that are not full yet may hold back a few.
    assert all(76 <= counts[index] <= 82 for index in range(len(SIZES)))


def test_order_changes_with_epoch_and_seed() -> None:
    assert batches() == batches()
    assert batches(seed=1) != batches(seed=2)
    first = [index for batch in batches(num_steps=2) for index, _ in batch]
    later = [index for batch in batches(num_steps=5)[3:] for index, _ in batch]
    assert first != later


@pytest.mark.parametrize("start", [0, 1, 7, 29, 30, 35])
def test_restart_gives_the_rest_of_the_same_sequence(start: int) -> None:
    assert batches(start_step=start) == batches()[start:]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_workers_together_see_the_batch_of_one(world_size: int) -> None:
    shares = [batches(rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [[pair for part in parts for pair in part] for parts in zip(*shares)]
    assert joined == batches()
    lengths = {len(part) for share in shares for part in share}
    assert min(lengths) > 0
    assert max(lengths) - min(lengths) <= 1


def test_accumulation_splits_each_step() -> None:
    parts = batches(accumulation_steps=2, rank=1, world_size=2)
    assert all(len(part) == 1 for part in parts)
    joined = [parts[at] + parts[at + 1] for at in range(0, len(parts), 2)]
    assert joined == batches(rank=1, world_size=2)
    sampler = AspectRatioBatchSampler(SIZES, 4, num_steps=30, start_step=7, accumulation_steps=4)
    assert len(sampler) == len(list(sampler)) == 23 * 4


def test_shares_that_are_not_equal_are_split_as_equally_as_can_be() -> None:
    options = {"batch_size": 8, "world_size": 3, "accumulation_steps": 2}
    lengths = [[len(part) for part in batches(rank=rank, **options)[:2]] for rank in range(3)]
    assert lengths == [[1, 1], [1, 2], [1, 2]]


def test_draw_keys_number_all_samples() -> None:
    keys = [key for batch in batches() for _, key in batch]
    assert keys == list(range(30 * 4))


def test_fewer_images_than_the_batch_repeat() -> None:
    sampler = AspectRatioBatchSampler([WIDE], 3, num_steps=2)
    assert list(sampler) == [[(0, 0), (0, 1), (0, 2)], [(0, 3), (0, 4), (0, 5)]]


def test_endless_sequence_has_no_length() -> None:
    sampler = AspectRatioBatchSampler(SIZES, 4)
    assert len(list(islice(sampler, 100))) == 100
    with pytest.raises(TypeError, match="give num_steps"):
        len(sampler)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be at least .* = 3 x 2, an image .*; got 4"):
        AspectRatioBatchSampler(SIZES, 4, world_size=3, accumulation_steps=2)
    with pytest.raises(ValueError, match=r"rank must be in 0\.\.1"):
        AspectRatioBatchSampler(SIZES, 4, rank=2, world_size=2)
    with pytest.raises(ValueError, match="no images to sample from"):
        AspectRatioBatchSampler([], 4)
