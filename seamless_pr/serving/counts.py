"""Counts of a server, which add up over its replicas, in the text format of Prometheus."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

PREFIX = "seamless_pr"
SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
STALE_SECONDS = 10.0
SIZES = (1, 2, 4, 8, 16, 32)
# Name -> (kind, help).
METRICS = {
    "requests_total": ("counter", "Requests for maps that were answered, by status."),
    "images_total": ("counter", "Images of these requests, labelled or not."),
    "request_seconds": ("histogram", "From the last byte of a request to its answer."),
    "batch_images": ("histogram", "Images in one pass of a network."),
    "waiting_images": ("gauge", "Images in the hands of the replicas."),
}
Sample = tuple[str, str]
"""Name of a sample without the prefix, and its label as text; the label may be empty."""


class ServingCounts:
    """Counts since the last `take`; several threads may count."""

    def __init__(self) -> None:
        self._counts: dict[Sample, float] = {}
        self._lock = threading.Lock()

    def request(self, status: int, seconds: float) -> None:
        """An answer."""
        samples = _observed("request_seconds", seconds, SECONDS)
        self._add({**samples, ("requests_total", f'status="{status}"'): 1})

    def images(self, *, labelled: int, refused: int) -> None:
        """What became of the images of a request."""
        self._add(
            {
                ("images_total", 'outcome="labelled"'): labelled,
                ("images_total", 'outcome="refused"'): refused,
            }
        )

    def batch(self, num_images: int) -> None:
        """A pass of the network."""
        self._add(_observed("batch_images", num_images, SIZES))

    def take(self) -> dict[Sample, float]:
        """The counts, which are 0 from now on."""
        with self._lock:
            taken, self._counts = self._counts, {}
        return taken

    def _add(self, samples: Mapping[Sample, float]) -> None:
        with self._lock:
            add_counts(self._counts, samples)


def _observed(name: str, value: float, bounds: Sequence[float]) -> dict[Sample, float]:
    """What one value adds to a histogram; a bucket holds all that is smaller as well."""
    buckets = {(f"{name}_bucket", f'le="{bound:g}"'): float(value <= bound) for bound in bounds}
    return {
        **buckets,
        (f"{name}_bucket", 'le="+Inf"'): 1,
        (f"{name}_sum", ""): value,
        (f"{name}_count", ""): 1,
    }


def add_counts(total: dict[Sample, float], more: Mapping[Sample, float]) -> None:
    """Adds counts to a sum, in place."""
    for sample, value in more.items():
        total[sample] = total.get(sample, 0) + value


def prometheus_text(counts: Mapping[Sample, float], waiting: Iterable[int]) -> str:
    """All metrics, with their types.

    Args:
        counts: sum over all replicas since the start.
        waiting: images in the hands of each replica.
    """
    samples = {**counts, ("waiting_images", ""): sum(waiting)}
    lines = []
    for name, (kind, text) in METRICS.items():
        lines += [f"# HELP {PREFIX}_{name} {text}", f"# TYPE {PREFIX}_{name} {kind}"]
        names = [f"{name}{end}" for end in ("_bucket", "_sum", "_count")]
        for own in names if kind == "histogram" else [name]:
            found = {label: value for (other, label), value in samples.items() if other == own}
            for label in sorted(found, key=_order):
                braces = f"{{{label}}}" if label else ""
                lines.append(f"{PREFIX}_{own}{braces} {found[label]:.10g}")
    return "\n".join([*lines, ""])


def _order(label: str) -> tuple[float, str]:
    """Bounds of buckets by size."""
    if label.startswith('le="'):
        return float(label[4:-1]), ""
    return 0.0, label


class CountsBoard:
    """The counts of all replicas of a server; lives beside them."""

    def __init__(self) -> None:
        self._total: dict[Sample, float] = {}
        self._waiting: dict[str, tuple[float, int]] = {}

    def add(self, replica: str, counts: Mapping[Sample, float], num_waiting: int) -> None:
        """Takes what a replica has counted since it came here last.

        Args:
            replica: its name.
            counts: of `ServingCounts.take`.
            num_waiting: images in its hands.
        """
        add_counts(self._total, counts)
        self._waiting[replica] = (time.monotonic(), num_waiting)

    def text(self) -> str:
        """All metrics; replicas that have not come for a while have gone."""
        oldest = time.monotonic() - STALE_SECONDS
        waiting = [number for seen, number in self._waiting.values() if seen > oldest]
        return prometheus_text(self._total, waiting)
