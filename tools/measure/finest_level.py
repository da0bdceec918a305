"""Measures what the proposal head needs the finest level of the pyramid for.

examples:
  # the shipped checkpoint on drawn scenes that no training saw; some minutes on one thread
  python tools/measure/finest_level.py

  # a quick look; nothing is written
  python tools/measure/finest_level.py --scenes 2 --dry-run

The same network with anchors in all cells of that level, in every second row and column of them
(a convolution of stride 2 computes just these), and in none. Times are processor times, the ways
taking turns. The pyramid's own convolution of that level stays: the semantic branch, small boxes
and the points of masks read it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seamless_pr.build.predictor import load_predictor
from seamless_pr.files import write_json
from seamless_pr.inference.predictor import Predictor
from seamless_pr.metrics.panoptic_quality import PQCounts
from seamless_pr.models.instances.rpn import RPNOutput, generate_anchors
from seamless_pr.models.instances.two_stage import TwoStageBranch
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.ops.boxes import clip_boxes, decode_boxes
from seamless_pr.street_scenes.dataset import draw_street_scene
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from tools.measure.benchmark_inference import cpu_name, parse_size, replaced
from tools.measure.drawn_truth import drawn_scenes, pq_cells, pq_scores, scene_counts

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "checkpoints" / "street_scenes_256x512.safetensors"
STORED_RESULT = ROOT / "docs" / "results" / "finest_level.json"
PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = ("<!-- finest level -->", "<!-- /finest level -->")
# Way -> anchors in every so manieth row and column of the finest level; 0: in none.
WAYS = {"all cells": 1, "every second row and column": 2, "none": 0}


def scored_anchors(
    branch: TwoStageBranch, step: int, features: Features
) -> tuple[RPNOutput, tuple[Tensor, ...]]:
    """`ProposingBranch.score_anchors` with fewer anchors on the finest level."""
    anchors = generate_anchors(features.sizes, features.strides, branch.rpn)
    if step == 0:
        return branch.rpn_head(features.levels[1:]), anchors[1:]
    output = branch.rpn_head(features.levels[1:])
    head, level = branch.rpn_head, features.finest
    hidden = head.norm(F.conv2d(level, head.conv.weight, head.conv.bias, step, padding=1))
    finest = RPNOutput((head.objectness(hidden),), (head.box_deltas(hidden),))
    height, width = features.sizes[0]
    cells = anchors[0].view(height, width, -1)[::step, ::step].reshape(-1, 4)
    whole = RPNOutput(
        finest.objectness_logits + output.objectness_logits, finest.box_deltas + output.box_deltas
    )
    return whole, (cells, *anchors[1:])


def branch_of(predictor: Predictor) -> tuple[TwoBranchNet, TwoStageBranch]:
    network = predictor.network
    assert isinstance(network, TwoBranchNet)
    assert isinstance(network.instances, TwoStageBranch)
    return network, network.instances


@torch.no_grad()
def of_finest_level(predictor: Predictor, image: Tensor) -> dict[str, int]:
    """How many proposals, and objects of the map, start from anchors of the finest level.

    Args:
        predictor: of a two-stage network.
        image: [3, H, W] uint8, at the size that the network sees.
    """
    network, branch = branch_of(predictor)
    batch = ImageBatch.from_images([image]).padded_to(network.size_divisor)
    features = network.features(batch)
    output, anchors = branch.score_anchors(features)
    count, (size,) = len(anchors[0]), batch.image_sizes
    deltas, whole_pixels = output.flat_deltas()[0, :count], branch.rpn.whole_pixels
    decoded = decode_boxes(anchors[0], deltas, limits_shrinking=whole_pixels)
    decoded = clip_boxes(decoded, size, keeps_pixel=whole_pixels)
    finest = set(map(tuple, decoded.tolist()))
    (proposals,) = branch.propose(features, batch)
    is_finest = torch.tensor([tuple(box) in finest for box in proposals.tolist()])
    (scored,) = branch.score_boxes(features, batch, [proposals])
    (found,) = branch.detect_boxes(features, batch, [proposals])
    found = found.select(found.scores > network.fusion.settings.score_threshold)
    boxes = scored.boxes.movedim(1, 0)[found.thing_indices]
    rows = (boxes - found.require_boxes()[:, None]).abs().sum(2).argmin(1)
    return {
        "proposals": len(proposals),
        "finest_proposals": int(is_finest.sum()),
        "objects": len(found),
        "finest_objects": int(is_finest[rows].sum()),
    }


def multiply_adds(predictor: Predictor, image: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        predictor(image.permute(1, 2, 0).numpy())
    return counter.get_total_flops() // 2


def measure(predictor: Predictor, size: tuple[int, int], num_scenes: int) -> dict[str, Any]:
    """Every way on the same scenes, as JSON values.

    Args:
        predictor: of a two-stage network for Cityscapes, on the CPU.
        size: (height, width) of the scenes.
        num_scenes: the first of the validation scenes.
    """
    network, branch = branch_of(predictor)
    counts: dict[str, list[PQCounts]] = {way: [] for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    starts: list[dict[str, int]] = []
    work = {}
    first = torch.from_numpy(draw_street_scene(0, "val", 0, size).image).permute(2, 0, 1)
    for way, step in WAYS.items():
        with patch.object(branch, "score_anchors", partial(scored_anchors, branch, step)):
            work[way] = multiply_adds(predictor, first)
    for number, scene in enumerate(drawn_scenes("val", num_scenes, size)):
        starts.append(of_finest_level(predictor, torch.from_numpy(scene.image).permute(2, 0, 1)))
        for way, step in WAYS.items():
            with patch.object(branch, "score_anchors", partial(scored_anchors, branch, step)):
                start = time.process_time()
                found = predictor(scene.image)
                seconds[way].append(time.process_time() - start)
            counts[way].append(scene_counts(scene, found, network.label_space))
        print(f"scene {number + 1} of {num_scenes}", flush=True)
    return {
        "ways": {
            way: {
                **pq_scores(counts[way], network.label_space),
                "multiply_adds": work[way],
                "seconds": statistics.median(seconds[way]),
                "ratio": statistics.median(
                    own / all_cells
                    for own, all_cells in zip(seconds[way], seconds["all cells"], strict=True)
                ),
            }
            for way in WAYS
        },
        "starts": {key: sum(row[key] for row in starts) for key in starts[0]},
        "scenes": num_scenes,
        "size": list(size),
    }


def section(result: dict[str, Any]) -> str:
    """The table and the conditions it was measured under."""
    lines = [
        "| anchors on the finest level | PQ | PQ things | PQ stuff | G multiply-adds "
        "| s of processor time | of all cells |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for way, row in result["ways"].items():
        lines.append(
            f"| {way} | {pq_cells(row)} | {row['multiply_adds'] / 1e9:.1f} | {row['seconds']:.2f} "
            f"| {row['ratio']:.2f} |"
        )
    starts, (height, width) = result["starts"], result["size"]
    shares = {
        name: starts[f"finest_{name}"] / max(1, starts[name]) for name in ("proposals", "objects")
    }
    text = (
        f"The shipped checkpoint on the first {result['scenes']} validation scenes of "
        f"{height}x{width}, without training anew. Of its proposals {shares['proposals']:.0%} "
        f"start on the finest level, of the objects in its maps {shares['objects']:.0%}. The "
        "pyramid's convolution of that level cannot be left out: the semantic branch, small boxes "
        f"and the points of masks read it. {result['threads']} thread"
        f"{'s' * (result['threads'] > 1)} of {result['cpu']}, torch {result['torch']}, medians of "
        f"ways that take turns; load of the machine {result['load']:.1f}. "
        "`tools/measure/finest_level.py`."
    )
    return "\n".join([*lines, "", text])


def main(arguments: Sequence[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--size", type=parse_size, default=(256, 512), metavar="HxW")
    parser.add_argument("--scenes", type=int, default=40, help="default: 40")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    result = {
        **measure(load_predictor(options.weights, "cpu"), options.size, options.scenes),
        "threads": options.threads,
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "load": os.getloadavg()[0],
    }
    print(section(result))
    if options.dry_run:
        print(json.dumps(result, indent=2))
        return 0
    page = replaced(PAGE.read_text(encoding="utf-8"), section(result), MARKS)
    write_json(STORED_RESULT, result)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
