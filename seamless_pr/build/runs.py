"""Where config meets classes: every object of a run is put together here, around its network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

from seamless_pr import __version__
from seamless_pr.build.network_size import refuse_large
from seamless_pr.build.networks import build_network
from seamless_pr.build.weights import (
    load_backbones,
    load_initial_weights,
    refuse_other_classes,
)
from seamless_pr.config.load import config_to_dict
from seamless_pr.config.schema import Config, DataConfig
from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.detr_transform import DetrTransform
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.datasets.loader import PanopticImages, make_eval_loader, make_train_loader
from seamless_pr.datasets.panoptic_records import AnnotationRecord
from seamless_pr.datasets.parts import PanopticPart
from seamless_pr.datasets.transforms import EvalTransform, TrainTransform, Transform
from seamless_pr.evaluation.validation import draw_examples, validate
from seamless_pr.inference.predictor import Predictor
from seamless_pr.models.networks.network import Network
from seamless_pr.ops.generators import keyed_seed
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_target import Batch
from seamless_pr.training.distributed import rank, world_size
from seamless_pr.training.trainer import Trainer, TrainingHooks


def build_trainer(
    config: Config,
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    resume_from: str | Path | None = None,
    on_checkpoint: Callable[[int, Path | None, Mapping[str, Any]], None] | None = None,
) -> Trainer:
    """Everything that one worker needs to train, validate and log; `run()` of the result does it.

    With a torch.distributed group the batch is spread over its workers; each of them calls this
    function.

    Args:
        config: the run.
        folder: the run folder; checkpoints in it are continued.
        device: where this worker computes.
        resume_from: checkpoint folder to start from instead of the newest of the run folder.
        on_checkpoint: see `TrainingHooks`.

    Raises:
        FileNotFoundError, ValueError: data that are missing or faulty; the message names the files.
        ValueError: `loss_weights` does not name exactly the losses of the network, or the initial
            weights were trained on other classes.
    """
    label_space = build_label_space(config)
    train_images = build_images(config, label_space, is_training=True)
    images, hooks = {"data.train": train_images}, TrainingHooks()
    if config.training.evaluation_interval_steps > 0:
        images["data.val"] = build_images(config, label_space, is_training=False)
        hooks = _build_hooks(config, images["data.val"], device)
    torch.manual_seed(keyed_seed("weights", config.training.seed))
    max_gigabytes = config.training.max_network_gigabytes
    network = build_network(
        config.model, label_space, partial(refuse_large, max_gigabytes=max_gigabytes)
    )
    check_loss_weights(config.loss_weights, network.loss_names)
    if config.model.backbone.weights is not None:
        load_backbones(network, config.model.backbone.weights)
    if config.initial_weights.file is not None:
        refuse_other_classes(config.initial_weights, config.model, label_space)
        load_initial_weights(network, config.initial_weights)
    return Trainer(
        network,
        partial(_train_batches, config, train_images),
        loss_weights=config.loss_weights,
        optimizer=config.optimizer,
        schedule=config.schedule,
        training=config.training,
        folder=folder,
        metadata=run_metadata(config, label_space),
        data_fingerprints={key: part.fingerprint() for key, part in images.items() if rank() == 0},
        device=device,
        hooks=replace(hooks, on_checkpoint=on_checkpoint),
        resume_from=resume_from,
    )


def check_loss_weights(loss_weights: Mapping[str, float], loss_names: Sequence[str]) -> None:
    """Every loss of the network has a weight, and nothing else has.

    Raises:
        ValueError: names what is missing and what is too much.
    """
    missing = [name for name in loss_names if name not in loss_weights]
    extra = [name for name in loss_weights if name not in loss_names]
    if missing or extra:
        raise ValueError(
            f"'loss_weights' must name the losses of this network: {', '.join(loss_names)}; "
            f"missing: {', '.join(missing) or 'none'}; extra: {', '.join(extra) or 'none'}"
        )


def build_label_space(config: Config) -> LabelSpace:
    """The classes of the run: a built-in table, or the categories of the training JSON."""
    if config.data.label_space == "json":
        path = Path(config.data.train_parts[0].json)
        return read_panoptic_json(path).label_space(path.stem)
    return load_label_space(config.data.label_space)


def build_images(config: Config, label_space: LabelSpace, *, is_training: bool) -> PanopticImages:
    """The training part with its random changes, or the validation part at the network's size."""
    data = config.data
    parts = data.train_parts if is_training else (data.val,)
    transform: Transform = EvalTransform(
        data.shortest_side_pixels, data.longest_side_pixels, rounded_sides=data.rounded_sides
    )
    if is_training:
        transform = _train_transform(data)
    images = PanopticImages.from_parts(
        [PanopticPart(part.json, part.images, part.segments) for part in parts],
        label_space,
        transform,
        seed=config.training.seed,
    )
    if is_training and rank() == 0 and not any(_teaches(image) for image in images.annotations):
        files = ", ".join(str(part.json) for part in parts)
        print(f"warning: {files}: all pixels are void or crowds, of which no object is learned")
    return images


def _teaches(image: AnnotationRecord) -> bool:
    return any(not segment.is_crowd for segment in image.segments)


def _train_transform(data: DataConfig) -> Transform:
    longest = data.training_longest_side_pixels or data.longest_side_pixels
    if data.detr_crops:
        return DetrTransform(data.training_sides_pixels, longest, data.flip_probability)
    return TrainTransform(
        data.shortest_side_pixels,
        longest,
        data.scale_range,
        data.flip_probability,
        data.crop_size_pixels,
        data.color_strength,
        data.scale_step_pixels,
        data.crop_max_class_fraction,
        data.ssd_colors,
        data.training_sides_pixels,
        data.rounded_sides,
        data.pad_crops,
    )


def run_metadata(config: Config, label_space: LabelSpace) -> dict[str, Any]:
    """What a weights file tells about its origin, as JSON values."""
    return {
        "config": config_to_dict(config),
        "label_space": label_space.to_dict(),
        "versions": {
            "seamless_pr": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
        },
    }


def _train_batches(config: Config, images: PanopticImages, steps_done: int) -> Iterable[Batch]:
    return make_train_loader(
        images,
        config.data.batch_size,
        seed=config.training.seed,
        num_steps=config.training.steps,
        start_step=steps_done,
        rank=rank(),
        world_size=world_size(),
        accumulation_steps=config.optimizer.accumulation_steps,
        num_workers=config.data.num_workers,
    )


def _build_hooks(
    config: Config, images: PanopticImages, device: torch.device | str
) -> TrainingHooks:
    def predictor_of(network: Network) -> Predictor:
        return Predictor(
            network,
            shortest_side_pixels=config.data.shortest_side_pixels,
            longest_side_pixels=config.data.longest_side_pixels,
            device=device,
            amp=config.training.amp,
        )

    def evaluate(network: Network) -> dict[str, Any]:
        batches = make_eval_loader(
            images, rank=rank(), world_size=world_size(), num_workers=config.data.num_workers
        )
        return validate(predictor_of(network), batches)

    draw = draw_examples(predictor_of, images, config.training.num_example_pictures)
    return TrainingHooks(evaluate=evaluate, draw_examples=draw)
