"""The released Seamless Scene Segmentation weights as a file of this package, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seamless_pr.build.configs import config_from_dict, load_config
from seamless_pr.build.networks import build_network
from seamless_pr.build.runs import run_metadata
from seamless_pr.config.schema import Config
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.training.checkpoints import find_weights, load_weights, save_weights
from seamless_pr.weights.key_report import fit_keys
from seamless_pr.weights.legacy import check_names
from seamless_pr.weights.named_sources import reading
from seamless_pr.weights.seamseg import our_name, our_tensor, seamseg_name
from seamless_pr.weights.seamseg_config import config_values
from seamless_pr.weights.seamseg_snapshot import (
    METADATA_NAME,
    Snapshot,
    SnapshotClasses,
    find_snapshot,
    read_classes,
    read_snapshot,
    write_snapshot,
)

# Tables whose networks the released code was trained on; told apart by their numbers of classes.
GUESSED_LABEL_SPACES = ("cityscapes", "vistas_v1_2", "idd")
CLASS_LAYERS = ("sem_head.conv_sem.bias", "roi_head.roi_msk.bias")
# The released code's own config travels with imported weights, for the way back.
SEAMSEG_CONFIG = "seamseg_config"
NO_DATA = {"json": "not known to imported weights", "images": "not known to imported weights"}
SEAMSEG_LOSSES = ("rpn_objectness", "rpn_box", "box_class", "box_delta", "mask", "semantic")


def import_snapshot(
    source: Path,
    output: Path,
    *,
    label_space_name: str | None = None,
    config_path: str | None = None,
    metadata: Path | None = None,
    allowed: Sequence[str] = (),
) -> str:
    """Snapshot of the released code -> weights file of this package.

    Args:
        source: the .tar, or the folder with it.
        output: .safetensors to write.
        label_space_name: built-in table; None: by metadata.bin and the numbers of classes.
        config_path: YAML; None: the config that the snapshot holds.
        metadata: metadata.bin; None: the one beside the snapshot, if there is one.
        allowed: names that need not match, with `*`.

    Returns:
        A report of all names.

    Raises:
        FileNotFoundError, ValueError: what is missing or does not fit.
    """
    path = find_snapshot(source)
    snapshot = read_snapshot(path)
    beside = path.parent / METADATA_NAME
    if metadata is None and beside.is_file():
        metadata = beside
    classes = read_classes(metadata) if metadata is not None else None
    with reading(path if metadata is None else metadata):
        label_space = _label_space(snapshot, label_space_name, classes)
    with reading(path):
        config = load_config(config_path) if config_path else _snapshot_config(snapshot, path)
        network = build_network(config.model, label_space)
        state, report = fit_keys(snapshot.weights, network.state_dict(), our_name, our_tensor)
        report.check(str(path), allowed)
    metadata_values = {**run_metadata(config, label_space), SEAMSEG_CONFIG: snapshot.config}
    save_weights(output, state, metadata_values)
    return f"{path} -> {output} ({label_space.name}): {report.summary()}"


def export_snapshot(source: Path, output: Path) -> str:
    """Weights file of this package -> snapshot of the released code."""
    path = find_weights(source)
    weights, metadata = load_weights(path)
    check_names(weights, str(path))
    names = {name: seamseg_name(name) for name in weights}
    strange = [name for name, theirs in names.items() if theirs is None]
    if strange:
        raise ValueError(
            f"{path} has {len(strange)} tensors that the released code has no layer for, such as "
            f"{', '.join(strange[:3])}; only networks of instances.kind=mask_rcnn, "
            "semantics.kind=mini_dl without points, and a ResNet backbone can be exported"
        )
    tensors = {str(names[name]): our_tensor(name, tensor) for name, tensor in weights.items()}
    write_snapshot(output, Snapshot(tensors, metadata.get(SEAMSEG_CONFIG, "")))
    return f"{path} -> {output}: {len(tensors)} mapped"


def _snapshot_config(snapshot: Snapshot, path: Path) -> Config:
    if not snapshot.config:
        raise ValueError(
            f"{path} holds no config and has no config.ini beside it; give the YAML of its network "
            "with --config, for example configs/vistas/seamless_r50.yaml"
        )
    values: dict[str, Any] = config_values(snapshot.config, f"the config in {path}")
    model = values.setdefault("model", {})
    model["kind"] = "two_branch"
    model.setdefault("instances", {}).update(kind="mask_rcnn", mask={"norm_rois": "sampled"})
    model.setdefault("semantics", {}).update(kind="mini_dl", points=None)
    model.setdefault("fusion", {})["size"] = "network"
    values.setdefault("data", {}).update(train=NO_DATA, val=NO_DATA)
    values["loss_weights"] = dict.fromkeys(SEAMSEG_LOSSES, 1.0)
    return config_from_dict(values, f"the config in {path}")


def _label_space(
    snapshot: Snapshot, name: str | None, classes: SnapshotClasses | None
) -> LabelSpace:
    """The table that is named, or fits in numbers; names and colours as in metadata.bin."""
    if name is not None:
        return load_label_space(name)
    num_classes, num_things = (len(snapshot.weights.get(layer, ())) for layer in CLASS_LAYERS)
    spaces = [load_label_space(known) for known in GUESSED_LABEL_SPACES]
    counts = (num_classes, num_things)
    fitting = [space for space in spaces if (space.num_classes, space.num_things) == counts]
    if classes is not None:
        return _described_space(classes, fitting)
    if not fitting:
        raise ValueError(
            f"the snapshot has {num_classes} classes, {num_things} of them things, as none of "
            f"{', '.join(GUESSED_LABEL_SPACES)}; give its {METADATA_NAME} with --metadata"
        )
    return fitting[0]


def _described_space(classes: SnapshotClasses, fitting: Sequence[LabelSpace]) -> LabelSpace:
    """A built-in table where the names agree (its ids are those of the panoptic JSON)."""
    for space in fitting:
        known = [{c.name.lower(), c.supercategory.lower()} for c in space.categories]
        if all(name.lower() in names for name, names in zip(classes.names, known, strict=True)):
            colored = [
                replace(category, color=color)
                for category, color in zip(space.categories, classes.colors, strict=True)
            ]
            return LabelSpace(space.name, tuple(colored))
    described = zip(classes.names, classes.colors, classes.original_ids, strict=True)
    return LabelSpace(
        "metadata",
        tuple(
            Category(original_id, name, index >= classes.num_stuff, color)
            for index, (name, color, original_id) in enumerate(described)
        ),
    )
