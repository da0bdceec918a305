"""A network and a data stream of a few numbers, to train the trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seamless_pr.models.networks.network import Network
from seamless_pr.ops.generators import keyed_generator
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import Batch, PanopticTarget
from seamless_pr.structures.training_settings import (
    PolySettings,
    SGDSettings,
    TrainingSettings,
)
from seamless_pr.training.trainer import Trainer

LABELS = LabelSpace(
    "tiny", (Category(1, "road", False, (0, 0, 0)), Category(2, "car", True, (0, 0, 9)))
)


class TinyNetwork(Network):
    """Two losses over a convolution, a norm layer, dropout and the generators of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.label_space = LABELS
        self.loss_names = ("first", "second")
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.fail_on: str | None = None

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        features = self.dropout(self.norm(self.conv(batch.images.float() / 255)))
        noise = torch.stack([torch.rand((), generator=generator) for generator in generators])
        first = ((features.mean((1, 2, 3)) - noise) ** 2).mean()
        second = features.abs().mean()
        if any(target.image_key == self.fail_on for target in targets):
            second = second * float("nan")
        count = len(targets)
        return {"first": LossSum(first * count, count), "second": LossSum(second * count, count)}


def endless_batches(first_batch: int, batch_size: int = 2) -> Iterator[Batch]:
    """Batch b holds the images 'image-b-0', 'image-b-1', ..., drawn from their keys."""
    number = first_batch
    while True:
        keys = [f"image-{number}-{index}" for index in range(batch_size)]
        images = [
            torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=keyed_generator(key))
            for key in keys
        ]
        targets = [
            PanopticTarget(
                torch.ones(8, 8, dtype=torch.int32),
                torch.zeros(1, dtype=torch.int64),
                torch.zeros(1, dtype=torch.bool),
                LABELS,
                key,
            )
            for key in keys
        ]
        yield ImageBatch.from_images(images), targets
        number += 1


def make_trainer(folder: Path, network: nn.Module | None = None, **changes: Any) -> Trainer:
    """A trainer of 20 steps with a checkpoint every 5; `changes` are named group__key."""
    torch.manual_seed(3)
    training = {"steps": 20, "checkpoint_interval_steps": 5, "log_interval_steps": 5}
    settings: dict[str, dict[str, Any]] = {
        "training": training,
        "optimizer": {"lr": 0.1},
        "schedule": {"warmup_steps": 4},
    }
    arguments: dict[str, Any] = {"loss_weights": {"first": 1.0, "second": 0.5}}
    for name, value in changes.items():
        group, _, key = name.partition("__")
        if key:
            settings[group][key] = value
        else:
            arguments[group] = value
    return Trainer(
        network or TinyNetwork(),
        arguments.pop("batches_from", endless_batches),
        optimizer=SGDSettings(**settings["optimizer"]),
        schedule=PolySettings(**settings["schedule"]),
        training=TrainingSettings(**settings["training"]),
        folder=folder,
        metadata={"config": {"steps": 20}},
        **arguments,
    )
