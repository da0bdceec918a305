"""One network for many clients: images of equal size that wait together go through it together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seamless_pr.inference.predictor import Predictor
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation


@dataclass
class _Waiting:
    predictor: Predictor
    resized: Tensor
    original_size: tuple[int, int]
    result: Future[PanopticSegmentation] = field(default_factory=Future)

    def fits(self, other: _Waiting) -> bool:
        return self.predictor is other.predictor and self.resized.shape == other.resized.shape


class Batcher:
    """Runs a network in a thread of its own, on whatever waits when it is free.

    No image waits for others to come: a batch is the image that has waited longest, with those of
    its size that wait as well. So a network that is faster than its clients labels single images,
    and one that is not labels batches. Images of one batch do not change each other's results.

    Attributes:
        predictor: of images that come from now on; see `exchange`.
    """

    def __init__(self, predictor: Predictor, on_batch: Callable[[int], None] | None = None) -> None:
        """Starts the thread.

        Args:
            predictor: its `batch_size` is the largest batch.
            on_batch: called with the number of images of each batch.
        """
        self.predictor = predictor
        self._on_batch = on_batch
        self._waiting: deque[_Waiting] = deque()
        self._loads: deque[tuple[Callable[[], Predictor], Future[None]]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    async def label(self, image: Tensor) -> PanopticSegmentation:
        """Labels one image; the same result as the predictor's own.

        If this is cancelled, an image that still waits is not labelled.

        Args:
            image: [3, H, W] uint8.
        """
        predictor = self.predictor
        resized = await asyncio.to_thread(predictor.resize, image)
        waiting = _Waiting(predictor, resized, (image.shape[-2], image.shape[-1]))
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the network has been closed")
            self._waiting.append(waiting)
            self._changed.notify()
        return await asyncio.wrap_future(waiting.result)

    def exchange(self, load: Callable[[], Predictor]) -> None:
        """Loads another predictor and takes it, between two batches; images wait meanwhile.

        In the thread of the network: building one traces modules, and torch.fx changes what
        calling any module means while it does so.

        Args:
            load: its errors are raised here, and leave the predictor as it is.
        """
        done: Future[None] = Future()
        with self._changed:
            self._loads.append((load, done))
            self._changed.notify()
        done.result()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the thread after the batch at work; what still waits is cancelled."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        for waiting in self._waiting:
            waiting.result.cancel()
        for _, done in self._loads:
            done.cancel()

    def _work(self) -> None:
        while batch := self._next_batch():
            if self._on_batch is not None:
                self._on_batch(len(batch))
            self._run(batch)

    def _next_batch(self) -> list[_Waiting]:
        """Empty when the batcher is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._loads or self._is_closed)
                if self._is_closed:
                    return []
            while self._loads:
                self._take(*self._loads.popleft())
            with self._changed:
                if not self._waiting:
                    continue
                first = self._waiting[0]
                same = [waiting for waiting in self._waiting if waiting.fits(first)]
                batch = same[: first.predictor.batch_size]
                chosen = set(map(id, batch))
                self._waiting = deque(w for w in self._waiting if id(w) not in chosen)
            # Clients that have gone are left out.
            batch = [waiting for waiting in batch if waiting.result.set_running_or_notify_cancel()]
            if batch:
                return batch

    def _take(self, load: Callable[[], Predictor], done: Future[None]) -> None:
        try:
            self.predictor = load()
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def _run(self, batch: Sequence[_Waiting]) -> None:
        try:
            predictions = batch[0].predictor.predict_resized(
                [waiting.resized for waiting in batch],
                [waiting.original_size for waiting in batch],
            )
            maps = [prediction.require_panoptic() for prediction in predictions]
        except Exception as error:
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
        else:
            for waiting, segmentation in zip(batch, maps, strict=True):
                waiting.result.set_result(segmentation)
            return
        # Each for itself: what one image does to the network is no matter of the others.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for waiting in batch:
            self._run([waiting])
