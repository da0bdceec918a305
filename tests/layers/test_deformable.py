"""Deformable convolution against mmcv's numbers, and against the plain convolution it starts as."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from seamless_pr.layers.deformable import DeformableConv2d
from tests.support.golden import load_golden
from tests.support.mmdet_recipe import recipe_normal, recipe_tensor, recipe_uniform

SEED = 20
GOLDEN = load_golden("mmdet/ops_mmdet3")
SHAPES = {"a": (8, 8, 11, 14), "b": (8, 12, 13, 10), "c": (4, 6, 9, 9)}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("kind", ["dcn", "dcn2"])
def test_the_operation_and_its_gradients_are_those_of_mmcv(kind, case):
    groups, deform_groups, stride, padding, dilation = GOLDEN[f"dcn_{case}_cfg"].tolist()
    in_channels, out_channels, height, width = SHAPES[case]
    out_size = GOLDEN[f"{kind}_{case}_y"].shape[2:]

    def draw(part, shape, scale=1.0):
        return recipe_normal(f"dcn_{case}_{part}", shape, SEED, scale).requires_grad_()

    x = draw("x", (2, in_channels, height, width))
    weight = draw("w", (out_channels, in_channels // groups, 3, 3), 0.2)
    offsets = draw("off", (2, 18 * deform_groups, *out_size), 1.7)
    inputs = {"dx": x, "doff": offsets, "dw": weight}
    mask = bias = None
    if kind == "dcn2":
        mask = recipe_uniform(f"dcn_{case}_m", (2, 9 * deform_groups, *out_size), SEED)
        bias = recipe_normal(f"dcn_{case}_b", (out_channels,), SEED)
        inputs |= {"dm": mask.requires_grad_(), "db": bias.requires_grad_()}
    y = deform_conv2d(x, offsets, weight, bias, stride, padding, dilation, mask)
    torch.testing.assert_close(y, GOLDEN[f"{kind}_{case}_y"], rtol=1e-4, atol=1e-5)
    y.backward(recipe_normal(f"dcn_{case}_dy", tuple(y.shape), SEED))
    for name, value in inputs.items():
        torch.testing.assert_close(
            value.grad, GOLDEN[f"{kind}_{case}_{name}"], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    "name, layer",
    [
        ("dcn_pack", {"kind": "v1", "stride": 2, "padding": 1, "groups": 2}),
        ("dcn_pack2", {"kind": "v2", "stride": 2, "padding": 1, "groups": 2}),
        ("dcn_pack2k1", {"kind": "v2"}),
    ],
)
def test_a_layer_with_its_own_offsets_is_that_of_mmcv(name, layer):
    expected = GOLDEN[f"{name}_y"]
    size = 1 if name.endswith("k1") else 3
    conv = DeformableConv2d(8, expected.shape[1], size, **layer)
    conv.load_state_dict(
        {
            key: recipe_tensor(f"{name}.{key}", tuple(value.shape), SEED)
            for key, value in conv.state_dict().items()
        }
    )
    x = recipe_normal("dcn_pack_x", (1, 8, 12, 15), SEED)
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-5)


def tap_by_tap(conv: DeformableConv2d, x: Tensor) -> Tensor:
    """The same layer as a sum over taps, each of which samples the whole map at moved places."""
    size, taps = conv.weight.shape[-1], conv.weight.shape[-1] ** 2
    plain = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
    shifts = F.conv2d(x, conv.conv_offset.weight, conv.conv_offset.bias, **plain)
    rows, columns = (
        torch.arange(length, dtype=x.dtype) * conv.stride - conv.padding
        for length in shifts.shape[-2:]
    )
    height, width = x.shape[-2:]
    result = 0.0
    for tap in range(taps):
        y = rows[:, None] + tap // size * conv.dilation + shifts[:, 2 * tap]
        x_place = columns + tap % size * conv.dilation + shifts[:, 2 * tap + 1]
        # 0 outside; -1 and 1 are the centres of the outermost cells.
        places = torch.stack([2 * x_place / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
        sampled = F.grid_sample(x, places, align_corners=True)
        if conv.kind == "v2":
            sampled = sampled * shifts[:, 2 * taps + tap].sigmoid()[:, None]
        weight = conv.weight[:, :, tap // size, tap % size, None, None]
        result = result + F.conv2d(sampled, weight, groups=conv.groups)
    return result if conv.bias is None else result + conv.bias[:, None, None]


@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize(
    "size, options",
    [
        (3, {"stride": 2, "padding": 1, "groups": 2}),
        (3, {"padding": 2, "dilation": 2, "bias": True}),
        (1, {"groups": 4}),
        (5, {"stride": 3, "padding": 0}),
    ],
)
def test_it_is_a_sum_over_taps_that_sample_at_moved_places(kind, size, options):
    torch.manual_seed(size)
    conv = DeformableConv2d(4, 8, size, kind=kind, **options).double()
    for parameter in conv.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 4, 9, 12, dtype=torch.float64, requires_grad=True)
    inputs = [x, *conv.parameters()]
    found, expected = conv(x), tap_by_tap(conv, x)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind, factor", [("v1", 1.0), ("v2", 0.5)])
def test_at_first_it_is_the_plain_convolution(kind, factor):
    plain = nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, bias=False)
    deformable = DeformableConv2d.in_place_of(plain, kind)
    x = torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(deformable(x), factor * plain(x))


def test_a_constant_shift_moves_the_map():
    conv = DeformableConv2d(1, 1, 1, kind="v1")
    nn.init.ones_(conv.weight)
    with torch.no_grad():
        # (dy, dx): one row down, two columns to the right.
        conv.conv_offset.bias.copy_(torch.tensor([1.0, 2.0]))
    x = torch.arange(20.0).view(1, 1, 4, 5)
    expected = F.pad(x, (0, 2, 0, 1))[..., 1:, 2:]
    torch.testing.assert_close(conv(x), expected)


def test_half_precision_runs_in_float32_and_comes_back():
    conv = DeformableConv2d(4, 4, 3, padding=1)
    x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = conv(x.bfloat16())
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), conv(x), rtol=0.05, atol=0.05)


def test_no_image_gives_no_map():
    conv = DeformableConv2d(4, 6, 3, stride=2, padding=1)
    assert conv(torch.zeros(0, 4, 8, 8)).shape == (0, 6, 4, 4)


def test_unknown_kinds_and_uneven_kernels_are_refused():
    with pytest.raises(ValueError, match=r"'v1', 'v2'.*got 'v3'"):
        DeformableConv2d(4, 4, 3, kind="v3")
    with pytest.raises(ValueError, match="equal sides; got kernel_size"):
        DeformableConv2d.in_place_of(nn.Conv2d(4, 4, (3, 5)), "v1")
