"""Panoptic fusion where the network runs: no step waits for the host, which reads once at the end.

The rules are those of `seamless_pr.models.fusion.by_score`.
Letters: K classes, S segments that may be (instances, then classes), R instances, H, W the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.settings import FusionSettings

# Whether an instance is dropped depends on better ones that may be dropped themselves; so many
# links of such a chain are followed.
NUM_SWEEPS = 8
# Bytes of masks that are looked at in one step.
_BYTES_AT_ONCE = 2**28
_BYTES_PER_INT = 4


@dataclass(frozen=True)
class FixedFusion:
    """A panoptic map that nobody has read yet.

    Attributes:
        id_map: [H, W] uint8, int16 or int32, 0 = void.
        segment_ids: [S] int32, 0: there is no such segment.
        areas: [S] int32 pixels.
        scores: [R] float32 of the instances.
        thing_indices: [R] int64 of the instances.
        count: int64 scalar: so many of the instances are objects.
        settled: bool scalar: all chains came to their end; else the map is not to be used.
    """

    id_map: Tensor
    segment_ids: Tensor
    areas: Tensor
    scores: Tensor
    thing_indices: Tensor
    count: Tensor
    settled: Tensor


def fuse_fixed(
    class_map: Tensor,
    instances: Instances | None,
    count: Tensor | None,
    label_space: LabelSpace,
    settings: FusionSettings,
    output_size: tuple[int, int],
) -> FixedFusion:
    """`fuse`, then `resized_segmentation`, in shapes that depend on no number.

    An instance is painted unless more than `overlap_threshold` of it lies under better ones that
    are painted. All are looked at together, again and again, until no decision changes; by
    induction over the scores that is what painting them one after the other gives.

    Args:
        class_map: [H, W] int16 train ids, as in `fuse`.
        instances: with masks, best first, in pixels of the class map; None: none.
        count: so many of them from the first on are objects; None: all.
        label_space, settings: as in `fuse`.
        output_size: (height, width) of the finished map.
    """
    if instances is None:
        instances = _no_instances(class_map)
    scores = instances.scores
    if count is None:
        count = torch.full((), len(scores), dtype=torch.int64, device=scores.device)
    positions = torch.arange(len(scores), device=scores.device)
    chosen = (positions < count) & (scores > settings.score_threshold)
    owner, painted, areas, settled = _paint(class_map, instances, chosen, settings)
    class_areas, filled = _class_areas(class_map, owner, label_space, settings)
    instance_ids = painted.cumsum(0, dtype=torch.int64) * painted
    class_ids = (painted.sum() + filled.cumsum(0, dtype=torch.int64)) * filled
    segment_ids = torch.cat([instance_ids, class_ids]).int()
    id_map = _id_map(class_map, owner, segment_ids, len(scores))
    areas = torch.cat([areas * painted, class_areas * filled])
    if tuple(id_map.shape) != tuple(output_size):
        resized = F.interpolate(id_map[None, None].float(), output_size, mode="nearest-exact")
        id_map = resized[0, 0].to(id_map.dtype)
        areas = _counts(id_map, segment_ids.to(id_map.dtype)) * (segment_ids > 0)
    return FixedFusion(
        id_map, segment_ids, areas.int(), scores, instances.thing_indices, count, settled
    )


def _no_instances(like: Tensor) -> Instances:
    none = like.new_zeros(0, dtype=torch.int64)
    return Instances(none.float(), none)


def _paint(
    class_map: Tensor, instances: Instances, chosen: Tensor, settings: FusionSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Who owns which pixel: [H, W] rank of the owner, R for the best instance, 0: nobody.

    Returns:
        Besides it [R] bool who is painted, [R] int64 pixels of each, and whether that is settled.
    """
    num_instances = len(instances)
    dtype = torch.uint8 if num_instances <= torch.iinfo(torch.uint8).max else torch.int16
    settled = torch.ones((), dtype=torch.bool, device=class_map.device)
    if num_instances == 0:
        return torch.zeros_like(class_map, dtype=dtype), chosen, chosen.long(), settled
    masks = instances.require_masks().paste(
        (class_map.shape[0], class_map.shape[1]),
        settings.mask_threshold,
        includes_threshold=settings.mask_threshold_included,
    )
    order = torch.arange(num_instances, 0, -1, dtype=dtype, device=class_map.device)
    ranks = masks * (order * chosen)[:, None, None]
    num_rows = max(1, _BYTES_AT_ONCE // (num_instances * class_map.shape[1]))
    strips = ranks.split(num_rows, dim=1)
    sizes = _summed([(strip > 0).sum((1, 2)) for strip in strips])
    divisors = sizes.clamp(min=1).double()
    painted = before = chosen
    owners, free = [], sizes
    for _ in range(NUM_SWEEPS):
        before = painted
        owners = [(strip * painted[:, None, None]).amax(0) for strip in strips]
        # Outside of a mask its rank is 0, which never counts.
        free = _summed(
            [
                (strip >= owner.clamp(min=1)).sum((1, 2))
                for strip, owner in zip(strips, owners, strict=True)
            ]
        )
        painted = chosen & ((sizes - free) / divisors <= settings.overlap_threshold)
    return torch.cat(owners), painted, free, (painted == before).all()


def _summed(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum(0)


def _class_areas(
    class_map: Tensor, owner: Tensor, label_space: LabelSpace, settings: FusionSettings
) -> tuple[Tensor, Tensor]:
    """[K] int64 free pixels of each class that may fill any, and [K] bool whether they do."""
    leaves_things = settings.semantic_things == "void"
    num_filled = label_space.num_stuff if leaves_things else label_space.num_classes
    classes = torch.arange(num_filled, dtype=class_map.dtype, device=class_map.device)
    free_classes = torch.where(owner == 0, class_map, LabelSpace.IGNORE_TRAIN_ID)
    areas = _counts(free_classes, classes)
    min_area = settings.stuff_area_pixels or settings.stuff_area_fraction * class_map.numel()
    return areas, (areas > 0) & (areas.double() >= min_area)


def _counts(label_map: Tensor, labels: Tensor) -> Tensor:
    """[S] int64: pixels of an [H, W] map with each of the labels [S]."""
    num_rows = max(1, _BYTES_AT_ONCE // (max(1, len(labels)) * label_map.shape[1]))
    counts = [
        (strip[None] == labels[:, None, None]).sum((1, 2)) for strip in label_map.split(num_rows)
    ]
    return _summed(counts)


def _id_map(class_map: Tensor, owner: Tensor, segment_ids: Tensor, num_instances: int) -> Tensor:
    """[H, W] segment ids, of the smallest type that holds them."""
    by_rank, by_class = segment_ids[:num_instances].flip(0), segment_ids[num_instances:]
    void = segment_ids.new_zeros(LabelSpace.IGNORE_TRAIN_ID + 1)
    # Ranks from 1 on, then classes.
    table = torch.cat([void[:1], by_rank, by_class, void[len(by_class) :]])
    key = torch.where(owner > 0, owner.int(), class_map.int() + (num_instances + 1))
    dtypes = (torch.uint8, torch.int16, torch.int32)
    dtype = next(each for each in dtypes if len(segment_ids) <= torch.iinfo(each).max)
    return table.to(dtype).index_select(0, key.flatten()).unflatten(0, key.shape)


def pack(fusions: Sequence[FixedFusion]) -> Tensor:
    """All that the host wants of these maps as one row of bytes: [B] uint8.

    Tables come first, so that every number lies at a multiple of its size.
    """
    tables = []
    for fused in fusions:
        numbers = [fused.count[None], fused.settled[None], fused.thing_indices]
        ints = torch.cat([*(values.int() for values in numbers), fused.segment_ids, fused.areas])
        tables += [ints.view(torch.uint8), fused.scores.float().contiguous().view(torch.uint8)]
    maps = [fused.id_map.flatten().view(torch.uint8) for fused in fusions]
    return torch.cat([*tables, *maps])


@dataclass(frozen=True)
class ReadFusion:
    """What the host knows of a map after the transfer.

    Attributes:
        segmentation: None: not settled.
        count: so many of the instances are objects.
    """

    segmentation: PanopticSegmentation | None
    count: int


def read(fusions: Sequence[FixedFusion], label_space: LabelSpace) -> list[ReadFusion]:
    """Brings maps to the host in one transfer, the only point that waits for the device."""
    return unpack(pack(fusions).cpu(), fusions, label_space)


def unpack(
    packed: Tensor, fusions: Sequence[FixedFusion], label_space: LabelSpace
) -> list[ReadFusion]:
    """What `pack` has packed.

    Args:
        packed: on the CPU.
        fusions: of which only the shapes are asked for.
        label_space: of the maps.
    """
    data, found, position = packed.numpy(), [], 0

    def take(count: int, dtype: type | np.dtype) -> np.ndarray:
        nonlocal position
        end = position + count * np.dtype(dtype).itemsize
        part = data[position:end].view(dtype)
        position = end
        return part

    tables = []
    for fused in fusions:
        num_instances, num_segments = len(fused.scores), len(fused.segment_ids)
        count, settled = (int(number) for number in take(2, np.int32))
        things, ids = take(num_instances, np.int32), take(num_segments, np.int32)
        areas, scores = take(num_segments, np.int32), take(num_instances, np.float32)
        tables.append((count, settled, _segments(things, ids, areas, scores, label_space)))
    for fused, (count, settled, segments) in zip(fusions, tables, strict=True):
        dtype = np.dtype(str(fused.id_map.dtype).removeprefix("torch."))
        ids = take(fused.id_map.numel(), dtype).reshape(tuple(fused.id_map.shape))
        id_map = torch.from_numpy(ids.astype(np.int32))
        segmentation = PanopticSegmentation(id_map, segments, label_space) if settled else None
        found.append(ReadFusion(segmentation, count))
    return found


def _segments(
    things: np.ndarray,
    ids: np.ndarray,
    areas: np.ndarray,
    scores: np.ndarray,
    label_space: LabelSpace,
) -> tuple[Segment, ...]:
    segments = []
    for row, (segment_id, area) in enumerate(zip(ids.tolist(), areas.tolist(), strict=True)):
        if segment_id == LabelSpace.VOID_SEGMENT_ID:
            continue
        if row < len(things):
            train_id = label_space.thing_train_id(int(things[row]))
            segments.append(Segment(segment_id, train_id, area, float(scores[row])))
        else:
            train_id = row - len(things)
            is_crowd = label_space.is_thing(train_id)
            segments.append(Segment(segment_id, train_id, area, 1.0, is_crowd))
    return tuple(segments)
