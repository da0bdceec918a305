"""Prediction on pixels: resizing, batching and running a trained network."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seamless_pr.datasets.images import read_image
from seamless_pr.models.networks.network import Network
from seamless_pr.ops.images import ImageLike, image_tensor
from seamless_pr.ops.resize import NetworkSides
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.prediction import Prediction

AMP_TYPES: Mapping[str, torch.dtype | None] = {
    "none": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Predictor:
    """A trained network with the image size that it was made for.

    Images are only ever put into one batch with images of the same network size, so no image is
    padded and the result of an image does not depend on its neighbours in a folder.

    Attributes:
        label_space: classes of the results.
        device: where the network runs.
        settings: plain values that decide the result (weights digest, sizes, amp, ...), for
            the record of a prediction folder; see `describe`.
    """

    def __init__(
        self,
        network: Network,
        *,
        shortest_side_pixels: int,
        longest_side_pixels: int | None = None,
        device: torch.device | str = "cpu",
        rounded_sides: bool = False,
        batch_size: int = 1,
        amp: str = "none",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Moves the network to the device and puts it into evaluation mode.

        Args:
            network: of any kind.
            shortest_side_pixels: images are resized until their shorter side has this length.
            longest_side_pixels: cap on the longer side; None: no cap.
            device: a torch device.
            rounded_sides: the other side is rounded, see `resized_size`.
            batch_size: most images in one pass of the network.
            amp: arithmetic of the network: "none" (float32), "bf16" or "fp16".
            settings: more values for `describe`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        if amp not in AMP_TYPES:
            raise ValueError(f"amp must be one of {', '.join(AMP_TYPES)}; got '{amp}'")
        self.device = torch.device(device)
        self.shortest_side_pixels = shortest_side_pixels
        self.longest_side_pixels = longest_side_pixels
        self.rounded_sides = rounded_sides
        self.batch_size = batch_size
        self.amp = amp
        self._settings = dict(settings or {})
        # Convolutions with channels innermost are faster, on the CPU as on GPUs.
        channels_last: dict[str, Any] = {"memory_format": torch.channels_last}
        self._network: Network = network.to(self.device, **channels_last).eval()

    @property
    def network(self) -> Network:
        """The network itself, in evaluation mode, on its device."""
        return self._network

    @property
    def sides(self) -> NetworkSides:
        """What `resize` does, without the network."""
        return NetworkSides(self.shortest_side_pixels, self.longest_side_pixels, self.rounded_sides)

    def note(self, **settings: Any) -> None:
        """Adds values that decide the results to what `describe` says."""
        self._settings |= settings

    @property
    def label_space(self) -> LabelSpace:
        return self._network.label_space

    def describe(self) -> dict[str, Any]:
        """Everything that decides the result of an image, as plain JSON values."""
        return {
            **self._settings,
            "label_space": self.label_space.name,
            "shortest_side_pixels": self.shortest_side_pixels,
            "longest_side_pixels": self.longest_side_pixels,
            "rounded_sides": self.rounded_sides,
            "amp": self.amp,
        }

    def check_device(self) -> None:
        """Before the first image: whether the device can do what is asked of it.

        Not in the constructor: a predictor on the CPU may only be asked what others on GPUs do.

        Raises:
            ValueError: fp16 on the CPU.
        """
        if self.amp == "fp16" and self.device.type == "cpu":
            raise ValueError("amp 'fp16' needs a GPU; the network is on the CPU; use bf16 or none")

    def __call__(self, image: ImageLike | str | os.PathLike[str]) -> PanopticSegmentation:
        """Labels one image: a path, a URI, or pixels in one of the forms of `image_tensor`.

        Returns:
            Segmentation at the size of the image, without crowd: what looks like objects, but
            belongs to none that was found, is void.
        """
        return self.predict([image])[0].require_panoptic()

    def predict(self, images: Sequence[ImageLike | str | os.PathLike[str]]) -> list[Prediction]:
        """Labels images of any sizes; files are read as a folder of them is.

        Returns:
            One prediction per image, in order, at its own size and on the CPU. Its panoptic map is
            without crowd; its instances are in any order.
        """
        tensors = [
            read_image(image) if isinstance(image, (str, os.PathLike)) else image_tensor(image)
            for image in images
        ]
        resized = [self.resize(tensor) for tensor in tensors]
        indices_of_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, tensor in enumerate(resized):
            indices_of_size[_size(tensor)].append(index)
        results: dict[int, Prediction] = {}
        for indices in indices_of_size.values():
            for start in range(0, len(indices), self.batch_size):
                chunk = indices[start : start + self.batch_size]
                predictions = self.predict_resized(
                    [resized[index] for index in chunk], [_size(tensors[index]) for index in chunk]
                )
                results.update(
                    (index, prediction.to("cpu"))
                    for index, prediction in zip(chunk, predictions, strict=True)
                )
        return [results[index] for index in range(len(images))]

    def resize(self, image: Tensor) -> Tensor:
        """[3, H, W] uint8 at its own size -> at network size; on the CPU, safe in any thread."""
        return self.sides.resized(image)

    def predict_resized(
        self, images: Sequence[Tensor], original_sizes: Sequence[tuple[int, int]]
    ) -> list[Prediction]:
        """Runs the network once, on images that `resize` has made.

        Args:
            images: N of [3, H, W] uint8, all of the same size.
            original_sizes: (height, width) of each image before `resize`.

        Returns:
            As `predict`, but only the panoptic map has left the device: the rest is copied by those
            who want it.
        """
        sizes = {_size(image) for image in images}
        if len(sizes) != 1:
            raise ValueError(f"one batch holds images of one size; got {sorted(sizes)}")
        batch = ImageBatch.from_images(images).to(self.device)
        with torch.inference_mode(), self._autocast():
            predictions = self._network.predict(batch, list(original_sizes))
        return [_without_crowd(prediction) for prediction in predictions]

    def predict_tile(self, tile: Tensor) -> tuple[Prediction, Tensor | None]:
        """Labels a part of a large image at its own size.

        Args:
            tile: [3, H, W] uint8.

        Returns:
            The prediction, whose panoptic map is on the CPU, and what `Network.dense_scores` says.
        """
        batch = ImageBatch.from_images([tile]).to(self.device)
        with torch.inference_mode(), self._autocast():
            outputs = self._network.outputs(batch)
            (prediction,) = self._network.finish(outputs, [_size(tile)])
            scores = self._network.dense_scores(outputs, 0, _size(tile))
        return _without_crowd(prediction), scores

    def check_tiles(self, size: int) -> None:
        """Before the first tile: whether the network reads images of that size.

        Args:
            size: side of a tile in pixels.

        Raises:
            ValueError: tiles are too large.
        """
        largest = self._network.largest_side_pixels
        if largest is not None and size > largest:
            raise ValueError(
                f"tiles of {size} pixels are too large: this network reads images of at most "
                f"{largest} x {largest} pixels at the largest scale of its views; make tiles of "
                f"{largest}"
            )

    def _autocast(self) -> AbstractContextManager[Any]:
        self.check_device()
        dtype = AMP_TYPES[self.amp]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)


def usable_device(device: torch.device | str | None) -> torch.device:
    """The device itself; None: a GPU if there is one, else the CPU.

    Raises:
        ValueError: there is no such device; names those that there are.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts.
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise ValueError(
            f"no device '{device}' here; there is {', '.join(['cpu', *gpus])}: give one of these, "
            "or leave the device out"
        ) from error
    return found


def _without_crowd(prediction: Prediction) -> Prediction:
    if prediction.panoptic is None:
        return prediction
    return replace(prediction, panoptic=prediction.panoptic.without_crowd())


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]
