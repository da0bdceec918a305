"""Turns a checkpoint of detectron2's model zoo into a weights file of this package.

examples:
  # PointRend R50 on Cityscapes; nothing is asked about pixel order, strides or class order
  python tools/import_detectron2.py model_final.pkl pointrend_cityscapes.safetensors

  # label images with it
  python pipelines/predict.py --weights pointrend_cityscapes.safetensors --images DIR --output DIR

Networks: PointRend and plain Mask R-CNN (R50, R101, X101-32x8d, FPN; COCO or Cityscapes),
SemanticFPN with and without PointRend (Cityscapes), Panoptic FPN (COCO). The configuration is read
off the weights. Every name of both sides is accounted for; anything but a complete match is an
error that lists all names.

exit codes: 0 converted; 1 the message says why not; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.build.runs import run_metadata
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.training.checkpoints import save_weights
from seamless_pr.weights.detectron2 import fit_zoo_weights, read_zoo_file
from seamless_pr.weights.detectron2_config import zoo_config_values

EXIT_ERROR = 1


def import_zoo_file(source: Path, output: Path, overrides: Sequence[str] = ()) -> str:
    """Zoo checkpoint -> weights file of this package.

    Args:
        source: .pkl of the model zoo, or .pth that detectron2 trained.
        output: .safetensors to write.
        overrides: changes of the imported config, as `model.instances.box.max_detections=300`.

    Returns:
        A report of all names.

    Raises:
        FileNotFoundError, ValueError: what is missing or does not fit.
    """
    tensors = read_zoo_file(source)
    values = zoo_config_values(tensors)
    config = config_from_dict(values, f"the config read off {source}", overrides)
    label_space = load_label_space(config.data.label_space)
    network = build_network(config.model, label_space)
    state, report = fit_zoo_weights(tensors, network.state_dict())
    report.check(str(source))
    save_weights(output, state, run_metadata(config, label_space))
    kinds = [
        part.kind for part in (config.model.instances, config.model.semantics) if part is not None
    ]
    parts = ", ".join([config.model.backbone.name, *kinds])
    return f"{source} -> {output} ({label_space.name}, {parts}): {report.summary()}"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help=".pkl of the model zoo, or a .pth")
    parser.add_argument("output", type=Path, help=".safetensors to write")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="changes of the imported config"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        print(import_zoo_file(options.source, options.output, options.overrides))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
