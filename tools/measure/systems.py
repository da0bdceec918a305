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
        weights_of: key of the system whose training it takes instead of one of its own.
        at_prediction: key=value, changes of the trained config when images are labelled.
        without: first names of weights that are left out then.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    weights_of: str = ""
    at_prediction: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Networks that are trained for the same time.

    Attributes:
        systems: key -> network.
        kept_parts: first names of weights that all of them take from the trained ones
            (`trunk.backbone`, `trunk.neck`, ...); everything else starts at random.
        metrics: columns of the table, keys of tools/measure/system_tables.METRICS.
        with_instances: all of them have instances with scores, for AP.
        clock: what the minutes of a run are: "process", processor time without workers for images,
            or "wall", where a GPU does the work and workers bring it images.
        steps: of each run, instead of minutes; 0: its time ends a run.
    """

    systems: Mapping[str, System]
    kept_parts: tuple[str, ...]
    metrics: tuple[str, ...]
    with_instances: bool = False
    clock: str = "process"
    steps: int = 0


STREET_SCENES = "configs/debug/street_scenes.yaml"
STREET_SCENES_R50 = "configs/debug/street_scenes_r50.yaml"
# PointRend of semantics as published: points read features alone and say their logits, as many as a
# stride-16 map has cells; their loss also trains what they read.
AS_PUBLISHED = (
    "model.semantics.points.residual=false",
    "model.semantics.points.pixel_window=0",
    "model.semantics.points.shared_gradient=true",
    "model.semantics.points.subdivision_points=0",
    "model.semantics.points.hard_point_fraction=1.0",
    "loss_weights.semantic_point=1.0",
)
ALONE = (*AS_PUBLISHED, "model.semantics.points.shared_gradient=false")
# Corrections of the coarse logits, from features and the pixels around a point. AdamW takes no
# smaller steps for a smaller weight; the norm that is clipped has less of it.
FROM_PIXELS = (
    *ALONE,
    "model.semantics.points.residual=true",
    "model.semantics.points.pixel_window=5",
    "loss_weights.semantic_point=0.1",
)


# Masks of four convolutions, with proposals and boxes as in small_pointrend_r18.yaml.
CONV_MASKS = """model.instances={kind: mask_rcnn,
    rpn: {anchor_scale: 4.0, pre_nms_train: 1000, post_nms_train: 300,
          pre_nms_test: 1000, post_nms_test: 300},
    roi: {canonical_size_pixels: 112.0}, box: {hidden_channels: 192, num_samples: 128},
    mask: {hidden_channels: 128}}"""
MANY_POINTS = (*AS_PUBLISHED, "model.semantics.points.subdivision_points=8192")


def without_points(*mask_losses: str) -> tuple[str, ...]:
    """Changes of a network of two branches so that bilinear upsampling brings semantics up."""
    losses = ("rpn_objectness", "rpn_box", "box_class", "box_delta", *mask_losses, "semantic")
    weights = ", ".join(f"{name}: 1.0" for name in losses)
    return ("model.semantics.points=null", f"loss_weights={{{weights}}}")


def switched_off(config: str, weights_of: str) -> System:
    """Semantic logits are upsampled bilinearly."""
    return System(
        "the same, switched off",
        config,
        weights_of=weights_of,
        at_prediction=("model.semantics.points=null",),
        without=("semantics.point_head",),
    )


def semantic_point_systems(config: str, more_points: int) -> dict[str, System]:
    """Forms of the semantic points; where they train alone, switched off is never having had them.

    Args:
        config: of the network.
        more_points: a step, instead of as many as a stride-16 map has cells.
    """

    def changed(name: str, weights_of: str, change: str) -> System:
        at_prediction = (f"model.semantics.points.{change}",)
        return System(name, config, weights_of=weights_of, at_prediction=at_prediction)

    more = f"subdivision_points={more_points}"
    return {
        "pixels": System("corrections, from pixels, alone", config, FROM_PIXELS),
        "pixels_more": changed(f"the same, {more_points} points a step", "pixels", more),
        "pixels_off": switched_off(config, "pixels"),
        "published": System("as published", config, AS_PUBLISHED),
        "published_off": switched_off(config, "published"),
        "alone": System("as published, alone", config, ALONE),
        "alone_surer": changed("the same, where surer", "alone", "only_where_surer=true"),
        "alone_off": switched_off(config, "alone"),
    }


SEMANTIC_METRICS = (
    "PQ",
    "PQ things",
    "PQ stuff",
    "PQ†",
    "mIoU",
    "trimap 8 px",
    "trimap 20 px",
    "Boundary PQ",
    "Boundary IoU",
)

COMPARISONS = {
    "semantic_points": Comparison(
        systems=semantic_point_systems(STREET_SCENES, 2048),
        kept_parts=("trunk", "instances"),
        metrics=SEMANTIC_METRICS,
    ),
    # The same on a GPU, with the network of the flagship from scratch: --data and --held-out name
    # scenes of 512x1024.
    "semantic_points_r50": Comparison(
        systems=semantic_point_systems(STREET_SCENES_R50, 8192),
        kept_parts=(),
        metrics=SEMANTIC_METRICS,
        clock="wall",
    ),
    # Masks, and what the published loss of semantic points costs; with as many points a step as the
    # paper has for an image of 16 times the pixels.
    "heads": Comparison(
        systems={
            "conv": System("4-conv masks", STREET_SCENES, (CONV_MASKS, *without_points("mask"))),
            "point_rend": System(
                "PointRend masks", STREET_SCENES, without_points("mask_coarse", "mask_point")
            ),
            "published": System("and semantics, as published", STREET_SCENES, MANY_POINTS),
            "published_off": switched_off(STREET_SCENES, "published"),
            "hard": System(
                "and semantics, a quarter of the hardest points' loss",
                STREET_SCENES,
                (
                    *MANY_POINTS,
                    "model.semantics.points.hard_point_fraction=0.25",
                    "loss_weights.semantic_point=0.25",
                ),
            ),
            "hard_off": switched_off(STREET_SCENES, "hard"),
        },
        kept_parts=("trunk", "instances.rpn_head", "instances.box_head"),
        metrics=(
            "PQ",
            "PQ things",
            "SQ things",
            *SEMANTIC_METRICS[2:4],
            "AP",
            *SEMANTIC_METRICS[4:],
        ),
        with_instances=True,
        steps=360,
    ),
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
