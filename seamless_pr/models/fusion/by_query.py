"""From queries to maps: the semantic and the panoptic rule of MaskFormer.

Letters: Q queries, R of them that are kept, K classes, h, w cells of the mask logits, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.models.fusion.frame_bands import FrameBand, stacked_bands
from seamless_pr.ops.fixed_shapes import needs_fixed_shapes, read_together
from seamless_pr.ops.precision import at_least_single, without_autocast
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.query_settings import QueryFusionSettings

# A pixel belongs to the mask of a query, whoever wins it, from this probability on.
_INSIDE = 0.5


@dataclass(frozen=True)
class QueryOutputs:
    """What queries say about a batch.

    Attributes:
        class_logits: [N, Q, K + 1], in the order of the label space, "no object" last.
        mask_logits: [N, Q, h, w] covering the padded images.
        padded_size: (height, width) of the network input.
        image_sizes: (height, width) of the valid pixels of each image.
    """

    class_logits: Tensor
    mask_logits: Tensor
    padded_size: tuple[int, int]
    image_sizes: tuple[tuple[int, int], ...]


class QueryFusion:
    """One image's queries, made into a map.

    The orders are those of the published code. Panoptic and general networks: mask logits are
    resized to the padded input, cropped to the image and resized to the file; then pixels are
    decided, and the scores of classes are summed there, too. Semantic networks: scores of classes
    are summed at the size of the padded input; then they are cropped and resized.

    Args:
        label_space: tells stuff from things.
        settings: the rule and its thresholds.
    """

    def __init__(self, label_space: LabelSpace, settings: QueryFusionSettings) -> None:
        self.label_space = label_space
        self.settings = settings

    def __call__(self, class_logits: Tensor, mask_logits: Tensor, sizes: FrameSizes) -> Prediction:
        """Decides every pixel of one image.

        Args:
            class_logits: [Q, K + 1].
            mask_logits: [Q, h, w].
            sizes: of this image.

        Returns:
            The panoptic map of the rule that the task names (for "semantic" a segment per class;
            those of things are crowd), and the semantic map, in which no pixel is void.
        """
        if self.settings.task == "semantic":
            semantic_map = self.semantic_map(class_logits, mask_logits, sizes)
            return Prediction(class_segments(semantic_map, self.label_space), semantic_map)
        panoptic = self.panoptic(class_logits, mask_logits, sizes)
        return Prediction(panoptic, self.semantic_map(class_logits, mask_logits, sizes))

    def finish(self, outputs: QueryOutputs, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Every image of a batch; `sizes` are (height, width) of the files."""
        return [
            self(classes, masks, FrameSizes(outputs.padded_size, image_size, original))
            for classes, masks, image_size, original in zip(
                outputs.class_logits,
                outputs.mask_logits,
                outputs.image_sizes,
                sizes,
                strict=True,
            )
        ]

    def panoptic(
        self, class_logits: Tensor, mask_logits: Tensor, sizes: FrameSizes
    ) -> PanopticSegmentation:
        """The panoptic rule, MaskFormer section 3.4; see `query_segments`."""
        num_stuff = self.label_space.num_stuff
        if self.settings.task != "panoptic":
            num_stuff = self.label_space.num_classes
        id_map, segments = query_segments(
            class_logits,
            mask_logits,
            sizes,
            num_stuff=num_stuff,
            object_threshold=self.settings.object_threshold,
            overlap_threshold=self.settings.overlap_threshold,
        )
        return PanopticSegmentation(id_map, segments, self.label_space)

    def semantic_scores(
        self, class_logits: Tensor, mask_logits: Tensor, sizes: FrameSizes
    ) -> Tensor:
        """Score of every class at every pixel of the file, [K, H, W], each in 0..Q."""
        return stacked_bands(sizes, 1, lambda band: self.scores_in(band, class_logits, mask_logits))

    def semantic_map(self, class_logits: Tensor, mask_logits: Tensor, sizes: FrameSizes) -> Tensor:
        """[H, W] int64: the class of the highest score."""
        return stacked_bands(
            sizes,
            max(len(mask_logits), self.label_space.num_classes),
            lambda band: self.scores_in(band, class_logits, mask_logits).argmax(0),
            mask_logits.device,
        )

    def scores_in(self, band: FrameBand, class_logits: Tensor, mask_logits: Tensor) -> Tensor:
        """Sum over queries of class times mask probability in some rows, [K, rows, W]."""
        masks = band.at_input(mask_logits)
        probs = _probabilities(class_logits)[:, :-1]
        with without_autocast(masks.device):
            if self.settings.task == "semantic":
                return band.in_file(torch.einsum("qc,qhw->chw", probs, masks.sigmoid()))
            return torch.einsum("qc,qhw->chw", probs, band.in_file(masks).sigmoid())


def query_segments(
    class_logits: Tensor,
    mask_logits: Tensor,
    sizes: FrameSizes,
    *,
    num_stuff: int,
    object_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, tuple[Segment, ...]]:
    """The pixels that each query wins, and the segments that come of them.

    A query is kept whose best class is not "no object" and has more than `object_threshold`. Every
    pixel goes to the kept query of the highest product of class and mask probability, however small
    that is. A query is then dropped, and its pixels are void, if it wins none, or its mask reaches
    0.5 nowhere, or it wins less than `overlap_threshold` as many pixels as its mask has at 0.5.
    What is left of a query is a segment; stuff of one class is one.

    Args:
        class_logits: [Q, K + 1].
        mask_logits: [Q, h, w].
        sizes: of this image.
        num_stuff: classes from here on are things.
        object_threshold, overlap_threshold: see above.

    Returns:
        id_map: [H, W] int32 on the CPU; 0 = void.
        segments: in the order of their first queries, numbered from 1; a segment's score is the
            class probability of its first query.
    """
    scores, train_ids = _probabilities(class_logits).max(-1)
    is_kept = (train_ids < class_logits.shape[-1] - 1) & (scores > object_threshold)
    is_fixed = needs_fixed_shapes(mask_logits)
    if not is_fixed:
        kept = torch.nonzero(is_kept).flatten()
        if len(kept) == 0:
            return torch.zeros(sizes.original, dtype=torch.int32), ()
        scores, train_ids, is_kept = scores[kept], train_ids[kept], is_kept[kept]
        mask_logits = mask_logits[kept]
    covered, won = (torch.zeros_like(train_ids) for _ in range(2))

    def winners_of(band: FrameBand) -> Tensor:
        probs = band.in_file(band.at_input(mask_logits)).sigmoid()
        covered.add_((probs >= _INSIDE).flatten(1).sum(1))
        shares = scores[:, None, None] * probs
        if is_fixed:
            # Below every product.
            shares = torch.where(is_kept[:, None, None], shares, -1.0)
        winners = shares.argmax(0)
        won.add_(_areas(winners, len(scores)))
        return winners.to(_index_type(len(scores)))

    winners = stacked_bands(sizes, len(scores), winners_of, mask_logits.device)
    facts = torch.stack([won * is_kept, covered, train_ids])
    winners, facts, scores = read_together(winners, facts, scores)
    segments: list[Segment] = []
    segment_ids = [LabelSpace.VOID_SEGMENT_ID] * len(scores)
    index_of_stuff: dict[int, int] = {}
    per_query = zip(facts.t().tolist(), scores.tolist(), strict=True)
    for query, ((area, whole, train_id), score) in enumerate(per_query):
        if area == 0 or whole == 0 or area / whole < overlap_threshold:
            continue
        index = index_of_stuff.get(train_id, len(segments))
        if index == len(segments):
            segments.append(Segment(index + 1, train_id, area, score))
        else:
            segments[index] = replace(segments[index], area=segments[index].area + area)
        if train_id < num_stuff:
            index_of_stuff[train_id] = index
        segment_ids[query] = index + 1
    lookup = torch.tensor(segment_ids, dtype=torch.int32)
    return lookup[winners.int()], tuple(segments)


def _index_type(count: int) -> torch.dtype:
    """The smallest type of the numbers below `count`."""
    return torch.uint8 if count <= torch.iinfo(torch.uint8).max + 1 else torch.int16


def _areas(indices: Tensor, count: int) -> Tensor:
    """[count] int64: how often each number below `count` is among indices of any shape."""
    if not needs_fixed_shapes(indices):
        return torch.bincount(indices.flatten(), minlength=count)
    numbers = torch.arange(count, dtype=indices.dtype, device=indices.device)
    return (indices.flatten() == numbers[:, None]).sum(1)


def _probabilities(class_logits: Tensor) -> Tensor:
    return at_least_single(class_logits).softmax(-1)


def class_segments(semantic_map: Tensor, label_space: LabelSpace) -> PanopticSegmentation:
    """A panoptic map with one segment per class; objects of a thing class are one crowd."""
    areas = _areas(semantic_map, label_space.num_classes)
    classes, areas = read_together(semantic_map.to(_index_type(label_space.num_classes)), areas)
    segments: list[Segment] = []
    lookup = torch.zeros(label_space.num_classes, dtype=torch.int32)
    for train_id, area in enumerate(areas.tolist()):
        if area:
            lookup[train_id] = len(segments) + 1
            is_thing = label_space.is_thing(train_id)
            segments.append(Segment(len(segments) + 1, train_id, area, 1.0, is_thing))
    return PanopticSegmentation(lookup[classes.int()], tuple(segments), label_space)
