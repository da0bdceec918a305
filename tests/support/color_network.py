"""A network without training: the colour of a pixel is its class, so results are known by eye."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seamless_pr.models.networks.network import Network
from seamless_pr.ops.masks import BoxMasks
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.prediction import Prediction

TOY_SPACE = LabelSpace(
    "toy",
    (
        Category(7, "road", False, (128, 64, 128)),
        Category(23, "sky", False, (70, 130, 180)),
        Category(26, "car", True, (0, 0, 142)),
    ),
)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class ColorNetwork(Network):
    """Red is road, green is sky, all blue is one car (and one instance); anything else is void.

    Attributes:
        batches: (number of images, height, width) of each call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.label_space = TOY_SPACE
        self.batches: list[tuple[int, int, int]] = []

    def outputs(self, batch: ImageBatch) -> ImageBatch:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.batches.append((len(batch), *batch.padded_size))
        return batch

    def finish(self, outputs: ImageBatch, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        return [self._label(image, size) for image, size in zip(outputs.images, sizes, strict=True)]

    def _label(self, image: Tensor, size: tuple[int, int]) -> Prediction:
        resized = nn.functional.interpolate(image[None].float(), size)[0]
        brightest = resized.argmax(0).int() + 1
        id_map = torch.where(resized.amax(0) > 128, brightest, 0).int()
        areas = torch.bincount(id_map.flatten(), minlength=4).tolist()
        segments = tuple(
            Segment(train_id + 1, train_id, areas[train_id + 1], score=1.0)
            for train_id in range(3)
            if areas[train_id + 1]
        )
        car = torch.nonzero(id_map == 3)
        boxes = torch.zeros(0, 4)
        if len(car):
            top_left, bottom_right = car.amin(0).flip(0), car.amax(0).flip(0) + 1
            boxes = torch.cat([top_left, bottom_right])[None].float()
        instances = Instances(
            torch.full((len(boxes),), 0.75),
            torch.zeros(len(boxes), dtype=torch.int64),
            boxes,
            BoxMasks(torch.full((len(boxes), 28, 28), 8.0), boxes),
        )
        segmentation = PanopticSegmentation(id_map, segments, self.label_space)
        return Prediction(segmentation, segmentation.semantic_map(), instances)
