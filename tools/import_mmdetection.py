"""Turns a checkpoint of mmdetection (versions 1 to 3) into a weights file of this package.

examples:
  # one of the 3D-FUTURE winner's models: half precision, names and numerics of version 1
  python tools/import_mmdetection.py epoch_44.pth winner.safetensors

  # label images with it
  python pipelines/predict.py --weights winner.safetensors --images DIR --output DIR

Networks: Mask R-CNN, PointRend, HTC and SOLOv2 (also of its authors) on ResNet, ResNeXt or Res2Net
with FPN or BFP, for COCO, Cityscapes or 3D-FUTURE. The configuration is read off the weights; what
it cannot show can be overridden, such as model.instances.average_masks=false for HTC trained with
version 3. Every name of both sides is accounted for; anything but a complete match is an error that
lists all names. Nothing in the file is executed.

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
from seamless_pr.weights.mmdetection import fit_mmdetection_weights
from seamless_pr.weights.mmdetection_config import config_values
from seamless_pr.weights.tensor_files import read_tensors

EXIT_ERROR = 1


def import_checkpoint(source: Path, output: Path, overrides: Sequence[str] = ()) -> str:
    """Checkpoint of mmdetection -> weights file of this package.

    Args:
        source: .pth file.
        output: .safetensors to write.
        overrides: changes of the imported config, as `model.instances.box.max_detections=300`.

    Returns:
        A report of all names.

    Raises:
        FileNotFoundError, ValueError: what is missing or does not fit.
    """
    tensors = read_tensors(source)
    config = config_from_dict(config_values(tensors), f"the config read off {source}", overrides)
    label_space = load_label_space(config.data.label_space)
    network = build_network(config.model, label_space)
    state, report = fit_mmdetection_weights(tensors, network.state_dict())
    report.check(str(source))
    save_weights(output, state, run_metadata(config, label_space))
    parts = f"{config.model.backbone.name}, {config.model.instances.kind}"
    return f"{source} -> {output} ({label_space.name}, {parts}): {report.summary()}"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help=".pth file of mmdetection")
    parser.add_argument("output", type=Path, help=".safetensors to write")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="changes of the imported config"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        print(import_checkpoint(options.source, options.output, options.overrides))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
