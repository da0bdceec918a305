"""The console command `seamless-pr`: one word for each stage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from seamless_pr import __version__
from seamless_pr.pipelines.console import tolerant_console

COMMAND = "seamless-pr"
# A stage is the module of this room with its name; it is imported when it is asked for.
STAGES = {
    "prepare": "Brings a dataset to the COCO panoptic format, and checks datasets in that format.",
    "train": "Trains a network on images with panoptic ground truth.",
    "predict": ("Labels images with a trained network: panoptic PNGs and one COCO panoptic JSON."),
    "evaluate": (
        "Scores panoptic predictions of any system: PQ and PQ†, by class, exactly as the official "
        "evaluator."
    ),
    "serve": (
        "Serves a network over HTTP: an image in, its panoptic map out; and a page to try it on."
    ),
    "export": "Turns results into the forms that other programs take.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a stage; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in STAGES:
        stage = import_module(f"seamless_pr.pipelines.{words[0]}")
        code: int = stage.main(words[1:], prog=f"{COMMAND} {words[0]}")
        return code
    with tolerant_console():
        _parser().parse_args(words)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Panoptic segmentation of street scenes, stage by stage.",
        epilog=f"`{COMMAND} STAGE --help` says more.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    stages = parser.add_subparsers(required=True, metavar="STAGE", title="stages")
    for name, sentence in STAGES.items():
        stages.add_parser(name, help=sentence)
    return parser


if __name__ == "__main__":
    sys.exit(main())
