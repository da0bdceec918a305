"""Sine position codes."""

from __future__ import annotations

import math
import re

import pytest
import torch

from seamless_pr.ops.position_code import sine_position_code
from tests.support.maskformer_golden import load_arrays

GOLDEN = {key: array for key, array in load_arrays("ops").items() if key.startswith("pos_")}


@pytest.mark.parametrize("key", sorted(GOLDEN))
def test_codes_are_those_of_the_original(key):
    num_waves, height, width = map(int, re.findall(r"\d+", key))
    code = sine_position_code((height, width), 2 * num_waves)
    torch.testing.assert_close(code[None], torch.from_numpy(GOLDEN[key]), rtol=0, atol=2e-6)


def test_rows_come_first_and_sines_at_even_places():
    code = sine_position_code((2, 4), 4)
    assert code.shape == (4, 2, 4)
    # Row 1 of 2 is half a turn: sin(pi) = 0, cos(pi) = -1. Column 1 of 4 is a quarter.
    expected = torch.tensor([0.0, -1.0, 1.0, 0.0])
    torch.testing.assert_close(code[:, 0, 0], expected, rtol=0, atol=1e-5)


def test_the_last_cell_is_a_whole_turn_whatever_the_size():
    for size in ((3, 5), (7, 2)):
        code = sine_position_code(size, 4)[:, -1, -1]
        torch.testing.assert_close(
            code, torch.tensor([0.0, 1.0, 0.0, 1.0]), rtol=0, atol=4e-6 * math.pi
        )


def test_an_odd_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="even"):
        sine_position_code((2, 2), 5)
