"""Where ground truth and predictions come from.

Ground truth is opened by the first reader of `ground_truth_readers` that recognises the path. To
add a dataset as it is downloaded, write its `RawSplit` in datasets/ and one `DatasetFolder` there:
scoring, masks, label PNGs and the report go on from it, and the help and the errors name the new
kind by its `description`. A source of another form is a class with the three members of
`GroundTruthReader`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from seamless_pr.datasets.coco_panoptic import find_png_folder, find_pngs
from seamless_pr.datasets.label_spaces import stuff_first
from seamless_pr.datasets.panoptic_columns import NO_AREA, Annotation
from seamless_pr.datasets.panoptic_reader import ParsedPanoptic, parse_panoptic_json
from seamless_pr.evaluation.map_files import LoadedMap, MapFile, Source
from seamless_pr.id_maps.id_png import IdRuns, PngError, decode_id_runs
from seamless_pr.input_files import read_regular
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace

if TYPE_CHECKING:  # of folders as downloaded; what reading COCO files does without
    from seamless_pr.datasets.panoptic_files import PanopticFiles
    from seamless_pr.datasets.raw_splits import RawImage, RawMap, RawSplit

# The file by which a folder of predictions is recognised.
PREDICTION_JSON = "panoptic.json"
# Cityscapes' folders hold polygons as well, and come first.
CITYSCAPES_SUFFIX = "_gtFine_instanceIds.png"
IDD_SUFFIX = "_gtFine_polygons.json"


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
class DatasetFolder:
    """A folder of a dataset as it is downloaded, through that dataset's own reader.

    Attributes:
        description: as in `GroundTruthReader`.
        is_one: whether a folder is of the dataset, by its names.
        open_split: folder -> split.
    """

    description: str
    is_one: Callable[[Path], bool]
    open_split: Callable[[Path], RawSplit | PanopticFiles]

    def recognises(self, path: Path) -> bool:
        return path.is_dir() and self.is_one(path)

    def open(self, path: Path, png_dir: Path | None) -> Source:
        from seamless_pr.datasets.raw_splits import RawSplit

        split = self.open_split(path)
        if split.faults:
            raise FaultyDataError(f"{path} cannot be used", split.faults)
        if not isinstance(split, RawSplit):
            return CocoPanopticJson().open(split.json_path, png_dir or split.png_dir)
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


def ground_truth_readers(
    *, idd_size: tuple[int, int] | None = None, stated_areas: bool = False
) -> tuple[GroundTruthReader, ...]:
    """All forms of ground truth.

    Args:
        idd_size: (height, width) that IDD's maps are resized to by the nearest pixel; None: their
            own. The official evaluation takes 720 x 1280, with image ids of its own.
        stated_areas: ADE20K's areas of stuff are those before things cover it, as in the JSON of
            the usual conversion, not those of the map.
    """
    return (
        CocoPanopticJson(),
        DatasetFolder(
            "a folder of Cityscapes annotations such as gtFine/val",
            partial(_holds, suffix=CITYSCAPES_SUFFIX),
            _open_cityscapes,
        ),
        DatasetFolder(
            "a folder of IDD polygons such as gtFine/val",
            partial(_holds, suffix=IDD_SUFFIX),
            partial(_open_idd, size=idd_size),
        ),
        DatasetFolder("a split of Vistas such as validation", _is_vistas, _open_known),
        DatasetFolder(
            "a folder of ADE20K classes such as annotations/validation",
            _is_ade20k,
            partial(_open_known, stated_areas=stated_areas),
        ),
        DatasetFolder("COCO's panoptic_val2017", _is_coco, _open_known),
    )


def _holds(folder: Path, suffix: str) -> bool:
    return any(True for _ in _visible(folder, suffix))


# What follows brings PyTorch, which reading COCO files does without.


def _is_vistas(folder: Path) -> bool:
    from seamless_pr.datasets.catalog import vistas_split_of

    return vistas_split_of(folder.absolute()) is not None


def _is_ade20k(folder: Path) -> bool:
    from seamless_pr.datasets.catalog import ade20k_split_of

    return ade20k_split_of(folder.absolute()) is not None


def _is_coco(folder: Path) -> bool:
    from seamless_pr.datasets.catalog import coco_split_of

    return coco_split_of(folder.absolute()) is not None


def _open_known(folder: Path, stated_areas: bool = False) -> RawSplit | PanopticFiles:
    from seamless_pr.datasets.catalog import open_ground_truth_folder

    return open_ground_truth_folder(folder, stated_areas=stated_areas)


def _open_idd(folder: Path, size: tuple[int, int] | None) -> RawSplit:
    from seamless_pr.datasets.idd import open_idd_folder

    return open_idd_folder(folder, _split_name(folder, IDD_SUFFIX), size=size)


def _open_cityscapes(folder: Path) -> RawSplit:
    from seamless_pr.datasets.cityscapes import open_cityscapes_folder

    return open_cityscapes_folder(folder, _split_name(folder, CITYSCAPES_SUFFIX))


def _split_name(folder: Path, suffix: str) -> str:
    splits = sorted({file.parent.parent for file in _visible(folder, suffix)})
    if len(splits) > 1:
        names = ", ".join(map(str, splits))
        raise ValueError(f"{folder} holds several splits; give one of {names}")
    return splits[0].name


def _visible(folder: Path, suffix: str) -> Iterator[Path]:
    """Files below a folder whose names end so, without hidden ones such as `._x.png`."""
    for path in folder.rglob(f"*{suffix}"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def open_ground_truth(
    path: Path,
    png_dir: Path | None = None,
    *,
    readers: tuple[GroundTruthReader, ...] | None = None,
) -> Source:
    """Opens ground truth of any known form.

    Args:
        path: a COCO panoptic JSON, or a folder of a dataset as downloaded.
        png_dir: folder of the JSON's PNGs; None: the folder named like the JSON, or its own.
        readers: the known forms; None: those of `ground_truth_readers`.

    Raises:
        FileNotFoundError: nothing there, or nothing that a reader recognises.
        FaultyDataError: lists everything that is wrong.
    """
    _require_folder(png_dir, path)
    readers = ground_truth_readers() if readers is None else readers
    for reader in readers:
        if path.exists() and reader.recognises(path):
            return reader.open(path, png_dir)
    expected = ", or ".join(reader.description for reader in readers)
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
    paths, faults = find_pngs(parsed.annotations, folder, path)
    if faults:
        raise FaultyDataError(f"{path} names files that are not below {folder}", faults)
    return tuple(
        MapFile(
            annotation.image_id,
            paths[annotation.image_id],
            partial(_read_coco_map, annotation=annotation),
        )
        for annotation in parsed.annotations
    )


def _read_coco_map(path: Path, annotation: Annotation) -> LoadedMap:
    return LoadedMap(decode_id_runs(read_regular(path)), annotation.segments)


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
