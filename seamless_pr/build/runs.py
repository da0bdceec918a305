"""Where config meets classes: every object of a run is put together here, around its network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from seamless_pr import __version__
from seamless_pr.build.networks import build_network
from seamless_pr.config.load import config_from_dict, config_to_dict
from seamless_pr.config.schema import Config, DatasetConfig, InitialWeightsConfig
from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.datasets.loader import Batch, PanopticImages, make_eval_loader, make_train_loader
from seamless_pr.datasets.transforms import EvalTransform, TrainTransform, Transform
from seamless_pr.evaluation.validation import draw_examples, validate
from seamless_pr.inference.predictor import Predictor
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.ops.generators import keyed_seed
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.training.checkpoints import find_weights, load_weights
from seamless_pr.training.distributed import rank, world_size
from seamless_pr.training.trainer import Trainer, TrainingHooks
from seamless_pr.weights.imagenet import fit_backbone
from seamless_pr.weights.key_report import fit_keys
from seamless_pr.weights.tensor_files import read_tensors


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
    """
    label_space = build_label_space(config)
    train_images = build_images(config, label_space, is_training=True)
    evaluates = config.training.evaluation_interval_steps > 0
    hooks = _build_hooks(config, label_space, device) if evaluates else TrainingHooks()
    torch.manual_seed(keyed_seed("weights", config.training.seed))
    network = build_network(config.model, label_space)
    if config.model.backbone.weights is not None:
        load_backbones(network, config.model.backbone.weights)
    if config.initial_weights.file is not None:
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
        device=device,
        hooks=replace(hooks, on_checkpoint=on_checkpoint),
        resume_from=resume_from,
    )


def load_backbones(network: nn.Module, path: str | Path) -> None:
    """Fills the backbone, or both of separate networks, with ImageNet weights.

    Args:
        network: of `build_network`.
        path: file of torchvision, timm or seamseg; its classifier is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, or not the weights of this backbone; every name is listed.
    """
    source = read_tensors(path)
    for backbone in network.modules():
        if isinstance(backbone, TimmBackbone):
            state, report = fit_backbone(source, backbone.state_dict())
            report.check(str(path))
            backbone.load_state_dict(state)


def load_initial_weights(network: nn.Module, initial: InitialWeightsConfig) -> None:
    """Fills the network with the weights of another run; its random parts stay as they are.

    Args:
        network: of `build_network`.
        initial: a file, and the parts that are not taken from it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, a part that neither file nor network has, or names and shapes that
            differ outside of these parts; every name is listed.
    """
    assert initial.file is not None
    source, own = read_tensors(initial.file), network.state_dict()
    parts = {name.partition(".")[0] for name in (*source, *own)}
    if unknown := [part for part in initial.random_parts if part not in parts]:
        raise ValueError(
            f"initial_weights.random_parts names {', '.join(unknown)}, but the parts of "
            f"{initial.file} and of the network are {', '.join(sorted(parts))}; name some of these"
        )
    random_parts = tuple(f"{part}." for part in initial.random_parts)
    taken = {name: t for name, t in source.items() if not name.startswith(random_parts)}
    state, report = fit_keys(taken, own, rename=str)
    report.check(initial.file, allowed=[f"{part}*" for part in random_parts])
    # Counters of norms in random parts are not in `taken`; fit_keys set them to 0, as they were.
    network.load_state_dict(state)


def build_label_space(config: Config) -> LabelSpace:
    """The classes of the run: a built-in table, or the categories of the training JSON."""
    if config.data.label_space == "json":
        path = Path(config.data.train.json)
        return read_panoptic_json(path).label_space(path.stem)
    return load_label_space(config.data.label_space)


def build_images(config: Config, label_space: LabelSpace, *, is_training: bool) -> PanopticImages:
    """The training part with its random changes, or the validation part at the network's size."""
    data = config.data
    part: DatasetConfig = data.train if is_training else data.val
    transform: Transform = EvalTransform(data.shortest_side_pixels, data.longest_side_pixels)
    if is_training:
        transform = TrainTransform(
            data.shortest_side_pixels,
            data.longest_side_pixels,
            data.scale_range,
            data.flip_probability,
            data.crop_size_pixels,
            data.color_strength,
            data.scale_step_pixels,
            data.crop_max_class_fraction,
            data.ssd_colors,
        )
    return PanopticImages.from_files(
        part.json,
        part.images,
        label_space,
        transform,
        png_dir=part.segments,
        seed=config.training.seed,
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
    config: Config, label_space: LabelSpace, device: torch.device | str
) -> TrainingHooks:
    images = build_images(config, label_space, is_training=False)

    def predictor_of(network: nn.Module) -> Predictor:
        return Predictor(
            network,
            shortest_side_pixels=config.data.shortest_side_pixels,
            longest_side_pixels=config.data.longest_side_pixels,
            device=device,
            amp=config.training.amp,
        )

    def evaluate(network: nn.Module) -> dict[str, Any]:
        batches = make_eval_loader(
            images, rank=rank(), world_size=world_size(), num_workers=config.data.num_workers
        )
        return validate(predictor_of(network), batches)

    draw = draw_examples(predictor_of, images, config.training.num_example_pictures)
    return TrainingHooks(evaluate=evaluate, draw_examples=draw)


def load_predictor(
    path: str | Path,
    device: torch.device | str | None = None,
    *,
    label_space: LabelSpace | None = None,
    overrides: Sequence[str] = (),
    batch_size: int = 1,
    amp: str = "none",
) -> Predictor:
    """A trained network, ready to label images.

    Args:
        path: a .safetensors file that training has written, or the folder of a run or checkpoint
            (then its best weights, else its last).
        device: where the network runs; None: a GPU if there is one, else the CPU.
        label_space: demanded classes; None: whatever the network was trained on.
        overrides: changes of the stored config, as `model.fusion.score_threshold=0.4`.
        batch_size, amp: see `Predictor`.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: the file is truncated, not of this package, its weights do not fit its config,
            or its classes are not the demanded ones; the message names the file and the fix.
    """
    file = find_weights(path)
    weights, metadata = load_weights(file)
    if not {"config", "label_space"} <= metadata.keys():
        raise ValueError(
            f"{file} has no config and label space in its metadata, so it is not a checkpoint of "
            "this package; give one that training has written, or import the weights first"
        )
    trained_space = LabelSpace.from_dict(metadata["label_space"])
    if label_space is not None:
        _check_label_space(trained_space, label_space, file)
    config = config_from_dict(metadata["config"], f"the config in {file}", overrides)
    network = build_network(config.model, trained_space)
    _load_strictly(network, weights, file)
    return Predictor(
        network,
        shortest_side_pixels=config.data.shortest_side_pixels,
        longest_side_pixels=config.data.longest_side_pixels,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        batch_size=batch_size,
        amp=amp,
        settings={"weights_sha256": _sha256(file), "overrides": sorted(overrides)},
    )


def _load_strictly(network: nn.Module, weights: dict[str, torch.Tensor], file: Path) -> None:
    """Loads weights whose names and shapes are exactly those of the network."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    different = [
        f"{name} is {found.get(name, 'missing')}, the network has {expected.get(name, 'none')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if different:
        raise ValueError(
            f"{len(different)} tensors of {file} do not fit the network of its config: "
            f"{'; '.join(different[:5])}; leave out overrides that change the network, or use the "
            "version of the package that wrote the file"
        )
    network.load_state_dict(weights)


def _check_label_space(trained: LabelSpace, demanded: LabelSpace, file: Path) -> None:
    """The classes agree if each category id means the same name and kind on both sides."""
    trained_meaning = {c.category_id: (c.name, c.is_thing) for c in trained.categories}
    demanded_meaning = {c.category_id: (c.name, c.is_thing) for c in demanded.categories}
    different = sorted(
        category_id
        for category_id in trained_meaning.keys() | demanded_meaning.keys()
        if trained_meaning.get(category_id) != demanded_meaning.get(category_id)
    )
    if different:
        category_id = different[0]
        raise ValueError(
            f"{file} was trained on label space '{trained.name}', but '{demanded.name}' is wanted: "
            f"{len(different)} categories differ, for example {category_id} "
            f"({_meaning(trained_meaning, category_id)} instead of "
            f"{_meaning(demanded_meaning, category_id)}); give weights trained on those classes"
        )


def _meaning(meanings: dict[int, tuple[str, bool]], category_id: int) -> str:
    name, is_thing = meanings.get(category_id, ("", False))
    return f"{'thing' if is_thing else 'stuff'} '{name}'" if name else "no class"


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
