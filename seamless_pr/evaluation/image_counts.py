"""What an evaluation counts: the choices, the files of one image, and the sums that add up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.evaluation.pairing import ImagePair
from seamless_pr.metrics.ap_rules import MORE_AP_RULES
from seamless_pr.metrics.boundary import BoundaryIoUCounts
from seamless_pr.metrics.panoptic_quality import PQCounts
from seamless_pr.metrics.segment_matching import rules_named
from seamless_pr.metrics.semantic_iou import ConfusionCounts
from seamless_pr.structures.faults import Fault

if TYPE_CHECKING:  # of instances, which most evaluations do without
    from seamless_pr.datasets.instance_results import InstanceResult
    from seamless_pr.evaluation.instances import ImageInstances


@dataclass(frozen=True)
class EvaluationSettings:
    """What is counted, and how.

    Attributes:
        rules: name of one of `segment_matching.PQ_RULES`.
        is_lenient: a missing prediction counts as empty, and listed segments without a pixel as
            absent; both are noted.
        boundary_ratio: width of the bands of Boundary PQ and Boundary IoU as a share of the image's
            diagonal;
            None: not computed.
        trimap_widths: widths in pixels for trimap mIoU.
        instances_json: COCO instance results, for AP; None: not scored.
        ap_rules: names in `ap_rules.MORE_AP_RULES`, by which AP is taken besides COCO's rules and
            those of Cityscapes.
        lvis_json: LVIS annotations that the instances are also scored on; None: not scored.
        label_png_folder: where the semantic label PNGs are looked for; None: not scored.
    """

    rules: str = "official"
    is_lenient: bool = False
    boundary_ratio: float | None = None
    trimap_widths: tuple[int, ...] = ()
    instances_json: Path | None = None
    ap_rules: tuple[str, ...] = ()
    lvis_json: Path | None = None
    label_png_folder: Path | None = None

    def __post_init__(self) -> None:
        rules_named(self.rules)
        if self.boundary_ratio is not None and not 0 < self.boundary_ratio < 1:
            raise ValueError(f"boundary_ratio must be in (0, 1); got {self.boundary_ratio}")
        if any(width < 1 for width in self.trimap_widths):
            raise ValueError(f"trimap_widths are pixels, at least 1; got {self.trimap_widths}")
        if unknown := sorted(set(self.ap_rules) - MORE_AP_RULES.keys()):
            raise ValueError(f"ap_rules must be among {sorted(MORE_AP_RULES)}; got {unknown}")
        if self.lvis_json is not None and self.instances_json is None:
            raise ValueError(
                "lvis_json needs instances_json: it is instances that are scored on it"
            )


@dataclass(frozen=True)
class ImageWork:
    """All files of one image that are scored; its true map is decoded once for all of them.

    Attributes:
        pair: the two panoptic maps.
        instances: its predicted instances.
        label_png: its semantic label PNG; None where it is missing.
    """

    pair: ImagePair
    instances: tuple[InstanceResult, ...] = ()
    label_png: Path | None = None


@dataclass(frozen=True)
class SemanticCounts:
    """What adds up over semantic label PNGs.

    Attributes:
        confusion: of the classes.
        as_stuff: PQ with every class as stuff.
    """

    confusion: ConfusionCounts
    as_stuff: PQCounts

    def __add__(self, other: SemanticCounts) -> SemanticCounts:
        return SemanticCounts(self.confusion + other.confusion, self.as_stuff + other.as_stuff)


@dataclass(frozen=True)
class SetCounts:
    """Everything that adds up over images.

    Attributes:
        pq: by the chosen rules.
        confusion: of the classes of the panoptic maps.
        segments: [K + 1, K + 1] found, mistaken, missed and invented segments.
        boundary_pq, boundary_iou: None unless asked for.
        trimaps: one per width.
        semantic_pngs: None unless asked for.
    """

    pq: PQCounts
    confusion: ConfusionCounts
    segments: NDArray[np.int64]
    boundary_pq: PQCounts | None = None
    boundary_iou: BoundaryIoUCounts | None = None
    trimaps: tuple[ConfusionCounts, ...] = ()
    semantic_pngs: SemanticCounts | None = None

    def __add__(self, other: SetCounts) -> SetCounts:
        return SetCounts(
            self.pq + other.pq,
            self.confusion + other.confusion,
            self.segments + other.segments,
            _optional_sum(self.boundary_pq, other.boundary_pq),
            _optional_sum(self.boundary_iou, other.boundary_iou),
            tuple(a + b for a, b in zip(self.trimaps, other.trimaps)),
            _optional_sum(self.semantic_pngs, other.semantic_pngs),
        )

    @classmethod
    def zeros(cls, num_classes: int, settings: EvaluationSettings) -> SetCounts:
        """The sum over no image."""
        has_boundary = settings.boundary_ratio is not None
        return cls(
            PQCounts.zeros(num_classes),
            ConfusionCounts.zeros(num_classes),
            np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64),
            PQCounts.zeros(num_classes) if has_boundary else None,
            BoundaryIoUCounts.zeros(num_classes) if has_boundary else None,
            tuple(ConfusionCounts.zeros(num_classes) for _ in settings.trimap_widths),
            SemanticCounts(ConfusionCounts.zeros(num_classes), PQCounts.zeros(num_classes))
            if settings.label_png_folder is not None
            else None,
        )


def _optional_sum(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a + b


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image.

    Attributes:
        image_id: of the ground truth.
        counts: None if there are faults.
        faults: what makes the image unusable.
        notes: (kind, number) of oddities that do not.
        instances: what AP needs; None if instances are not scored.
    """

    image_id: ImageId
    counts: SetCounts | None = None
    faults: tuple[Fault, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)
    instances: ImageInstances | None = None
