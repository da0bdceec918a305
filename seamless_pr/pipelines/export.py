"""Turns results into the forms that other programs take.

    python pipelines/export.py submission cityscapes --predictions P --output O
    python pipelines/export.py submission idd --predictions P --output O
    python pipelines/export.py submission coco --predictions P --output O --name test-dev2017_mine
    python pipelines/export.py submission vistas --predictions P --output O --version 2.0
    python pipelines/export.py network --weights W --output DIR --size 1024x2048 --formats onnx

`submission` writes predictions as the datasets' evaluators and test servers take them: files to
look at, and a zip to send. `network` writes a trained network as one graph from pixels to id map,
for programs that do not know this package, and compares it with the network; docs/export.md says
how to load it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from seamless_pr.datasets.submissions import (
    KINDS,
    MAX_ID_BYTES,
    is_file_name,
    read_predictions,
    write_submission,
)
from seamless_pr.datasets.vistas import VERSIONS
from seamless_pr.pipelines import network_export
from seamless_pr.pipelines.ray_support import add_ray_option
from seamless_pr.pipelines.ray_tasks import item_map
from seamless_pr.pipelines.stage import ExitCode, Stage

DEFAULT_NAMES = {
    "cityscapes": "cityscapes_panoptic_val",
    "idd": "val_panoptic",
    "coco": "val2017_seamless_pr",
    "vistas": "panoptic",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    submission = commands.add_parser("submission", help="predictions for an official evaluator")
    submission.add_argument("dataset", choices=KINDS)
    submission.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="P",
        help="folder of pipelines/predict.py, or a COCO panoptic JSON",
    )
    submission.add_argument("--output", type=Path, required=True, metavar="DIR")
    submission.add_argument(
        "--kinds",
        nargs="+",
        choices=sorted({kind for kinds in KINDS.values() for kind in kinds}),
        help="default: all of the dataset",
    )
    submission.add_argument("--name", help="of JSON, PNG folder and zip")
    submission.add_argument("--version", choices=VERSIONS, default="1.2", help="of Vistas")
    submission.add_argument("--workers", type=int, help="processes (default: one per core)")
    add_ray_option(submission)
    submission.set_defaults(command="submission")
    network = commands.add_parser("network", help="a trained network as a graph for other runtimes")
    network_export.add_options(network)
    network.set_defaults(command="network")


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Fills in kinds and name of a submission."""
    if options.command == "network":
        network_export.check(parser, options)
        return
    options.kinds = options.kinds or KINDS[options.dataset]
    options.name = options.name or DEFAULT_NAMES[options.dataset]
    wrong = [kind for kind in options.kinds if kind not in KINDS[options.dataset]]
    if wrong:
        parser.error(f"{options.dataset} has no {wrong[0]} submission")
    if Path(options.name).name != options.name or not is_file_name(options.name):
        parser.error(
            f"--name is that of a file: no folders, no dot first, at most {MAX_ID_BYTES} bytes; "
            f"got '{options.name[:80]}'"
        )


def run(options: argparse.Namespace) -> ExitCode:
    if options.command == "network":
        return network_export.run(options)
    predictions = read_predictions(options.predictions)
    with item_map(options) as map_items:
        zips = write_submission(
            predictions,
            options.dataset,
            options.output,
            kinds=options.kinds,
            name=options.name,
            vistas_version=options.version,
            num_workers=options.workers,
            map_items=map_items,
        )
    for path in zips:
        print(path)
    return ExitCode.DONE


STAGE = Stage(
    doc=__doc__ or "",
    add_options=add_options,
    check=check,
    run=run,
    inputs=("predictions", "weights", "image"),
    has_commands=True,
)
main = STAGE.main

if __name__ == "__main__":
    sys.exit(main())
