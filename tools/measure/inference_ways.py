"""Measures the ways in which a processor can run one network, and writes that table of
docs/benchmarks.md.

examples:
  # the published network at 1024x2048 on two threads, which nobody else should use; 10 minutes
  python tools/measure/inference_ways.py --threads 2

  # a quick look at a small size; nothing is written
  python tools/measure/inference_ways.py --size 128x256 --rounds 1 --dry-run

Each time stands beside the time that the multiply-adds of the network would take at the rate of a
3x3 convolution of 256 channels in the same arithmetic and layout, measured just before each pass:
a shared machine is not as fast in one minute as in the next. Weights are random, so that there are
always 1000 proposals and 100 masks.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seamless_pr.build.predictor import fold_predictor_norms
from seamless_pr.files import write_json
from seamless_pr.inference.cpu_memory import keep_freed_memory
from seamless_pr.inference.exported import compile_program, exported_program
from seamless_pr.models.instances.rpn import RPNOutput
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.ops.fixed_shapes import fixed_shapes
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from tools.measure.benchmark_inference import (
    PAGE,
    REFERENCE_SIZE,
    convolution_rate,
    cpu_name,
    parse_size,
    random_network,
    replaced,
    two_branches,
)

ROOT = Path(__file__).resolve().parents[2]
STORED_RESULT = ROOT / "docs" / "results" / "inference_ways.json"
MARKS = ("<!-- inference ways -->", "<!-- /inference ways -->")
SINGLE, HALF = "fp32", "bf16"
DTYPES = {SINGLE: torch.float32, HALF: torch.bfloat16}
# Of the convolution, before each pass; the median counts.
RATE_ROUNDS = 5
# Modes of `convolution_rate`.
CONTIGUOUS, SINGLE_RATE, HALF_RATE = "contiguous", "channels_last", "channels_last, bf16"
EAGER, FOLDED, COMPILED = "eager", "norms folded", "compiled"


class Way(NamedTuple):
    """A row: arithmetic, how it runs, images in a pass, and whether channels are innermost."""

    arithmetic: str
    how: str
    images: int = 1
    channels_last: bool = True

    @property
    def rate(self) -> str:
        if self.arithmetic == HALF:
            return HALF_RATE
        return SINGLE_RATE if self.channels_last else CONTIGUOUS

    def __str__(self) -> str:
        layout = "" if self.channels_last else ", contiguous"
        return f"{self.arithmetic}, {self.how}{layout}"


WAYS = (
    Way(SINGLE, EAGER, channels_last=False),
    *(Way(arithmetic, how) for how in (EAGER, FOLDED, COMPILED) for arithmetic in DTYPES),
    Way(SINGLE, EAGER, images=2),
    Way(HALF, FOLDED, images=2),
)


class DensePart(nn.Module):
    """All that has fixed shapes by itself: trunk, proposal head and semantic head.

    forward: [N, 3, H, W] uint8 -> levels, logits and deltas of anchors at each, semantic logits.
    """

    def __init__(self, network: TwoBranchNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        branch, semantics = two_branches(self.network)
        half = self.dtype != torch.float32
        with fixed_shapes(), torch.autocast("cpu", self.dtype, half, cache_enabled=False):
            batch = image_batch(pixels)
            features = self.network.features(batch)
            output = branch.rpn_head(features.levels)
            logits = semantics.logits(features, batch.padded_size)
        return (*features.levels, *output.objectness_logits, *output.box_deltas, logits)


def image_batch(pixels: Tensor) -> ImageBatch:
    size = (pixels.shape[2], pixels.shape[3])
    return ImageBatch(pixels, (size,) * len(pixels))


Pass = Callable[[], Tensor]


def eager_pass(network: TwoBranchNet, pixels: Tensor, dtype: torch.dtype) -> Pass:
    """One prediction before fusion; returns the semantic logits."""

    def run() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", dtype, dtype != torch.float32):
            logits = network.outputs(image_batch(pixels)).semantic_logits
        assert logits is not None
        return logits

    return run


def compiled_pass(network: TwoBranchNet, pixels: Tensor, dtype: torch.dtype, folder: Path) -> Pass:
    """The dense part from AOTInductor, with weights as constants; boxes and masks as ever."""
    branch, semantics = two_branches(network)
    path = folder / f"{dtype}.pt2".replace("torch.", "")
    compile_program(exported_program(DensePart(network, dtype), pixels), path)
    dense = torch._inductor.aoti_load_package(str(path))
    num_levels = len(network.trunk.strides)
    eager = eager_pass(network, pixels, dtype)

    def run() -> Tensor:
        with torch.inference_mode():
            *maps, logits = dense(pixels)
        levels, scores, deltas = (
            tuple(maps[start : start + num_levels]) for start in range(0, len(maps), num_levels)
        )
        features = Features(levels, network.trunk.strides)
        with ExitStack() as known:
            for owner, name, value in (
                (network, "features", features),
                (branch.rpn_head, "forward", RPNOutput(scores, deltas)),
                (semantics, "logits", logits),
            ):
                known.enter_context(patch.object(owner, name, return_value=value))
            return eager()

    return run


def multiply_adds(network: TwoBranchNet, pixels: Tensor) -> int:
    """Of products and convolutions of one image."""
    with FlopCounterMode(display=False) as counter:
        eager_pass(network, pixels, torch.float32)()
    return counter.get_total_flops() // 2


@torch.no_grad()
def measure(
    network: TwoBranchNet, size: tuple[int, int], rounds: int, ways: Sequence[Way] = WAYS
) -> dict[str, Any]:
    """Medians over `rounds` after one pass that does not count.

    Args:
        network: in evaluation mode.
        size: (height, width) of the images.
        rounds: passes that count.
        ways: the first gives the logits that the others are compared with.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, *size), generator=generator, dtype=torch.uint8)
    work = multiply_adds(network, image)
    rates: dict[str, list[float]] = {}
    folded = copy.deepcopy(network)
    fold_predictor_norms(folded)
    rows, exact = [], None
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            net = folded if way.how == FOLDED else network
            layout = torch.channels_last if way.channels_last else torch.contiguous_format
            net.to(memory_format=layout)  # type: ignore[call-overload]
            pixels, dtype = (
                image.expand(way.images, -1, -1, -1).contiguous(),
                DTYPES[way.arithmetic],
            )
            start = time.perf_counter()
            if way.how == COMPILED:
                run = compiled_pass(net, pixels, dtype, Path(folder))
            else:
                run = eager_pass(net, pixels, dtype)
            preparing, logits = time.perf_counter() - start, run().float()[:1]
            exact = logits if exact is None else exact
            seconds, ratios = [], []
            for _ in range(rounds):
                rate = convolution_rate(way.rate, RATE_ROUNDS)
                seconds.append(timed(run) / way.images)
                ratios.append(seconds[-1] * rate / work)
                rates.setdefault(way.rate, []).append(rate)
            rows.append(
                {
                    "way": str(way),
                    "images": way.images,
                    "seconds": statistics.median(seconds),
                    "range": [min(seconds), max(seconds)],
                    "times_convolutions": statistics.median(ratios),
                    "times_range": [min(ratios), max(ratios)],
                    "logit_difference": float((logits - exact).abs().max() / exact.abs().max()),
                    "preparing_seconds": preparing,
                }
            )
            print(rows[-1], flush=True)
    return {"multiply_adds": work, "rates": rates, "rows": rows}


def timed(run: Pass) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def section(result: dict[str, Any]) -> str:
    """The table and the conditions it was measured under."""
    lines = [
        "| way | images at a time | s an image | times convolutions alone | logits differ by |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['way']} | {row['images']} | {row['seconds']:.2f} "
            f"({row['range'][0]:.2f} to {row['range'][1]:.2f}) | {row['times_convolutions']:.2f} "
            f"({row['times_range'][0]:.2f} to {row['times_range'][1]:.2f}) "
            f"| {row['logit_difference']:.1e} |"
        )
    height, width = result["size"]
    rates = ", ".join(
        f"{min(found) / 1e9:.0f} to {max(found) / 1e9:.0f} ({mode})"
        for mode, found in result["rates"].items()
    )
    preparing = max(row["preparing_seconds"] for row in result["rows"])
    text = (
        f"{height}x{width}, the network without fusion, {result['multiply_adds'] / 1e9:.0f} G "
        f"multiply-adds; a 3x3 convolution of 256 channels ran at {rates} G a second. Compiled: "
        "trunk, proposal head and semantic head by AOTInductor with weights as constants, in "
        f"{preparing:.0f} s. Logits: largest difference of the semantic ones from those of the "
        "first row, as a share of their maximum. "
        f"{result['threads']} threads of {result['cpu']}, torch {result['torch']}, medians (range) "
        f"of {result['rounds']} rounds; load of the machine {result['load']:.1f}."
    )
    return "\n".join([*lines, "", text])


def main(arguments: Sequence[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=parse_size, default=REFERENCE_SIZE, metavar="HxW")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    # As pipelines/predict.py does.
    keep_freed_memory()
    result = {
        **measure(random_network(), options.size, options.rounds),
        "size": list(options.size),
        "threads": options.threads,
        "rounds": options.rounds,
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "load": os.getloadavg()[0],
    }
    print(section(result))
    if options.dry_run:
        print(json.dumps(result, indent=2))
        return 0
    write_json(STORED_RESULT, result)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(page, section(result), MARKS), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
