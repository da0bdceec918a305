"""What a network says about one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seamless_pr.structures.instances import Instances
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation


@dataclass(frozen=True)
class Prediction:
    """Results at the size of the image file; what the network does not know is None.

    Attributes:
        panoptic: every pixel's segment; on the CPU.
        semantic_map: [H, W] train ids of any integer dtype.
        instances: boxes and masks in pixels of the file.
    """

    panoptic: PanopticSegmentation | None = None
    semantic_map: Tensor | None = None
    instances: Instances | None = None

    def to(self, device: torch.device | str) -> Prediction:
        """The same with tensors on a device; the panoptic map is on the CPU already."""
        return Prediction(
            self.panoptic,
            None if self.semantic_map is None else self.semantic_map.to(device),
            None if self.instances is None else self.instances.to(device),
        )

    def require_panoptic(self) -> PanopticSegmentation:
        """The panoptic map.

        Raises:
            ValueError: the network makes none.
        """
        if self.panoptic is None:
            raise ValueError("this network makes no panoptic map; use one that has a fusion")
        return self.panoptic
