"""Prediction over many image files, reading and writing beside the network.

`predict_images` works on any share of the images, so that several workers may fill one folder;
`predict_folder` is the whole job on one machine.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seamless_pr.datasets.images import read_image
from seamless_pr.datasets.remote_files import file_state
from seamless_pr.drawing.panoptic import draw_panoptic
from seamless_pr.files import check_writable
from seamless_pr.inference.image_list import ImageItem
from seamless_pr.inference.prediction_folder import FolderSummary, PredictionFolder
from seamless_pr.inference.predictor import Predictor
from seamless_pr.ops.resize import NetworkSides
from seamless_pr.structures.faults import first_line, is_want_of_memory
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.limits import MAX_PIXELS, TooManyPixelsError
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.prediction import Prediction

# Decoded images that may wait for a batch of their size, in batches.
WAITING_BATCHES = 4
FINDING_THREADS = 16
# Of the record and the PNG of an image, a block of the disk each; and of a coloured picture.
LEAST_BYTES, LEAST_OVERLAY_BYTES = 8192, 4096
_UNNAMED = "{!r} is a name that is no UTF-8 and could be no id in a JSON; rename the file"
# Of the images that wait between two steps; one larger image may wait all the same.
WAITING_PIXELS = 40_000_000


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image.

    Attributes:
        item: the image.
        error: why it has no result; None when it has one.
    """

    item: ImageItem
    error: str | None = None
    num_pixels: ClassVar[int] = 0


@dataclass(frozen=True)
class LoadedImage:
    """An image on its way to the network.

    Attributes:
        item: the image.
        resized: [3, h, w] uint8, as the network wants it.
        original_size: (height, width) in the file.
        original: [3, H, W] uint8, as in the file; None where no picture is to be drawn on it.
    """

    item: ImageItem
    resized: Tensor
    original_size: tuple[int, int]
    original: Tensor | None

    @property
    def num_pixels(self) -> int:
        height, width = self.original_size
        return height * width


@dataclass(frozen=True)
class LabelledImage:
    """An image on its way from the network to the disk.

    Attributes:
        item: the image.
        segmentation: at the size of the file.
        instances: in pixels of the file; None where they are not to be written.
        original: as in `LoadedImage`.
        category_ids: [H, W] of 8 or 16 bits; None where they are not to be written.
    """

    item: ImageItem
    segmentation: PanopticSegmentation
    instances: Instances | None
    original: Tensor | None
    category_ids: NDArray[np.unsignedinteger[Any]] | None = None

    @property
    def num_pixels(self) -> int:
        return self.segmentation.id_map.numel()


def predict_folder(
    predictor: Predictor,
    items: Sequence[ImageItem],
    output: str | os.PathLike[str],
    *,
    instances: bool = False,
    overlays: bool = False,
    semantic_pngs: bool = False,
    max_pixels: int = MAX_PIXELS,
    num_threads: int = 2,
    on_start: Callable[[int, int], None] | None = None,
    on_image: Callable[[ImageOutcome], None] | None = None,
    label: Callable[[Sequence[ImageItem], PredictionFolder], Iterable[ImageOutcome]] | None = None,
) -> FolderSummary:
    """Labels images into a prediction folder and joins the final files.

    Images that are finished are skipped; images that cannot be read are recorded and do not stop
    the run.

    Args:
        predictor: network with its image size.
        items: from `list_images`.
        output: the folder; must be new, empty, or made by the same weights and settings.
        instances: also write `instances.json`, COCO results with run lengths for AP.
        overlays: also write a coloured picture of each image.
        semantic_pngs: also write `semantic/NAME.png` of each image: the category id of every pixel,
            255 or, with larger ids, 65535 where there is none.
        max_pixels: larger images are recorded as failures.
        num_threads: threads for reading, and as many for writing.
        on_start: called once with the number of images to do and of those already finished.
        on_image: called after each image.
        label: fills the folder with the results of these images, as `predict_images` does, for
            example on other machines; None: `predict_images` in this process.

    Raises:
        ValueError: the folder belongs to another run, or the device cannot compute in fp16.
        WriteError: the disk is read-only, or full even for the smallest results; said before the
            work.
    """
    if label is None:
        predictor.check_device()
    folder = PredictionFolder(
        output,
        instances=instances,
        overlays=overlays,
        semantic_pngs=semantic_pngs,
        max_pixels=max_pixels,
    )
    folder.open(predictor.describe())
    with ThreadPoolExecutor(FINDING_THREADS) as pool:  # Storage may be far away.
        is_finished = list(pool.map(folder.is_finished, items))
    unfinished = [item for item, done in zip(items, is_finished) if not done]
    if unfinished:
        least = len(unfinished) * (LEAST_BYTES + overlays * LEAST_OVERLAY_BYTES)
        check_writable(folder.root, least, f"the least of results of {len(unfinished)} images")
    if on_start is not None:
        on_start(len(unfinished), len(items) - len(unfinished))
    unnamed = [item for item in unfinished if not _is_text(item.name)]
    for item in unnamed:
        outcome = write_image(ImageOutcome(item, _UNNAMED.format(str(item.path))), folder)
        if on_image is not None:
            on_image(outcome)
    unfinished = [item for item in unfinished if _is_text(item.name)]
    if label is None:
        outcomes = predict_images(predictor, unfinished, folder, num_threads=num_threads)
    else:
        outcomes = iter(label(unfinished, folder))
    for outcome in outcomes:
        if on_image is not None:
            on_image(outcome)
    return folder.join(items, predictor.label_space)


def predict_images(
    predictor: Predictor,
    items: Iterable[ImageItem],
    folder: PredictionFolder,
    *,
    num_threads: int = 2,
) -> Iterator[ImageOutcome]:
    """Labels images into an opened folder, reading and writing in threads beside the network.

    Args:
        predictor: network with its image size.
        items: images to do; may be an endless stream, a bounded number of them is in memory.
        folder: where results go.
        num_threads: threads for reading, and as many for writing.

    Yields:
        One outcome an image, after its results are on the disk; in the order of finishing.
    """
    sides = predictor.sides
    with ThreadPoolExecutor(num_threads) as readers, ThreadPoolExecutor(num_threads) as writers:
        ahead = num_threads + predictor.batch_size
        loaded = _ahead(readers, lambda item: load_image(item, sides, folder), items, ahead)
        writing: deque[Future[ImageOutcome]] = deque()
        for labelled in label_images(predictor, loaded, folder):
            writing.append(writers.submit(write_image, labelled, folder))
            most = _num_waiting(labelled.num_pixels, 2 * ahead)
            while len(writing) > most or (writing and writing[0].done()):
                yield writing.popleft().result()
        for written in writing:
            yield written.result()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_image(
    item: ImageItem, sides: NetworkSides, folder: PredictionFolder
) -> LoadedImage | ImageOutcome:
    """Reads an image and resizes it for the network: the first of three steps.

    Args:
        item: the image.
        sides: of the predictor.
        folder: says what the writing will need.

    Returns:
        The image, or why it cannot be read.
    """
    try:
        # Before its pixels: a file that is replaced meanwhile is another one.
        item = replace(item, source=file_state(item.path))
        image = read_image(item.path, max_pixels=folder.max_pixels)
        resized = sides.resized(image)
    except Exception as error:  # Whatever it is, it is about this image; the others are done.
        reason = str(error) or type(error).__name__
        path = str(item.path)
        return ImageOutcome(item, reason if path in reason else f"{path}: {reason}")
    size = (image.shape[-2], image.shape[-1])
    return LoadedImage(item, resized, size, image if folder.overlays else None)


def label_images(
    predictor: Predictor, images: Iterable[LoadedImage | ImageOutcome], folder: PredictionFolder
) -> Iterator[LabelledImage | ImageOutcome]:
    """Runs the network on batches of images of one size: the second of three steps.

    Args:
        predictor: network with its image size.
        images: of `load_image`; may be endless. A bounded number waits for others of its size.
        folder: says what the writing will need.

    Yields:
        One result an image, in another order; failures pass through.
    """
    for batch in _same_size_batches(images, predictor.batch_size):
        if isinstance(batch, ImageOutcome):
            yield batch
            continue
        for loaded, prediction in zip(batch, _predict(predictor, batch), strict=True):
            if isinstance(prediction, str):
                yield ImageOutcome(loaded.item, prediction)
                continue
            instances = _wanted_instances(prediction) if folder.instances else None
            segmentation = prediction.require_panoptic()
            classes = None
            if folder.semantic_pngs:
                classes = _category_ids(prediction, segmentation.label_space)
            yield LabelledImage(loaded.item, segmentation, instances, loaded.original, classes)


def _wanted_instances(prediction: Prediction) -> Instances:
    if prediction.instances is None:
        raise ValueError("this network finds no instances; leave out --instances")
    return prediction.instances.to("cpu")


def _category_ids(
    prediction: Prediction, label_space: LabelSpace
) -> NDArray[np.unsignedinteger[Any]]:
    """The category of every pixel, [H, W], in as few bits as all categories need.

    Pixels of no class have the largest value of these bits, which is no category's.
    """
    if prediction.semantic_map is None:
        raise ValueError("this network names no class of every pixel; leave out --semantic-pngs")
    ids = [category.category_id for category in label_space.categories]
    voids = {dtype: np.iinfo(dtype).max for dtype in (np.uint8, np.uint16)}
    if min(ids) < 0 or max(ids) >= voids[np.uint16]:
        raise ValueError(
            f"semantic PNGs hold category ids from 0 to 65534; the network's go from {min(ids)} to "
            f"{max(ids)}: leave out --semantic-pngs"
        )
    dtype = np.uint8 if max(ids) < voids[np.uint8] else np.uint16
    table = np.array([*ids, voids[dtype]], dtype)
    found: NDArray[np.unsignedinteger[Any]] = table[
        prediction.semantic_map.clamp(max=len(ids)).cpu().numpy()
    ]
    return found


def write_image(labelled: LabelledImage | ImageOutcome, folder: PredictionFolder) -> ImageOutcome:
    """Writes the results of an image, or why it has none: the last of three steps."""
    if isinstance(labelled, ImageOutcome):
        folder.write_failure(labelled.item, labelled.error or "")
        return labelled
    overlay = None
    if labelled.original is not None:
        overlay = draw_panoptic(labelled.original, labelled.segmentation)
    folder.write(
        labelled.item, labelled.segmentation, labelled.instances, overlay, labelled.category_ids
    )
    return ImageOutcome(labelled.item)


def _predict(predictor: Predictor, images: Sequence[LoadedImage]) -> list[Prediction | str]:
    """Predictions of a batch; a reason for an image that is too large, or that views make so."""
    try:
        return list(
            predictor.predict_resized(
                [loaded.resized for loaded in images], [loaded.original_size for loaded in images]
            )
        )
    except TooManyPixelsError as error:
        return [f"{loaded.item.path}: {error}" for loaded in images]
    except RuntimeError as error:
        if not is_want_of_memory(error):
            raise
        if len(images) == 1:
            size = tuple(images[0].resized.shape[-2:])
            path, said = images[0].item.path, first_line(error)
            reason = f"{path} at {size} does not fit the device's memory ({said})"
            return [f"{reason}; lower longest_side_pixels"]
    torch.cuda.empty_cache()
    return [prediction for loaded in images for prediction in _predict(predictor, [loaded])]


def _ahead(
    pool: ThreadPoolExecutor,
    load: Callable[[ImageItem], LoadedImage | ImageOutcome],
    items: Iterable[ImageItem],
    num_ahead: int,
) -> Iterator[LoadedImage | ImageOutcome]:
    """Loads in threads, in order, at most `num_ahead` images before they are asked for.

    Fewer where images are large.
    """
    pending: deque[Future[LoadedImage | ImageOutcome]] = deque()
    most = 1  # Until a size is known.
    try:
        for item in items:
            pending.append(pool.submit(load, item))
            while len(pending) > most:
                image = pending.popleft().result()
                most = _num_waiting(image.num_pixels, num_ahead)
                yield image
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _num_waiting(num_pixels: int, most: int) -> int:
    """How many images of this size may be in memory between two steps."""
    return min(most, max(1, WAITING_PIXELS // max(1, num_pixels)))


def _same_size_batches(
    images: Iterable[LoadedImage | ImageOutcome], batch_size: int
) -> Iterator[list[LoadedImage] | ImageOutcome]:
    """Full batches of images of one network size; what is left over comes last or when many wait.

    Failures pass through at once.
    """
    waiting: dict[tuple[int, ...], list[LoadedImage]] = {}
    for image in images:
        if isinstance(image, ImageOutcome):
            yield image
            continue
        same_size = waiting.setdefault(tuple(image.resized.shape), [])
        same_size.append(image)
        if len(same_size) == batch_size:
            yield waiting.pop(tuple(image.resized.shape))
        elif sum(map(len, waiting.values())) >= WAITING_BATCHES * batch_size:
            # The oldest size goes first: it has waited longest.
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()
