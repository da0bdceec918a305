"""The one boundary of every network: losses for training, results for everything else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.views import ChangedBatch


class Network(nn.Module):
    """What training, prediction and export ask of a network; `forward` is free for dense outputs.

    It takes raw pixels and normalises them itself, and knows no process group, config or file.

    Attributes:
        label_space: classes of the results.
        loss_names: the names that `losses` returns, always all of them.
        largest_side_pixels: longest side of the images that it reads; None: any.
    """

    label_space: LabelSpace
    loss_names: tuple[str, ...]
    largest_side_pixels: int | None = None

    @abstractmethod
    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        """Losses of a batch as sums and counts, not weighted.

        Whoever trains divides each sum by its count over all workers, weighs and adds.

        Args:
            batch: the images.
            targets: ground truth of each image, on the device of the batch.
            generators: all randomness comes from these, on the CPU, one per image.
        """

    @abstractmethod
    def outputs(self, batch: ImageBatch) -> Any:
        """What the network says about a batch before anything is merged into one map.

        Tiles blend these, views average them, ensembles pool them. The record is the network's
        own; `finish` takes it.
        """

    @abstractmethod
    def finish(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Merges the outputs of a batch, image by image.

        Args:
            outputs: of `outputs`.
            sizes: (height, width) of each image file.

        Returns:
            One prediction per image, at the size of its file.
        """

    def outputs_of_views(self, views: Sequence[ChangedBatch], base: ImageBatch) -> Any:
        """`outputs` of a batch by what several views of it say together; `finish_views` takes it.

        Args:
            views: of the batch; at least one.
            base: the batch as it was.

        Raises:
            ValueError: the network cannot merge views.
        """
        raise ValueError(f"{type(self).__name__} cannot merge views; predict without them")

    def finish_views(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """`finish` for the outputs of `outputs_of_views`."""
        return self.finish(outputs, sizes)

    def dense_scores(self, outputs: Any, index: int, original: tuple[int, int]) -> Tensor | None:
        """Scores of all classes whose largest names the class of a pixel that is no object's.

        Tiles of a large image add these where they overlap.

        Args:
            outputs: of `outputs`.
            index: of the image in its batch.
            original: (height, width) of its file.

        Returns:
            [K, height, width] float; stuff first, and one or more for things. None: the classes of
            this network's maps come of whole masks.
        """
        return None

    @torch.no_grad()
    def predict(self, batch: ImageBatch, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """`finish` of `outputs`."""
        return self.finish(self.outputs(batch), sizes)


class PixelNormalization(nn.Module):
    """Raw pixels as the backbone wants them.

    forward: batch of N images -> [N, 3, H, W] float32, (RGB / 255 - mean) / std, and 0 in the
    padding.

    Args:
        mean, std: of RGB in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, batch: ImageBatch) -> Tensor:
        images: Tensor = (batch.images / 255 - self.mean) / self.std
        for image, size in zip(images, batch.image_sizes):
            # An image without padding is left alone: not every runtime takes an empty part.
            if size != batch.padded_size:
                image[:, size[0] :] = 0
                image[:, :, size[1] :] = 0
        return images
