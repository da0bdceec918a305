"""Heads of PointRend that see a box whole, on a regular grid of points in it.

Letters: C channels that are read, K classes, R boxes.
Source: PointRend (CVPR 2020), section 4; where the released code differs, it is the default.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.ops.points import PointReader, points_to_image, regular_grid


class BoxVectorHead(nn.Module):
    """Numbers about a box, seen whole.

    forward: [R, C, roi_size, roi_size] features on a regular grid of points -> [R, num_outputs].

    Args:
        in_channels: C, of all levels that are read together.
        num_outputs: numbers per box.
        hidden_channels, num_layers: width and number of the fully connected layers.
        roi_size: side of the grid.
        conv_channels: width of the convolution that halves the side; None: C.
        mixes_first: a 1x1 convolution from C to that width goes before it.
    """

    def __init__(
        self,
        in_channels: int,
        num_outputs: int,
        *,
        hidden_channels: int = 1024,
        roi_size: int = 14,
        num_layers: int = 2,
        conv_channels: int | None = None,
        mixes_first: bool = False,
    ) -> None:
        super().__init__()
        if roi_size % 2:
            raise ValueError(f"roi_size must be even (it is halved once); got {roi_size}")
        self.roi_size = roi_size
        self.num_layers = num_layers
        width = conv_channels or in_channels
        self.mix = nn.Conv2d(in_channels, width, 1) if mixes_first else None
        self.reduce = nn.Conv2d(width if mixes_first else in_channels, width, 2, stride=2)
        inputs = width * (roi_size // 2) ** 2
        for index in range(1, num_layers + 1):
            self.add_module(f"fc{index}", nn.Linear(inputs, hidden_channels))
            inputs = hidden_channels
        self.prediction = nn.Linear(inputs, num_outputs)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He's weights in convolutions, Xavier's in the other layers; predictions start near 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear) and module is not self.prediction:
                nn.init.kaiming_uniform_(module.weight, a=1)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.prediction.weight, std=0.001)

    def forward(self, roi_features: Tensor) -> Tensor:
        if self.mix is not None:
            roi_features = F.relu(self.mix(roi_features))
        hidden = F.relu(self.reduce(roi_features)).flatten(1)
        for index in range(1, self.num_layers + 1):
            hidden = F.relu(self.get_submodule(f"fc{index}")(hidden))
        result: Tensor = self.prediction(hidden)
        return result


class CoarseMaskHead(BoxVectorHead):
    """Class-specific mask logits of a box, seen whole.

    forward: [R, C, roi_size, roi_size] features on a regular grid of points -> logits
    [R, K, roi_size / 2, roi_size / 2]; with `background` [R, 1 + K, ...], the background first.

    Args:
        in_channels: C, of all levels that are read together.
        num_things: K.
        roi_size: side of the grid.
        background: whether there is a background.
        options: of `BoxVectorHead`.
    """

    def __init__(
        self,
        in_channels: int,
        num_things: int,
        *,
        roi_size: int = 14,
        background: bool = False,
        **options: Any,
    ) -> None:
        self.first_thing = int(background)
        self.num_outputs = num_things + self.first_thing
        self.mask_size = roi_size // 2
        num_cells = self.num_outputs * self.mask_size**2
        super().__init__(in_channels, num_cells, roi_size=roi_size, **options)

    def forward(self, roi_features: Tensor) -> Tensor:
        logits = super().forward(roi_features)
        return logits.unflatten(1, (self.num_outputs, self.mask_size, self.mask_size))


def box_grid_features(
    reader: PointReader, boxes: Tensor, image_indices: Tensor, size: int
) -> Tensor:
    """What the levels say on a regular grid of points of every box: [R, C, size, size]."""
    grid = regular_grid(size, boxes.device)
    points = points_to_image(grid.expand(len(boxes), -1, -1), boxes)
    features = reader.read(points.flatten(0, 1), image_indices.repeat_interleave(len(grid)))
    return features.unflatten(0, (len(boxes), size, size)).permute(0, 3, 1, 2)


def coarse_mask_logits(
    head: CoarseMaskHead, reader: PointReader, boxes: Tensor, image_indices: Tensor
) -> Tensor:
    """The coarse head on a grid of points per box: [R, K, mask_size, mask_size] logits."""
    logits: Tensor = head(box_grid_features(reader, boxes, image_indices, head.roi_size))
    return logits
