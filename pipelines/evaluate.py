"""Scores panoptic predictions of any system: PQ and PQ†, by class, exactly as the official
evaluator.

examples:
  # COCO panoptic files; the PNGs lie in folders of the same names, or where the last two options
  # say
  python pipelines/evaluate.py --ground-truth G.json --predictions P.json --output DIR

  # Cityscapes annotations as downloaded, and a folder that pipelines/predict.py wrote
  python pipelines/evaluate.py --ground-truth gtFine/val --predictions predictions

exit codes: 0 scored; 1 not scored, the message lists every fault of the input; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.image_evaluation import EvaluationSettings
from seamless_pr.evaluation.results import evaluation_json, write_evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.evaluation.tables import (
    class_table,
    other_lines,
    plain_text,
    summary_table,
    write_tables,
)
from seamless_pr.metrics.segment_matching import PQ_RULES

EXIT_ERROR = 1


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ground-truth",
        required=True,
        type=Path,
        metavar="G",
        help="COCO panoptic JSON, or a folder of Cityscapes annotations such as gtFine/val",
    )
    parser.add_argument(
        "--predictions",
        required=True,
        type=Path,
        metavar="P",
        help="COCO panoptic JSON, or a folder that pipelines/predict.py wrote",
    )
    parser.add_argument(
        "--ground-truth-dir", type=Path, metavar="DIR", help="PNGs of the ground truth"
    )
    parser.add_argument("--predictions-dir", type=Path, metavar="DIR", help="predicted PNGs")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="writes evaluation.json and tables there"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument(
        "--rules",
        choices=tuple(PQ_RULES),
        default="official",
        help="how void and crowd count (default: official)",
    )
    parser.add_argument(
        "--lenient", action="store_true", help="a missing prediction counts as an empty one"
    )
    parser.add_argument(
        "--boundary",
        type=float,
        metavar="RATIO",
        help="also Boundary PQ and Boundary IoU; width of the band as a share of the diagonal "
        "(0.02 in general, 0.005 for Cityscapes)",
    )
    parser.add_argument(
        "--trimap",
        type=int,
        nargs="+",
        default=[],
        metavar="PIXELS",
        help="also mean IoU within so many pixels of a border",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        values = run(options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    show(values)
    if options.output is not None:
        print(f"everything in {write_evaluation_json(values, options.output)}")
        write_tables(values, options.output)
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluates and returns the content of evaluation.json."""
    settings = EvaluationSettings(
        rules=options.rules,
        is_lenient=options.lenient,
        boundary_ratio=options.boundary,
        trimap_widths=tuple(options.trimap),
    )
    gt = open_ground_truth(options.ground_truth, options.ground_truth_dir)
    pred = open_predictions(options.predictions, options.predictions_dir)
    evaluation = evaluate(
        gt, pred, settings, num_workers=options.workers, show_progress=sys.stderr.isatty()
    )
    return evaluation_json(evaluation)


def show(values: dict[str, Any]) -> None:
    """Prints the tables, then the single numbers and whatever was unusual."""
    for table in (class_table(values), summary_table(values)):
        print(plain_text(table))
    for line in other_lines(values):
        print(line)
    for note in values["notes"]:
        print(f"note: {note}")


if __name__ == "__main__":
    sys.exit(main())
