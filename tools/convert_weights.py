"""Converts published weights into files of this package, and back.

examples:
  # the released Vistas checkpoint: a folder with the unpacked .tar, config.ini and metadata.bin
  python tools/convert_weights.py from-seamseg downloads/vistas seamless_vistas.safetensors

  # label images with it
  python pipelines/predict.py --weights seamless_vistas.safetensors --images DIR --output DIR

  # its trunk for other classes: the layers that depend on the classes keep their random start
  python tools/convert_weights.py from-seamseg vistas.tar start.safetensors \\
      --label-space cityscapes --config configs/cityscapes/seamless_r50.yaml \\
      --allow "rpn_head.*" "roi_head.*" "sem_head.conv_sem.*" "body.fpn.extra.*"

  # weights trained here, for the released code
  python tools/convert_weights.py to-seamseg runs/cityscapes/seamless_r50 seamless_r50.tar

  # a weights file, run or YAML config of version 0.1 of this package
  python tools/convert_weights.py update runs/old/checkpoints/best.safetensors new.safetensors

  # does an ImageNet file fit a backbone? (training reads it directly: model.backbone.weights)
  python tools/convert_weights.py backbone resnet50.pth resnet50.safetensors --name resnet50

Every name of both sides is accounted for; anything but a complete match is an error that lists all
names, unless --allow names them.

exit codes: 0 converted; 1 the message says why not; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from seamless_pr.build.configs import config_from_dict, load_config
from seamless_pr.build.networks import build_network, build_norm_act
from seamless_pr.build.runs import run_metadata
from seamless_pr.build.updates import update_config, update_weights
from seamless_pr.config.networks import ABNSettings
from seamless_pr.config.schema import Config
from seamless_pr.datasets.label_spaces import LABEL_SPACE_NAMES, load_label_space
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.training.checkpoints import find_weights, load_weights, save_weights
from seamless_pr.weights.imagenet import fit_backbone
from seamless_pr.weights.key_report import fit_keys
from seamless_pr.weights.legacy import check_names
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
from seamless_pr.weights.tensor_files import read_tensors

EXIT_ERROR = 1
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
    label_space = _label_space(snapshot, label_space_name, classes)
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


def convert_backbone(source: Path, output: Path, name: str, allowed: Sequence[str] = ()) -> str:
    """ImageNet file of torchvision, timm or seamseg -> backbone weights under timm's names."""
    backbone = TimmBackbone(name, build_norm_act(ABNSettings()))
    state, report = fit_backbone(read_tensors(source), backbone.state_dict())
    report.check(str(source), allowed)
    save_weights(output, state, {"backbone": name, "source": source.name})
    return f"{source} -> {output}: {report.summary()}"


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


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    allow: dict[str, Any] = {
        "nargs": "+",
        "default": [],
        "metavar": "NAME",
        "help": "names that may be missing, left over or of another shape; * stands for anything",
    }
    seamseg = commands.add_parser("from-seamseg", help="a snapshot of the released Seamless code")
    seamseg.add_argument("source", type=Path, help="the .tar, or the folder with it")
    seamseg.add_argument("output", type=Path, help=".safetensors to write")
    seamseg.add_argument("--label-space", choices=LABEL_SPACE_NAMES, help="its classes")
    seamseg.add_argument("--metadata", type=Path, help="metadata.bin with names and colours")
    seamseg.add_argument("--config", metavar="YAML", help="its network, instead of its own config")
    seamseg.add_argument("--allow", **allow)
    back = commands.add_parser("to-seamseg", help="weights of this package for the released code")
    back.add_argument("source", type=Path, help="a .safetensors file, or the folder of a run")
    back.add_argument("output", type=Path, help=".tar to write")
    backbone = commands.add_parser("backbone", help="ImageNet weights of torchvision or timm")
    backbone.add_argument("source", type=Path, help=".pth or .safetensors")
    backbone.add_argument("output", type=Path, help=".safetensors to write")
    backbone.add_argument("--name", default="resnet50", help="model name in timm")
    backbone.add_argument("--allow", **allow)
    update = commands.add_parser("update", help="weights or a YAML config of version 0.1")
    update.add_argument("source", type=Path, help=".safetensors, the folder of a run, or .yaml")
    update.add_argument("output", type=Path, help="file to write")
    return parser.parse_args(arguments)


def convert(options: argparse.Namespace) -> str:
    """Runs the command that was asked for."""
    if options.command == "to-seamseg":
        return export_snapshot(options.source, options.output)
    if options.command == "update":
        is_config = options.source.suffix in (".yaml", ".yml")
        return (update_config if is_config else update_weights)(options.source, options.output)
    if options.command == "backbone":
        return convert_backbone(options.source, options.output, options.name, options.allow)
    return import_snapshot(
        options.source,
        options.output,
        label_space_name=options.label_space,
        config_path=options.config,
        metadata=options.metadata,
        allowed=options.allow,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    # Layers that may keep their start get the same start every time.
    torch.manual_seed(0)
    try:
        print(convert(options))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
