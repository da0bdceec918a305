"""What the tests of damaged inputs and of kills have in common."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest
import torch


@pytest.fixture(scope="package")
def clean_process() -> Iterator[Executor]:
    """A process that has imported the library and done nothing else.

    Cases run in forks of it: what other tests have left in the memory of this one, they would
    inherit, and it would count as theirs.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (1,)) as process:
        yield process
