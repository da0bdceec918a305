"""The point MLP against layers on concatenated inputs, and in half precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers import point_head as point_heads
from seamless_pr.layers.point_head import PointHead


def concatenated(head: PointHead, fine: Tensor, coarse: Tensor) -> Tensor:
    """The point MLP as the paper draws it."""
    hidden = fine
    for layer in head.layers:
        assert isinstance(layer, nn.Linear)
        inputs = torch.cat([hidden, coarse], 1)[:, : layer.in_features]
        hidden = F.relu(layer(inputs))
    return head.predictor(torch.cat([hidden, coarse], 1)[:, : head.predictor.in_features])


@pytest.mark.parametrize("block_points", [1024, 2])
@pytest.mark.parametrize("each_layer", [True, False])
def test_the_point_head_equals_layers_on_concatenated_inputs(
    each_layer: bool, block_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_heads, "CPU_BLOCK_POINTS", block_points)
    generator = torch.Generator().manual_seed(0)
    head = PointHead(6, 3, hidden_channels=8, coarse_each_layer=each_layer)
    for parameter in head.parameters():
        nn.init.normal_(parameter, generator=generator)
    fine, coarse = torch.randn(5, 6, generator=generator), torch.randn(5, 3, generator=generator)
    expected_fine, expected_coarse = (x.clone().requires_grad_() for x in (fine, coarse))
    fine.requires_grad_()
    coarse.requires_grad_()
    found, expected = head(fine, coarse), concatenated(head, expected_fine, expected_coarse)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(fine.grad, expected_fine.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(coarse.grad, expected_coarse.grad, rtol=1e-4, atol=1e-3)


def test_the_point_head_trains_in_half_precision() -> None:
    head = PointHead(6, 3, hidden_channels=8)
    nn.init.normal_(head.predictor.weight)
    fine, coarse = torch.randn(5, 6, requires_grad=True), torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(fine, coarse)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), head(fine, coarse), rtol=0.1, atol=0.1)
    logits.sum().backward()
    assert fine.grad is not None


def test_a_residual_head_says_what_to_add_to_the_coarse_logits() -> None:
    torch.manual_seed(0)
    plain = PointHead(6, 3, hidden_channels=8)
    residual = PointHead(6, 3, hidden_channels=8, residual=True)
    residual.load_state_dict(plain.state_dict())
    fine, coarse = torch.randn(5, 6), torch.randn(5, 3)
    torch.testing.assert_close(residual(fine, coarse), coarse + plain(fine, coarse))
