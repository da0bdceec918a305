from __future__ import annotations

import math

import pytest
import torch

from seamless_pr.ops.vectors import image_indices, vector

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "values",
    [
        [0.1],
        [1, 2],
        [0.1, 0.2, 0.3],
        [5, 5, 5, 5],
        [48, 96, 48, 96],
        # The distance of the ends is beyond what the ends are.
        [-3e38, 3e38],
        [-60000, 60000, 1],
        # So are these themselves in some of the types.
        [1e30, 1],
        [1e300, 1e300],
        [-(10**40), 0.5, 7],
        [math.inf, 0, -math.inf],
        [1e-320, 1],
    ],
)
def test_numbers_are_those_of_a_tensor_that_is_copied(
    values: list[float], dtype: torch.dtype
) -> None:
    expected = torch.tensor(values, dtype=torch.float64).to(dtype)
    for found in (vector(values, torch.empty(0, dtype=dtype)), vector(values, expected, dtype)):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("values", [[3], [0, 7], [0, 2**40, 5], [-(2**53), 2**53, 1, 1]])
def test_whole_numbers_stay_exact(values: list[int]) -> None:
    expected = torch.tensor(values)
    assert vector(values, expected).equal(expected)
    assert vector(values, torch.empty(0), torch.int64).equal(expected)


def test_each_image_has_its_number_as_often_as_it_has_rows() -> None:
    found = image_indices([2, 0, 3], torch.device("cpu"))
    assert found.tolist() == [0, 0, 2, 2, 2]
    assert found.dtype == torch.int64
