"""Measures evaluators as people use them: whole fresh processes, from files to scores, on one core.

    pip install ".[bench]"
    python tools/measure/evaluation_processes.py

draws street scenes, deforms their ground truth into predictions, and lets each evaluator score the
same files in a process of its own, in turns: processor time and peak memory of the whole process,
and the time of a further pair (all files listed several times less all files once, over the
number of pairs between). Medians over the rounds; quotients are of one round each, whose processes
ran one after the other. All must agree in PQ. The result is added to those of other machines in
docs/results/, and docs/benchmarks.md shows the ranges over all of them. Evaluators that are not
installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median, quantiles
from typing import Any

# Run from a clone: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from seamless_pr.files import write_json
from tools.measure.benchmark_evaluation import PAGE, ROOT, categories, draw_pairs, update_section
from tools.measure.benchmark_inference import cpu_name

STORED_RESULT = ROOT / "docs" / "results" / "evaluation_processes.json"
MARK = "evaluation processes"
# Of the small and the large pairs, (height, width).
SIZES = ((512, 1024), (1024, 2048))
# So often the files are listed where the time of a further pair is measured: the difference must
# be large beside what two starts of Python differ by.
REPEATS = 4
# What a process runs; the arguments are the two JSON files and their PNG folders.
OURS = """
import json, sys
from seamless_pr.pipelines.evaluate import main
main(["--ground-truth", sys.argv[1], "--predictions", sys.argv[2],
      "--ground-truth-dir", sys.argv[3], "--predictions-dir", sys.argv[4],
      "--workers", "1", "--output", sys.argv[5]])
print(json.load(open(sys.argv[5] + "/evaluation.json"))["all"]["pq"])
"""
HOTCOCO = """
import sys
from hotcoco.panoptic import PanopticEval
evaluator = PanopticEval(sys.argv[1], sys.argv[2], gt_folder=sys.argv[3], pred_folder=sys.argv[4])
evaluator.evaluate()
print(evaluator.results()["All"]["pq"])
"""
VERNIER = """
import json, sys
from pathlib import Path
from vernier import panoptic
gt, pred = (json.load(open(path)) for path in sys.argv[1:3])
def read(side, folder):
    paths = {a["image_id"]: Path(folder, a["file_name"]) for a in side}
    maps = {image_id: panoptic.decode_label_map_png(path) for image_id, path in paths.items()}
    return maps, json.dumps({str(a["image_id"]): a["segments_info"] for a in side}).encode()
truth = panoptic.Dataset.from_arrays(
    *read(gt["annotations"], sys.argv[3]), json.dumps(gt["categories"]).encode())
found = panoptic.Predictions.from_arrays(*read(pred["annotations"], sys.argv[4]))
print(panoptic.Evaluator(parity_mode="strict").evaluate(truth, found, num_threads=1).pq)
"""
OFFICIAL = """
import contextlib, io, json, sys
from {module} import pq_compute_single_core
gt, pred = (json.load(open(path)) for path in sys.argv[1:3])
classes = {{c["id"]: c for c in gt["categories"]}}
of_image = {{a["image_id"]: a for a in pred["annotations"]}}
pairs = [(a, of_image[a["image_id"]]) for a in gt["annotations"]]
with contextlib.redirect_stdout(io.StringIO()):
    counts = pq_compute_single_core(0, pairs, sys.argv[3], sys.argv[4], classes)
print(counts.pq_average(classes, isthing=None)[0]["pq"])
"""
EVALUATORS = {
    "seamless_pr": OURS,
    "hotcoco": HOTCOCO,
    "vernier": VERNIER,
    "panopticapi": OFFICIAL.format(module="panopticapi.evaluation"),
    "cityscapesscripts": OFFICIAL.format(
        module="cityscapesscripts.evaluation.evalPanopticSemanticLabeling"
    ),
}


# The interpreter starts without what other packages have it do at every start, such as the search
# for packages that are installed to be edited; then the packages of this environment are told.
START = f"""
import os, sys
sys.path.append({sysconfig.get_paths()["purelib"]!r})
"""
# The largest memory is asked for inside: what the system reports of an ended process includes that
# of the one which started it.
PEAK = """
import re
print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read()).group(1))
"""


@dataclass(frozen=True)
class Run:
    """One process: seconds of processor time, peak MiB in memory, and the PQ that it found."""

    seconds: float
    mebibytes: float
    pq: float


def run_process(code: str, arguments: Sequence[str], core: int, bytecode: str) -> Run:
    """Runs Python code in a fresh process on one core; `bytecode` is a folder."""
    environment = {
        **os.environ,
        # As where packages are installed: Python keeps what it compiled.
        "PYTHONPYCACHEPREFIX": bytecode,
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    pinned = f"{START}os.sched_setaffinity(0, [{core}])\n{code}{PEAK}"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", pinned, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdout is not None
    text = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise RuntimeError(f"an evaluator failed with status {status}: {arguments[0]}")
    pq, kibibytes = text.split()[-2:]
    return Run(usage.ru_utime + usage.ru_stime, int(kibibytes) / 1024, float(pq))


@dataclass(frozen=True)
class Task:
    """Files to score: a folder with gt.json, pred.json, gt/ and pred/."""

    name: str
    folder: Path

    def arguments(self, output: Path) -> list[str]:
        """Of the code of an evaluator."""
        paths = [self.folder / "gt.json", self.folder / "pred.json"]
        return [*map(str, paths), str(self.folder / "gt"), str(self.folder / "pred"), str(output)]


def draw_task(folder: Path, num_pairs: int, size: tuple[int, int]) -> tuple[Task, Task]:
    """The task, and the same with each pair listed `REPEATS` times."""
    name = f"{num_pairs} pairs of {size[0]}x{size[1]}"
    once, often = folder / "once", folder / "often"
    pairs = draw_pairs(once, num_pairs, size)
    for target, repeats in ((once, 1), (often, REPEATS)):
        target.mkdir(exist_ok=True)
        listed = list(enumerate(pairs * repeats))
        shape = dict(zip(("height", "width"), size))
        images = [{"id": i, "file_name": pair.gt["file_name"], **shape} for i, pair in listed]
        for side in ("gt", "pred"):
            annotations = [{**getattr(pair, side), "image_id": i} for i, pair in listed]
            content = {"images": images, "annotations": annotations, "categories": categories()}
            write_json(target / f"{side}.json", content)
            if target == often and not (often / side).exists():
                (often / side).symlink_to(once / side, target_is_directory=True)
    return Task(name, once), Task(name, often)


def measure(tasks: Sequence[tuple[Task, Task]], rounds: int, core: int) -> dict[str, Any]:
    """Task -> evaluator -> one value a round of: seconds once and often, mebibytes."""
    installed = {
        name: code
        for name, code in EVALUATORS.items()
        if importlib.util.find_spec(name) is not None
    }
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as output, tempfile.TemporaryDirectory() as bytecode:
        for once, often in tasks:
            rows: dict[str, dict[str, list[float]]] = {
                name: {"seconds": [], "seconds_often": [], "mebibytes": []} for name in installed
            }
            for round_index in range(rounds + 1):
                found = {}
                for name, code in installed.items():
                    run = run_process(code, once.arguments(Path(output)), core, bytecode)
                    found[name] = run.pq
                    if round_index:  # the first round compiles and warms the file cache
                        again = run_process(code, often.arguments(Path(output)), core, bytecode)
                        rows[name]["seconds"].append(round(run.seconds, 3))
                        rows[name]["seconds_often"].append(round(again.seconds, 3))
                        rows[name]["mebibytes"].append(round(run.mebibytes, 1))
                if max(found.values()) - min(found.values()) > 1e-9:
                    raise RuntimeError(f"the evaluators differ in PQ: {found}")
            result[once.name] = rows
    return result


def table(stored: dict[str, Any]) -> str:
    """Markdown: ranges over the machines; of quotients the quartiles over the rounds."""
    lines = [
        "| files | evaluator | s of processor time, whole process | times ours "
        "| ms a further pair | times ours | MiB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    machines = list(stored.values())
    for task in dict.fromkeys(task for machine in machines for task in machine["tasks"]):
        for name in EVALUATORS:
            both = [
                (m["tasks"][task][name], m["tasks"][task]["seamless_pr"])
                for m in machines
                if name in m["tasks"].get(task, {})
            ]
            if both:
                whole = [_quartiles(row["seconds"], ours["seconds"]) for row, ours in both]
                further = [_further(task, row) for row, _ in both]
                further_of_ours = [_further(task, ours) for _, ours in both]
                quotients = [_quartiles(*pair) for pair in zip(further, further_of_ours)]
                cells = (
                    _range([median(row["seconds"]) for row, _ in both], 2),
                    _range(chain.from_iterable(whole), 1),
                    _range([median(values) for values in further], 1),
                    _range(chain.from_iterable(quotients), 1),
                    _range([max(row["mebibytes"]) for row, _ in both], 0),
                )
                lines.append(f"| {task} | {name} | {' | '.join(cells)} |")
    for machine, measured in stored.items():
        versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
        low, high = measured["load_average"]
        lines += [
            "",
            f"{machine}: medians of {measured['num_rounds']} rounds (of memory the most; of "
            "quotients the quartiles), one core, load of the "
            f"machine {low:.1f} to {high:.1f} on {measured['num_cores']} cores; Python "
            f"{measured['python']}, {versions}.",
        ]
    return "\n".join(lines)


def _further(task: str, row: dict[str, list[float]]) -> list[float]:
    """Milliseconds of a further pair, of each round."""
    further_pairs = int(task.split()[0]) * (REPEATS - 1)
    rounds = zip(row["seconds"], row["seconds_often"])
    return [1000 * (often - once) / further_pairs for once, often in rounds]


def _quartiles(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, float]:
    """Of their time over ours, round by round."""
    found = sorted(a / b for a, b in zip(theirs, ours))
    low, _, high = quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    return low, high


def _range(values: Iterable[float], digits: int) -> str:
    values = list(values)
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="measurements (default: 7)")
    parser.add_argument("--small-pairs", type=int, default=40, help="of 512x1024 (default: 40)")
    parser.add_argument("--large-pairs", type=int, default=20, help="of 1024x2048 (default: 20)")
    parser.add_argument("--core", type=int, default=0, help="the core to run on (default: 0)")
    parser.add_argument("--output", type=Path, default=STORED_RESULT, help="JSON of the results")
    parser.add_argument("--page", type=Path, default=PAGE, help="Markdown page of the table")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        tasks = [
            draw_task(Path(folder, name), num_pairs, size)
            for name, num_pairs, size in (
                ("small", options.small_pairs, SIZES[0]),
                ("large", options.large_pairs, SIZES[1]),
            )
        ]
        measured = measure(tasks, options.rounds, options.core)
    packages = [name for name in EVALUATORS if name != "seamless_pr"] + ["numpy", "deflate"]
    versions = {
        name: importlib.metadata.version(name)
        for name in packages
        if importlib.util.find_spec(name) is not None
    }
    stored = json.loads(options.output.read_text()) if options.output.is_file() else {}
    stored[cpu_name()] = {
        "num_rounds": options.rounds,
        "num_cores": os.cpu_count(),
        "load_average": sorted([load, os.getloadavg()[0]]),
        "python": platform.python_version(),
        "versions": versions,
        "tasks": measured,
    }
    write_json(options.output, stored)
    update_section(table(stored), options.page, MARK)
    print(table(stored))
    return 0


if __name__ == "__main__":
    sys.exit(main())
