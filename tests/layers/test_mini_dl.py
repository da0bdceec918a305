"""MiniDL against the numbers of the reference."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.layers.mini_dl import MiniDL
from tests.support.golden import load_golden

OUR_NAMES = {
    "conv1_3x3": "conv_local",
    "conv1_dil": "conv_dilated",
    "conv1_glb": "conv_pooled",
    "bn1": "norm",
    "conv2": "mix.conv",
    "bn2": "mix.norm",
}


def golden_mini_dl() -> MiniDL:
    prefix = "minidl_w_"
    state = {}
    for name, array in load_golden("seamseg/ops").items():
        if name.startswith(prefix):
            module, parameter = name[len(prefix) :].split(".")
            state[f"{OUR_NAMES[module]}.{parameter}"] = array
    mini_dl = MiniDL(8, 6, make_norm_act())
    mini_dl.load_state_dict(state)
    return mini_dl.eval()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", ["90x75", "40x70", "17x20"])
def test_outputs_of_the_reference_at_sizes_above_and_below_the_window(size, memory_format):
    golden = load_golden("seamseg/ops")
    x = golden[f"minidl_x_{size}"].contiguous(memory_format=memory_format)
    result = golden_mini_dl()(x)
    torch.testing.assert_close(result, golden[f"minidl_y_{size}"], rtol=1e-5, atol=1e-5)


def test_every_parameter_gets_a_gradient():
    mini_dl = golden_mini_dl().train()
    mini_dl(torch.randn(2, 8, 10, 12)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in mini_dl.parameters())
