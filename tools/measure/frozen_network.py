"""What the frozen network of a checkpoint sees in images, computed once for many point heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.predictor import load_predictor
from seamless_pr.build.runs import build_images
from seamless_pr.datasets.loader import make_eval_loader, make_train_loader
from seamless_pr.inference.tile_labels import min_stuff_area
from seamless_pr.models.semantics.points import PointSemantics
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.training.checkpoints import load_weights

BATCH_SIZE = 4


@dataclass(frozen=True)
class Seen:
    """One batch as point heads read it; the letters are those of `semantic_point_loss`."""

    fine: Tensor
    coarse: Tensor
    images: Tensor
    targets: list[PanopticTarget]

    @property
    def size(self) -> tuple[int, int]:
        return (self.images.shape[-2], self.images.shape[-1])


@dataclass(frozen=True)
class Cache:
    """What a network sees in images to train on, and in held-out ones, one by one.

    Attributes:
        min_stuff_area: of its fusion, in pixels.
        hidden_channels: of its own point head.
    """

    train: list[Seen]
    val: list[Seen]
    min_stuff_area: float
    hidden_channels: int


def make_cache(weights: Path, parts: Mapping[str, Path], num_batches: int) -> Cache:
    """Runs the network over images that are changed as in its training, and the held-out ones.

    Args:
        weights: a checkpoint with its config.
        parts: "train" and "val" -> folder of prepared scenes.
        num_batches: of images to train on.

    Raises:
        ValueError: it has no semantic points.
    """
    network = load_predictor(weights, "cpu").network
    if not isinstance(network.semantics, PointSemantics):
        raise ValueError(f"{weights} is of a network without semantic points")
    values = load_weights(weights)[1]["config"]
    for part, folder in parts.items():
        truth = folder / "gtFine" / f"cityscapes_panoptic_{part}.json"
        images = folder / "leftImg8bit" / part
        values["data"][part] = {"json": str(truth), "images": str(images)}
    config = config_from_dict(values, f"the config in {weights}")
    train, val = (
        build_images(config, network.label_space, is_training=training)
        for training in (True, False)
    )

    @torch.no_grad()
    def see(batch: ImageBatch, targets: list[PanopticTarget], dtype: torch.dtype) -> Seen:
        batch = batch.padded_to(network.size_divisor)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            features = network.features(batch)
            coarse = network.semantics.coarse_logits(features)
        return Seen(features.finest.to(dtype), coarse.to(dtype), batch.images, targets)

    loader = make_train_loader(train, BATCH_SIZE, num_steps=num_batches, num_workers=0)
    held_out = [see(*batch, torch.float32) for batch in make_eval_loader(val, num_workers=0)]
    return Cache(
        [see(*batch, torch.bfloat16) for batch in loader],
        held_out,
        min_stuff_area(network, held_out[0].size),
        network.semantics.points.hidden_channels,
    )
