"""The rules of MaskFormer's inference, query by query: slow, and easy to check."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


def semantic_scores(
    class_logits: Tensor, mask_logits: Tensor, padded, image, original, *, before: bool
) -> Tensor:
    """[K, H, W]; `before`: masks are cropped and resized before they are added up."""
    probs = class_logits.softmax(-1)[:, :-1]
    maps = resize(mask_logits, padded)
    if before:
        maps = resize(maps[:, : image[0], : image[1]], original)
    scores = sum(probs[query][:, None, None] * maps[query].sigmoid() for query in range(len(probs)))
    if before:
        return scores
    return resize(scores[:, : image[0], : image[1]], original)


def panoptic_map(
    class_logits: Tensor,
    mask_logits: Tensor,
    padded,
    image,
    original,
    *,
    stuff: set[int],
    object_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Map of ids, and (id, class, area) of the segments."""
    no_object = class_logits.shape[1] - 1
    maps = resize(resize(mask_logits, padded)[:, : image[0], : image[1]], original).sigmoid()
    kept = []
    for query, row in enumerate(class_logits.softmax(-1)):
        score, label = row.max().item(), int(row.argmax())
        if label != no_object and score > object_threshold:
            kept.append((query, score, label))
    height, width = original
    ids = torch.zeros(height, width, dtype=torch.int32)
    if not kept:
        return ids, []
    winner = torch.zeros(height, width, dtype=torch.int64)
    best = torch.full((height, width), -1.0, dtype=maps.dtype)
    for place, (query, score, _) in enumerate(kept):
        weighted = score * maps[query]
        wins = weighted > best
        winner[wins], best[wins] = place, weighted[wins]
    segments: list[list[int]] = []
    stuff_ids: dict[int, int] = {}
    for place, (query, _, label) in enumerate(kept):
        area = int((winner == place).sum())
        whole = int((maps[query] >= 0.5).sum())
        if area == 0 or whole == 0 or area / whole < overlap_threshold:
            continue
        if label in stuff_ids:
            segments[stuff_ids[label] - 1][2] += area
            ids[winner == place] = stuff_ids[label]
            continue
        segments.append([len(segments) + 1, label, area])
        ids[winner == place] = len(segments)
        if label in stuff:
            stuff_ids[label] = len(segments)
    return ids, [(first, second, third) for first, second, third in segments]
