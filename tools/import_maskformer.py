"""Turns published MaskFormer weights into a weights file of this package.

examples:
  # a file of the authors' model zoo, or one that their code trained
  python tools/import_maskformer.py model_final_6f60dc.pkl maskformer_coco_r50.safetensors

  # the same networks from Hugging Face: the folder of a downloaded repository, or its weights file
  python tools/import_maskformer.py maskformer-swin-tiny-ade maskformer_ade_swin_tiny.safetensors

  # ADE20K-Full and COCO-Stuff-10K have no table here: a COCO panoptic JSON names their categories,
  # in the order of the weights
  python tools/import_maskformer.py model_final.pkl ade_full.safetensors --categories ade_full.json

  # label images with it
  python pipelines/predict.py --weights maskformer_coco_r50.safetensors --images DIR --output DIR

Networks: MaskFormer and both per-pixel baselines on ResNet (R50, R101, R101c) and Swin (T, S, B,
L). The configuration is read off the weights. Every name of both sides is accounted for; anything
but a complete match is an error that lists all names. The published weights are licensed CC BY-NC
4.0.

exit codes: 0 converted; 1 the message says why not; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch import Tensor

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.build.runs import run_metadata
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.training.checkpoints import save_weights
from seamless_pr.weights.detectron2 import read_zoo_file
from seamless_pr.weights.maskformer import (
    LICENCE,
    described_classes,
    fit_maskformer_weights,
    official_order,
    original_names,
)
from seamless_pr.weights.maskformer_config import maskformer_config_values
from seamless_pr.weights.tensor_files import read_tensors

EXIT_ERROR = 1
# Weights inside the folder of a Hugging Face repository, the safe form first.
REPOSITORY_FILES = ("model.safetensors", "pytorch_model.bin")
TASKS = ("semantic", "panoptic", "general")


def import_maskformer(
    source: Path,
    output: Path,
    overrides: Sequence[str] = (),
    *,
    task: str | None = None,
    categories: Path | None = None,
) -> str:
    """Published weights -> weights file of this package.

    Args:
        source: .pkl, .pth, .safetensors or .bin, or a folder with one of the last two.
        output: .safetensors to write.
        overrides: changes of the imported config, as `model.fusion.object_threshold=0.5`.
        task: "semantic", "panoptic" or "general"; None: that of the published network.
        categories: COCO panoptic JSON whose categories are those of the weights, in their order;
            None: the table with this number of classes.

    Returns:
        A report of all names.

    Raises:
        FileNotFoundError, ValueError: what is missing or does not fit.
    """
    tensors = original_names(read_weights(source))
    name = None if categories is None else categories.stem
    values = maskformer_config_values(tensors, task=task, label_space=name)
    config = config_from_dict(values, f"the config read off {source}", overrides)
    if categories is None:
        label_space = load_label_space(config.data.label_space)
        order = official_order(label_space)
    else:
        label_space, order = described_classes(categories)
    network = build_network(config.model, label_space)
    state, report = fit_maskformer_weights(tensors, network.state_dict(), order)
    report.check(str(source))
    save_weights(output, state, run_metadata(config, label_space))
    parts = f"{config.model.kind}, {config.model.backbone.name}"
    return f"{source} -> {output} ({label_space.name}, {parts}): {report.summary()}\n{LICENCE}"


def read_weights(source: Path) -> dict[str, Tensor]:
    """Names and tensors of a file of any of the published forms; no pickle runs."""
    if source.is_dir():
        found = [source / name for name in REPOSITORY_FILES if (source / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"{source} holds neither {' nor '.join(REPOSITORY_FILES)}; give the folder of a "
                "downloaded repository, or a weights file"
            )
        source = found[0]
    if source.suffix in (".pkl", ".pth"):
        return read_zoo_file(source)
    return read_tensors(source)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="weights file, or folder of a repository")
    parser.add_argument("output", type=Path, help=".safetensors to write")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="changes of the imported config"
    )
    parser.add_argument("--task", choices=TASKS, help="default: that of the published network")
    parser.add_argument(
        "--categories", type=Path, help="COCO panoptic JSON with the classes, in their order"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        print(
            import_maskformer(
                options.source,
                options.output,
                options.overrides,
                task=options.task,
                categories=options.categories,
            )
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
