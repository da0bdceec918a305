"""Times a whole forward pass part by part and writes the table of docs/benchmarks.md.

examples:
  # the published network at 1024x2048 on two threads
  python tools/measure/benchmark_inference.py --threads 2

  # PointRend's mask head alone; the rest of the page stays
  python tools/measure/benchmark_inference.py --threads 2 --only-masks

  # a quick look at a small size; nothing is written
  python tools/measure/benchmark_inference.py --size 256x512 --rounds 1 --dry-run

Weights are random, so that there are always 1000 proposals and 100 masks. Parts are timed one after
the other on each other's results; the fusion gets 60 instances above the score threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.files import write_json
from seamless_pr.inference.cpu_memory import keep_freed_memory
from seamless_pr.layers.abn import ABN
from seamless_pr.layers.mini_dl import MiniDL
from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.models.instances.two_stage import TwoStageBranch
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.models.semantics.pixels import PixelSemantics
from seamless_pr.ops.masks import BoxMasks
from seamless_pr.ops.window_mean import window_mean
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from tools.measure.mask_refinement_timing import mask_section, measure_mask_heads

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "cityscapes" / "seamless_r50.yaml"
STORED_RESULT = ROOT / "docs" / "results" / "inference_benchmark.json"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- inference benchmark -->", "<!-- /inference benchmark -->"
# Name -> memory format and arithmetic, as the fidelity tests, predict.py and predict.py --amp bf16.
MODES = {
    "contiguous": (torch.contiguous_format, torch.float32),
    "channels_last": (torch.channels_last, torch.float32),
    "channels_last, bf16": (torch.channels_last, torch.bfloat16),
}
NUM_FUSED = 60
MASK_SIDE = 28
# A drawn semantic map has regions of this many stride-4 cells.
REGION_CELLS = 16

BACKBONE, PYRAMID, PROPOSALS = "backbone", "pyramid", "proposals"
ROIS, SEMANTICS, POOLING = "boxes and masks", "semantics without pooling", "wide pooling"
NETWORK, FUSION = "network", f"fusion of {NUM_FUSED} instances"
# Seconds of the released code at 1024x2048 on two threads of another two-core machine.
REFERENCE = {
    BACKBONE: 3.6,
    PYRAMID: 1.10,
    PROPOSALS: 1.04,
    ROIS: 1.51,
    SEMANTICS: 1.5,
    POOLING: 29.8,
    NETWORK: 38.9,
    FUSION: 1.07,
}
REFERENCE_SIZE = (1024, 2048)
# At that size; docs/model_size.md.
NETWORK_GIGA = 579


@dataclass(frozen=True)
class Pass:
    """Seconds of each part of one forward pass, and what it computed for comparisons."""

    seconds: dict[str, float]
    semantic_logits: Tensor
    num_proposals: int
    num_masks: int


def timed(seconds: dict[str, float], part: str, run: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = run()
    seconds[part] = time.perf_counter() - start
    return result


def two_branches(net: TwoBranchNet) -> tuple[TwoStageBranch, PixelSemantics]:
    """The branches of the published network."""
    assert isinstance(net.instances, TwoStageBranch)
    assert isinstance(net.semantics, PixelSemantics)
    return net.instances, net.semantics


@torch.inference_mode()
def forward_pass(net: TwoBranchNet, batch: ImageBatch, mode: str) -> Pass:
    """One pass in the order of `TwoBranchNet.predict`, with a clock between the parts."""
    layout, dtype = MODES[mode]
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        return _forward_pass(net, batch, layout)


def _forward_pass(net: TwoBranchNet, batch: ImageBatch, layout: torch.memory_format) -> Pass:
    branch, semantics = two_branches(net)
    seconds: dict[str, float] = {}
    images = net.trunk.normalization(batch).contiguous(memory_format=layout)
    stages = timed(seconds, BACKBONE, lambda: net.trunk.backbone(images))
    features = timed(seconds, PYRAMID, lambda: net.trunk.features(stages))
    boxes = timed(seconds, PROPOSALS, lambda: branch.propose(features, batch))

    def instances() -> list[Instances]:
        return branch.add_masks(features, batch, branch.detect_boxes(features, batch, boxes))

    found = timed(seconds, ROIS, instances)
    logits = timed(seconds, SEMANTICS, lambda: semantics.logits(features, batch.padded_size))
    modules = [m for m in semantics.modules() if isinstance(m, MiniDL)]
    levels = features.levels
    pooled = [mini_dl.conv_pooled(level) for mini_dl, level in zip(modules, levels)]
    size = modules[0].pooling_size
    timed(seconds, POOLING, lambda: [window_mean(level, size) for level in pooled])
    seconds[NETWORK] = sum(value for part, value in seconds.items() if part != POOLING)
    seconds[SEMANTICS] -= seconds[POOLING]
    return Pass(seconds, logits, sum(map(len, boxes)), sum(map(len, found)))


@torch.inference_mode()
def fusion_seconds(net: TwoBranchNet, size: tuple[int, int], seed: int = 0) -> float:
    """From semantic logits at stride 4 and `NUM_FUSED` masks to the finished map."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    map_size = (height // net.trunk.strides[0], width // net.trunk.strides[0])
    regions = torch.randn(
        1,
        net.label_space.num_classes,
        *(cells // REGION_CELLS for cells in map_size),
        generator=generator,
    )
    logits = F.interpolate(regions, size=map_size, mode="bilinear")[0]
    corners = torch.rand(NUM_FUSED, 2, generator=generator) * torch.tensor([width, height])
    sides = (torch.rand(NUM_FUSED, 2, generator=generator) * 0.25 + 0.02) * height
    blobs = torch.randn(NUM_FUSED, 1, 4, 4, generator=generator) + 0.5
    boxes = torch.cat([corners - sides / 2, corners + sides / 2], dim=1)
    found = Instances(
        torch.rand(NUM_FUSED, generator=generator) * 0.5 + 0.5,
        torch.randint(net.label_space.num_things, (NUM_FUSED,), generator=generator),
        boxes,
        BoxMasks(F.interpolate(blobs, size=MASK_SIDE, mode="bicubic")[:, 0], boxes),
    )
    start = time.perf_counter()
    net.fusion(logits, found, FrameSizes(size, size, size))
    return time.perf_counter() - start


@torch.inference_mode()
def convolution_rate(mode: str, rounds: int) -> float:
    """Multiply-adds per second of a 3x3 convolution of 256 channels: what the machine can do."""
    layout, dtype = MODES[mode]
    channels, height, width = 256, 128, 256
    convolution = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    convolution = convolution.to(memory_format=layout)  # type: ignore[call-overload]
    features = torch.randn(1, channels, height, width).contiguous(memory_format=layout)
    seconds = []
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        for _ in range(rounds + 1):
            start = time.perf_counter()
            convolution(features)
            seconds.append(time.perf_counter() - start)
    return convolution.weight.numel() * height * width / statistics.median(seconds[1:])


def measure(net: TwoBranchNet, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Medians over `rounds` after one unmeasured pass, and how far the modes are apart."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
    batch = ImageBatch.from_images([image])
    seconds: dict[str, dict[str, float]] = {}
    spread: dict[str, list[float]] = {}
    last: dict[str, Pass] = {}
    for mode, (layout, _) in MODES.items():
        net.to(memory_format=layout)  # type: ignore[call-overload]
        passes = [forward_pass(net, batch, mode) for _ in range(rounds + 1)][1:]
        seconds[mode] = {
            part: statistics.median(one.seconds[part] for one in passes)
            for part in passes[0].seconds
        }
        totals = [one.seconds[NETWORK] for one in passes]
        spread[mode] = [min(totals), max(totals)]
        last[mode] = passes[-1]
    fusion = statistics.median([fusion_seconds(net, size) for _ in range(rounds + 2)][2:])
    plain, *others = (last[mode].semantic_logits.float() for mode in MODES)
    return {
        "seconds": {mode: {**parts, FUSION: fusion} for mode, parts in seconds.items()},
        "network_range": spread,
        "giga_multiply_adds_per_second": {
            mode: round(convolution_rate(mode, rounds) / 1e9, 1) for mode in MODES
        },
        "num_proposals": last["contiguous"].num_proposals,
        "num_masks": last["contiguous"].num_masks,
        "logit_difference": {
            mode: float((plain - other).abs().max() / plain.abs().max())
            for mode, other in zip(list(MODES)[1:], others)
        },
    }


def random_network() -> TwoBranchNet:
    """The published network in evaluation mode, with norms that keep activations in range."""
    torch.manual_seed(0)
    config = load_config(CONFIG)
    net = build_network(config.model, load_label_space(config.data.label_space)).train()
    assert isinstance(net, TwoBranchNet)
    with torch.no_grad():
        # One pass in training mode sets the running statistics of trunk and semantic branch.
        for module in net.modules():
            if isinstance(module, ABN):
                module.momentum = 1.0
        batch = ImageBatch.from_images([torch.randint(0, 256, (3, 128, 256)).byte()])
        branch, semantics = two_branches(net)
        features = net.trunk(batch)
        branch.rpn_head(features.levels)
        semantics.head(features.levels)
    return net.eval()


def section(result: dict[str, Any]) -> str:
    """The table and the conditions it was measured under."""
    parts = list(next(iter(result["seconds"].values())))
    order = [part for part in parts if part not in (NETWORK, FUSION)] + [NETWORK, FUSION]
    with_reference = tuple(result["size"]) == REFERENCE_SIZE
    lines = [
        f"| seconds | {' | '.join(result['seconds'])} |" + (" released code |" * with_reference),
        "|---|" + "---:|" * (len(result["seconds"]) + with_reference),
    ]
    for part in order:
        cells = [f"{values[part]:.2f}" for values in result["seconds"].values()]
        cells += [f"{REFERENCE[part]:.2f}"] * with_reference
        lines.append(f"| {part} | {' | '.join(cells)} |")
    ranges = [f"{low:.2f} to {high:.2f}" for low, high in result["network_range"].values()]
    rates = [f"{rate:.0f}" for rate in result["giga_multiply_adds_per_second"].values()]
    differences = [
        f"{difference:.1e} of their maximum ({mode})"
        for mode, difference in result["logit_difference"].items()
    ]
    height, width = result["size"]
    text = (
        f"{height}x{width}, {result['num_proposals']} proposals, {result['num_masks']} masks, "
        f"{result['threads']} threads of {result['cpu']}, torch {result['torch']}, median of "
        f"{result['rounds']} rounds (network: {', '.join(ranges)} s); load of the machine during "
        f"the run: {result['load']:.1f} (above the number of threads the times are too long). "
        f"Semantic logits differ from the contiguous ones by {' and '.join(differences)}; "
        "with these random weights that says little about a trained network, of which "
        "docs/results.md has the PQ in bf16. A 3x3 "
        f"convolution of 256 channels ran at {', '.join(rates)} G multiply-adds a second."
    )
    if with_reference:
        single = result["giga_multiply_adds_per_second"]["channels_last"]
        text += (
            f" The network has {NETWORK_GIGA} G of them, {NETWORK_GIGA / single:.1f} s at the "
            "single-precision rate of this machine; 4 s need 145 G a second, or bf16. The released "
            "code was timed on two threads of another two-core machine, whose convolutions ran at "
            "88 (contiguous) and 158 to 233 G a second (channels last); there detectron2's argmax, "
            "paste and combination of 60 instances took 0.56 s."
        )
    parts = ["\n".join([*lines, "", text])]
    if "mask_heads" in result:
        parts.append(mask_section(result["mask_heads"]))
    return "\n\n".join(parts)


def replaced(page: str, text: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The page with `text` between its marks.

    Raises:
        ValueError: the marks are missing.
    """
    first, last = marks
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"expected the lines {first} and {last} in the page; add them")
    return f"{before}{first}\n{text}\n{last}{after}"


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def parse_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, got '{text}'")
    return int(height), int(width)


def main(arguments: Sequence[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=parse_size, default=REFERENCE_SIZE, metavar="HxW")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only-masks", action="store_true", help="PointRend's mask head; the rest as stored"
    )
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    # As pipelines/predict.py does.
    keep_freed_memory()
    if options.only_masks:
        result = json.loads(STORED_RESULT.read_text(encoding="utf-8"))
    else:
        result = {
            **measure(random_network(), options.size, options.rounds),
            "size": list(options.size),
            "threads": options.threads,
            "rounds": options.rounds,
            "torch": torch.__version__,
            "cpu": cpu_name(),
            "load": os.getloadavg()[0],
        }
    result["mask_heads"] = {
        **measure_mask_heads(options.threads, options.rounds),
        "giga_multiply_adds_per_second": round(
            convolution_rate("channels_last", options.rounds) / 1e9, 1
        ),
    }
    print(section(result))
    if options.dry_run:
        print(json.dumps(result, indent=2))
        return 0
    page = replaced(PAGE.read_text(encoding="utf-8"), section(result))
    write_json(STORED_RESULT, result)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
