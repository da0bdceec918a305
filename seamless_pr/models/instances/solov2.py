"""SOLOv2 as an instance branch: masks per image, found without boxes.

Letters: N images, K classes, E kernel channels, R candidates of an image, h, w mask feature.
Source: SOLOv2 (NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seamless_pr.models.instances.branch import FixedDetections, InstanceBranch
from seamless_pr.models.instances.solo_head import SoloHead, SoloOutput
from seamless_pr.models.instances.solo_targets import MASK_STRIDE, solo_losses, solo_target
from seamless_pr.ops.mask_nms import fixed_matrix_nms, local_maxima, matrix_nms
from seamless_pr.ops.masks import ImageMasks
from seamless_pr.ops.precision import at_least_single, without_autocast
from seamless_pr.ops.resize import resampled_valid
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.object_truth import ObjectTruth
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import SoloSettings
from seamless_pr.structures.views import ChangedBatch, SeenView

# Input pixels per cell of the maps that the towers see: masks must cover more cells than this.
TOWER_STRIDES = (8, 8, 16, 32, 32)
# Early in training thousands of cells may pass: their masks are never there at once.
_MASKS_AT_A_TIME = 128
# Most candidates of an image where their number must be fixed; if there are more, their masks are
# computed step by step.
MOST_CANDIDATES = 1024


@dataclass(frozen=True)
class SoloCandidates:
    """Cells of an image that may be objects.

    Attributes:
        cells: [R] int64, counted through the levels, row by row.
        thing_indices: [R] int64.
        scores: [R] category probability.
        kernels: [R, E].
        strides: [R] of each cell's level.
    """

    cells: Tensor
    thing_indices: Tensor
    scores: Tensor
    kernels: Tensor
    strides: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def select(self, index: Tensor) -> SoloCandidates:
        parts = (self.cells, self.thing_indices, self.scores, self.kernels, self.strides)
        return SoloCandidates(*(part[index] for part in parts))


class SoloV2(InstanceBranch):
    """SOLOv2: every cell of five grids may be an object, with a kernel that draws its mask.

    Args:
        head: towers and mask feature.
        settings: numbers of the procedures.
    """

    has_fixed_shapes = True

    def __init__(self, head: SoloHead, settings: SoloSettings) -> None:
        super().__init__()
        self.head = head
        self.settings = settings
        self.loss_names = ("solo_mask", "solo_category")

    def losses(
        self,
        features: Features,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        truths = [ObjectTruth.of(target) for target in targets]
        return self.losses_of_objects(features, truths, batch.padded_size)

    def losses_of_objects(
        self, features: Features, truths: Sequence[ObjectTruth], padded_size: tuple[int, int]
    ) -> dict[str, LossSum]:
        """`losses`, given the objects of each image."""
        output = self.head(features.levels)
        targets = [
            solo_target(truth, padded_size, self.head.grid_sizes, self.settings) for truth in truths
        ]
        return solo_losses(output, targets, self.settings)

    @torch.no_grad()
    def detect(
        self,
        features: Features,
        batch: ImageBatch,
        proposals: Sequence[Tensor] | None = None,
    ) -> list[Instances]:
        output = self.head(features.levels)
        return [
            solo_instances(output, image, batch.padded_size, image_size, self.settings)
            for image, image_size in enumerate(batch.image_sizes)
        ]

    @torch.no_grad()
    def detect_fixed(self, features: Features, batch: ImageBatch) -> FixedDetections:
        output = self.head(features.levels)
        images = [
            fixed_solo_instances(output, image, batch.padded_size, image_size, self.settings)
            for image, image_size in enumerate(batch.image_sizes)
        ]
        found, counts, are_all = zip(*images, strict=True)
        return FixedDetections(found, torch.stack(counts), torch.stack(are_all))

    @torch.no_grad()
    def detect_views(self, views: Sequence[SeenView], base: ImageBatch) -> list[Instances]:
        """See `InstanceBranch`; cells of all views compete in one matrix NMS."""
        outputs = [self.head(view.features.levels) for view in views]
        return [
            instances_of_views(outputs, views, image, base.image_sizes[image], self.settings)
            for image in range(len(base))
        ]

    def add_masks(
        self, features: Features, batch: ImageBatch, instances: Sequence[Instances]
    ) -> list[Instances]:
        return list(instances)


def solo_candidates(output: SoloOutput, image: int, threshold: float) -> SoloCandidates:
    """Cells of an image whose category is a local maximum and exceeds the threshold."""
    every = every_cell(output, image)
    cells, thing_indices = torch.nonzero(every.scores > threshold, as_tuple=True)
    return every.candidates(cells, thing_indices)


@dataclass(frozen=True)
class SoloCells:
    """All cells of an image.

    Attributes:
        scores: [cells, K] category probability, 0 where it is no local maximum.
        kernels: [cells, E].
        strides: [cells] of each cell's level.
    """

    scores: Tensor
    kernels: Tensor
    strides: Tensor

    def candidates(self, cells: Tensor, thing_indices: Tensor) -> SoloCandidates:
        """Some of them, each for one class."""
        scores = self.scores[cells, thing_indices]
        return SoloCandidates(
            cells, thing_indices, scores, self.kernels[cells], self.strides[cells]
        )


def every_cell(output: SoloOutput, image: int) -> SoloCells:
    """The cells of all levels of one image, row by row."""
    probs, kernels, strides = [], [], []
    for logits, level_kernels, stride in zip(output.category_logits, output.kernels, TOWER_STRIDES):
        level_probs = local_maxima(at_least_single(logits[image][None]).sigmoid())[0]
        probs.append(level_probs.flatten(1).t())
        kernels.append(at_least_single(level_kernels[image]).flatten(1).t())
        strides.append(torch.full((level_probs[0].numel(),), stride, device=logits.device))
    return SoloCells(torch.cat(probs), torch.cat(kernels), torch.cat(strides))


def mask_probs(kernels: Tensor, features: Tensor) -> Tensor:
    """Dynamic 1x1 convolution: kernels [R, E], mask feature [E, h, w] -> [R, h, w]."""
    with without_autocast(features.device):
        return torch.einsum("re,ehw->rhw", kernels, features).sigmoid()


def mask_statistics(
    candidates: SoloCandidates, features: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Area in cells, and mean probability inside, of every candidate's mask, [R] each."""
    areas = [features.new_zeros(0)]
    maskness = [features.new_zeros(0)]
    for kernels in candidates.kernels.split(_MASKS_AT_A_TIME):
        probs = mask_probs(kernels, features).flatten(1)
        inside = probs > threshold
        area = inside.sum(1).float()
        areas.append(area)
        maskness.append((probs * inside).sum(1) / area.clamp(min=1))
    return torch.cat(areas), torch.cat(maskness)


def solo_instances(
    output: SoloOutput,
    image: int,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    settings: SoloSettings,
) -> Instances:
    """Objects of one image: the best candidates after matrix NMS, by descending score.

    A candidate's score is its category's probability times the mean probability inside its mask;
    masks not larger than the stride of their level, in cells, are left out.
    """
    candidates = scored_candidates(output, image, settings)
    best = candidates.scores.argsort(descending=True, stable=True)[: settings.max_before_nms]
    candidates = candidates.select(best)
    probs = mask_probs(candidates.kernels, at_least_single(output.mask_features[image]))
    found = Instances(
        candidates.scores,
        candidates.thing_indices,
        None,
        ImageMasks(probs, padded_size, image_size),
    )
    return suppressed_masks(found, probs, settings)


def fixed_solo_instances(
    output: SoloOutput,
    image: int,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    settings: SoloSettings,
) -> tuple[Instances, Tensor, Tensor]:
    """`solo_instances` in shapes that depend on no number: nothing waits for the host.

    Returns:
        As many rows as there may be objects, best first; how many of them are objects; and whether
        no candidate was left aside.
    """
    every = every_cell(output, image)
    passes = every.scores > settings.score_threshold
    num_rows = min(MOST_CANDIDATES, passes.numel())
    best = torch.where(passes, every.scores, -1.0).flatten().topk(num_rows).indices
    # In the order of the cells, which decides among equals.
    best = best.sort().values
    num_things = every.scores.shape[1]
    cells = best.div(num_things, rounding_mode="floor")
    candidates = every.candidates(cells, best % num_things)
    features = at_least_single(output.mask_features[image])
    areas, maskness = mask_statistics(candidates, features, settings.mask_threshold)
    valid = passes.flatten()[best] & (areas > candidates.strides)
    scores = torch.where(valid, candidates.scores * maskness, -1.0)
    scores, order = scores.sort(descending=True, stable=True)
    scores, order = scores[: settings.max_before_nms], order[: settings.max_before_nms]
    candidates, valid = candidates.select(order), valid[order]
    probs = mask_probs(candidates.kernels, features)
    kept, scores, count = fixed_matrix_nms(
        probs > settings.mask_threshold,
        scores,
        candidates.thing_indices,
        valid,
        kernel=settings.nms_kernel,
        sigma=settings.nms_sigma,
        min_score=settings.min_score,
        max_kept=settings.max_detections,
    )
    masks = ImageMasks(probs[kept], padded_size, image_size)
    found = Instances(scores, candidates.thing_indices[kept], None, masks)
    return found, count, passes.sum() <= num_rows


def scored_candidates(output: SoloOutput, image: int, settings: SoloSettings) -> SoloCandidates:
    """Candidates with masks large enough; their scores hold the mean probability inside."""
    candidates = solo_candidates(output, image, settings.score_threshold)
    areas, maskness = mask_statistics(
        candidates, at_least_single(output.mask_features[image]), settings.mask_threshold
    )
    rescored = replace(candidates, scores=candidates.scores * maskness)
    return rescored.select(areas > candidates.strides)


def suppressed_masks(found: Instances, probs: Tensor, settings: SoloSettings) -> Instances:
    """What matrix NMS leaves of instances with masks [R, h, w], by descending new score."""
    kept, scores = matrix_nms(
        probs > settings.mask_threshold,
        found.scores,
        found.thing_indices,
        kernel=settings.nms_kernel,
        sigma=settings.nms_sigma,
        min_score=settings.min_score,
        max_kept=settings.max_detections,
    )
    return replace(found.select(kept), scores=scores)


def instances_of_views(
    outputs: Sequence[SoloOutput],
    views: Sequence[ChangedBatch],
    image: int,
    image_size: tuple[int, int],
    settings: SoloSettings,
) -> Instances:
    """Objects of one image: the best candidates of all views after matrix NMS.

    No published code merges views of SOLOv2. Masks are brought to the valid part of the image at a
    quarter of its size.

    Args:
        outputs: of each view.
        views: padded as the network wants them.
        image: index in the batch.
        image_size: (height, width) of the valid pixels of the image as it was.
        settings: thresholds and limits.
    """
    of_views = [scored_candidates(output, image, settings) for output in outputs]
    scores = torch.cat([candidates.scores for candidates in of_views])
    things = torch.cat([candidates.thing_indices for candidates in of_views])
    best = scores.argsort(descending=True, stable=True)[: settings.max_before_nms]
    grid = (-(-image_size[0] // MASK_STRIDE), -(-image_size[1] // MASK_STRIDE))
    probs = scores.new_zeros(len(best), *grid)
    first = 0
    for output, view, candidates in zip(outputs, views, of_views, strict=True):
        rows = torch.nonzero((best >= first) & (best < first + len(candidates))).flatten()
        kernels = candidates.kernels[best[rows] - first]
        probs[rows] = resampled_valid(
            mask_probs(kernels, at_least_single(output.mask_features[image])),
            view.batch.padded_size,
            view.batch.image_sizes[image],
            grid,
            flip=view.flip,
        )
        first += len(candidates)
    masks = ImageMasks(probs, image_size, image_size)
    return suppressed_masks(Instances(scores[best], things[best], None, masks), probs, settings)
