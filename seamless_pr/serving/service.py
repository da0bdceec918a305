"""A network behind requests: what is asked, in which order, and how many may wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from seamless_pr.datasets.coco_panoptic import category_json
from seamless_pr.inference.predictor import Predictor
from seamless_pr.serving.answers import (
    MEDIA_TYPES,
    Answer,
    Labelled,
    check_number,
    encode,
    encode_image,
)
from seamless_pr.serving.batcher import Batcher
from seamless_pr.serving.counts import ServingCounts
from seamless_pr.serving.limits import RequestRefusedError, ServingLimits
from seamless_pr.serving.photos import Photo, load_photo, read_photos
from seamless_pr.structures.limits import TooManyPixelsError

RETRY_SECONDS = 1


class PanopticService:
    """Answers requests with one network; for one event loop.

    Attributes:
        limits: what clients may ask for.
        counts: of what has been answered.
        num_waiting: images between their request and their answer.
    """

    def __init__(self, predictor: Predictor, limits: ServingLimits | None = None) -> None:
        """Starts the thread of the network; `close` ends it.

        Args:
            predictor: its `batch_size` is the largest batch.
            limits: what clients may ask for.
        """
        predictor.check_device()
        self.limits = limits or ServingLimits()
        self.counts = ServingCounts()
        self.num_waiting = 0
        self._batcher = Batcher(predictor, self.counts.batch)
        # With pixels at once, whoever asks: the batch at work, the next one, and what comes and
        # goes. An image keeps its place until it is encoded for its answer.
        self._decoded = asyncio.Semaphore(2 * predictor.batch_size + 2)

    @property
    def predictor(self) -> Predictor:
        return self._batcher.predictor

    async def exchange(self, load: Callable[[], Predictor]) -> None:
        """Images that come from now on are labelled by another network; no request fails of it.

        Args:
            load: makes it, in the thread of the network.
        """
        await asyncio.to_thread(self._batcher.exchange, load)

    def is_ready(self) -> bool:
        return self._batcher.is_alive()

    def close(self) -> None:
        """Ends the thread of the network."""
        self._batcher.close()

    def describe(self) -> dict[str, Any]:
        """The network, its classes, the limits and formats, as plain JSON values."""
        space = self.predictor.label_space
        return {
            "network": {**self.predictor.describe(), "device": self.predictor.device.type},
            "categories": [category_json(category) for category in space.categories],
            "limits": self.limits.to_dict(),
            "formats": dict(MEDIA_TYPES),
        }

    async def answer(self, request: Any, answer_format: str) -> Answer:
        """Labels the images of a request.

        Args:
            request: see `read_photos`.
            answer_format: of `choose_format`.

        Raises:
            RequestRefusedError: no map for any of them; says why.
        """
        started, status = time.perf_counter(), 500
        try:
            with self._places(1):
                photos = await self._received(request)
                check_number(len(photos), answer_format)
                started = time.perf_counter()
                with self._places(len(photos) - 1):
                    answer = await asyncio.wait_for(
                        self._labelled(photos, answer_format), self.limits.seconds
                    )
            status = 200
            return answer
        except RequestRefusedError as error:
            status = error.status
            raise
        except asyncio.TimeoutError as error:
            status = 504
            raise RequestRefusedError(
                status,
                f"no answer within {self.limits.seconds:g} s; send fewer or smaller images, or "
                "try again later",
            ) from error
        finally:
            self.counts.request(status, time.perf_counter() - started)

    async def _received(self, request: Any) -> Sequence[Photo]:
        """The images of a request; a client that is slow to send holds no place for long."""
        try:
            return await asyncio.wait_for(read_photos(request, self.limits), self.limits.seconds)
        except asyncio.TimeoutError as error:
            raise RequestRefusedError(
                408,
                f"the request did not come to its end within {self.limits.seconds:g} s; send it "
                "again, or a smaller one",
                {"Connection": "close"},
            ) from error

    async def _labelled(self, photos: Sequence[Photo], answer_format: str) -> Answer:
        space = self.predictor.label_space
        labelled = await asyncio.gather(*(self._label(photo, answer_format) for photo in photos))
        found = [item.label_space for item in labelled if item.label_space is not None]
        self.counts.images(labelled=len(found), refused=len(photos) - len(found))
        if found:
            # The network may have been exchanged meanwhile.
            space = found[0]
        return await asyncio.to_thread(encode, labelled, space, answer_format)

    async def _label(self, photo: Photo, answer_format: str) -> Labelled:
        try:
            async with self._decoded:
                image = await load_photo(photo, self.limits)
                found = await self._batcher.label(image)
                return await asyncio.to_thread(
                    encode_image, photo.name, image, found, answer_format
                )
        except RequestRefusedError as error:
            return Labelled(photo.name, status=error.status, error=error.reason)
        except TooManyPixelsError as error:
            # As it comes to the network: a narrow one may grow beyond the limit.
            return Labelled(photo.name, status=413, error=f"{photo.name}: {error}")
        except Exception as error:
            # About this image, whatever it is; others of the request have their maps.
            reason = f"{photo.name}: the network failed ({str(error) or type(error).__name__})"
            return Labelled(photo.name, status=500, error=reason)

    @contextmanager
    def _places(self, num_images: int) -> Iterator[None]:
        """Room for images for the time of the context.

        Raises:
            RequestRefusedError: 503, there is none.
        """
        if self.num_waiting + num_images > self.limits.max_waiting:
            raise RequestRefusedError(
                503,
                f"{self.num_waiting} images wait already; try again in a moment",
                {"Retry-After": str(RETRY_SECONDS)},
            )
        self.num_waiting += num_images
        try:
            yield
        finally:
            self.num_waiting -= num_images
