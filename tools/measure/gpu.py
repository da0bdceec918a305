"""Measures prediction and training on a GPU in one command, and writes that section of
docs/benchmarks.md.

examples:
  # on a machine with a GPU; at most 8 minutes
  python tools/measure/gpu.py

  # whether everything runs, on a processor at a tiny size; nothing is written
  python tools/measure/gpu.py --device cpu --size 64x128 --rounds 1 --dry-run

First all tests marked gpu run, then networks with random weights are timed, the most telling cases
first. What does not fit into the time is listed as left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from seamless_pr.files import write_json
from tools.measure.benchmark_inference import parse_size, replaced
from tools.measure.gpu_timing import (
    ARITHMETICS,
    WAYS,
    Case,
    free_memory,
    matrix_rate,
    measured_case,
    multiply_adds,
    random_network,
    stage_seconds,
    training_step,
)

ROOT = Path(__file__).resolve().parents[2]
STORED_RESULT = ROOT / "docs" / "results" / "gpu_benchmark.json"
PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = ("<!-- gpu benchmark -->", "<!-- /gpu benchmark -->")
NETWORKS = {
    "Seamless": "cityscapes/seamless_r50.yaml",
    "Seamless + PointRend": "cityscapes/seamless_pointrend_r50.yaml",
}
BATCH_SIZES = (1, 8)
NORMS = {"in-place ABN": "inplace_abn", "BatchNorm + LeakyReLU": "batch_norm"}
TRAINING_BATCH = 2
SIZE = (1024, 2048)
MATRIX_SIDE = 8192
# Where tests are marked gpu.
TESTS = ("tests/layers", "tests/models")
# Of the whole run, of the tests, and what must be left before a network is compiled.
LIMIT_SECONDS, TEST_SECONDS, COMPILING_SECONDS = 450.0, 150.0, 100.0


class Allowance:
    """The time of a run.

    Args:
        seconds: all of it.
        clock: gives seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        return self._end - self._clock()


def cases(device: torch.device) -> Iterator[Case]:
    """All that is wanted, the most telling first."""
    is_gpu = device.type == "cuda"
    ways = [way for way in ("CUDA graph", "eager", "compiled") if is_gpu or way != "CUDA graph"]
    assert set(ways) <= set(WAYS)
    arithmetics = [name for name in ("bf16", "fp32", "fp16") if is_gpu or name != "fp16"]
    wanted = itertools.product(ways, arithmetics, BATCH_SIZES, NETWORKS.values())
    for way, arithmetic, batch_size, config in wanted:
        yield Case(config, batch_size, way, arithmetic)


def tests_result(seconds: float) -> dict[str, Any]:
    """How the tests marked gpu end; they need pytest."""
    if find_spec("pytest") is None:
        return {"outcome": "not run: pip install pytest"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    start = time.monotonic()
    try:
        run = subprocess.run(
            [*command, *TESTS],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return {"outcome": f"stopped after {seconds:.0f} s"}
    lines = run.stdout.strip().splitlines() or run.stderr.strip().splitlines() or ["no output"]
    return {
        "outcome": lines[-1],
        "exit_code": run.returncode,
        "seconds": time.monotonic() - start,
        "failures": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
    }


def measure(
    device: torch.device,
    size: tuple[int, int],
    allowance: Allowance,
    *,
    rounds: int,
    overrides: Sequence[str] = (),
    matrix_side: int = MATRIX_SIDE,
) -> dict[str, Any]:
    """All numbers but the tests', as plain values.

    Args:
        device: where.
        size: (height, width) of the images.
        allowance: cases for which nothing is left are listed as left out.
        rounds: passes that count in each median.
        overrides: of all configs.
        matrix_side: of the product whose rate is the peak.
    """
    # What is called fp32 is fp32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    rates = {
        name: matrix_rate(name, device, matrix_side, rounds)
        for name in ARITHMETICS
        if device.type == "cuda" or name != "fp16"
    }
    networks = {
        (config, folded): random_network(config, device, overrides, folded=folded)
        for config in NETWORKS.values()
        for folded in (False, True)
    }
    work = {
        config: multiply_adds(networks[config, False], size, device) for config in NETWORKS.values()
    }
    stages = {
        config: stage_seconds(networks[config, True], size, device, "bf16", rounds=rounds)
        for config in NETWORKS.values()
    }
    training, predictions, left_out = [], [], []
    for norm in NORMS.values():
        training.append(
            training_step(
                norm,
                NETWORKS["Seamless"],
                size,
                device,
                batch_size=TRAINING_BATCH,
                overrides=overrides,
                rounds=rounds,
            )
        )
        free_memory(device)
    for case in cases(device):
        needed = COMPILING_SECONDS if case.way == "compiled" else 0.0
        if allowance.left() <= needed:
            left_out.append(list(astuple(case)))
            continue
        try:
            network = networks[case.config, case.arithmetic != "fp32"]
            found = measured_case(network, case, size, device, rounds=rounds)
        except (RuntimeError, ValueError) as error:
            found = {"case": list(astuple(case)), "error": str(error).splitlines()[0]}
        else:
            speed = found["images_per_second"] * work[case.config]
            found["share_of_peak"] = speed / rates[case.arithmetic]
        predictions.append(found)
        free_memory(device)
    return {
        "size": list(size),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "rounds": rounds,
        "matrix_rates": rates,
        "multiply_adds": work,
        "stage_seconds": stages,
        "training": training,
        "predictions": predictions,
        "left_out": left_out,
    }


def section(result: dict[str, Any]) -> str:
    """The tables and the conditions they were measured under."""
    names = {config: name for name, config in NETWORKS.items()}
    height, width = result["size"]
    lines = [
        "| network | images at a time | way | arithmetic | images/s | of the peak | GB |",
        "|---|---:|---|---|---:|---:|---:|",
    ]
    for row in result["predictions"]:
        if "error" in row:
            config, *others = row["case"]
            lines.append(f"| {names[config]} | {' | '.join(map(str, others))} | failed | | |")
            continue
        lines.append(
            f"| {names[row['config']]} | {row['batch_size']} | {row['way']} | {row['arithmetic']} "
            f"| {row['images_per_second']:.1f} | {row['share_of_peak']:.0%} "
            f"| {_gigabytes(row['peak_bytes'])} |"
        )
    stages = next(iter(result["stage_seconds"].values()))
    lines += [
        "",
        f"| ms of one image, eager, bf16 | {' | '.join(stages)} |",
        "|---|" + "---:|" * len(stages),
    ]
    for config, seconds in result["stage_seconds"].items():
        cells = " | ".join(f"{1000 * value:.1f}" for value in seconds.values())
        lines.append(f"| {names[config]} | {cells} |")
    lines += ["", "| training step | images | s | GB |", "|---|---:|---:|---:|"]
    norms = {kind: name for name, kind in NORMS.items()}
    for row in result["training"]:
        lines.append(
            f"| {norms[row['norm']]} | {row['batch_size']} | {row['seconds']:.3f} "
            f"| {_gigabytes(row['peak_bytes'])} |"
        )
    rates = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in result["matrix_rates"].items())
    text = (
        f"{height}x{width} on {result['device']}, torch {result['torch']}, medians of "
        f"{result['rounds']} passes, from pixels to maps in the memory of the host. The peak is "
        f"that of a product of large matrices in the same run, in T multiply-adds a second: "
        f"{rates}; fp32 without TF32; in 16 bits with folded norms. GB: the most at a time, beyond "
        f"the weights of a predicting network. Tests marked gpu: {result['tests']['outcome']}."
    )
    if result["left_out"]:
        text += f" Left out for want of time: {len(result['left_out'])} cases."
    return "\n".join([*lines, "", text])


def _gigabytes(num_bytes: int | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / 1e9:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--size", type=parse_size, default=SIZE, metavar="HxW")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=LIMIT_SECONDS, help="of the whole run")
    parser.add_argument("--matrix-side", type=int, default=MATRIX_SIDE)
    parser.add_argument("--output", type=Path, default=STORED_RESULT, help="JSON of the result")
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of all configs")
    options = parser.parse_args(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu with a small --size shows whether everything runs")
    allowance = Allowance(options.seconds)
    tests = tests_result(min(TEST_SECONDS, options.seconds))
    result = measure(
        options.device,
        options.size,
        allowance,
        rounds=options.rounds,
        overrides=options.overrides,
        matrix_side=options.matrix_side,
    )
    result["tests"] = tests
    print(section(result))
    if options.dry_run:
        print(json.dumps(result, indent=2))
        return 0
    write_json(options.output, result)
    if options.output == STORED_RESULT:
        page = replaced(PAGE.read_text(encoding="utf-8"), section(result), MARKS)
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
