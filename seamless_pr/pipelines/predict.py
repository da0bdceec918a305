"""Labels images with a trained network: panoptic PNGs and one COCO panoptic JSON.

examples:
  # a folder, with its sub-folders
  python pipelines/predict.py --weights runs/city/checkpoints/best.safetensors \\
      --images photos --output predictions

  # Cityscapes validation images, ids as in its ground truth, coloured pictures, instances for AP
  python pipelines/predict.py --weights W --images "leftImg8bit/val/*/*.png" --output predictions \\
      --image-ids name --image-id-suffix _leftImg8bit --overlays --instances

  # the images of a COCO panoptic JSON, under its ids
  python pipelines/predict.py --weights W --images val2017 --output predictions \\
      --image-ids annotations/panoptic_val2017.json

  # photos with a published network of Hugging Face: pip install "seamless_pr[transformers]"
  python pipelines/predict.py --weights hf:facebook/mask2former-swin-tiny-coco-panoptic \\
      --images photos --output predictions

  # over views of every image: two sizes, each also mirrored (slower, better)
  python pipelines/predict.py --weights W --images photos --output predictions --scales 1 1.5 --flip

  # several networks for the same classes, pooled; their validation AP decides how much each counts
  python pipelines/predict.py --weights A B C --ensemble --ensemble-scores 37.2 38.5 38.9 \\
      --images photos --output predictions

  # images in a bucket, with the backend installed: pip install "seamless_pr[s3]"
  python pipelines/predict.py --weights W --images "s3://bucket/photos/*/*.jpg" --output predictions

  # mosaics of any size, at the resolution of the files; TIFFs in windows: "seamless_pr[mosaics]"
  python pipelines/predict.py --weights W --images city.tif --output predictions \\
      --tile 1024 --overlap 256

  # over a cluster: one network per GPU, or per core where there is none
  ray job submit --working-dir . -- python pipelines/predict.py --weights /shared/W.safetensors \\
      --images /shared/photos --output /shared/predictions

A run that was stopped goes on where it was when the same command is given again.
Images that cannot be read are listed in OUTPUT/errors.jsonl and do not stop the run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from seamless_pr.datasets.class_readings import contradictions
from seamless_pr.datasets.coco_images import read_stated_categories
from seamless_pr.datasets.label_spaces import stuff_first
from seamless_pr.inference.cpu_memory import keep_freed_memory
from seamless_pr.inference.folders import ImageOutcome, predict_folder
from seamless_pr.inference.image_list import ImageItem, list_images
from seamless_pr.inference.prediction_folder import FolderSummary, PredictionFolder
from seamless_pr.inference.predictor import AMP_TYPES, Predictor
from seamless_pr.inference.tile_grid import Tiling
from seamless_pr.pipelines.ray_support import add_ray_option, uses_ray
from seamless_pr.pipelines.stage import ExitCode, Stage
from seamless_pr.pipelines.wanted_predictor import (
    add_network_options,
    add_tile_options,
    check_network_options,
    check_tile_options,
    load_wanted_predictor,
)
from seamless_pr.progress import Progress
from seamless_pr.structures.faults import Fault, FaultyDataError, shortened
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.limits import MAX_PIXELS


def add_options(parser: argparse.ArgumentParser) -> None:
    add_network_options(parser)
    parser.add_argument(
        "--images",
        required=True,
        metavar="DIR|GLOB|LIST",
        help="folder, glob pattern in quotes, text file with one path a line, or one image; also "
        "URIs such as s3://bucket/photos",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--batch-size", type=int, default=1, help="images of one size per pass (default: 1)"
    )
    parser.add_argument(
        "--amp", choices=tuple(AMP_TYPES), default="none", help="16-bit arithmetic (default: none)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=2,
        help="for reading and for writing, of each network (default: 2 each)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help=f"larger images are listed as failed (default: {MAX_PIXELS})",
    )
    add_tile_options(parser)
    parser.add_argument("--overlays", action="store_true", help="also write coloured pictures")
    parser.add_argument(
        "--semantic-pngs",
        action="store_true",
        help="also write semantic/NAME.png, the category id of every pixel; the whole result of "
        "networks for semantics alone, whose objects are void in the panoptic files",
    )
    parser.add_argument(
        "--instances", action="store_true", help="also write instances.json with scores, for AP"
    )
    parser.add_argument(
        "--image-ids",
        default="path",
        metavar="path|name|JSON",
        help="id of an image: its path below --images, its file name, or what this COCO JSON says "
        "(then only its images are labelled) (default: path)",
    )
    parser.add_argument(
        "--image-id-suffix",
        default="",
        metavar="TEXT",
        help="taken off the end of ids, as _leftImg8bit for Cityscapes",
    )
    add_ray_option(parser)
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="networks of a Ray run (default: one per GPU, or per --cpus-per-worker cores)",
    )
    parser.add_argument(
        "--cpus-per-worker",
        type=int,
        default=1,
        metavar="N",
        help="cores of each network of a Ray run without GPUs (default: 1)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="changes of the network's config, as model.fusion.score_threshold=0.4",
    )


def run(options: argparse.Namespace) -> ExitCode:
    items = list_images(
        options.images, id_from=options.image_ids, remove_suffix=options.image_id_suffix
    )
    # With Ray this process only asks what the results will be.
    device = "cpu" if uses_ray(options) else options.device
    predictor = load_wanted_predictor(options, device, wanted_label_space(options.image_ids))
    refuse_other_classes(predictor, options.image_ids)
    if options.tile:
        summary = predict_mosaics(predictor, items, options)
    elif uses_ray(options):
        from seamless_pr.pipelines.ray_prediction import labelling_on_cluster

        with labelling_on_cluster(options, predictor) as label:
            summary = predict(predictor, items, options, label)
    else:
        print(f"network on {predictor.device}")
        if predictor.device.type == "cpu":
            keep_freed_memory()
        summary = predict(predictor, items, options)
    print(last_line(summary, options.output))
    return ExitCode.SOME_FAILED if summary.failures else ExitCode.DONE


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses numbers below 1, what tiles cannot do, and what networks cannot."""
    check_network_options(parser, options)
    check_tile_options(parser, options)
    for option in ("threads", "batch_size", "max_pixels"):
        if getattr(options, option) < 1:
            parser.error(f"--{option.replace('_', '-')} must be at least 1")
    if options.tile is None:
        return
    if options.semantic_pngs:
        parser.error("tiles make no semantic PNGs: leave out --semantic-pngs")


def predict_mosaics(
    predictor: Predictor, items: Sequence[ImageItem], options: argparse.Namespace
) -> FolderSummary:
    """Predicts images of any size, tile by tile."""
    from seamless_pr.inference.mosaic_folder import label_mosaics

    predictor.check_tiles(options.tile)
    tiling = Tiling(options.tile, options.overlap)
    predictor.note(tile_pixels=tiling.size, overlap_pixels=tiling.overlap)
    if not uses_ray(options):
        print(f"network on {predictor.device}, tiles of {tiling.size} pixels")
        return predict(predictor, items, options, partial(label_mosaics, predictor, tiling=tiling))
    from seamless_pr.pipelines.ray_tiles import tiling_on_cluster

    with tiling_on_cluster(options) as label_tiles:
        label = partial(label_mosaics, predictor, tiling=tiling, label_tiles=label_tiles)
        return predict(predictor, items, options, label)


def wanted_label_space(image_ids: str) -> LabelSpace | None:
    """The classes of the JSON that gives the ids; a file of bare images may have none."""
    if image_ids in ("path", "name"):
        return None
    stated = read_stated_categories(Path(image_ids))
    if not stated or any(c.name is None or c.is_thing is None for c in stated):
        return None
    color = (0, 0, 0)
    categories = [Category(c.category_id, c.name or "", bool(c.is_thing), color) for c in stated]
    return LabelSpace(image_ids, stuff_first(categories))


def refuse_other_classes(predictor: Predictor, image_ids: str) -> None:
    """What the JSON says about the network's classes must not contradict them.

    Raises:
        FaultyDataError: lists the contradictions.
    """
    if image_ids in ("path", "name"):
        return
    stated = read_stated_categories(Path(image_ids))
    found = contradictions(stated, predictor.label_space.categories, "the network")
    if found:
        raise FaultyDataError(
            "the network was trained on other classes than those of --image-ids",
            [Fault(image_ids, message) for message in found],
        )


def predict(
    predictor: Predictor,
    items: Sequence[ImageItem],
    options: argparse.Namespace,
    label: Callable[[Sequence[ImageItem], PredictionFolder], Iterable[ImageOutcome]] | None = None,
) -> FolderSummary:
    """Predicts, and shows images a second and the time left.

    Args:
        predictor, items, options: what to do.
        label: where, see `predict_folder`.
    """
    print(f"{len(items)} images, results in {options.output}")
    progress: Progress | None = None

    def on_start(num_unfinished: int, num_finished: int) -> None:
        nonlocal progress
        if num_finished:
            print(f"{num_finished} images are finished and skipped")
        # Skipped images must not count as speed.
        progress = Progress(num_unfinished, "image")

    def on_image(outcome: ImageOutcome) -> None:
        assert progress is not None
        if outcome.error is not None:
            progress.message(f"failed: {shortened(str(outcome.error))}")
        progress.update()

    try:
        return predict_folder(
            predictor,
            items,
            options.output,
            instances=options.instances,
            overlays=options.overlays,
            semantic_pngs=options.semantic_pngs,
            max_pixels=options.max_pixels,
            num_threads=options.threads,
            on_start=on_start,
            on_image=on_image,
            label=label,
        )
    finally:
        if progress is not None:
            progress.close()


def last_line(summary: FolderSummary, output: str) -> str:
    done = f"{summary.num_images} images in {summary.panoptic_json}"
    if not summary.failures:
        return done
    reasons = f"reasons in {output}/errors.jsonl, first: {shortened(summary.failures[0][1])}"
    return f"{done}; {len(summary.failures)} images failed, {reasons}"


STAGE = Stage(
    doc=__doc__ or "",
    add_options=add_options,
    check=check,
    run=run,
    inputs=("weights", "images"),
)
main = STAGE.main

if __name__ == "__main__":
    sys.exit(main())
