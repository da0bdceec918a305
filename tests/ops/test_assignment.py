"""Least-cost assignments."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from seamless_pr.ops.assignment import cheapest_assignments


def cheapest_total(cost: Tensor) -> float:
    """By trying all assignments."""
    cost = cost if cost.shape[0] >= cost.shape[1] else cost.t()
    rows, columns = cost.shape
    return min(
        sum(cost[row, column].item() for column, row in enumerate(chosen))
        for chosen in permutations(range(rows), columns)
    )


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6)])
def test_the_total_cost_is_the_least_of_all_assignments(shape):
    cost = torch.randn(shape, generator=torch.Generator().manual_seed(shape[0]))
    ((rows, columns),) = cheapest_assignments([cost])
    assert len(rows) == min(shape)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
    assert rows.tolist() == sorted(rows.tolist())
    assert cost[rows, columns].sum().item() == pytest.approx(cheapest_total(cost))


def test_matrices_of_many_sizes_are_solved_together():
    generator = torch.Generator().manual_seed(0)
    costs = [torch.randn(shape, generator=generator) for shape in ((4, 2), (0, 3), (3, 0), (2, 2))]
    together = cheapest_assignments(costs)
    alone = [cheapest_assignments([cost])[0] for cost in costs]
    assert [len(rows) for rows, _ in together] == [2, 0, 0, 2]
    for pair, single in zip(together, alone, strict=True):
        assert torch.equal(torch.stack(pair), torch.stack(single))
        assert pair[0].dtype == torch.int64


def test_no_matrices_give_no_pairs():
    assert cheapest_assignments([]) == []


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_entries_that_are_no_numbers_are_avoided(broken):
    cost = torch.tensor([[broken, 1.0], [2.0, broken], [50.0, 60.0]])
    ((rows, columns),) = cheapest_assignments([cost])
    assert list(zip(rows.tolist(), columns.tolist())) == [(0, 1), (1, 0)]


def test_a_matrix_without_any_number_is_still_assigned():
    for broken in (float("nan"), float("inf")):
        ((rows, columns),) = cheapest_assignments([torch.full((3, 2), broken)])
        assert len(rows) == len(columns) == 2


def test_a_row_of_broken_entries_is_left_out_where_others_are_free():
    cost = torch.tensor([[float("nan"), float("nan")], [1e30, 3.0], [-1e30, 1e38]])
    ((rows, _),) = cheapest_assignments([cost])
    assert rows.tolist() == [1, 2]
