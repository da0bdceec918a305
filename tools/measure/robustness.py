"""Damages every kind of input, kills every pipeline, and stores what became of it.

    python tools/measure/robustness.py
    python tools/measure/robustness.py --seed 100000 --share 0.1 --store ""

The cases are those of tests/robustness/, at full size: some 15 minutes of one core. Everything
follows from the seed. The counts go to docs/results/robustness.json and docs/robustness.md.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

# Run from a clone: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from seamless_pr.files import write_json, write_whole
from tests.robustness.campaign import PARTS, clean_process, run_part, working_folder
from tests.robustness.kills import PIPELINES, kill_pipeline
from tests.robustness.large_files import LARGE_CASES, run_large
from tests.robustness.sandbox import FAILURES, REFUSED, RIGHT

ROOT = Path(__file__).resolve().parents[2]
STORED_RESULT = ROOT / "docs" / "results" / "robustness.json"
PAGE = ROOT / "docs" / "robustness.md"
NUM_MOMENTS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the first case")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases (default: all)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="kinds or pipelines")
    parser.add_argument("--store", default=str(STORED_RESULT), help="result; empty: nowhere")
    options = parser.parse_args(arguments)
    with working_folder() as folder, clean_process() as process:
        result = measure(process, folder, options)
    if options.store:
        write_json(options.store, result)
        write_whole(PAGE, page(result).encode())
    failures = [failure for row in (*result["inputs"], *result["kills"], *result["large"])
                for failure in row["failures"]]  # fmt: skip
    for failure in failures:
        print(failure)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


def measure(process: Executor, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, in forks of a clean process; prints a line for each kind."""

    def is_wanted(name: str) -> bool:
        return not options.only or name in options.only

    start = process.submit(_processor_seconds).result()
    inputs, kills, large = [], [], []
    for part in PARTS:
        if is_wanted(part.name):
            count = max(1, round(options.share * part.num_full))
            place = folder / part.name.replace(" ", "_")
            tally = process.submit(run_part, part, place, count, options.seed).result()
            inputs.append(
                {
                    "name": part.name,
                    "count": tally.count,
                    "passed_header": tally.num_passed_header,
                    "outcomes": {
                        name: tally.outcomes[name] for name in (RIGHT, REFUSED, *FAILURES)
                    },
                    "highest_memory": tally.highest_memory,
                    "failures": tally.failures,
                }
            )
            _say(part.name, inputs[-1])
    for name in PIPELINES:
        if is_wanted(name):
            moments = max(1, round(options.share * NUM_MOMENTS))
            killed = process.submit(
                kill_pipeline,
                name,
                folder / f"kills_{name}",
                every_rename=max(1, round(1 / options.share)),
                num_moments=moments,
                seed=options.seed,
            ).result()
            kills.append(
                {
                    "name": name,
                    "renames": killed.num_renames,
                    "moments": killed.num_moments,
                    "same_result": killed.outcomes["same result"],
                    "failures": killed.failures,
                }
            )
            _say(name, kills[-1])
    for index, case in enumerate(LARGE_CASES):
        if is_wanted("large"):
            large.append(process.submit(run_large, index, folder / "large").result())
            _say(case.name, large[-1])
    return {
        "seed": options.seed,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}",
        "processor_seconds": round(process.submit(_processor_seconds).result() - start),
        "inputs": inputs,
        "kills": kills,
        "large": large,
    }


def _processor_seconds() -> float:
    """Of this process, whose forks run the cases, and of those."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _say(name: str, row: dict[str, Any]) -> None:
    shown = {key: value for key, value in row.items() if key not in ("name", "failures")}
    print(f"{name}: {shown}, {len(row['failures'])} failures", flush=True)


def page(result: dict[str, Any]) -> str:
    """docs/robustness.md."""
    num_inputs = sum(row["count"] for row in result["inputs"])
    num_kills = sum(row["renames"] + row["moments"] for row in result["kills"])
    lines = [
        "# Robustness",
        "",
        "Generated by `python tools/measure/robustness.py`; do not edit.",
        "",
        f"{num_inputs} damaged inputs, {num_kills} kills and {len(result['large'])} small files "
        "that claim to be huge, all of which follow from the seed "
        f"{result['seed']} ({result['machine']}).",
        "A damaged input must give the right result, or an error of one line that names the file; "
        "never a traceback, a hang of",
        "30 s of a processor, 2 GB of memory, a file outside of the output, or executed code. A "
        "smaller part runs with the tests",
        "(`tests/robustness/`).",
        "",
        "| input | cases | behind the header | right | refused | failures | highest memory, GB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["inputs"]:
        share = row["passed_header"] / row["count"]
        lines.append(
            f"| {row['name']} | {row['count']} | {share:.0%} | {row['outcomes'][RIGHT]} | "
            f"{row['outcomes'][REFUSED]} | {len(row['failures'])} | "
            f"{row['highest_memory'] / 1e9:.2f} |"
        )
    lines += [
        "",
        "SIGKILL before every rename and at seeded moments, then the same command again: it must "
        "end with the same files, of the",
        "same content, as an undisturbed run, and leave nothing else behind.",
        "",
        "| pipeline | renames | moments | same result | failures |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in result["kills"]:
        lines.append(
            f"| {row['name']} | {row['renames']} | {row['moments']} | {row['same_result']} | "
            f"{len(row['failures'])} |"
        )
    lines += [
        "",
        "Small files that claim as much as their formats allow, each in a process of its own.",
        "",
        "| file | bytes | read by | outcome | memory, GB |",
        "|---|---:|---|---|---:|",
    ]
    for row in result["large"]:
        lines.append(
            f"| {row['name']} | {row['bytes']} | {row['stage']} | {row['outcome']} | "
            f"{row['memory'] / 1e9:.2f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
