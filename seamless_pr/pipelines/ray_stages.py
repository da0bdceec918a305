"""What runs on the workers of a prediction with Ray: the stages between image files and results.

Rows of the stream name an image, or hold one as bytes on its way to the next stage.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seamless_pr.datasets.remote_files import as_location
from seamless_pr.inference.cpu_memory import keep_freed_memory
from seamless_pr.inference.folders import label_images, load_image, predict_images, write_image
from seamless_pr.inference.image_list import ImageItem
from seamless_pr.inference.prediction_folder import PredictionFolder
from seamless_pr.inference.predictor import Predictor
from seamless_pr.ops.resize import NetworkSides
from seamless_pr.pipelines.ray_tasks import work_in

Rows = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """What each part of a prediction needs to know.

    Attributes:
        load_network: called once in each actor.
        sides: of the images that the network sees.
        batch_size: images in one pass of the network.
        folder: where results go.
        work_in: where relative paths begin.
        num_threads: threads or tasks that read for one network, and as many that write.
    """

    load_network: Callable[[], Predictor]
    sides: NetworkSides
    batch_size: int
    folder: PredictionFolder
    work_in: str
    num_threads: int


class LabelFiles:
    """An actor that does all: files in, files out."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.predictor = _load(job)

    def __call__(self, batch: Rows) -> Rows:
        # A block of a dead worker comes again; part of it may be done.
        unfinished = [item for item in to_items(batch) if not self.job.folder.is_finished(item)]
        outcomes = predict_images(
            self.predictor, unfinished, self.job.folder, num_threads=self.job.num_threads
        )
        errors = {outcome.item.name: outcome.error or "" for outcome in outcomes}
        return {
            **batch,
            "error": np.array([errors.get(name, "") for name in batch["name"]], object),
        }


def read_files(batch: Rows, job: Job) -> Rows:
    """A task before the network: files in, pixels out."""
    _begin_task(job)
    return packed(load_image(item, job.sides, job.folder) for item in to_items(batch))


class LabelImages:
    """An actor that only labels: pixels in, maps out."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.predictor = _load(job)

    def __call__(self, batch: Rows) -> Rows:
        return packed(label_images(self.predictor, unpacked(batch), self.job.folder))


def write_files(batch: Rows, job: Job) -> Rows:
    """A task after the network: maps in, files out."""
    _begin_task(job)
    outcomes = [write_image(labelled, job.folder) for labelled in unpacked(batch)]
    rows = [{**to_row(outcome.item), "error": outcome.error or ""} for outcome in outcomes]
    return {name: np.array([row[name] for row in rows], object) for name in rows[0]}


def _load(job: Job) -> Predictor:
    _begin(job)
    predictor = job.load_network()
    if predictor.device.type == "cpu":
        keep_freed_memory()
    return predictor


def _begin_task(job: Job) -> None:
    import cv2

    # A task has one core.
    cv2.setNumThreads(0)
    _begin(job)


def _begin(job: Job) -> None:
    work_in(job.work_in)
    if not job.folder.root.is_dir():
        raise FileNotFoundError(
            f"a worker finds no folder {job.folder.root}; --output must lie on storage that all "
            "nodes share"
        )


class _Pickler(pickle.Pickler):
    """Pickles tensors as arrays: half the time, and id maps a quarter of the bytes."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        array = value.numpy()
        if array.dtype != np.int32 or not array.size or array.min() < 0:
            return torch.from_numpy, (array,)
        return _wide_tensor, (array.astype(np.min_scalar_type(array.max())),)


def _wide_tensor(array: NDArray[np.unsignedinteger[Any]]) -> Tensor:
    return torch.from_numpy(array.astype(np.int32))


def packed(images: Iterable[Any]) -> Rows:
    """Images on their way to the next stage, as a column of bytes."""
    pickled = []
    for image in images:
        buffer = io.BytesIO()
        _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(image)
        pickled.append(buffer.getvalue())
    return {"image": np.array(pickled, object)}


def unpacked(batch: Rows) -> Iterator[Any]:
    """What `packed` made, one image at a time."""
    return map(pickle.loads, batch["image"])


def to_row(item: ImageItem) -> dict[str, str]:
    """An image as a row of the stream."""
    # JSON keeps apart the ids 42 and "42", which one column of a table could not.
    return {
        "path": str(item.path),
        "image_id": json.dumps(item.image_id),
        "name": item.name,
        "file_name": item.file_name,
    }


def to_items(batch: Rows) -> list[ImageItem]:
    """The images of a batch of rows."""
    columns = (batch[key] for key in ("path", "image_id", "name", "file_name"))
    return [
        to_item({"path": path, "image_id": i, "name": name, "file_name": file_name})
        for path, i, name, file_name in zip(*columns)
    ]


def to_item(row: dict[str, Any]) -> ImageItem:
    """The image of a row."""
    return ImageItem(
        as_location(str(row["path"])),
        json.loads(str(row["image_id"])),
        str(row["name"]),
        str(row["file_name"]),
    )
