"""In-place activated batch norms folded into the convolutions before them, for prediction alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import InPlaceABN

# Axis of the weights that the output channels lie on.
_OUTPUT_AXIS: dict[type[nn.Module], int] = {nn.Conv2d: 0, nn.ConvTranspose2d: 1, nn.Linear: 0}


@torch.no_grad()
def fold_norms(network: nn.Module, run: Callable[[], object]) -> int:
    """Multiplies the scale of norms into the weights before them, and adds their bias there.

    (w x - mean) / sqrt(var + eps) * (|weight| + eps) + bias is linear in x, so nothing but rounding
    changes. Which layer comes before which norm is seen in a pass; nobody else reads what an
    `InPlaceABN` overwrites. Norms behind anything else stay. Afterwards the network is neither to
    be trained nor to be saved.

    Args:
        network: in evaluation mode.
        run: one pass of it, of any size.

    Returns:
        How many norms are folded.
    """
    made_by: dict[int, tuple[nn.Module, Tensor]] = {}
    sources: dict[InPlaceABN, set[nn.Module]] = {}
    num_made, num_read = Counter[nn.Module](), Counter[nn.Module]()

    def note_output(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        # The tensor is kept, so that no other gets its id.
        made_by[id(output)] = (layer, output)
        num_made[layer] += 1

    def note_input(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, InPlaceABN)
        layer, _ = made_by.get(id(inputs[0]), (norm, None))
        sources.setdefault(norm, set()).add(layer)
        num_read[layer] += 1

    hooks = []
    for module in network.modules():
        if type(module) in _OUTPUT_AXIS:
            hooks.append(module.register_forward_hook(note_output))
        elif isinstance(module, InPlaceABN):
            hooks.append(module.register_forward_pre_hook(note_input))
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    norms_of = Counter(layer for layers in sources.values() for layer in layers)
    num_folded = 0
    for norm, layers in sources.items():
        (layer, *others) = layers
        alone = not others and norms_of[layer] == 1 and num_made[layer] == num_read[layer]
        if alone and type(layer) in _OUTPUT_AXIS:
            _fold(norm, layer)
            num_folded += 1
    return num_folded


def _fold(norm: InPlaceABN, layer: nn.Module) -> None:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert bias is None or isinstance(bias, Tensor)
    scale = (norm.weight.abs() + norm.eps) / (norm.running_var + norm.eps).sqrt()
    shape = [1] * weight.ndim
    shape[_OUTPUT_AXIS[type(layer)]] = -1
    before = norm.running_mean if bias is None else norm.running_mean - bias
    layer.bias = nn.Parameter(norm.bias - before * scale, requires_grad=False)
    weight.mul_(scale.view(shape))
    norm.is_folded = True
