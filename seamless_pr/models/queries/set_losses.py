"""Matching of queries with targets, and the losses of MaskFormer.

Letters: N images, Q queries, T target masks, K classes, h, w cells of the mask logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from seamless_pr.models.queries.targets import MaskTargets
from seamless_pr.ops.assignment import cheapest_assignments
from seamless_pr.ops.mask_losses import mask_losses, pairwise_dice_loss, pairwise_focal_loss
from seamless_pr.ops.precision import at_least_single, without_autocast
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.query_settings import QueryLossSettings

LOSS_NAMES = ("query_class", "mask_focal", "mask_dice")
Pairs = tuple[Tensor, Tensor]

# Masks are enlarged to the size of the image, some of them at a time: more pixels than this are
# computed once more for their gradient instead of being kept.
_PIXELS_AT_ONCE = 1 << 22


def layer_names(names: Sequence[str], num_layers: int) -> tuple[str, ...]:
    """Names of losses that every decoder layer has: the last layer's as given, others numbered."""
    earlier = [f"{name}_{layer}" for layer in range(num_layers - 1) for name in names]
    return (*names, *earlier)


def set_losses(
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Sequence[MaskTargets],
    settings: QueryLossSettings,
) -> dict[str, LossSum]:
    """Losses of all decoder layers; each layer is matched by itself.

    MaskFormer, section 3.3. The class loss is a mean over queries, weighted by their targets'
    class; focal and dice loss are sums over matched queries, divided by the number of targets,
    matched or not.

    Args:
        class_logits: [L, N, Q, K + 1], "no object" last.
        mask_logits: [L, N, Q, h, w].
        targets: of each image, padded to the size of the network input.
        settings: weights inside the matching and the class loss.

    Returns:
        The losses of `LOSS_NAMES` of the last layer under these names, of layer l under `name_l`.
    """
    matched = match_queries(class_logits, mask_logits, targets, settings)
    num_layers = len(class_logits)
    losses: dict[str, LossSum] = {}
    for layer, pairs in enumerate(matched):
        found = _layer_losses(class_logits[layer], mask_logits[layer], targets, pairs, settings)
        suffix = "" if layer == num_layers - 1 else f"_{layer}"
        losses |= {f"{name}{suffix}": loss for name, loss in found.items()}
    return losses


@torch.no_grad()
def match_queries(
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Sequence[MaskTargets],
    settings: QueryLossSettings,
) -> list[list[Pairs]]:
    """Queries and targets that belong together, for each layer and image.

    Args:
        class_logits, mask_logits, targets, settings: as in `set_losses`.

    Returns:
        Per layer and image the indices of queries, ascending, and of targets: min(Q, T) pairs.
    """
    small = [target.resized_to((mask_logits.shape[3], mask_logits.shape[4])) for target in targets]
    costs = [
        matching_cost(classes, masks, target, settings)
        for layer_classes, layer_masks in zip(class_logits, mask_logits, strict=True)
        for classes, masks, target in zip(layer_classes, layer_masks, small, strict=True)
    ]
    pairs = cheapest_assignments(costs)
    num_images = len(targets)
    return [pairs[start : start + num_images] for start in range(0, len(pairs), num_images)]


def matching_cost(
    class_logits: Tensor, mask_logits: Tensor, targets: MaskTargets, settings: QueryLossSettings
) -> Tensor:
    """What it costs to give each target to each query: [Q, T]; autocast is left out.

    Args:
        class_logits: [Q, K + 1].
        mask_logits: [Q, h, w].
        targets: at the size of the mask logits.
        settings: weights of the terms.
    """
    with without_autocast(class_logits.device):
        probs = at_least_single(class_logits).softmax(-1)
        logits = at_least_single(mask_logits).flatten(1)
        masks = targets.masks(logits.dtype).flatten(1)
        return (
            settings.mask_cost * pairwise_focal_loss(logits, masks)
            + settings.dice_cost * pairwise_dice_loss(logits, masks)
            - settings.class_cost * probs[:, targets.train_ids]
        )


def _layer_losses(
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Sequence[MaskTargets],
    pairs: Sequence[Pairs],
    settings: QueryLossSettings,
) -> dict[str, LossSum]:
    num_targets = sum(len(target) for target in targets)
    focal, dice = _mask_losses(mask_logits, targets, pairs)
    return {
        "query_class": _class_loss(class_logits, targets, pairs, settings.no_object_weight),
        "mask_focal": LossSum(focal, num_targets),
        "mask_dice": LossSum(dice, num_targets),
    }


def _class_loss(
    class_logits: Tensor,
    targets: Sequence[MaskTargets],
    pairs: Sequence[Pairs],
    no_object_weight: float,
) -> LossSum:
    """Weighted sum of the cross-entropies of all queries, and the sum of the weights."""
    num_images, num_queries, num_outputs = class_logits.shape
    no_object = num_outputs - 1
    classes = torch.full((num_images, num_queries), no_object, device=class_logits.device)
    for row, target, (queries, chosen) in zip(classes, targets, pairs, strict=True):
        row[queries] = target.train_ids[chosen]
    weights = class_logits.new_ones(num_outputs, dtype=at_least_single(class_logits).dtype)
    weights[no_object] = no_object_weight
    total = F.cross_entropy(
        at_least_single(class_logits).flatten(0, 1), classes.flatten(), weights, reduction="sum"
    )
    num_matched = sum(len(queries) for queries, _ in pairs)
    num_free = num_images * num_queries - num_matched
    return LossSum(total, num_matched + no_object_weight * num_free)


def _mask_losses(
    mask_logits: Tensor, targets: Sequence[MaskTargets], pairs: Sequence[Pairs]
) -> tuple[Tensor, Tensor]:
    """Sums of the focal and of the dice loss over matched queries, at the size of the image."""
    focal = dice = at_least_single(mask_logits[:, :0]).sum()
    for logits, target, (queries, chosen) in zip(mask_logits, targets, pairs, strict=True):
        pairs_at_once = max(1, _PIXELS_AT_ONCE // target.id_map.numel())
        chunks = list(zip(queries.split(pairs_at_once), chosen.split(pairs_at_once)))
        for some_queries, some_targets in chunks if len(queries) else ():
            arguments = (logits[some_queries], target, some_targets)
            if len(chunks) > 1 and torch.is_grad_enabled():
                sums = checkpoint(_enlarged_losses, *arguments, use_reentrant=False)
            else:
                sums = _enlarged_losses(*arguments)
            focal, dice = focal + sums[0], dice + sums[1]
    return focal, dice


def _enlarged_losses(logits: Tensor, target: MaskTargets, chosen: Tensor) -> tuple[Tensor, Tensor]:
    enlarged = F.interpolate(at_least_single(logits)[None], target.id_map.shape, mode="bilinear")[0]
    masks = target.masks(enlarged.dtype, chosen)
    focal, dice = mask_losses(enlarged, masks)
    return focal.sum(), dice.sum()
