"""Where ground truth and predictions come from.

Ground truth is opened by the first reader of `GROUND_TRUTH_READERS` that recognises the path. To
add a dataset as it is downloaded, write its `RawSplit` in datasets/ and add one `RawFolder` to that
tuple: scoring, masks, label PNGs and the report go on from there, and the help and the errors name
the new kind by its `description`. A source of another form is a class with the three members of
`GroundTruthReader`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from seamless_pr.datasets.coco_panoptic import find_png_folder
from seamless_pr.datasets.label_spaces import stuff_first
from seamless_pr.datasets.panoptic_columns import NO_AREA, Annotation
from seamless_pr.datasets.panoptic_reader import ParsedPanoptic, parse_panoptic_json
from seamless_pr.datasets.raw_splits import RawImage, RawMap, RawSplit
from seamless_pr.evaluation.map_files import LoadedMap, MapFile, Source
from seamless_pr.id_maps.id_png import IdRuns, PngError, decode_id_runs
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace

# The file by which a folder of predictions is recognised.
PREDICTION_JSON = "panoptic.json"


class GroundTruthReader(Protocol):
    """One form in which ground truth may be given."""

    @property
    def description(self) -> str:
        """What the user gives, for the help and for errors."""

    def recognises(self, path: Path) -> bool:
        """Whether the existing path is of this form; looks at names only."""

    def open(self, path: Path, png_dir: Path | None) -> Source:
        """The maps and classes; reads no map yet.

        Args:
            path: what the user gave.
            png_dir: folder of the id PNGs, where the form has any and the user names one.

        Raises:
            FileNotFoundError, FaultyDataError: lists everything that is wrong.
        """


@dataclass(frozen=True)
class CocoPanopticJson:
    """A COCO panoptic JSON with its PNGs: the form that every dataset can be converted to."""

    description: str = "a COCO panoptic JSON with its PNGs"

    def recognises(self, path: Path) -> bool:
        return path.is_file()

    def open(self, path: Path, png_dir: Path | None) -> Source:
        parsed, label_space = parse_panoptic_json(path), None
        faults = list(parsed.faults)
        if not faults:
            try:
                label_space = LabelSpace(path.stem, stuff_first(parsed.categories))
            except ValueError as error:
                faults.append(Fault(str(path), str(error)))
            if not parsed.annotations:
                faults.append(Fault(str(path), "it has no annotation"))
        if faults:
            raise FaultyDataError(f"{path} is not a valid COCO panoptic JSON", faults)
        maps = _coco_maps(parsed, path, png_dir)
        return Source(str(path), maps, label_space, parsed.image_files)


@dataclass(frozen=True)
class RawFolder:
    """A folder of a dataset as it is downloaded, through that dataset's own reader.

    Attributes:
        description: as in `GroundTruthReader`.
        suffix: a file below the folder whose name ends so tells the dataset.
        open_split: folder -> split.
    """

    description: str
    suffix: str
    open_split: Callable[[Path], RawSplit]

    def recognises(self, path: Path) -> bool:
        return path.is_dir() and any(True for _ in _visible(path, self.suffix))

    def open(self, path: Path, png_dir: Path | None) -> Source:
        split = self.open_split(path)
        if split.faults:
            raise FaultyDataError(f"{path} cannot be used", split.faults)
        maps = tuple(
            MapFile(
                image.image_id,
                image.annotation_files[0],
                partial(_read_raw_map, image=image, read_map=split.read_map),
            )
            for image in split.images
        )
        files = {image.image_id: image.file_name for image in split.images}
        return Source(str(path), maps, split.label_space, files)


def _open_cityscapes(folder: Path) -> RawSplit:
    # Brings PyTorch, which reading COCO files does without.
    from seamless_pr.datasets.cityscapes import INSTANCE_IDS_SUFFIX, open_cityscapes_folder

    splits = sorted({file.parent.parent for file in _visible(folder, INSTANCE_IDS_SUFFIX)})
    if len(splits) > 1:
        names = ", ".join(map(str, splits))
        raise ValueError(f"{folder} holds several splits; give one of {names}")
    return open_cityscapes_folder(folder, folder.name)


def _visible(folder: Path, suffix: str) -> Iterator[Path]:
    """Files below a folder whose names end so, without hidden ones such as `._x.png`."""
    for path in folder.rglob(f"*{suffix}"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


GROUND_TRUTH_READERS: tuple[GroundTruthReader, ...] = (
    CocoPanopticJson(),
    RawFolder(
        "a folder of Cityscapes annotations such as gtFine/val",
        "_gtFine_instanceIds.png",
        _open_cityscapes,
    ),
)


def open_ground_truth(path: Path, png_dir: Path | None = None) -> Source:
    """Opens ground truth of any form that `GROUND_TRUTH_READERS` knows.

    Args:
        path: a COCO panoptic JSON, or a folder of a dataset as downloaded.
        png_dir: folder of the JSON's PNGs; None: the folder named like the JSON, or its own.

    Raises:
        FileNotFoundError: nothing there, or nothing that a reader recognises.
        FaultyDataError: lists everything that is wrong.
    """
    _require_folder(png_dir, path)
    for reader in GROUND_TRUTH_READERS:
        if path.exists() and reader.recognises(path):
            return reader.open(path, png_dir)
    expected = ", or ".join(reader.description for reader in GROUND_TRUTH_READERS)
    what = f"nothing in {path} is ground truth" if path.is_dir() else f"no file {path}"
    raise FileNotFoundError(f"{what}; give {expected}")


def open_predictions(path: Path, png_dir: Path | None = None) -> Source:
    """Opens predictions.

    Args:
        path: COCO panoptic JSON, or a folder that `pipelines/predict.py` wrote.
        png_dir: as for `open_ground_truth`.
    """
    if path.is_dir():
        if not (path / PREDICTION_JSON).is_file():
            raise FileNotFoundError(
                f"{path} has no {PREDICTION_JSON}; give a COCO panoptic JSON, or a finished folder "
                "of pipelines/predict.py"
            )
        path = path / PREDICTION_JSON
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give a COCO panoptic JSON or a folder")
    _require_folder(png_dir, path)
    parsed = parse_panoptic_json(path, is_prediction=True)
    if parsed.faults:
        raise FaultyDataError(f"{path} is not a valid COCO panoptic JSON", parsed.faults)
    maps = _coco_maps(parsed, path, png_dir) if parsed.annotations else ()
    return Source(str(path), maps, stated_categories=parsed.stated_categories)


def _require_folder(png_dir: Path | None, path: Path) -> None:
    if png_dir is not None and not png_dir.is_dir():
        raise FileNotFoundError(f"no folder {png_dir}; give the folder of the PNGs of {path.name}")


def _coco_maps(parsed: ParsedPanoptic, path: Path, png_dir: Path | None) -> tuple[MapFile, ...]:
    names = (annotation.file_name for annotation in parsed.annotations)
    folder = find_png_folder(path, names) if png_dir is None else png_dir
    return tuple(
        MapFile(
            annotation.image_id,
            folder / annotation.file_name,
            partial(_read_coco_map, annotation=annotation),
        )
        for annotation in parsed.annotations
    )


def _read_coco_map(path: Path, annotation: Annotation) -> LoadedMap:
    return LoadedMap(decode_id_runs(path.read_bytes()), annotation.segments)


def _read_raw_map(path: Path, image: RawImage, read_map: Callable[[RawImage], RawMap]) -> LoadedMap:
    raw = read_map(image)
    if raw.faults:
        messages = (fault.message.removeprefix(f"{path}").lstrip(": ") for fault in raw.faults)
        raise PngError("; ".join(messages))
    rows = [
        (
            segment.segment_id,
            segment.category_id,
            NO_AREA if segment.area is None else segment.area,
            int(segment.is_crowd),
        )
        for segment in raw.segments
    ]
    return LoadedMap(
        IdRuns.from_map(raw.id_map.view(np.uint32)),
        np.array(rows, dtype=np.int64).reshape(-1, 4),
        raw.ignored_objects,
    )
