"""Scores panoptic predictions of any system: PQ and PQ†, by class, exactly as the official
evaluator.

examples:
  # COCO panoptic files; the PNGs lie in folders of the same names, or where the last two options
  # say
  python pipelines/evaluate.py --ground-truth G.json --predictions P.json --output DIR

  # Cityscapes annotations as downloaded, and a folder that pipelines/predict.py wrote
  python pipelines/evaluate.py --ground-truth gtFine/val --predictions predictions

  # everything: masks with scores (AP), bands around borders, semantic label PNGs
  python pipelines/evaluate.py --ground-truth G.json --predictions P.json --output DIR \\
      --instances instances.json --boundary 0.005 --trimap 8 20 --semantic-pngs labels

  # COCO: masks also against the finer outlines of LVIS (AP* of PointRend)
  python pipelines/evaluate.py --ground-truth panoptic_val2017.json --predictions P.json \\
      --instances instances.json --lvis lvis_v1_val.json

  # a page that shows where it fails: DIR/report/index.html
  python pipelines/evaluate.py --ground-truth gtFine/val --predictions predictions --output DIR \\
      --report --images leftImg8bit/val

  # the same files through panopticapi as well; fails where both differ
  python pipelines/evaluate.py --ground-truth G.json --predictions P.json --cross-check

  # two evaluations of the same images: is B better than A, class by class?
  python pipelines/evaluate.py --compare A/evaluation.json B/evaluation.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.image_counts import EvaluationSettings
from seamless_pr.evaluation.map_files import Source
from seamless_pr.evaluation.pairing import require_label_space
from seamless_pr.evaluation.results import (
    evaluation_json,
    write_evaluation_json,
)
from seamless_pr.evaluation.sources import (
    PREDICTION_JSON,
    ground_truth_readers,
    open_ground_truth,
    open_predictions,
)
from seamless_pr.evaluation.stored_results import read_evaluation_json
from seamless_pr.evaluation.tables import (
    class_table,
    other_lines,
    plain_text,
    summary_table,
    write_table,
    write_tables,
)
from seamless_pr.files import check_written, write_json
from seamless_pr.metrics.ap_rules import MORE_AP_RULES
from seamless_pr.metrics.segment_matching import PQ_RULES
from seamless_pr.parallel import ItemMap
from seamless_pr.pipelines.ray_support import add_ray_option
from seamless_pr.pipelines.ray_tasks import item_map
from seamless_pr.pipelines.stage import Stage, finite
from seamless_pr.structures.faults import shortened

IDD_OFFICIAL_SIZE = "1280x720"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ground-truth",
        type=Path,
        metavar="G",
        help="COCO panoptic JSON, or a folder as downloaded: gtFine/val of Cityscapes or IDD, "
        "validation of Vistas, annotations/validation of ADE20K, panoptic_val2017 of COCO",
    )
    parser.add_argument(
        "--idd-size",
        choices=("native", IDD_OFFICIAL_SIZE),
        default="native",
        help="of IDD's maps from polygons; 1280x720: as the official evaluation, with its ids",
    )
    parser.add_argument(
        "--ade20k-areas",
        choices=("counted", "stated"),
        default="counted",
        help="stated: areas of stuff before things cover it, as the usual conversion states them",
    )
    parser.add_argument(
        "--predictions",
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
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: one per core), or Ray tasks at a time",
    )
    add_ray_option(parser)
    parser.add_argument(
        "--rules",
        choices=tuple(PQ_RULES),
        default="official",
        help="how void and crowd count (default: official)",
    )
    parser.add_argument(
        "--lenient", action="store_true", help="a missing prediction counts as an empty one"
    )
    _add_more_scores(parser)


def _add_more_scores(parser: argparse.ArgumentParser) -> None:
    """Options that ask for more than PQ."""
    parser.add_argument(
        "--boundary",
        type=finite,
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
    parser.add_argument(
        "--instances", type=Path, metavar="JSON", help="COCO instance results: also AP and AP50"
    )
    parser.add_argument(
        "--ap-rules",
        nargs="+",
        default=[],
        choices=tuple(MORE_AP_RULES),
        metavar="RULES",
        help="AP of --instances also by other sizes and numbers: future3d (the challenge: objects "
        "below 113x113 and above 256x256 pixels, 10 instances), future3d_winner (the same, 100)",
    )
    parser.add_argument(
        "--lvis",
        type=Path,
        metavar="JSON",
        help="LVIS annotations of the same images: also AP* of the instances, by the rules of LVIS",
    )
    parser.add_argument(
        "--semantic-pngs",
        type=Path,
        metavar="DIR",
        help="grey PNGs of category ids: also their mean IoU",
    )
    parser.add_argument(
        "--cross-check",
        action="store_true",
        help="also run COCO's panopticapi on the same files; a difference is an error",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="JSON",
        help="an earlier evaluation.json to show changes to",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="also OUTPUT/report/index.html: what goes wrong, class by class, in pictures",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="photographs for the report, with sub-folders"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("A.json", "B.json"),
        help="compare two evaluation.json of the same images instead of evaluating",
    )


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.compare and not (options.ground_truth and options.predictions):
        parser.error("--ground-truth and --predictions are needed (or --compare A.json B.json)")
    if options.ap_rules and not options.instances:
        parser.error("--ap-rules needs --instances JSON")
    if options.lvis and not options.instances:
        parser.error("--lvis needs --instances J.json: it is instances that are scored on it")
    if options.report and not options.output:
        parser.error("--report needs --output DIR")
    if options.cross_check and (options.compare or options.rules != "official" or options.lenient):
        parser.error("--cross-check is for an evaluation by the official rules, and not lenient")
    if options.images and not options.images.is_dir():
        parser.error(f"--images: no folder {options.images}")


def run(options: argparse.Namespace) -> None:
    with item_map(options) as map_items:
        if options.compare:
            compare(options, map_items)
        else:
            score(options, map_items)


def _idd_size(name: str) -> tuple[int, int] | None:
    if name != IDD_OFFICIAL_SIZE:
        return None
    # Brings PyTorch, which scoring COCO files does without.
    from seamless_pr.datasets.idd import OFFICIAL_SIZE

    return OFFICIAL_SIZE


def score(options: argparse.Namespace, map_items: ItemMap) -> None:
    """Evaluates, and writes and prints what came out."""
    baseline = read_evaluation_json(options.baseline) if options.baseline else None
    if options.cross_check:
        from seamless_pr.integrations.panopticapi import check_installed

        check_installed(options.ground_truth)
    readers = ground_truth_readers(
        idd_size=_idd_size(options.idd_size), stated_areas=options.ade20k_areas == "stated"
    )
    gt = open_ground_truth(options.ground_truth, options.ground_truth_dir, readers=readers)
    pred = open_predictions(options.predictions, options.predictions_dir)
    if baseline is not None:
        from seamless_pr.evaluation.compare import require_fitting_baseline

        require_fitting_baseline(baseline, require_label_space(gt), options.rules)
    work = {
        "num_workers": options.workers,
        "show_progress": True,
        "map_items": map_items,
    }
    values = evaluation(gt, pred, options, work)
    written: list[str] = []
    try:
        _write(values, gt, pred, options, work, written)
    finally:
        show(values)  # A full disk must not cost the scores.
    if baseline is not None:
        from seamless_pr.evaluation.compare import baseline_table

        print()
        print(plain_text(baseline_table(values, baseline)))
    for line in written:
        print(shortened(line))
    if options.cross_check:
        show_cross_check(values, options)


def _write(
    values: dict[str, Any],
    gt: Source,
    pred: Source,
    options: argparse.Namespace,
    work: dict[str, Any],
    written: list[str],
) -> None:
    """Writes what was asked for, and adds a line for each to `written`."""
    results: list[Path] = []
    if options.output is not None:
        results.append(write_evaluation_json(values, options.output))
        written.append(f"everything in {results[0]}")
        write_tables(values, options.output)
    if options.report:
        # Brings what draws and what fills templates, which scoring does without.
        from seamless_pr.evaluation.report import write_report

        page = write_report(
            values,
            gt,
            pred,
            options.output / "report",
            images=options.images,
            on_note=written.append,
            **work,
        )
        results.append(page)
        written.append(f"report in {page}")
    check_written(results)


def show_cross_check(values: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints the scores of both evaluators.

    Raises:
        ValueError: they differ.
    """
    from seamless_pr.integrations.panopticapi import cross_check, cross_check_table

    pred_json = options.predictions
    if pred_json.is_dir():
        pred_json = pred_json / PREDICTION_JSON
    checked = cross_check(
        values, options.ground_truth, pred_json, options.ground_truth_dir, options.predictions_dir
    )
    print()
    print(plain_text(cross_check_table(checked)))
    checked.check()
    print(
        f"{len(checked.pairs)} scores of means and classes are the same; largest difference "
        f"{checked.largest_difference:.1e}"
    )


def compare(options: argparse.Namespace, map_items: ItemMap) -> None:
    """Prints B against A; writes comparison.json and the table if there is a folder for it."""
    from seamless_pr.evaluation.compare import (
        compare_evaluations,
        comparison_json,
        comparison_table,
    )

    path_a, path_b = options.compare
    output = options.output
    comparison = compare_evaluations(
        read_evaluation_json(path_a),
        read_evaluation_json(path_b),
        num_workers=options.workers,
        map_items=map_items,
    )
    table = comparison_table(comparison)
    if output is not None:
        write_json(output / "comparison.json", comparison_json(comparison))
        write_table(table, output / "comparison")
    print(f"A: {path_a}\nB: {path_b}\n{comparison.num_images} images\n")
    print(plain_text(table))
    print("* the interval (paired bootstrap over images) leaves out 0")


def evaluation(
    gt: Source, pred: Source, options: argparse.Namespace, work: dict[str, Any]
) -> dict[str, Any]:
    """Evaluates and returns the content of evaluation.json.

    Args:
        gt, pred, options: what to evaluate.
        work: how: num_workers, show_progress and map_items.
    """
    settings = EvaluationSettings(
        rules=options.rules,
        is_lenient=options.lenient,
        boundary_ratio=options.boundary,
        trimap_widths=tuple(options.trimap),
        instances_json=options.instances,
        ap_rules=tuple(options.ap_rules),
        lvis_json=options.lvis,
        label_png_folder=options.semantic_pngs,
    )
    return evaluation_json(evaluate(gt, pred, settings, **work))


def show(values: dict[str, Any]) -> None:
    """Prints the tables, then the single numbers and whatever was unusual."""
    for table in (class_table(values), summary_table(values)):
        print(plain_text(table))
    for line in other_lines(values):
        print(line)
    for note in values["notes"]:
        print(shortened(f"note: {note}"))


STAGE = Stage(
    doc=__doc__ or "",
    add_options=add_options,
    check=check,
    run=run,
    inputs=(
        "ground_truth",
        "predictions",
        "ground_truth_dir",
        "predictions_dir",
        "instances",
        "lvis",
        "semantic_pngs",
        "baseline",
        "images",
        "compare",
    ),
    when_stopped="nothing is scored",
)
main = STAGE.main

if __name__ == "__main__":
    sys.exit(main())
