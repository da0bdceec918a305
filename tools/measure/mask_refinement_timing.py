"""Times PointRend's mask head on 60 boxes: the part of tools/measure/benchmark_inference.py for it.

Heads and features are random, in the shapes of the released Cityscapes network (256 channels, eight
classes), and so are the boxes: heights log-uniform in 18 to 420 pixels of 1024 rows, two fifths of
them upright (width 0.4 of the height) as persons, the rest wide (1.6) as cars.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.instances.coarse_masks import CoarseMaskHead, coarse_mask_logits
from seamless_pr.models.instances.point_rend import point_mask_logits
from seamless_pr.ops.points import PointReader
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.settings import PointSettings

SIZES = ((512, 1024), (1024, 2048))
NUM_BOXES, NUM_THINGS, CHANNELS, STRIDE = 60, 8, 256, 4
FULL_ROWS, HEIGHTS = 1024, (18.0, 420.0)
UPRIGHT_SHARE, UPRIGHT_ASPECT, WIDE_ASPECT = 0.4, 0.4, 1.6

COARSE, SUBDIVISION, WHOLE = "coarse head", "subdivision to 224x224", "mask head"
# Seconds of detectron2 on two threads of another two-core machine.
REFERENCE = {
    "512x1024": {COARSE: 0.029, SUBDIVISION: 1.288, WHOLE: 1.325},
    "1024x2048": {COARSE: 0.039, SUBDIVISION: 1.550, WHOLE: 1.557},
}


def street_boxes(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """[60, 4] xyxy boxes inside an image of this size."""
    low, high = HEIGHTS
    scale = size[0] / FULL_ROWS
    heights = scale * low * (high / low) ** torch.rand(NUM_BOXES, generator=generator)
    upright = torch.rand(NUM_BOXES, generator=generator) < UPRIGHT_SHARE
    widths = heights * torch.where(upright, UPRIGHT_ASPECT, WIDE_ASPECT)
    sides = torch.stack([widths, heights], dim=1)
    room = torch.tensor([size[1], size[0]]) - sides
    corners = torch.rand(NUM_BOXES, 2, generator=generator) * room
    return torch.cat([corners, corners + sides], dim=1)


@torch.inference_mode()
def mask_head_seconds(size: tuple[int, int], rounds: int, seed: int = 0) -> dict[str, float]:
    """Medians over `rounds` after one unmeasured pass."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    coarse_head, point_head = CoarseMaskHead(CHANNELS, NUM_THINGS), PointHead(CHANNELS, NUM_THINGS)
    for predictor in (coarse_head.prediction, point_head.predictor):
        # As after training: with the first weights all logits are near 0.
        nn.init.kaiming_normal_(predictor.weight)
    map_size = (size[0] // STRIDE, size[1] // STRIDE)
    fine_map = torch.randn(1, CHANNELS, *map_size, generator=generator)
    fine_map = fine_map.contiguous(memory_format=torch.channels_last)
    boxes = street_boxes(size, generator)
    things = torch.randint(NUM_THINGS, (NUM_BOXES,), generator=generator)
    found = Instances(torch.ones(NUM_BOXES), things, boxes)
    images = torch.zeros(NUM_BOXES, dtype=torch.int64)
    settings = PointSettings()
    reader = PointReader((fine_map,), (size,))
    whole = _median_seconds(
        lambda: point_mask_logits(coarse_head, point_head, reader, [found], settings),
        rounds,
    )
    coarse = _median_seconds(lambda: coarse_mask_logits(coarse_head, reader, boxes, images), rounds)
    return {COARSE: coarse, SUBDIVISION: whole - coarse, WHOLE: whole}


def _median_seconds(run: Callable[[], Any], rounds: int) -> float:
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def measure_mask_heads(threads: int, rounds: int) -> dict[str, Any]:
    """Seconds of the parts at each size, and under which conditions."""
    return {
        "seconds": {
            f"{height}x{width}": mask_head_seconds((height, width), rounds)
            for height, width in SIZES
        },
        "threads": threads,
        "rounds": rounds,
        "load": os.getloadavg()[0],
    }


def mask_section(masks: dict[str, Any]) -> str:
    """The table of PointRend's mask head and the conditions it was measured under."""
    rate = masks["giga_multiply_adds_per_second"]
    return (
        f"{mask_head_table(masks['seconds'])}\n\n"
        f"PointRend masks of eight classes from {NUM_BOXES} boxes, single precision, "
        f"{masks['threads']} threads, median of {masks['rounds']} rounds; load of the machine "
        f"during the run: {masks['load']:.1f}; a 3x3 convolution of 256 channels (channels last) "
        f"ran at {rate:.0f} G multiply-adds a second. Every part works on the points of all boxes "
        "at once, blocks of them go through all layers while they are in the cache, fine and "
        "coarse features are multiplied where they lie, and only the predicted class is carried "
        "through the subdivision. detectron2 was timed on two threads of another two-core machine."
    )


def mask_head_table(seconds: dict[str, dict[str, float]]) -> str:
    """This package beside detectron2, in Markdown."""
    heading = [f"{size}, {name}" for size in seconds for name in ("here", "detectron2")]
    lines = [
        f"| seconds, {NUM_BOXES} masks | {' | '.join(heading)} |",
        "|---|" + "---:|" * len(heading),
    ]
    for part in (COARSE, SUBDIVISION, WHOLE):
        cells = []
        for size, parts in seconds.items():
            cells += [f"{parts[part]:.3f}", f"{REFERENCE[size][part]:.3f}"]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)
