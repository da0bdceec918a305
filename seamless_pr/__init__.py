"""Panoptic segmentation of street scenes: Seamless Scene Segmentation with PointRend."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamless_pr.build.predictor import load_predictor
    from seamless_pr.datasets.coco_results import to_coco
    from seamless_pr.drawing.panoptic import draw_panoptic

__version__ = "0.1.0"
__all__ = ["draw_panoptic", "load_predictor", "to_coco"]

_HOMES = {
    "draw_panoptic": "seamless_pr.drawing.panoptic",
    "load_predictor": "seamless_pr.build.predictor",
    "to_coco": "seamless_pr.datasets.coco_results",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: the package itself must import in no time, without torch.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
