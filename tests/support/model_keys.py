"""Whether a key of the model changes anything: all that can be seen of a small network, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from seamless_pr.build.configs import config_from_dict, known_kinds
from seamless_pr.build.networks import build_network
from seamless_pr.config.keys import keys_of
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_target import PanopticTarget
from tests.support.small_config import smallest

LABEL_SPACE = LabelSpace(
    "four",
    (
        Category(1, "road", False, (1, 1, 1), "flat"),
        Category(2, "sky", False, (2, 2, 2), "sky"),
        Category(3, "car", True, (3, 3, 3), "vehicle"),
        Category(4, "person", True, (4, 4, 4), "human"),
    ),
)
# Last layers start so small that no threshold would tell their outputs apart.
ENLARGED = {
    "instances.box_head.box_deltas.weight": 30,
    "instances.masks.point_head.predictor.weight": 30,
    "instances.masks.weight_head.prediction.weight": 1000,
    "instances.head.category_logits.weight": 30,
    "instances.head.kernels.weight": 30,
}


def keys_of_classes(root: type) -> Iterator[str]:
    """`Class.key` of every key that is reached from a class of settings, by any kind.

    Left out are `kind` itself and groups that are always there.
    """
    seen: set[type] = set()

    def visit(settings: type) -> Iterator[str]:
        if settings in seen:
            return
        seen.add(settings)
        for name, key in keys_of(settings).items():
            owner = next(base for base in settings.__mro__ if name in base.__annotations__)
            if (name != "kind" and key.group is None) or key.may_be_null:
                yield f"{owner.__name__}.{name}"
            groups = [key.group] if key.place is None else known_kinds()[key.place].values()
            for group in groups:
                if group is not None:
                    yield from visit(group)

    yield from dict.fromkeys(visit(root))


def picture(seed: int, num_objects: int, size: tuple[int, int]) -> tuple[torch.Tensor, Any]:
    """Random pixels; sky over road, some objects, a group, a void stripe."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    id_map = torch.ones(size, dtype=torch.int32)
    id_map[height // 2 :] = 2
    classes, crowd = [1, 0], [False, False]
    for index in range(num_objects):
        top = int(torch.randint(0, height - 16, (), generator=generator))
        left = int(torch.randint(0, width - 16, (), generator=generator))
        id_map[top : top + 14, left : left + 12 + 4 * index] = len(classes) + 1
        classes.append(2 + index % 2)
        crowd.append(index == num_objects - 1)
    id_map[:2] = 0
    target = PanopticTarget(
        id_map, torch.tensor(classes), torch.tensor(crowd), LABEL_SPACE, str(seed)
    )
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8), target


@cache
def batch() -> tuple[ImageBatch, tuple[PanopticTarget, ...]]:
    """Two images of different size, the second without objects."""
    (first, target), (second, empty) = picture(1, 5, (64, 100)), picture(2, 0, (48, 80))
    images = torch.zeros(2, 3, 64, 100, dtype=torch.uint8)
    images[0], images[1, :, :48, :80] = first, second
    return ImageBatch(images, ((64, 100), (48, 80))), (target, empty)


def fingerprint(
    model: Mapping[str, Any], overrides: Sequence[str], *, constant_masks: bool = False
) -> str:
    """Everything that can be seen of a network: its parts, losses, statistics and predictions.

    Args:
        model: values of the group `model` of a config.
        overrides: changes of them, without "model." in front.
        constant_masks: weights of the masks are zero.
    """
    changes = [f"model.{override}" for override in overrides]
    config = config_from_dict(smallest(model=model, loss_weights={}), "test", changes)
    torch.manual_seed(0)
    network = build_network(config.model, LABEL_SPACE)
    images, targets = batch()
    for name, parameter in network.named_parameters():
        if constant_masks and name.startswith("instances.masks."):
            parameter.data.zero_()
        elif name in ENLARGED:
            parameter.data.mul_(ENLARGED[name])
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(targets))]
    losses = network.train().losses(images, targets, generators)
    seen: list[Any] = [
        [
            (name, module.sync)
            for name, module in network.named_modules()
            if hasattr(module, "sync")
        ],
        {name: (loss.total.item(), float(loss.count)) for name, loss in losses.items()},
        [(n, tuple(p.shape), p.requires_grad) for n, p in network.named_parameters()],
        [(name, value.double().sum().item()) for name, value in network.named_buffers()],
    ]
    for prediction in network.eval().predict(images, [(90, 140), (50, 80)]):
        seen.append(str(prediction.panoptic))
        if prediction.panoptic is not None:
            seen.append(prediction.panoptic.id_map.tolist())
        if prediction.semantic_map is not None:
            seen.append(prediction.semantic_map.tolist())
        if (found := prediction.instances) is not None:
            assert len(found) > 0
            boxes = None if found.boxes is None else found.boxes.tolist()
            crop = found.require_masks().crop
            sizes = [
                int(crop(index, (90, 140), 0.5, includes_threshold=False).mask.sum())
                for index in range(len(found))
            ]
            seen.append([boxes, found.scores.tolist(), sizes])
    return repr(seen)
