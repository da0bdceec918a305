"""Norms folded into the layers before them: the same numbers but for rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import ABN, InPlaceABN
from seamless_pr.layers.folded_norms import fold_norms


def drawn_norm(channels: int, activation: str = "leaky_relu") -> InPlaceABN:
    norm = InPlaceABN(channels, activation, slope=0.1)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


class Layers(nn.Module):
    """Each kind of layer before a norm, and each reason to leave a norm alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), drawn_norm(4)
        self.up, self.up_norm = nn.ConvTranspose2d(4, 6, 2), drawn_norm(6, "identity")
        self.linear, self.linear_norm = nn.Linear(6, 5), drawn_norm(5)
        # Behind two convolutions; one convolution before two norms; read by something else.
        self.left, self.right, self.behind_two = (
            nn.Conv2d(3, 2, 1),
            nn.Conv2d(3, 2, 1),
            drawn_norm(4),
        )
        self.shared, self.first, self.second = nn.Conv2d(3, 2, 1), drawn_norm(2), drawn_norm(2)
        self.read_twice, self.last = nn.Conv2d(3, 2, 1), drawn_norm(2)

    def forward(self, x: Tensor) -> Tensor:
        main = self.up_norm(self.up(self.norm(self.conv(x))))
        means = [self.linear_norm(self.linear(main.mean((2, 3))))]
        means.append(self.behind_two(torch.cat([self.left(x), self.right(x)], 1)).mean((2, 3)))
        means += [norm(self.shared(x)).mean((2, 3)) for norm in (self.first, self.second)]
        means += [self.read_twice(x).mean((2, 3)), self.last(self.read_twice(x)).mean((2, 3))]
        return torch.cat(means, 1)


def test_what_comes_out_stays_the_same() -> None:
    layers, x = Layers().eval(), torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        expected = layers(x)
        assert fold_norms(layers, lambda: layers(x[:1])) == 3
        torch.testing.assert_close(layers(x), expected, rtol=1e-5, atol=1e-5)
    folded = {name for name, m in layers.named_modules() if getattr(m, "is_folded", False)}
    assert folded == {"norm", "up_norm", "linear_norm"}


def test_scales_of_all_signs_and_none_count_as_in_the_norm() -> None:
    conv, norm = nn.Conv2d(1, 3, 1, bias=False), InPlaceABN(3, eps=0.25)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([-2.0, 0.0, 1.0]))
        conv.weight.fill_(1)
        layers = nn.Sequential(conv, norm).eval()
        fold_norms(layers, lambda: layers(torch.ones(1, 1, 1, 1)))
    scale = torch.tensor([2.25, 0.25, 1.25]) / torch.tensor(1.25).sqrt()
    torch.testing.assert_close(conv.weight.flatten(), scale)


def test_sixteen_bits_go_on_as_sixteen_bits() -> None:
    conv, norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), drawn_norm(8)
    layers, x = nn.Sequential(conv, norm).eval(), torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        exact = layers(x)
        fold_norms(layers, lambda: layers(x))
        with torch.autocast("cpu", torch.bfloat16):
            found = layers(x)
    assert found.dtype == torch.bfloat16
    assert float((found - exact).abs().max()) < 0.03 * float(exact.abs().max())


def test_norms_that_keep_their_input_are_left_alone() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), ABN(4)).eval()
    with torch.no_grad():
        assert fold_norms(layers, lambda: layers(torch.ones(1, 3, 2, 2))) == 0
