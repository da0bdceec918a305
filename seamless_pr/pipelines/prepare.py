"""Brings a dataset to the COCO panoptic format, and checks datasets in that format.

    python pipelines/prepare.py cityscapes --root DATA/cityscapes
    python pipelines/prepare.py idd --root DATA/IDD_Segmentation
    python pipelines/prepare.py vistas --root DATA/vistas --version 1.2
    python pipelines/prepare.py custom --description my_data.yaml
    python pipelines/prepare.py inspect --dataset DATA/IDD_Segmentation/gtFine/val --images RGB
    python pipelines/prepare.py verify --json G.json --png-dir PNGS --images RGB

A conversion that was cut off goes on where it stopped. Everything that is wrong is listed at once,
and then nothing that looks finished is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from seamless_pr.datasets.ade20k import open_ade20k
from seamless_pr.datasets.catalog import DATASETS, OpenedSplit, open_ground_truth_folder
from seamless_pr.datasets.coco_panoptic import find_png_folder, find_pngs, read_panoptic_json
from seamless_pr.datasets.conversion import PreparedSplit, convert_splits
from seamless_pr.datasets.custom import open_custom
from seamless_pr.datasets.custom_description import read_custom_yaml
from seamless_pr.datasets.idd import SIZES as IDD_SIZES
from seamless_pr.datasets.idd import open_idd
from seamless_pr.datasets.manifest import check_manifest
from seamless_pr.datasets.panoptic_files import PanopticFiles
from seamless_pr.datasets.panoptic_records import PanopticDataset
from seamless_pr.datasets.raw_splits import RawSplit
from seamless_pr.datasets.verification import verify_dataset
from seamless_pr.datasets.vistas import VERSIONS, open_vistas
from seamless_pr.parallel import ItemMap
from seamless_pr.pipelines.inspection import InspectedSplit, read_raw_split, write_inspection
from seamless_pr.pipelines.ray_support import add_ray_option
from seamless_pr.pipelines.ray_tasks import item_map
from seamless_pr.pipelines.stage import ExitCode, Stage
from seamless_pr.structures.faults import Fault, FaultyDataError, shortened


def check(_: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Names the folder of the results where none is given."""
    if options.command is prepare_known and options.output is None:
        options.output = options.root / DATASETS[options.known].results_dir
    elif options.command is prepare_custom and options.output is None:
        options.output = options.description.parent


def run(options: argparse.Namespace) -> ExitCode:
    with item_map(options) as map_items:
        faults = options.command(options, map_items)
    return ExitCode.FAILED if faults else ExitCode.DONE


def prepare_known(options: argparse.Namespace, map_items: ItemMap) -> list[Fault]:
    """Prepares a dataset of the catalog."""
    known = DATASETS[options.known]
    open_split = known.open_split
    if options.known == "idd":
        open_split = partial(
            open_idd,
            size=IDD_SIZES[options.size],
            accept_degenerate=options.accept_degenerate,
        )
    elif options.known == "vistas":
        open_split = partial(open_vistas, version=options.version)
    elif options.known == "ade20k":
        open_split = partial(open_ade20k, stated_areas=options.areas == "stated")
    splits = [open_split(options.root, split) for split in options.splits or known.splits]
    return _prepare(splits, options, map_items)


def prepare_custom(options: argparse.Namespace, map_items: ItemMap) -> list[Fault]:
    """Prepares data of one's own."""
    dataset = read_custom_yaml(options.description)
    splits = [open_custom(dataset, split) for split in options.splits or dataset.splits]
    return _prepare(splits, options, map_items)


def _prepare(
    splits: Sequence[OpenedSplit], options: argparse.Namespace, map_items: ItemMap
) -> list[Fault]:
    """Converts or checks the splits; the first one is the training split."""
    to_convert: list[RawSplit] = []
    faults: list[Fault] = []
    for index, split in enumerate(splits):
        holdout = options.holdout if index == 0 else 0
        if isinstance(split, PanopticFiles):
            faults += _check_files(split, holdout, options, map_items)
        elif holdout:
            to_convert += split.hold_out(holdout, options.seed)
        else:
            to_convert.append(split)
    if not to_convert:
        return faults
    prepared = convert_splits(
        to_convert, options.output, num_workers=options.workers, map_items=map_items
    )
    for result in prepared:
        faults += _verify_conversion(result, options, map_items)
    return faults


def _verify_conversion(
    prepared: PreparedSplit, options: argparse.Namespace, map_items: ItemMap
) -> list[Fault]:
    if prepared.images_dir is None:
        print(f"{prepared.json_path}: no folder of images there, they are not checked")
    faults: list[Fault] = []
    # Stated areas are not those of the map, as they are wanted. The pictures were looked at
    # during the conversion.
    if getattr(options, "areas", "counted") == "counted":
        faults = verify_dataset(
            prepared.json_path,
            prepared.png_dir,
            None,
            num_workers=options.workers,
            show_progress=True,
            map_items=map_items,
        )
    report(prepared.json_path, faults)
    print(f"  {prepared.num_images} images, {prepared.num_kept} of them from an earlier run")
    print_usage(prepared.json_path, prepared.images_dir, None)
    return faults


def _check_files(
    files: PanopticFiles,
    holdout: int,
    options: argparse.Namespace,
    map_items: ItemMap,
) -> list[Fault]:
    """Checks a split that needs no conversion."""
    for note in files.notes:
        print(shortened(f"note: {note}"))
    if files.images_dir is None:
        print(f"{files.json_path}: no folder of images there, they are not checked")
    faults = files.check(num_workers=options.workers, map_items=map_items)
    report(files.json_path, faults)
    if faults:
        return faults
    json_paths: Sequence[Path] = (files.json_path,)
    if holdout:
        json_paths = files.write_holdout(options.output, holdout, options.seed)
    for path in json_paths:
        print_usage(path, files.images_dir, files.png_dir)
    return faults


def print_usage(json_path: Path, images_dir: Path | None, png_dir: Path | None) -> None:
    """What a config says under data.train or data.val to use a split."""
    print(f"  json: {json_path}")
    print(f"  images: {images_dir or 'FOLDER OF THE IMAGES'}")
    if png_dir is not None and png_dir != json_path.with_suffix(""):
        print(f"  segments: {png_dir}")


def verify(options: argparse.Namespace, map_items: ItemMap) -> list[Fault]:
    """Verifies any dataset in the COCO panoptic format."""
    faults = verify_dataset(
        options.json,
        options.png_dir,
        options.images,
        num_workers=options.workers,
        show_progress=True,
        map_items=map_items,
        on_note=lambda note: print(shortened(f"note: {note}")),
    )
    faults += check_manifest(options.json, options.png_dir or options.json.with_suffix(""))
    report(options.json, faults)
    return faults


def inspect(options: argparse.Namespace, map_items: ItemMap) -> list[Fault]:
    """Writes a page of what a split holds."""
    path: Path = options.dataset
    if path.is_file():
        records = read_panoptic_json(path)
        names = (annotation.file_name for annotation in records.annotations)
        png_dir = options.png_dir or find_png_folder(path, names)
        split = InspectedSplit(
            path.stem,
            str(path),
            records,
            _id_pngs(records, png_dir, path),
            images_dir=options.images,
        )
    else:
        opened = open_ground_truth_folder(path)
        if isinstance(opened, PanopticFiles):
            if opened.faults:
                raise FaultyDataError(f"{path} cannot be inspected", opened.faults)
            split = InspectedSplit(
                opened.dataset,
                str(opened.json_path),
                opened.records,
                _id_pngs(opened.records, opened.png_dir, opened.json_path),
                images_dir=options.images or opened.images_dir,
                notes=opened.notes,
            )
        else:
            split = read_raw_split(
                opened, options.images, num_workers=options.workers, map_items=map_items
            )
    write_inspection(split, options.output, num_pictures=options.pictures, seed=options.seed)
    print(options.output)
    return []


def _id_pngs(records: PanopticDataset, png_dir: Path, json_path: Path) -> tuple[Path, ...]:
    paths, faults = find_pngs(records.annotations, png_dir, json_path)
    if faults:
        raise FaultyDataError(f"{json_path} cannot be inspected", faults)
    return tuple(paths.values())


def report(json_path: Path, faults: Sequence[Fault]) -> None:
    """Prints every fault, and the verdict last."""
    for fault in faults:
        print(shortened(str(fault)), file=sys.stderr)
    verdict = f"{len(faults)} faults, listed above" if faults else "complete and consistent"
    print(f"{json_path}: {verdict}", file=sys.stderr if faults else sys.stdout)


def add_options(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, known in DATASETS.items():
        command = commands.add_parser(name, help=known.title)
        command.add_argument("--root", type=Path, required=True, help="folder as unpacked")
        command.add_argument(
            "--splits", nargs="+", metavar="SPLIT", help=f"default: {' '.join(known.splits)}"
        )
        command.set_defaults(command=prepare_known, known=name)
        _add_common(command, f"folder of the results (default ROOT/{known.results_dir})")
        _add_own(command, name)
    custom = commands.add_parser("custom", help="data of your own, described by a YAML file")
    custom.add_argument("--description", type=Path, required=True, help="see docs/datasets.md")
    custom.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: all of the file")
    custom.set_defaults(command=prepare_custom)
    _add_common(custom, "folder of the results (default: that of the description)")

    verification = commands.add_parser("verify", help="list every fault of a panoptic dataset")
    verification.add_argument("--json", type=Path, required=True, help="COCO panoptic JSON")
    verification.add_argument(
        "--png-dir", type=Path, help="folder of the id PNGs (default: the JSON's path less .json)"
    )
    verification.add_argument("--images", type=Path, help="folder of the RGB images of this split")
    verification.set_defaults(command=verify)
    inspection = commands.add_parser("inspect", help="one HTML page of what a dataset holds")
    inspection.add_argument(
        "--dataset",
        type=Path,
        required=True,
        help="COCO panoptic JSON, or a folder of ground truth as downloaded (gtFine/val ...)",
    )
    inspection.add_argument("--images", type=Path, help="folder of the RGB images of this split")
    inspection.add_argument("--png-dir", type=Path, help="folder of the id PNGs of a JSON")
    inspection.add_argument(
        "--output",
        type=Path,
        default=Path("inspection.html"),
        metavar="HTML",
        help="the page, one file (default: inspection.html)",
    )
    inspection.add_argument("--pictures", type=int, default=12, help="images on the contact sheet")
    inspection.add_argument("--seed", type=int, default=0, help="which images these are")
    inspection.set_defaults(command=inspect)
    for command in commands.choices.values():
        command.add_argument("--workers", type=int, help="processes (default: one per core)")
        add_ray_option(command)


def _add_common(command: argparse.ArgumentParser, output_help: str) -> None:
    command.add_argument("--output", type=Path, help=output_help)
    command.add_argument(
        "--holdout",
        type=int,
        default=0,
        metavar="N",
        help="set N images of the first split aside: _rest and _holdout",
    )
    command.add_argument("--seed", type=int, default=0, help="which images --holdout takes")


def _add_own(command: argparse.ArgumentParser, name: str) -> None:
    """Options of one dataset."""
    if name == "idd":
        command.add_argument(
            "--size",
            choices=IDD_SIZES,
            default="native",
            help="1280x720: every map by the nearest pixel, with the official ids and names",
        )
        command.add_argument(
            "--accept-degenerate",
            action="store_true",
            help="polygons of two corners or outside of the image are painted as officially",
        )
    elif name == "vistas":
        command.add_argument("--version", choices=VERSIONS, help="where both are there")
    elif name == "ade20k":
        command.add_argument(
            "--areas",
            choices=("counted", "stated"),
            default="counted",
            help="stated: areas of stuff before things cover it, as in the usual conversion",
        )


STAGE = Stage(
    doc=__doc__ or "",
    add_options=add_options,
    check=check,
    run=run,
    inputs=("root", "description", "json", "png_dir", "images", "dataset"),
    has_commands=True,
)
main = STAGE.main

if __name__ == "__main__":
    sys.exit(main())
