"""Families of networks through a step and a prediction, on the CPU and on the test GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.models.networks.maskformer import MaskFormer
from seamless_pr.models.networks.network import Network
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.prediction import Prediction
from tests.config.test_model_keys import (
    BALANCED,
    BASE,
    BOX,
    DEEPLAB,
    HTC,
    IMPLICIT,
    MASK_RCNN,
    MINI_DL,
    POINTS,
    RPN,
    SOLO,
)
from tests.support.model_keys import LABEL_SPACE, batch
from tests.support.numbered_gpu import numbered_gpu, on_gpu
from tests.support.small_config import smallest
from tests.support.tiny_maskformer import scene, tiny_maskformer, tiny_per_pixel

SIZES = [(90, 140), (50, 80)]
PANOPTIC_FPN = {"kind": "panoptic_fpn", "hidden_channels": 8}


def _of_config(model: dict[str, Any]) -> Callable[[], Network]:
    def build() -> Network:
        torch.manual_seed(0)
        config = config_from_dict(smallest(model=model, loss_weights={}), "test", [])
        return build_network(config.model, LABEL_SPACE)

    return build


def _sure_of_everything(network: MaskFormer) -> MaskFormer:
    """Random queries that are kept."""
    settings = replace(network.fusion.settings, object_threshold=0.0, overlap_threshold=0.0)
    network.fusion.settings = settings
    return network


FAMILIES: dict[str, Callable[[], Network]] = {
    "point_rend": _of_config(BASE),
    "mask_rcnn, bfp, panoptic_fpn": _of_config(
        {**BALANCED, "instances": MASK_RCNN, "semantics": PANOPTIC_FPN}
    ),
    "implicit point_rend": _of_config({**IMPLICIT, "semantics": None}),
    "htc": _of_config(
        {
            **HTC,
            "instances": {
                **HTC["instances"],
                "mask_scoring": True,
                "context": True,
                "box": {**BOX, "class_agnostic": True, "score_threshold": 0.2},
            },
        }
    ),
    "solov2": _of_config(
        {
            **SOLO,
            "instances": {
                **SOLO["instances"],
                "objects_per_cell": "last",
                "score_threshold": 0.0105,
            },
        }
    ),
    "as mmdetection 1.x": _of_config(
        {
            **BASE,
            "instances": {
                **BASE["instances"],
                "rpn": {**RPN, "whole_pixels": True, "forces_equals": True},
                "roi": {"sampler": "unaligned"},
                "box": {**BOX, "whole_pixels": True, "forces_best": True},
                "mask": {"hidden_channels": 16, "whole_pixels": True},
            },
            "semantics": {**MINI_DL, "points": {**POINTS, "pixel_window": 3}},
        }
    ),
    "deeplab, deformable": _of_config(
        {
            **DEEPLAB,
            "backbone": {**DEEPLAB["backbone"], "deformable": "v2", "context_ratio": 0.25},
        }
    ),
    "maskformer": lambda: _sure_of_everything(tiny_maskformer(encoder=True)),
    "maskformer, semantic": lambda: tiny_maskformer(task="semantic", targets="classes"),
    "per_pixel": lambda: tiny_per_pixel(queries=True),
}


@dataclass(frozen=True)
class DeviceRun:
    """What one family does.

    Attributes:
        losses: name -> value on the CPU and on the GPU.
        predictions: of both.
        training_waits, prediction_waits: where the host waited for the GPU, and how often.
        makers: (file, line) where tensors were made on the GPU.
    """

    losses: dict[str, tuple[float, float]]
    predictions: tuple[list[Prediction], list[Prediction]]
    training_waits: Counter[str]
    prediction_waits: Counter[str]
    makers: set[tuple[str, int]]


def _data(family: str) -> tuple[ImageBatch, list[PanopticTarget]]:
    if "maskformer" in family or family == "per_pixel":
        (image, target), (other, empty) = scene(64, 96), scene(64, 96, empty=True)
        return ImageBatch.from_images([image, other]), [target, empty]
    images, targets = batch()
    return images, list(targets)


@cache
def device_run(family: str) -> DeviceRun:
    """Runs it, once in a process."""
    network = FAMILIES[family]()
    images, targets = _data(family)
    twin = on_gpu(network)

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(2)]

    expected = network.train().losses(images, targets, generators())
    plain = network.eval().predict(images, SIZES)
    with numbered_gpu() as gpu:
        there = ImageBatch(on_gpu(images.images), images.image_sizes)
        truth = [target.to("cuda") for target in targets]
        gpu.waits.clear()
        losses = twin.train().losses(there, truth, generators())
        torch.stack([loss.total for loss in losses.values()]).sum().backward()
        training_waits = gpu.waits.copy()
        gpu.waits.clear()
        with torch.no_grad():
            predictions = twin.eval().predict(there, SIZES)
        prediction_waits = gpu.waits.copy()
        predictions = [prediction.to("cpu") for prediction in predictions]
        pairs = {
            name: (float(loss.total.detach()) / max(1, loss.count), losses[name])
            for name, loss in expected.items()
        }
        values = {
            name: (mine, float(loss.total.detach()) / max(1, loss.count))
            for name, (mine, loss) in pairs.items()
        }
    return DeviceRun(
        values, (plain, predictions), training_waits, prediction_waits, set(gpu.makers)
    )
