"""What the tests of damaged inputs and of kills have in common."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor

import pytest

from tests.robustness import campaign


@pytest.fixture(scope="package")
def clean_process() -> Iterator[Executor]:
    """See `campaign.clean_process`; what other tests have left in memory is not in it."""
    with campaign.clean_process() as process:
        yield process
