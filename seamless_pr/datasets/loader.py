"""Images with their panoptic ground truth, and loaders that batch them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors

from seamless_pr.datasets.batch_sampler import AspectRatioBatchSampler
from seamless_pr.datasets.images import read_pixels
from seamless_pr.datasets.panoptic_records import (
    AnnotationRecord,
)
from seamless_pr.datasets.parts import AnnotatedImage, PanopticPart, read_parts
from seamless_pr.datasets.transforms import Transform
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.ops.generators import keyed_generator
from seamless_pr.parallel import end_with_parent
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.limits import TooManyPixelsError
from seamless_pr.structures.panoptic_target import Batch, PanopticTarget

Sample = tuple[torch.Tensor, PanopticTarget]

READING_THREADS = 16
# Of a file, at each of three places.
SAMPLED_BYTES = 4096


class PanopticImages(Dataset[Sample]):
    """Images and targets of one split, made of one or several parts.

    Item `index`, or `(index, draw_key)` as the sampler gives it: the image [3, H, W] uint8 RGB and
    its `PanopticTarget`, whose segments are those of the JSON in their order and whose `image_key`
    is the image id. The random changes depend on (seed, draw_key, image id) and on nothing else.
    """

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        label_space: LabelSpace,
        transform: Transform,
        *,
        seed: int = 0,
    ) -> None:
        """Pixels are read item by item.

        Args:
            images: whose segments all have a class of the label space; see `read_parts`.
            label_space: the network's classes.
            transform: applied to each image and its id map.
            seed: of the random changes.
        """
        self.label_space = label_space
        self.transform = transform
        self.seed = seed
        self.annotations = tuple(image.annotation for image in images)
        self.image_sizes = [image.size for image in images]
        self._images = tuple(images)

    @classmethod
    def from_parts(
        cls,
        parts: Sequence[PanopticPart],
        label_space: LabelSpace,
        transform: Transform,
        *,
        seed: int = 0,
    ) -> PanopticImages:
        """Images of several parts in their order, such as IDD I and II, or train and val.

        Args:
            parts: at least one.
            label_space, transform, seed: as in the constructor.

        Raises:
            FileNotFoundError: a JSON or a folder is missing.
            FaultyDataError: everything that is wrong with all parts, in one list.
        """
        return cls(read_parts(parts, label_space), label_space, transform, seed=seed)

    @classmethod
    def from_files(
        cls,
        json_path: str | os.PathLike[str],
        images_dir: str | os.PathLike[str],
        label_space: LabelSpace,
        transform: Transform,
        *,
        png_dir: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> PanopticImages:
        """As `from_parts` with the one part `PanopticPart(json_path, images_dir, png_dir)`."""
        part = PanopticPart(json_path, images_dir, png_dir)
        return cls.from_parts([part], label_space, transform, seed=seed)

    def __len__(self) -> int:
        return len(self.annotations)

    def fingerprint(self) -> str:
        """Tells these data from others under the same names, wherever they lie.

        It covers the ids, and of each file the size and the bytes at its beginning, middle and end:
        a compressed picture of another content nearly always differs in them. Reading all of a
        large set would keep every start of a run waiting.
        """
        with ThreadPoolExecutor(READING_THREADS) as pool:  # Storage may be far away.
            rows = pool.map(_row_of_fingerprint, self._images, chunksize=64)
            return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def __getitem__(self, item: int | tuple[int, int]) -> Sample:
        index, draw_key = (item, 0) if isinstance(item, int) else item
        entry = self._images[index]
        annotation, png_path = entry.annotation, entry.png_path
        # Not copied to planes before it is resized: that is four times as fast pixel by pixel.
        pixels = torch.from_numpy(read_pixels(entry.image_file))
        image = tv_tensors.Image(pixels.permute(2, 0, 1))
        id_map = torch.from_numpy(_number_segments(read_id_png(png_path), annotation, png_path))
        if image.shape[-2:] != id_map.shape:
            raise ValueError(
                f"{entry.image_file} has size {tuple(image.shape[-2:])}, but {png_path} "
                f"{tuple(id_map.shape)} (height, width); run pipelines/prepare.py verify"
            )
        generator = keyed_generator("image", self.seed, draw_key, entry.key)
        segments = annotation.segments
        train_ids = torch.tensor(
            [self.label_space.train_id_of[segment.category_id] for segment in segments],
            dtype=torch.int64,
        )
        try:
            image, mask = self.transform(image, tv_tensors.Mask(id_map), train_ids, generator)
        except TooManyPixelsError as error:
            raise ValueError(f"{entry.image_file}: {error}") from error
        target = PanopticTarget(
            id_map=mask.as_subclass(torch.Tensor).contiguous(),
            train_ids=train_ids,
            is_crowd=torch.tensor([segment.is_crowd for segment in segments], dtype=torch.bool),
            label_space=self.label_space,
            image_key=str(annotation.image_id),
        )
        return image.as_subclass(torch.Tensor).contiguous(), target


def _row_of_fingerprint(image: AnnotatedImage) -> str:
    sampled = [_sample_of(path) for path in (image.png_path, image.image_file)]
    return json.dumps([image.key, image.annotation.file_name, *sampled])


def _sample_of(path: Path) -> str | None:
    """Checksum of a file's size and of some of its bytes; None if there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        last = max(size - SAMPLED_BYTES, 0)
        for start in sorted({0, last // 2, last}):
            file.seek(start)
            digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()


def make_train_loader(
    images: PanopticImages,
    batch_size: int,
    *,
    seed: int = 0,
    num_steps: int | None = None,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    accumulation_steps: int = 1,
    num_workers: int = 2,
) -> DataLoader[Batch]:
    """Loads the batches of this worker, from `start_step` on.

    Args:
        images: the training part.
        batch_size: images of a step, over all workers and accumulation steps.
        seed, num_steps, start_step, rank, world_size, accumulation_steps: see
            `AspectRatioBatchSampler`.
        num_workers: loading processes; 0: load in this one. The samples do not depend on it.
    """
    sampler = AspectRatioBatchSampler(
        images.image_sizes,
        batch_size,
        seed=seed,
        num_steps=num_steps,
        start_step=start_step,
        rank=rank,
        world_size=world_size,
        accumulation_steps=accumulation_steps,
    )
    return _make_loader(images, sampler, num_workers)


def make_eval_loader(
    images: PanopticImages,
    batch_size: int = 1,
    *,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 2,
) -> DataLoader[Batch]:
    """Loads every image once, in the order of the JSON; workers take every world_size-th image."""
    indices = range(rank, len(images), world_size)
    batches = [
        [(index, 0) for index in indices[start : start + batch_size]]
        for start in range(0, len(indices), batch_size)
    ]
    return _make_loader(images, batches, num_workers)


def collate(samples: Sequence[Sample]) -> Batch:
    """Pads the images to one size; targets keep their own."""
    images, targets = zip(*samples)
    return ImageBatch.from_images(images), list(targets)


@dataclass(frozen=True)
class _Failure:
    """Why a batch cannot be loaded, on its way from a loading process."""

    message: str


class _InOneSentence(Dataset[Any]):
    """The images in a loading process: an error travels as its message, not as a traceback."""

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __getitem__(self, item: Any) -> Any:
        try:
            return self.images[item]
        except (OSError, ValueError) as error:
            return _Failure(str(error) or type(error).__name__)


def _collate_or_fail(samples: Sequence[Any]) -> Batch | _Failure:
    failures = [sample for sample in samples if isinstance(sample, _Failure)]
    return failures[0] if failures else collate(samples)


class _Loader(DataLoader[Batch]):
    """Raises what its processes could not load as it would be raised in this one."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                raise ValueError(batch.message)
            yield batch


def _make_loader(
    images: PanopticImages,
    batches: AspectRatioBatchSampler | list[list[tuple[int, int]]],
    num_workers: int,
) -> DataLoader[Batch]:
    return _Loader(
        _InOneSentence(images) if num_workers else images,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=_collate_or_fail,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )


def _start_worker(_: int) -> None:
    end_with_parent()
    # Workers share the cores with each other and with the training process.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _number_segments(
    id_map: NDArray[np.int32], annotation: AnnotationRecord, path: Path
) -> NDArray[np.int32]:
    """Segment ids -> 1 + position in the annotation; 0 stays void."""
    # A table over all ids; its untouched pages cost nothing.
    largest = max([int(id_map.max()), *(segment.segment_id for segment in annotation.segments)])
    numbers = np.zeros(largest + 1, np.int32)
    for index, segment in enumerate(annotation.segments):
        numbers[segment.segment_id] = index + 1
    numbered = numbers.take(id_map)
    # Void stays 0; an unknown id becomes 0 as well.
    if np.count_nonzero(numbered) != np.count_nonzero(id_map):
        is_unknown = (numbered == 0) & (id_map != LabelSpace.VOID_SEGMENT_ID)
        unknown = np.unique(id_map[is_unknown]).tolist()
        raise ValueError(
            f"{path} holds segment ids {unknown[:10]} that its JSON does not list; "
            "run pipelines/prepare.py verify and convert the dataset again"
        )
    return numbered
