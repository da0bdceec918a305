"""Fitting tensors to a network by name."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.weights.key_report import fit_keys

NETWORK = {
    "conv.weight": torch.zeros(2, 3),
    "norm.weight": torch.zeros(2),
    "norm.num_batches_tracked": torch.tensor(7),
}


def lower(name: str) -> str | None:
    return None if name == "JUNK" else name.lower()


def test_a_complete_match_has_no_faults():
    source = {"CONV.weight": torch.ones(2, 3), "NORM.weight": torch.ones(2)}
    state, report = fit_keys(source, NETWORK, lower)
    assert report.faults() == []
    assert report.mapped == (("CONV.weight", "conv.weight"), ("NORM.weight", "norm.weight"))
    assert report.counters == ("norm.num_batches_tracked",)
    assert state["norm.num_batches_tracked"] == 0
    assert torch.equal(state["conv.weight"], source["CONV.weight"])
    report.check("the file")


def test_every_other_name_is_a_fault_until_it_is_allowed():
    source = {"CONV.weight": torch.ones(3, 3), "JUNK": torch.ones(1), "extra": torch.ones(1)}
    state, report = fit_keys(source, NETWORK, lower)
    assert report.faults() == [
        "missing in the file: norm.weight",
        "left over in the file: JUNK",
        "left over in the file: extra",
        "of another shape: CONV.weight: (3, 3), not (2, 3)",
    ]
    assert report.faults(["CONV.*", "JUNK", "norm.weight"]) == ["left over in the file: extra"]
    assert torch.equal(state["conv.weight"], NETWORK["conv.weight"])
    with pytest.raises(ValueError, match=r"file\.tar does not fit .* 4 names(.|\n)*JUNK"):
        report.check("file.tar")
    report.check("file.tar", ["*"])
    assert "0 mapped, 1 missing, 2 left over, 1 of another shape" in report.summary()


def test_values_are_converted_and_take_the_type_of_the_network():
    source = {"norm.weight": torch.tensor([1, 2], dtype=torch.float64)}
    state, _ = fit_keys(source, NETWORK, lower, lambda name, tensor: tensor.flip(0))
    assert torch.equal(state["norm.weight"], torch.tensor([2.0, 1.0]))
