"""Semantics averaged over views of an image: sizes, and mirror images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from seamless_pr.models.fusion.by_query import class_segments
from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.models.fusion.frame_bands import stacked_bands
from seamless_pr.models.networks.maskformer import MaskFormer
from seamless_pr.models.networks.network import Network
from seamless_pr.ops.resize import resize_as_pillow, resized_size
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.prediction import Prediction


class ScoringNetwork(Protocol):
    """What a network must offer so that views of an image can be averaged."""

    def outputs(self, batch: ImageBatch) -> Any: ...

    def class_scores(
        self, outputs: Any, index: int, original: tuple[int, int], rows: tuple[int, int]
    ) -> Tensor:
        """Scores of all classes in some rows of an image file, [K, rows, W].

        Args:
            outputs: of `outputs`.
            index: of the image in its batch.
            original: (height, width) of the file.
            rows: the first, and the one behind the last.
        """
        ...


@dataclass(frozen=True)
class View:
    """What the network says about one view of one image."""

    outputs: Any
    is_mirrored: bool


class MultiScaleNet(Network):
    """A network for semantics whose class scores are averaged over views.

    Views are made of the image as the network would get it, resized a second time, as the published
    evaluations do; each is computed by itself.

    Args:
        network: a `ScoringNetwork`.
        shortest_sides: length of the shorter side of each view.
        longest_side: cap on the longer side.
        mirrored: every view once more, left and right exchanged.

    Raises:
        ValueError: the network gives no class scores, or its task is not semantic.
    """

    loss_names = ()

    def __init__(
        self,
        network: Network,
        shortest_sides: Sequence[int],
        longest_side: int | None = None,
        *,
        mirrored: bool = True,
    ) -> None:
        super().__init__()
        task = network.fusion.settings.task if isinstance(network, MaskFormer) else "semantic"
        if not hasattr(network, "class_scores") or task != "semantic":
            raise ValueError(
                f"views are averaged for semantics of MaskFormer and its baselines; got a "
                f"{type(network).__name__} for task '{task}'; leave out data.view_sides_pixels, or "
                "set model.fusion.task=semantic"
            )
        self.network = network
        self.label_space = network.label_space
        self.shortest_sides = tuple(shortest_sides)
        self.longest_side = longest_side
        self.mirrored = mirrored

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        raise ValueError("views are for prediction; train the network itself")

    def outputs(self, batch: ImageBatch) -> list[list[View]]:
        """The views of each image."""
        images = [
            image[:, :height, :width]
            for image, (height, width) in zip(batch.images, batch.image_sizes, strict=True)
        ]
        return [self._views(image) for image in images]

    def _views(self, image: Tensor) -> list[View]:
        views = []
        for side in self.shortest_sides:
            size = resized_size((image.shape[1], image.shape[2]), side, self.longest_side)
            resized = resize_as_pillow(image, size)
            for is_mirrored in (False, True) if self.mirrored else (False,):
                shown = resized.flip(-1) if is_mirrored else resized
                outputs = self.network.outputs(ImageBatch.from_images([shown]))
                views.append(View(outputs, is_mirrored))
        return views

    def finish(
        self, outputs: list[list[View]], sizes: Sequence[tuple[int, int]]
    ) -> list[Prediction]:
        predictions = []
        for views, original in zip(outputs, sizes, strict=True):
            semantic_map = self._map(views, original)
            panoptic = class_segments(semantic_map, self.label_space)
            predictions.append(Prediction(panoptic, semantic_map))
        return predictions

    def _map(self, views: Sequence[View], original: tuple[int, int]) -> Tensor:
        frame = FrameSizes(original, original, original)
        return stacked_bands(
            frame,
            2 * self.label_space.num_classes,
            lambda band: self.scores(views, original, (band.start, band.stop)).argmax(0),
        )

    def scores(
        self, views: Sequence[View], original: tuple[int, int], rows: tuple[int, int]
    ) -> Tensor:
        """Mean of the class scores of all views in some rows of the file, [K, rows, W]."""
        network: Any = self.network
        total: Tensor | None = None
        for view in views:
            found = network.class_scores(view.outputs, 0, original, rows)
            found = found.flip(-1) if view.is_mirrored else found
            total = found if total is None else total + found
        if total is None:
            raise ValueError("there are no views to average; give shortest_sides")
        return total / len(views)
