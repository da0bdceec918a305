from __future__ import annotations

import pytest
import torch

from seamless_pr.ops.finite import names_not_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_with_nan_or_infinity_are_named_in_their_order(dtype: torch.dtype) -> None:
    good = torch.arange(6, dtype=dtype)
    bad = {value: good.clone() for value in ("nan", "inf", "-inf")}
    for value, tensor in bad.items():
        tensor[3] = float(value)
    tensors = {"z": bad["nan"], "a": good, "m": bad["inf"], "b": bad["-inf"], "c": good[:0]}
    assert names_not_finite(tensors) == ["z", "m", "b"]


def test_integers_and_nothing_are_finite() -> None:
    assert names_not_finite({}) == []
    assert names_not_finite({"count": torch.tensor(3), "mask": torch.tensor([True])}) == []
