"""A network that sees every image several times and merges what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.models.networks.network import Network
from seamless_pr.models.networks.two_branch import BranchOutputs, TwoBranchNet
from seamless_pr.ops.resize import resize_image
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.views import SeenView, View

# Probabilities of 0 have no finite logarithm.
_SMALLEST_PROB = 1e-12


class ViewedNet(Network):
    """Prediction over views (test-time augmentation) by a network of one trunk and two branches.

    The instance branch merges as it can (see `InstanceBranch.detect_views`); semantic
    probabilities are averaged at the size of the network input. Losses are the network's own.

    Args:
        network: whose weights all views share.
        views: at least one.

    Raises:
        ValueError: no view.
    """

    def __init__(self, network: TwoBranchNet, views: Sequence[View]) -> None:
        super().__init__()
        if not views:
            raise ValueError("prediction over views needs at least one; got none")
        self.network = network
        self.views = tuple(views)
        self.label_space = network.label_space
        self.loss_names = network.loss_names

    def losses(self, *arguments: Any) -> dict[str, LossSum]:
        return self.network.losses(*arguments)

    def outputs(self, batch: ImageBatch) -> BranchOutputs:
        batch = batch.padded_to(self.network.size_divisor)
        seen = [self.see(batch, view) for view in self.views]
        return self.merged(batch, seen)

    def see(self, batch: ImageBatch, view: View) -> SeenView:
        """The trunk's features of a changed batch."""
        changed = changed_batch(batch, view).padded_to(self.network.size_divisor)
        return SeenView(self.network.trunk(changed), changed, view.flip)

    def merged(self, batch: ImageBatch, seen: Sequence[SeenView]) -> BranchOutputs:
        """What all views say together, in pixels of the padded batch."""
        branch, semantics = self.network.instances, self.network.semantics
        instances = None if branch is None else branch.detect_views(seen, batch)
        logits = None
        if semantics is not None:
            probs = [
                semantic_probs(semantics.logits(view.features, view.batch.padded_size), view, batch)
                for view in seen
            ]
            logits = torch.stack(probs).mean(0).clamp(min=_SMALLEST_PROB).log()
        return BranchOutputs(batch, instances, logits)

    def finish(self, outputs: BranchOutputs, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        return self.network.finish(outputs, sizes)


def changed_batch(batch: ImageBatch, view: View) -> ImageBatch:
    """The valid pixels of each image, resized and mirrored, as a batch of their own."""
    images = []
    for image, (height, width) in zip(batch.images, batch.image_sizes):
        size = (max(1, round(height * view.scale)), max(1, round(width * view.scale)))
        resized = resize_image(image[:, :height, :width], size)
        images.append(resized.flip(-1) if view.flip else resized)
    return ImageBatch.from_images(images)


def semantic_probs(logits: Tensor, view: SeenView, base: ImageBatch) -> Tensor:
    """[N, K, H, W] class probabilities over the base batch of the logits of a view.

    Args:
        logits: [N, K, h, w] over the padded view.
        view: that view.
        base: the batch as it was; what its padding says is of no meaning.
    """
    upsampled = _resized(logits.float(), view.batch.padded_size).softmax(1)
    result = upsampled.new_full((*upsampled.shape[:2], *base.padded_size), 1 / logits.shape[1])
    for image, (height, width) in enumerate(view.batch.image_sizes):
        valid = upsampled[image : image + 1, :, :height, :width]
        valid = valid.flip(-1) if view.flip else valid
        base_height, base_width = base.image_sizes[image]
        result[image, :, :base_height, :base_width] = _resized(valid, (base_height, base_width))[0]
    return result


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
