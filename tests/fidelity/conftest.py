"""Measured differences to the reference, checked and kept as properties of the test results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Agree = Callable[[str, float, float], None]


@pytest.fixture
def agree(record_property: Callable[[str, Any], None]) -> Agree:
    """agree(name, difference, limit): records a measurement and fails above the limit.

    `tools/measure/fidelity.py` collects the records out of pytest's JUnit file.
    """

    def check(name: str, difference: float, limit: float) -> None:
        record_property(f"agreement:{name}", f"{difference:.6g} {limit:.6g}")
        assert difference <= limit, f"{name} differs by {difference:.3g}, allowed are {limit:.3g}"

    return check
