"""For every test: the same random numbers on every run and in every order of tests."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seeds before the fixtures of a test, those of its module included, draw anything."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
