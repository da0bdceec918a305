"""From queries to a panoptic map: this package against the image processor of transformers.

The same random outputs of a MaskFormer, 100 queries on an image of 1024x2048, on the CPU: time
(medians of runs that take turns) and the memory that a fresh process needs beyond its start.

example, some minutes on one core:
  nice python tools/measure/benchmark_postprocessing.py --write docs/benchmarks.md \\
      --json docs/results/postprocessing.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import transformers
from torch import Tensor
from transformers.models.maskformer.modeling_maskformer import (
    MaskFormerForInstanceSegmentationOutput,
)

from seamless_pr.files import write_json
from seamless_pr.models.fusion.by_query import QueryFusion
from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.query_settings import QueryFusionSettings
from tools.measure.results_table import markdown_table, replace_between_marks

BEGIN, END = "<!-- postprocessing -->", "<!-- /postprocessing -->"
SIZE, STRIDE = (1024, 2048), 4
NUM_QUERIES, NUM_STUFF, NUM_CLASSES = 100, 53, 133
# Queries that pass the score threshold: as many as a street image has segments, and all.
KEPT = (25, 100)
OBJECT_THRESHOLD, OVERLAP_THRESHOLD = 0.8, 0.8
CONFIDENCE = 9.0
# Of the discs, in heights of the image.
RADIUS = 0.12
BYTES_OF_KIB = 1024

Labelling = Callable[[], Any]


def outputs(size: tuple[int, int], kept: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Class logits [Q, K + 1] and mask logits [Q, h, w] of queries that see discs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (NUM_QUERIES,), generator=generator)
    labels[kept:] = NUM_CLASSES
    classes = torch.full((NUM_QUERIES, NUM_CLASSES + 1), -CONFIDENCE)
    classes[torch.arange(NUM_QUERIES), labels] = CONFIDENCE
    height, width = size[0] // STRIDE, size[1] // STRIDE
    centres = torch.rand(NUM_QUERIES, 2, generator=generator) * torch.tensor([height, width])
    rows, columns = (
        torch.arange(length)[None] - centre[:, None]
        for length, centre in zip((height, width), centres.t())
    )
    distances = (rows[:, :, None].square() + columns[:, None].square()).sqrt()
    return classes, CONFIDENCE * (1 - distances / (RADIUS * height))


def ours(size: tuple[int, int], kept: int) -> Labelling:
    """Our rule on these outputs."""
    categories = (
        Category(number, str(number), number >= NUM_STUFF, (0, 0, 0))
        for number in range(NUM_CLASSES)
    )
    settings = QueryFusionSettings(
        object_threshold=OBJECT_THRESHOLD, overlap_threshold=OVERLAP_THRESHOLD
    )
    fusion = QueryFusion(LabelSpace("coco", tuple(categories)), settings)
    classes, masks = outputs(size, kept)
    return lambda: fusion.panoptic(classes, masks, FrameSizes(size, size, size))


def theirs(size: tuple[int, int], kept: int) -> Labelling:
    """The panoptic post-processing of transformers on the same outputs."""
    classes, masks = outputs(size, kept)
    found = MaskFormerForInstanceSegmentationOutput(
        class_queries_logits=classes[None], masks_queries_logits=masks[None]
    )
    processor = transformers.MaskFormerImageProcessor()
    stuff = set(range(NUM_STUFF))
    return lambda: processor.post_process_panoptic_segmentation(
        found,
        threshold=OBJECT_THRESHOLD,
        overlap_mask_area_threshold=OVERLAP_THRESHOLD,
        label_ids_to_fuse=stuff,
        target_sizes=[size],
    )


PROGRAMS: dict[str, Callable[[tuple[int, int], int], Labelling]] = {
    "seamless_pr": ours,
    "transformers": theirs,
}


@torch.inference_mode()
def seconds(size: tuple[int, int], kept: int, rounds: int) -> dict[str, list[float]]:
    """Program -> time of each round, the programs taking turns after a round of warming up."""
    labellings = {name: make(size, kept) for name, make in PROGRAMS.items()}
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for number in range(rounds + 1):
        for name, label in labellings.items():
            start = time.process_time()
            label()
            if number:
                times[name].append(time.process_time() - start)
    return times


@torch.inference_mode()
def peak_bytes(program: str, size: tuple[int, int], kept: int) -> int:
    """What this process needs for one image beyond what it had before."""
    label = PROGRAMS[program](size, kept)
    PROGRAMS[program]((64, 64), 1)()  # Imports and libraries.
    # From here on the highest water mark counts anew.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak()
    label()
    return _peak() - before


def _peak() -> int:
    """The most memory that this process has had, in bytes; Linux."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (mark,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(mark.split()[1]) * BYTES_OF_KIB


def peak_bytes_of_new_process(program: str, size: tuple[int, int], kept: int) -> int:
    command = [sys.executable, __file__, "--peak", program, str(kept), "--size", *map(str, size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


def measure(size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """All numbers as JSON values."""
    cases = {}
    for kept in KEPT:
        times = seconds(size, kept, rounds)
        cases[str(kept)] = {
            name: {
                "seconds": times[name],
                "peak_bytes": peak_bytes_of_new_process(name, size, kept),
            }
            for name in PROGRAMS
        }
    return {
        "settings": {
            "size": list(size),
            "queries": NUM_QUERIES,
            "classes": NUM_CLASSES,
            "rounds": rounds,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "processor": platform.processor() or platform.machine(),
        },
        "kept": cases,
    }


def table(values: dict[str, Any]) -> str:
    """A row per number of kept queries; Markdown."""
    rows = [["queries above the threshold", *PROGRAMS, "ratio", "memory of both, MB"]]
    for kept, programs in values["kept"].items():
        medians = [statistics.median(programs[name]["seconds"]) for name in PROGRAMS]
        pairs = zip(*(programs[name]["seconds"] for name in PROGRAMS), strict=True)
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        memory = " / ".join(f"{programs[name]['peak_bytes'] / 1e6:.0f}" for name in PROGRAMS)
        rows.append([kept, *(f"{median:.2f} s" for median in medians), f"{ratio:.1f}", memory])
    return markdown_table(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--size", type=int, nargs=2, default=SIZE, metavar=("H", "W"), help="of the image")
    add("--rounds", type=int, default=7, help="of each program (default: 7)")
    add("--write", type=Path, metavar="MD", help=f"put the table between {BEGIN} and {END} there")
    add("--json", type=Path, help="write every number there")
    add("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = (options.size[0], options.size[1])
    if options.peak:
        print(peak_bytes(options.peak[0], size, int(options.peak[1])))
        return 0
    values = measure(size, options.rounds)
    print(json.dumps(values["settings"]), table(values), sep="\n")
    if options.json:
        write_json(options.json, values)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        page = replace_between_marks(page, table(values), BEGIN, END)
        options.write.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
