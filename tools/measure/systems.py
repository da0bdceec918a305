"""Which networks tools/measure/compare_systems.py trains against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One network.

    Attributes:
        name: in tables.
        config: path below the repository.
        overrides: key=value, on top of the config.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Networks that are trained for the same time.

    Attributes:
        systems: key -> network.
        kept_parts: first names of weights that all of them take from the trained ones
            (`trunk.backbone`, `trunk.neck`, ...); everything else starts at random.
        metrics: columns of the table, keys of tools/measure/system_tables.METRICS.
        with_instances: all of them have instances with scores, for AP.
    """

    systems: Mapping[str, System]
    kept_parts: tuple[str, ...]
    metrics: tuple[str, ...]
    with_instances: bool = False


COMPARISONS = {
    # Queries against two branches.
    "queries": Comparison(
        systems={
            "seamless_pointrend": System(
                "Seamless + PointRend", "configs/debug/street_scenes.yaml"
            ),
            "maskformer": System("MaskFormer", "configs/debug/street_scenes_maskformer.yaml"),
        },
        kept_parts=("trunk.backbone",),
        metrics=(
            "PQ",
            "PQ things",
            "PQ stuff",
            "SQ",
            "RQ",
            "PQ†",
            "mIoU",
            "trimap 8 px",
            "Boundary PQ",
            "Boundary IoU",
        ),
    ),
    # Instance branches beside one semantic branch, on scenes with large objects (configs/datasets/
    # near_scenes.yaml draws them): --data and --held-out name that folder.
    "instances": Comparison(
        systems={
            "mask_rcnn": System("Mask R-CNN", "configs/debug/near_scenes_mask_rcnn.yaml"),
            "htc": System("HTC", "configs/debug/near_scenes_htc.yaml"),
            "solov2": System("SOLOv2", "configs/debug/near_scenes_solov2.yaml"),
            "point_rend": System("PointRend", "configs/debug/near_scenes_point_rend.yaml"),
        },
        kept_parts=("trunk.backbone", "trunk.neck", "semantics.head"),
        metrics=(
            "AP",
            "AP small",
            "AP medium",
            "AP large",
            "PQ",
            "PQ things",
            "SQ things",
            "RQ things",
            "Boundary PQ",
            "Boundary IoU",
        ),
        with_instances=True,
    ),
}
