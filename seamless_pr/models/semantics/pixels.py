"""Semantics of pixels: a head, and the loss over the hardest pixels or over all.

Letters: N images, K classes, H, W padded image size, h, w size of the logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.models.semantics.branch import HeadSemantics
from seamless_pr.ops.precision import at_least_single
from seamless_pr.ops.resize import upsample_logits
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import SemanticLossSettings


class PixelSemantics(HeadSemantics):
    """A semantic head whose logits are resized bilinearly.

    Args:
        head: levels, finest first -> logits [N, K, h, w].
        settings: numbers of the loss.
        upsample_to_input: `logits` are those of the network input (detectron2 resizes twice: to the
            input, then to the image file), not of the head's own size.
    """

    loss_names = ("semantic",)

    def __init__(
        self, head: nn.Module, settings: SemanticLossSettings, *, upsample_to_input: bool = False
    ) -> None:
        super().__init__()
        self.head = head
        self.settings = settings
        self.merged_things = settings.things == "merged"
        self.upsample_to_input = upsample_to_input

    def losses(
        self,
        features: Features,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        logits = self.coarse_logits(features)
        return semantic_loss(logits, targets, batch.image_sizes, batch.padded_size, self.settings)

    def logits(self, features: Features, padded_size: tuple[int, int]) -> Tensor:
        logits = self.coarse_logits(features)
        return upsample_logits(logits, padded_size) if self.upsample_to_input else logits


def num_semantic_classes(label_space: LabelSpace, settings: SemanticLossSettings) -> int:
    """Outputs of the semantic branch."""
    return label_space.num_classes if settings.things == "classes" else label_space.num_stuff + 1


def semantic_loss(
    logits: Tensor,
    targets: Sequence[PanopticTarget],
    image_sizes: Sequence[tuple[int, int]],
    padded_size: tuple[int, int],
    settings: SemanticLossSettings,
) -> dict[str, LossSum]:
    """Cross-entropy at full resolution, over the hardest pixels of each image or over all.

    "hard_pixels": void pixels cost 0 but count as pixels; per image, the mean over the
    ceil(fraction * H * W) most expensive pixels is taken (Seamless Scene Segmentation's released
    code; tau = 4 / (W H) in the paper). "valid_mean": the mean over all valid pixels of the batch.

    Args:
        logits: [N, K, h, w] of the padded batch.
        targets: semantic maps of `image_sizes`.
        image_sizes: (height, width) of the valid pixels.
        padded_size: (H, W).

    Returns:
        "semantic": sum over images, count = number of images; or sum over the valid pixels of all
        images and their number.
    """
    takes_all = settings.loss == "valid_mean"
    fraction = 1.0 if takes_all else settings.hard_pixel_fraction
    count = 0.0
    total = logits.sum() * 0 if len(targets) == 0 else logits.new_zeros((), dtype=torch.float32)
    for image_logits, target, image_size in zip(logits.split(1), targets, image_sizes):
        if target.image_size != tuple(image_size):
            raise ValueError(
                f"target of image '{target.image_key}' has size {target.image_size}; expected the "
                f"image's {tuple(image_size)}"
            )
        labels = semantic_labels(target, settings.things == "merged")
        mean = _HardPixelLoss.apply(image_logits, labels, padded_size, fraction)
        total = total + (mean * labels.numel() if takes_all else mean)
        count += int((labels != LabelSpace.IGNORE_TRAIN_ID).sum()) if takes_all else 1
    return {"semantic": LossSum(total, count)}


def semantic_labels(target: PanopticTarget, merged_things: bool) -> Tensor:
    """Class per pixel as the semantic branch learns it: [H, W] int64, with the ignore value."""
    labels = target.semantic_map
    if not merged_things:
        return labels
    num_stuff = target.label_space.num_stuff
    is_thing = (labels >= num_stuff) & (labels != LabelSpace.IGNORE_TRAIN_ID)
    return labels.masked_fill(is_thing, num_stuff)


class _HardPixelLoss(torch.autograd.Function):
    """Mean cross-entropy of the hardest pixels of one image.

    The gradient, of the size of the coarse logits, is computed along with the loss, so that nothing
    of full resolution outlives the forward pass (two tensors of K x H x W floats otherwise).
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, padded_size: tuple[int, int], fraction: float
    ) -> Tensor:
        num_hard = math.ceil(fraction * target.numel())
        with torch.enable_grad():
            # Planes, also if the network runs on channels_last: what follows reads class by class.
            coarse = at_least_single(logits.detach()).contiguous().requires_grad_()
            upsampled = upsample_logits(coarse, padded_size)
        height, width = target.shape
        log_probs = F.log_softmax(upsampled.detach()[..., :height, :width], dim=1)
        ignored = LabelSpace.IGNORE_TRAIN_ID
        pixel_losses = F.nll_loss(log_probs, target[None], ignore_index=ignored, reduction="none")
        hardest, indices = pixel_losses.flatten().topk(num_hard, sorted=False)
        if ctx.needs_input_grad[0]:
            is_hard = torch.zeros_like(pixel_losses).flatten()
            is_hard[indices] = 1 / num_hard
            pixel_weights = is_hard.view_as(target) * (target != ignored)
            # d loss / d logit = (softmax - one-hot) * weight of the pixel
            grad = log_probs.exp_().mul_(pixel_weights)
            class_index = target.clamp(max=log_probs.shape[1] - 1)[None, None]
            grad.scatter_add_(1, class_index, -pixel_weights[None, None])
            if padded_size != (height, width):
                grad = F.pad(grad, [0, padded_size[1] - width, 0, padded_size[0] - height])
            (grad_coarse,) = torch.autograd.grad(upsampled, coarse, grad)
            ctx.save_for_backward(grad_coarse.to(logits.dtype))
        return hardest.mean()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0], None, None, None
