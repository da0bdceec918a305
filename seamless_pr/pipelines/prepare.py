"""Brings a dataset to the COCO panoptic format, and checks datasets in that format.

    python pipelines/prepare.py cityscapes --root DATA/cityscapes
    python pipelines/prepare.py verify --json G.json --png-dir PNGS --images RGB

A conversion that was cut off goes on where it stopped. The exit code is 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from seamless_pr.datasets.cityscapes import open_cityscapes
from seamless_pr.datasets.conversion import convert_splits
from seamless_pr.datasets.verification import verify_dataset
from seamless_pr.parallel import ItemMap
from seamless_pr.pipelines.ray_support import add_ray_option, check_output, item_map
from seamless_pr.structures.faults import Fault

INTERRUPTED = 130  # what shells report for a program stopped by Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one sub-command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with item_map(options) as map_items:
            faults = options.run(options, map_items)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 1 if faults else 0


def prepare_cityscapes(options: argparse.Namespace, map_items: ItemMap) -> list[Fault]:
    """Converts the splits, then verifies what was written."""
    check_output(options.output or options.root, "--output" if options.output else "--root")
    prepared = convert_splits(
        [open_cityscapes(options.root, split) for split in options.splits],
        options.output or options.root / "gtFine",
        num_workers=options.workers,
        map_items=map_items,
    )
    faults: list[Fault] = []
    for split in prepared:
        if split.images_dir is None:
            print(f"{split.json_path}: no leftImg8bit/ beside gtFine/, images are not checked")
        # The pictures were looked at during the conversion.
        split_faults = verify_dataset(
            split.json_path,
            split.png_dir,
            None,
            num_workers=options.workers,
            show_progress=True,
            map_items=map_items,
        )
        report(split.json_path, split_faults)
        faults += split_faults
    return faults


def verify(options: argparse.Namespace, map_items: ItemMap) -> list[Fault]:
    """Verifies any dataset in the COCO panoptic format."""
    faults = verify_dataset(
        options.json,
        options.png_dir,
        options.images,
        num_workers=options.workers,
        show_progress=True,
        map_items=map_items,
    )
    report(options.json, faults)
    return faults


def report(json_path: Path, faults: Sequence[Fault]) -> None:
    """Prints every fault, and the verdict last."""
    for fault in faults:
        print(fault, file=sys.stderr)
    verdict = f"{len(faults)} faults, listed above" if faults else "complete and consistent"
    print(f"{json_path}: {verdict}", file=sys.stderr if faults else sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    cityscapes = commands.add_parser("cityscapes", help="convert gtFine/*_instanceIds.png")
    cityscapes.add_argument(
        "--root", type=Path, required=True, help="folder with gtFine/ and leftImg8bit/"
    )
    cityscapes.add_argument(
        "--output", type=Path, help="folder of the results (default ROOT/gtFine)"
    )
    cityscapes.add_argument("--splits", nargs="+", default=["train", "val"], metavar="SPLIT")
    cityscapes.set_defaults(run=prepare_cityscapes)

    verification = commands.add_parser("verify", help="list every fault of a panoptic dataset")
    verification.add_argument("--json", type=Path, required=True, help="COCO panoptic JSON")
    verification.add_argument(
        "--png-dir", type=Path, help="folder of the id PNGs (default: the JSON's path less .json)"
    )
    verification.add_argument("--images", type=Path, help="folder of the RGB images of this split")
    verification.set_defaults(run=verify)

    for command in (cityscapes, verification):
        command.add_argument("--workers", type=int, help="processes (default: one per core)")
        add_ray_option(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
