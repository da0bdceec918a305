"""A network that sees every image several times and merges what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from seamless_pr.models.networks.network import Network
from seamless_pr.ops.resize import resize_as_pillow, resize_image, resized_size
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.views import ChangedBatch, View


class ViewedNet(Network):
    """Prediction over views (test-time augmentation) by a network of any kind.

    Each kind merges as it can, see its `outputs_of_views`. Losses are the network's own.

    Args:
        network: whose weights all views share.
        views: at least one.

    Raises:
        ValueError: no view.
    """

    def __init__(self, network: Network, views: Sequence[View]) -> None:
        super().__init__()
        if not views:
            raise ValueError("prediction over views needs at least one; got none")
        self.network = network
        self.views = tuple(views)
        self.label_space = network.label_space
        self.loss_names = network.loss_names
        if network.largest_side_pixels is not None:
            largest_scale = max(view.scale for view in self.views)
            self.largest_side_pixels = int(network.largest_side_pixels / largest_scale)

    def losses(self, *arguments: Any) -> dict[str, LossSum]:
        return self.network.losses(*arguments)

    def outputs(self, batch: ImageBatch) -> Any:
        changed = [changed_batch(batch, view) for view in self.views]
        return self.network.outputs_of_views(changed, batch)

    def finish(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        return self.network.finish_views(outputs, sizes)


def changed_batch(batch: ImageBatch, view: View) -> ChangedBatch:
    """The valid pixels of each image, resized and mirrored, as a batch of their own."""
    images = []
    for image, (height, width) in zip(batch.images, batch.image_sizes):
        resized = resized_for(view, image[:, :height, :width])
        images.append(resized.flip(-1) if view.flip else resized)
    return ChangedBatch(ImageBatch.from_images(images), view.flip)


def resized_for(view: View, image: Tensor) -> Tensor:
    """[3, H, W] uint8 at the size of a view, not mirrored."""
    height, width = image.shape[-2:]
    if view.shortest_side_pixels is None:
        size = (max(1, round(height * view.scale)), max(1, round(width * view.scale)))
        return resize_image(image, size)
    # To the last grey level, as published evaluations do it.
    size = resized_size(
        (height, width),
        view.shortest_side_pixels,
        view.longest_side_pixels,
        rounded=view.rounded_sides,
    )
    return resize_as_pillow(image, size)
