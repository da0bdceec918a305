"""The fast window mean against average pooling as the reference runs it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops import window_mean as module
from seamless_pr.ops.window_mean import window_mean
from tests.support.golden import load_golden


def pooled_and_padded(x: Tensor, window_size: int) -> Tensor:
    """Average pooling without padding, then replicate padding: the slow, obvious way."""
    kernel = [min(window_size, size) for size in x.shape[-2:]]
    before = [(k - 1) // 2 for k in kernel]
    after = [k - 1 - start for k, start in zip(kernel, before)]
    pooled = F.avg_pool2d(x, tuple(kernel), stride=1)
    return F.pad(pooled, [before[1], after[1], before[0], after[0]], mode="replicate")


def random_map(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", ["90x75", "40x70", "17x20"])
def test_pooling_of_the_reference(size):
    golden = load_golden("seamseg/ops")
    result = window_mean(golden[f"minidl_x_{size}"], 64)
    torch.testing.assert_close(result, golden[f"minidl_pool_{size}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window_size", [1, 2, 3, 5, 7, 8, 13, 64])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (12, 5), (16, 21)])
def test_values_and_gradients_equal_average_pooling(window_size, size):
    x = random_map(2, 3, *size).requires_grad_()
    grad = random_map(2, 3, *size)
    expected = pooled_and_padded(x, window_size)
    result = window_mean(x, window_size)
    torch.testing.assert_close(result, expected)
    (expected_grad,) = torch.autograd.grad(expected, x, grad)
    (result_grad,) = torch.autograd.grad(result, x, grad)
    torch.testing.assert_close(result_grad, expected_grad)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_work_in_chunks_changes_nothing(monkeypatch, memory_format):
    x = random_map(2, 8, 24, 20).contiguous(memory_format=memory_format).requires_grad_()
    grad = random_map(2, 8, 24, 20).contiguous(memory_format=memory_format)
    whole = window_mean(x, 6)
    (whole_grad,) = torch.autograd.grad(whole, x, grad)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 1000)
    chunked = window_mean(x, 6)
    (chunked_grad,) = torch.autograd.grad(chunked, x, grad)
    assert chunked.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(chunked, whole, rtol=0, atol=0)
    torch.testing.assert_close(chunked_grad, whole_grad, rtol=0, atol=0)


def test_a_large_offset_costs_no_digits_beyond_those_of_the_input():
    noise = random_map(1, 2, 100, 130).float()
    x = noise + 1e5
    expected = pooled_and_padded(x.double(), 64)
    # One step of float32 at 1e5 is 0.0078.
    torch.testing.assert_close(window_mean(x, 64).double(), expected, rtol=0, atol=0.016)


def test_bfloat16_maps_are_summed_in_float32():
    x = random_map(1, 2, 80, 80).bfloat16()
    result = window_mean(x, 64)
    assert result.dtype == torch.bfloat16
    expected = pooled_and_padded(x.float(), 64).bfloat16()
    torch.testing.assert_close(result, expected, rtol=1e-2, atol=1e-4)


def test_a_batch_of_no_images_stays_empty():
    assert window_mean(torch.zeros(0, 3, 5, 6), 64).shape == (0, 3, 5, 6)


def test_a_window_without_cells_is_refused():
    with pytest.raises(ValueError, match="at least 1; got 0"):
        window_mean(torch.zeros(1, 1, 4, 4), 0)
