"""Golden networks are large: those of one file are forgotten before the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.mmdet_networks import MMDetCase, mmdet_network


@pytest.fixture(autouse=True, scope="module")
def forgotten_networks() -> Iterator[None]:
    yield
    mmdet_network.cache_clear()
    MMDetCase.features.cache_clear()
