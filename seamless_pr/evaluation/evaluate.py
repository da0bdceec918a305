"""Scores predictions against ground truth: all images, any number of processes, one result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.evaluation.image_counts import (
    EvaluationSettings,
    ImageOutcome,
    ImageWork,
    SetCounts,
)
from seamless_pr.evaluation.image_evaluation import evaluate_image
from seamless_pr.evaluation.map_files import Source
from seamless_pr.evaluation.pairing import (
    pair_images,
    require_label_space,
    require_same_classes,
)
from seamless_pr.evaluation.semantic_pngs import find_label_pngs
from seamless_pr.metrics.boundary import compute_boundary_iou
from seamless_pr.metrics.panoptic_quality import (
    PanopticScores,
    PQCounts,
    compute_panoptic_scores,
)
from seamless_pr.metrics.segment_matching import rules_named
from seamless_pr.metrics.semantic_iou import SemanticScores, compute_semantic_scores
from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace

if TYPE_CHECKING:  # of instances, which most evaluations do without
    from seamless_pr.datasets.instance_results import InstanceResult
    from seamless_pr.evaluation.instances import ImageInstances, InstanceScores, RuleScores


@dataclass(frozen=True)
class ClassCounts:
    """Counts of one class in one image; what PQ of any set of images is made of.

    Attributes:
        train_id: the class.
        tp, fp, fn, num_gt: as in `PQCounts`.
        iou_sum, all_iou_sum: as in `PQCounts`, as float64.
    """

    train_id: int
    tp: int
    fp: int
    fn: int
    num_gt: int
    iou_sum: float
    all_iou_sum: float


@dataclass(frozen=True)
class ImageCounts:
    """Counts of one image; classes that do not occur are left out."""

    image_id: ImageId
    classes: tuple[ClassCounts, ...]


@dataclass(frozen=True)
class Evaluation:
    """Everything that came out of an evaluation.

    Attributes:
        label_space: classes of the ground truth.
        settings: what was counted.
        counts: sums over all images.
        images: counts of each image, in the order of the ground truth.
        notes: oddities of the input that did not stop the evaluation.
        instances: AP, if it was asked for.
        lvis: AP of the instances against LVIS, if it was asked for.
    """

    label_space: LabelSpace
    settings: EvaluationSettings
    counts: SetCounts
    images: tuple[ImageCounts, ...]
    notes: tuple[str, ...]
    instances: InstanceScores | None = None
    lvis: RuleScores | None = None

    @property
    def panoptic(self) -> PanopticScores:
        """PQ and its companions."""
        return self._panoptic(self.counts.pq)

    @property
    def boundary(self) -> PanopticScores | None:
        """Boundary PQ, if it was asked for."""
        if self.counts.boundary_pq is None:
            return None
        return self._panoptic(self.counts.boundary_pq)

    @property
    def semantic(self) -> SemanticScores:
        """IoU of the classes of the panoptic map."""
        return compute_semantic_scores(self.counts.confusion)

    @property
    def semantic_pngs(self) -> SemanticScores | None:
        """IoU of the classes of the label PNGs, if they were given."""
        counts = self.counts.semantic_pngs
        return None if counts is None else compute_semantic_scores(counts.confusion)

    @property
    def semantic_pngs_as_stuff(self) -> PanopticScores | None:
        """PQ of the label PNGs with every class as stuff."""
        counts = self.counts.semantic_pngs
        if counts is None:
            return None
        return compute_panoptic_scores(counts.as_stuff, self.label_space.num_classes)

    @property
    def boundary_iou(self) -> tuple[float | None, ...] | None:
        """Boundary IoU of each class, if it was asked for."""
        if self.counts.boundary_iou is None:
            return None
        return compute_boundary_iou(self.counts.boundary_iou)

    @property
    def trimaps(self) -> dict[int, SemanticScores]:
        """Width in pixels -> IoU of classes near borders."""
        return {
            width: compute_semantic_scores(counts)
            for width, counts in zip(self.settings.trimap_widths, self.counts.trimaps)
        }

    def _panoptic(self, counts: PQCounts) -> PanopticScores:
        rules = rules_named(self.settings.rules)
        return compute_panoptic_scores(counts, self.label_space.num_stuff, rules)


def evaluate(
    gt: Source,
    pred: Source,
    settings: EvaluationSettings | None = None,
    *,
    num_workers: int | None = 1,
    show_progress: bool = False,
    map_items: ItemMap = map_in_processes,
) -> Evaluation:
    """Scores all images of the ground truth.

    Args:
        gt, pred: from `open_ground_truth` and `open_predictions`.
        settings: what to count; None: PQ, PQ† and mean IoU by the official rules.
        num_workers: processes; None: one per core. The result does not depend on it.
        show_progress: draw a bar with the time left.
        map_items: what spreads the images; by default over processes of this machine.

    Raises:
        FaultyDataError: lists every fault of every image.
    """
    label_space = require_label_space(gt)
    settings = settings or EvaluationSettings()
    require_same_classes(gt, pred)
    instances: dict[ImageId, list[InstanceResult]] = {}
    notes: list[str] = []
    if settings.instances_json is not None:
        from seamless_pr.evaluation.instances import instances_by_image

        instances, notes = instances_by_image(
            settings.instances_json, gt, label_space, is_lenient=settings.is_lenient
        )
    lvis = None
    if settings.lvis_json is not None:
        from seamless_pr.evaluation.lvis import score_lvis

        lvis, more_notes = score_lvis(settings.lvis_json, gt, instances, label_space)
        notes += more_notes
    work, more_notes = _work(gt, pred, settings, instances)
    outcomes = map_items(
        partial(evaluate_image, label_space=label_space, settings=settings),
        work,
        num_workers=num_workers,
        title="evaluate",
        show_progress=show_progress,
    )
    summary = f"{pred.name} cannot be scored by {gt.name}"
    gathered = gather(outcomes, label_space, settings, [*more_notes, *notes], summary)
    return replace(gathered, lvis=lvis)


def _work(
    gt: Source,
    pred: Source,
    settings: EvaluationSettings,
    instances: Mapping[ImageId, Sequence[InstanceResult]],
) -> tuple[list[ImageWork], list[str]]:
    """The files of each true image, and notes on what was unusual."""
    pairs, notes = pair_images(gt, pred)
    label_pngs: list[Path | None] = [None] * len(pairs)
    if settings.label_png_folder is not None:
        label_pngs = find_label_pngs(settings.label_png_folder, gt)
    work = [
        ImageWork(pair, tuple(instances.get(pair.gt.image_id, ())), label_png)
        for pair, label_png in zip(pairs, label_pngs)
    ]
    return work, notes


def gather(
    outcomes: Iterable[ImageOutcome],
    label_space: LabelSpace,
    settings: EvaluationSettings,
    notes: Sequence[str] = (),
    summary: str = "the images cannot be scored",
) -> Evaluation:
    """Adds up the outcomes of images, in any order of arrival.

    Args:
        outcomes: of all images.
        label_space: of the ground truth.
        settings: what was counted.
        notes: told beside the scores, before those of the images.
        summary: of the error that lists the faults.

    Raises:
        FaultyDataError: at least one image has faults; all faults of all images are listed.
    """
    counts = SetCounts.zeros(label_space.num_classes, settings)
    images: list[ImageCounts] = []
    instances: list[ImageInstances] = []
    faults: list[Fault] = []
    oddities: Counter[str] = Counter()
    for outcome in outcomes:
        faults += outcome.faults
        oddities.update(outcome.notes)
        if outcome.counts is not None:
            counts = counts + outcome.counts
            images.append(ImageCounts(outcome.image_id, class_counts(outcome.counts.pq)))
        if outcome.instances is not None:
            instances.append(outcome.instances)
    if faults:
        raise FaultyDataError(summary, faults)
    lines = [*notes, *(f"{number} {kind}" for kind, number in oddities.items())]
    scores = None
    if instances:
        from seamless_pr.evaluation.instances import score_instances

        scores = score_instances(instances, label_space, settings.ap_rules)
    return Evaluation(label_space, settings, counts, tuple(images), tuple(lines), scores)


def class_counts(counts: PQCounts) -> tuple[ClassCounts, ...]:
    """One row per class that occurs."""
    occurs = (counts.tp + counts.fp + counts.fn + counts.num_gt).nonzero()[0]
    iou_sum, all_iou_sum = counts.iou_sum, counts.all_iou_sum
    return tuple(
        ClassCounts(
            train_id=train_id,
            tp=int(counts.tp[train_id]),
            fp=int(counts.fp[train_id]),
            fn=int(counts.fn[train_id]),
            num_gt=int(counts.num_gt[train_id]),
            iou_sum=float(iou_sum[train_id]),
            all_iou_sum=float(all_iou_sum[train_id]),
        )
        for train_id in occurs.tolist()
    )
