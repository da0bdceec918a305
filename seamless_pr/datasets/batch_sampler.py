"""Which images form the batch of each step: grouped by aspect, seeded, resumable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from seamless_pr.ops.generators import keyed_generator


class AspectRatioBatchSampler:
    """Yields batches of (index, draw_key) pairs for a loader.

    All images are shuffled anew in each epoch and sorted into groups of similar aspect; whenever a
    group is full, it becomes the batch of a step. An incomplete group is carried into the next
    epoch, so every image occurs once an epoch. The sequence of batches depends on the sizes, the
    batch size and the seed only; a worker takes its slice of each, so the union over workers is the
    same for any number of them, and starting at a later step gives the rest of the same sequence.

    `draw_key` is the position of the sample in the whole sequence: it keys the random changes of a
    sample, so an image that occurs twice is changed differently.
    """

    def __init__(
        self,
        image_sizes: Sequence[tuple[int, int]],
        batch_size: int,
        *,
        seed: int = 0,
        num_steps: int | None = None,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulation_steps: int = 1,
        aspect_edges: Sequence[float] = (1.0,),
    ) -> None:
        """Fixes the sequence.

        Args:
            image_sizes: (height, width) of each image.
            batch_size: images of a step, over all workers and accumulation steps.
            seed: of the order.
            num_steps: the sequence ends after this many steps, counted from step 0; None: never.
            start_step: steps that were done before; their batches are left out.
            rank, world_size: this worker and their number. Where it does not divide `batch_size`,
                shares differ by one image.
            accumulation_steps: each step's share is yielded in this many batches, as equal.
            aspect_edges: ascending limits of width / height between groups.
        """
        if not image_sizes:
            raise ValueError("there are no images to sample from; check the dataset's JSON")
        shares = world_size * accumulation_steps
        if batch_size < shares:
            raise ValueError(
                "batch_size must be at least world_size x accumulation_steps = "
                f"{world_size} x {accumulation_steps}, an image for each; got {batch_size}"
            )
        if not 0 <= rank < world_size or start_step < 0:
            raise ValueError(
                f"rank must be in 0..{world_size - 1} and start_step at least 0; got {rank} and "
                f"{start_step}"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.num_steps = num_steps
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size
        self.accumulation_steps = accumulation_steps
        self._groups = [_group(size, aspect_edges) for size in image_sizes]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # Losses and norm statistics are weighted by their counts: unequal shares train the same.
        first, end = (self.batch_size * at // self.world_size for at in (self.rank, self.rank + 1))
        limits = [
            first + (end - first) * part // self.accumulation_steps
            for part in range(self.accumulation_steps + 1)
        ]
        for step, indices in enumerate(self._all_batches()):
            if self.num_steps is not None and step >= self.num_steps:
                return
            if step < self.start_step:
                continue
            for start, stop in pairwise(limits):
                positions = range(start, stop)
                yield [(indices[at], step * self.batch_size + at) for at in positions]

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError("an endless sampler has no length; give num_steps")
        return max(0, self.num_steps - self.start_step) * self.accumulation_steps

    def _all_batches(self) -> Iterator[list[int]]:
        """The batches of all steps from step 0, without end."""
        waiting: dict[int, list[int]] = {group: [] for group in self._groups}
        epoch = 0
        while True:
            generator = keyed_generator("order", self.seed, epoch)
            for index in torch.randperm(len(self._groups), generator=generator).tolist():
                group = waiting[self._groups[index]]
                group.append(index)
                if len(group) == self.batch_size:
                    yield list(group)
                    group.clear()
            epoch += 1


def _group(size: tuple[int, int], aspect_edges: Sequence[float]) -> int:
    height, width = size
    return sum(width / height > edge for edge in aspect_edges)
