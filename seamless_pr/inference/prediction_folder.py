"""A folder of predictions: one record an image, joined into a COCO panoptic JSON at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.coco_panoptic import category_json
from seamless_pr.datasets.coco_results import to_coco, to_coco_instances
from seamless_pr.datasets.remote_files import file_state, location_name
from seamless_pr.files import (
    MAX_JPEG_SIDE,
    WriteError,
    is_unused,
    json_bytes,
    remove_file,
    safe_join,
    write_json,
    write_picture,
    write_whole,
    writing,
)
from seamless_pr.inference.image_list import ImageItem
from seamless_pr.input_files import read_json
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.limits import MAX_PIXELS
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.seals import sealed, unsealed

_NEW_OUTPUT = "give another --output, or delete that folder"


@dataclass(frozen=True)
class FolderSummary:
    """What a finished folder holds.

    Attributes:
        num_images: images with a result in the joined JSON.
        failures: (file, reason) of each image without one.
        panoptic_json: the joined file.
    """

    num_images: int
    failures: tuple[tuple[str, str], ...]
    panoptic_json: Path


class PredictionFolder:
    """Layout of a prediction folder; names of images follow into its folders, never out of them.

    `run.json` says what made it; `panoptic/NAME.png` and, if wanted, `overlays/NAME.jpg` and
    `semantic/NAME.png` are the pictures; `records/NAME.json` is written last and makes an image
    finished, so a run that was killed goes on with the unfinished ones, and any number of workers
    may write different images.
    `join` makes `panoptic.json`, `instances.json` and `errors.jsonl` of the records.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        instances: bool,
        overlays: bool,
        semantic_pngs: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Names the folder and the results that every image shall have.

        Args:
            root: the folder; `open` creates it.
            instances: keep the instances of each image too.
            overlays: keep a coloured picture of each image too.
            semantic_pngs: keep the class of every pixel of each image too.
            max_pixels: of an image; larger ones are not read.
        """
        self.root = Path(root)
        self.instances = instances
        self.overlays = overlays
        self.semantic_pngs = semantic_pngs
        self.max_pixels = max_pixels

    @property
    def run_file(self) -> Path:
        return self.root / "run.json"

    @property
    def panoptic_json(self) -> Path:
        return self.root / "panoptic.json"

    @property
    def errors_file(self) -> Path:
        return self.root / "errors.jsonl"

    def open(self, settings: Mapping[str, Any]) -> None:
        """Creates the folder, or checks that the same weights and settings made it.

        Args:
            settings: plain JSON values that decide the results.

        Raises:
            ValueError: the folder belongs to another run, or is no prediction folder.
        """
        run_file = self.run_file
        wanted = json.loads(json.dumps(dict(settings)))
        if run_file.is_file():
            found = _read_settings(run_file)
            different = sorted(
                key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
            )
            if different:
                changes = "; ".join(
                    f"{key} was {found.get(key)!r} and is {wanted.get(key)!r}" for key in different
                )
                raise ValueError(
                    f"{self.root} holds predictions of another run ({changes}); {_NEW_OUTPUT}"
                )
            return
        if not is_unused(self.root):
            raise ValueError(
                f"{self.root} is not empty and not a prediction folder; give another --output"
            )
        write_json(run_file, wanted)

    def is_finished(self, item: ImageItem) -> bool:
        """Whether every wanted result of this very file is there.

        Images that failed are not finished, nor is one whose record is of a file elsewhere, or of
        what the file was before it was replaced.
        """
        record = self._read_record(item)
        if record is None or "error" in record:
            return False
        try:
            state = file_state(item.path)
            if record.get("source") != list(state) or not state[-1]:
                return False  # Without time and version it may be any file of that size.
        except OSError:
            return False
        if self.instances and "instances" not in record:
            return False
        if self.semantic_pngs and not self.semantic_file(item).is_file():
            return False
        return not self.overlays or self.overlay_file(item).is_file()

    def overlay_file(self, item: ImageItem) -> Path:
        return self._result(item, "overlays", "jpg")

    def semantic_file(self, item: ImageItem) -> Path:
        return self._result(item, "semantic", "png")

    def write(
        self,
        item: ImageItem,
        segmentation: PanopticSegmentation,
        instances: Instances | None = None,
        overlay: NDArray[np.uint8] | None = None,
        category_ids: NDArray[np.unsignedinteger[Any]] | None = None,
    ) -> None:
        """Writes all results of an image, its record last.

        Args:
            item: the image.
            segmentation: at the size of the file.
            instances: in pixels of the file; needed when the folder keeps instances.
            overlay: [H, W, 3] uint8 RGB; needed when the folder keeps overlays.
            category_ids: [H, W] of 8 or 16 bits; needed when the folder keeps semantic PNGs.

        Raises:
            WriteError: the disk is full, or somebody removed the folder meanwhile.
        """
        self._check_open()
        picture, segments_info = to_coco(segmentation)
        source = item.source or file_state(item.path)
        record = _record(item, segmentation.image_size, segments_info, source)
        if self.instances:
            if instances is None:
                raise ValueError("the folder keeps instances; give the instances of this image")
            record["instances"] = to_coco_instances(
                instances, segmentation.image_size, segmentation.label_space, item.image_id
            )
        write_picture(self._result(item, "panoptic", "png"), picture)
        if self.overlays:
            if overlay is None:
                raise ValueError("the folder keeps overlays; give the picture of this image")
            # Of a picture that no JPEG holds, one pixel out of as many as fit.
            step = -(-max(overlay.shape) // MAX_JPEG_SIDE)
            write_picture(self.overlay_file(item), overlay[::step, ::step])
        if self.semantic_pngs:
            if category_ids is None:
                raise ValueError("the folder keeps semantic PNGs; give the classes of this image")
            write_picture(self.semantic_file(item), category_ids)
        write_json(self._record_file(item), sealed(record))

    @contextmanager
    def writing_strips(
        self,
        item: ImageItem,
        image_size: tuple[int, int],
        segments_info: list[dict[str, Any]],
        source: Any,
        instances: list[dict[str, Any]] | None = None,
        overlay: NDArray[np.uint8] | None = None,
    ) -> Iterator[IO[bytes]]:
        """The panoptic PNG of an image to write into; its record follows when that is whole.

        Args:
            item: the image.
            image_size: (height, width).
            segments_info: of its COCO annotation.
            source: `file_state` of the file before it was read.
            instances: COCO results; needed when the folder keeps instances.
            overlay: [h, w, 3] uint8 RGB, of any size; needed when the folder keeps overlays.

        Raises:
            WriteError: as `write`.
        """
        self._check_open()
        with writing(self._result(item, "panoptic", "png")) as file:
            yield file
        record = _record(item, image_size, segments_info, item.source or source)
        if self.instances:
            if instances is None:
                raise ValueError("the folder keeps instances; give the instances of this image")
            record["instances"] = instances
        if self.overlays:
            if overlay is None:
                raise ValueError("the folder keeps overlays; give the picture of this image")
            write_picture(self.overlay_file(item), overlay)
        write_json(self._record_file(item), sealed(record))

    def write_failure(self, item: ImageItem, reason: str) -> None:
        """Records why an image has no result; the next run tries it again."""
        self._check_open()
        write_json(self._record_file(item), sealed({"error": reason}))

    def join(self, items: Sequence[ImageItem], label_space: LabelSpace) -> FolderSummary:
        """Joins the records of these images into the final files.

        Args:
            items: all images of the run.
            label_space: gives the categories of the JSON.

        Raises:
            ValueError: an image has no record yet.
            WriteError: as `write`.
        """
        self._check_open()
        images, annotations, instances, failures = [], [], [], []
        for item in items:
            record = self._read_record(item)
            if record is None:
                raise ValueError(
                    f"{self.root} has no result for {item.path}; run the prediction again to finish"
                )
            if "error" in record:
                failures.append((item, record["error"]))
                continue
            images.append(record["image"])
            annotations.append(record["annotation"])
            instances.extend(record.get("instances", []))
        result = {
            "images": images,
            "annotations": annotations,
            "categories": [category_json(category) for category in label_space.categories],
        }
        write_json(self.panoptic_json, result)
        if self.instances:
            write_json(self.root / "instances.json", instances)
        self._write_errors(failures)
        reasons = tuple((str(item.path), reason) for item, reason in failures)
        return FolderSummary(len(images), reasons, self.panoptic_json)

    def _check_open(self) -> None:
        """Nobody writes into a folder that has gone: it would come back without its run.json."""
        if not self.run_file.is_file():
            raise WriteError(
                f"{self.root} was removed or emptied while its predictions were made; delete what "
                "is left of it and give the same command again"
            )

    def _write_errors(self, failures: Iterable[tuple[ImageItem, str]]) -> None:
        lines = [
            json_bytes({"image_id": item.image_id, "file": str(item.path), "reason": reason})
            for item, reason in failures
        ]
        if lines:
            write_whole(self.errors_file, b"\n".join([*lines, b""]))
        else:
            remove_file(self.errors_file)

    def _record_file(self, item: ImageItem) -> Path:
        return self._result(item, "records", "json")

    def _result(self, item: ImageItem, folder: str, ending: str) -> Path:
        return safe_join(self.root / folder, f"{item.name}.{ending}", f"the id of {item.path}")

    def _read_record(self, item: ImageItem) -> dict[str, Any] | None:
        try:
            # One that somebody damaged is made again.
            return unsealed(read_json(self._record_file(item)))
        except (FileNotFoundError, ValueError):
            return None


def _read_settings(run_file: Path) -> dict[str, Any]:
    try:
        found = read_json(run_file)
    except ValueError as error:
        raise ValueError(f"{error}; {_NEW_OUTPUT}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{run_file} is not of a prediction; {_NEW_OUTPUT}")
    return found


def _record(
    item: ImageItem, image_size: tuple[int, int], segments_info: list[dict[str, Any]], source: Any
) -> dict[str, Any]:
    height, width = image_size
    return {
        "image": {
            "id": item.image_id,
            "file_name": item.file_name or location_name(item.path),
            "height": height,
            "width": width,
        },
        "annotation": {
            "image_id": item.image_id,
            "file_name": f"{item.name}.png",
            "segments_info": segments_info,
        },
        "source": source,
    }
