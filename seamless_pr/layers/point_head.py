"""PointRend's point head: logits of single points.

Letters: C channels of the fine map, K classes, M points of a call.
Source: PointRend (CVPR 2020), section 4; where the released code differs, it is the default.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.ops.fixed_shapes import needs_fixed_shapes

# What a layer of the point head writes for so many points is still in the processor's cache when
# the next layer reads it.
CPU_BLOCK_POINTS = 1024


class PointHead(nn.Module):
    """The point MLP: fine features and coarse logits of a point -> its logits.

    forward: fine [M, C], coarse [M, K] -> [M, K]. A layer's weight is one matrix
    [hidden, inputs + K]; on the CPU it is applied in two parts, so that fine and coarse inputs are
    never concatenated.

    Args:
        in_channels: C.
        num_classes: K.
        hidden_channels, num_layers: width and depth before the predictor.
        coarse_each_layer: give the coarse logits to every layer and the predictor (instance, and
            the paper's text) or to the first only (released semantic head).
        residual: the output is added to the coarse logits.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        hidden_channels: int = 256,
        num_layers: int = 3,
        coarse_each_layer: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.ModuleList()
        inputs = in_channels
        for index in range(num_layers):
            takes_coarse = coarse_each_layer or index == 0
            layer = nn.Linear(inputs + num_classes * takes_coarse, hidden_channels)
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            self.layers.append(layer)
            inputs = hidden_channels
        self.predictor = nn.Linear(inputs + num_classes * coarse_each_layer, num_classes)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        logits = self._logits(fine, coarse)
        return logits + coarse if self.residual else logits

    def _logits(self, fine: Tensor, coarse: Tensor) -> Tensor:
        if needs_fixed_shapes(fine):
            return self._products(fine, coarse)
        blocks = zip(fine.split(CPU_BLOCK_POINTS), coarse.split(CPU_BLOCK_POINTS))
        return torch.cat([self._block(*block) for block in blocks])

    def _products(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """One product a layer of all points: a GPU is quick at those, and slow at starting many."""
        for layer in (*self.layers, self.predictor):
            assert isinstance(layer, nn.Linear)
            takes_coarse = layer.in_features > fine.shape[1]
            inputs = torch.cat([fine, coarse.to(fine.dtype)], dim=1) if takes_coarse else fine
            fine = layer(inputs)
            if layer is not self.predictor:
                fine = fine.relu_()
        return fine

    def _block(self, fine: Tensor, coarse: Tensor) -> Tensor:
        # The bias is the weight of one more coarse input, so that it costs no pass over memory.
        coarse = torch.cat([coarse, coarse.new_ones(len(coarse), 1)], dim=1)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            fine = _linear_parts(layer, fine, coarse).relu_()
        return _linear_parts(self.predictor, fine, coarse)


def _linear_parts(layer: nn.Linear, fine: Tensor, coarse: Tensor) -> Tensor:
    """`layer(cat([fine, coarse]))`, or `layer(fine)` where the layer has no coarse input.

    Args:
        layer: from [fine, coarse] or fine.
        fine: [M, C].
        coarse: [M, K + 1]; the last column is 1.
    """
    num_fine = fine.shape[1]
    fine_weight, coarse_weight = layer.weight[:, :num_fine], layer.weight[:, num_fine:]
    if coarse_weight.shape[1] == 0:
        return F.linear(fine, fine_weight, layer.bias)
    coarse_weight = torch.cat([coarse_weight, layer.bias[:, None]], dim=1)
    from_coarse = torch.mm(coarse, coarse_weight.t())
    # In place: the sum goes where the first product is. Autocast leaves such operations alone.
    dtype = from_coarse.dtype
    return from_coarse.addmm_(fine.to(dtype), fine_weight.t().to(dtype))
