"""The network, or networks, that the options of a prediction name."""

from __future__ import annotations

import argparse
import re

from seamless_pr.build.ensemble import load_ensemble
from seamless_pr.inference.predictor import Predictor
from seamless_pr.inference.tile_grid import Tiling
from seamless_pr.integrations.predictors import load_predictor
from seamless_pr.integrations.transformers import PREFIX
from seamless_pr.pipelines.stage import finite
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.views import views_of

_OVERRIDE = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)+=")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """--weights, and how several networks and several views of an image are put together."""
    parser.add_argument(
        "--weights",
        required=True,
        nargs="+",
        metavar="W",
        help=".safetensors file, run or checkpoint folder; or hf: and a network of Hugging Face, "
        "the name of its repository or a folder with it; several with --ensemble",
    )
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="pool what all the networks of --weights find; they must have the same classes",
    )
    parser.add_argument(
        "--ensemble-scores",
        type=finite,
        nargs="+",
        default=[],
        metavar="S",
        help="validation score of each network, such as its AP: scores of its objects count 0.6 "
        "times (worst network) to once (best one) (default: all count once)",
    )
    parser.add_argument(
        "--scales",
        type=finite,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="sizes that every image is seen at, as factors on the network's (default: 1); what is "
        "seen is merged",
    )
    parser.add_argument(
        "--flip", action="store_true", help="every size is also seen mirrored, left to right"
    )


def check_network_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Overrides that stand behind --weights are overrides all the same."""
    behind = [text for text in options.weights if _OVERRIDE.match(text)]
    options.weights = [text for text in options.weights if text not in behind]
    options.overrides = [*behind, *options.overrides]
    if not options.weights:
        parser.error("--weights names no file")
    if len(options.weights) > 1 and not options.ensemble:
        parser.error("several --weights need --ensemble; give that, or one network")
    if options.ensemble_scores and not options.ensemble:
        parser.error("--ensemble-scores is for --ensemble; leave one out or give both")
    if options.ensemble and any(text.startswith(PREFIX) for text in options.weights):
        parser.error(
            f"an ensemble pools networks with an instance or a semantic branch, {PREFIX} names one "
            "with queries: predict with it alone"
        )


def add_tile_options(parser: argparse.ArgumentParser) -> None:
    """--tile and --overlap."""
    parser.add_argument(
        "--tile",
        type=int,
        metavar="SIZE",
        help="label images of any size in tiles of SIZE x SIZE pixels of the file and join them",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="PIXELS",
        help="that neighbouring tiles share at least (default: a quarter of --tile)",
    )


def check_tile_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Fills in the overlap, or refuses it."""
    if options.tile is None:
        if options.overlap is not None:
            parser.error("--overlap is of tiles: give --tile, too")
        return
    try:
        options.overlap = Tiling.of(options.tile, options.overlap).overlap
    except ValueError as error:
        parser.error(str(error))


def load_wanted_predictor(
    options: argparse.Namespace, device: str | None, label_space: LabelSpace | None = None
) -> Predictor:
    """The predictor that the options ask for.

    Args:
        options: of pipelines/predict.py.
        device: where its networks run; None: a GPU if there is one, else the CPU.
        label_space: demanded classes; None: whatever the networks know.
    """
    views = views_of(options.scales, flip=options.flip)
    if options.ensemble:
        return load_ensemble(
            options.weights,
            device,
            validation_scores=options.ensemble_scores,
            label_space=label_space,
            overrides=options.overrides,
            batch_size=options.batch_size,
            amp=options.amp,
            views=views,
        )
    return load_predictor(
        options.weights[0],
        device,
        label_space=label_space,
        overrides=options.overrides,
        batch_size=options.batch_size,
        amp=options.amp,
        views=views,
    )
