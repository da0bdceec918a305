"""Trains several networks alike on drawn scenes, for the same processor time, and compares them.

Every system of a comparison starts from those parts of the shipped weights that fit into all of
them, and from new numbers elsewhere; it sees the same images in the same order, in one thread, and
stops when its process (on a GPU: the clock) has used its time; one comparison has steps instead.
All are scored on scenes that no training saw.

example, one after the other (docs/results.md has the outcome):
  python -m seamless_pr.street_scenes.dataset --root data/street_scenes --size 256x512 \\
      --train 1600 --val 100
  python pipelines/prepare.py cityscapes --root data/street_scenes
  python -m seamless_pr.street_scenes.dataset --root data/street_scenes_val --size 256x512 \\
      --train 0 --val 100
  python pipelines/prepare.py cityscapes --root data/street_scenes_val --splits val
  nice python tools/measure/compare_systems.py queries --minutes 7 \\
      --write docs/results.md --json docs/results/systems_queries.json

  # on a GPU, the network of the flagship, from scratch
  python -m seamless_pr.street_scenes.dataset --root data/street_scenes_r50 --size 512x1024 \\
      --train 3000 --val 100
  python pipelines/prepare.py cityscapes --root data/street_scenes_r50
  python tools/measure/compare_systems.py semantic_points_r50 --minutes 60 \\
      --data data/street_scenes_r50 --held-out data/street_scenes_r50

  # the table of what is finished so far
  python tools/measure/compare_systems.py queries --no-runs

The same command goes on after an interruption: finished runs are kept, a run that was cut off
continues from its last checkpoint, its used time is kept there. Output of each run:
OUTPUT/COMPARISON/SYSTEM_seedN.log.

exit codes: 0 compared; 1 the message says which run failed, or why; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import yaml

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.build.run_folder import claim_run_folder
from seamless_pr.build.runs import build_label_space
from seamless_pr.config.load import config_to_dict
from seamless_pr.config.schema import Config
from seamless_pr.files import write_json
from seamless_pr.training.checkpoints import save_weights
from seamless_pr.weights.tensor_files import read_tensors
from tools.measure.results_table import replace_between_marks
from tools.measure.system_runs import Run, finish_run, random_parts
from tools.measure.system_tables import all_values, complete_seeds, system_table
from tools.measure.systems import COMPARISONS, Comparison

ROOT = Path(__file__).resolve().parents[2]
# More steps than any run reaches: its time ends it, and the schedule counts in shares of the time.
SCHEDULE_STEPS = 10_000
WARMUP_SHARE = 0.05
CHECKPOINT_INTERVAL_STEPS = 20
LOG_INTERVAL_STEPS = 10


def marks(name: str) -> tuple[str, str]:
    """The lines in docs/results.md around the table of a comparison."""
    return f"<!-- systems {name} -->", f"<!-- /systems {name} -->"


def runs_of(comparison: Comparison, options: argparse.Namespace) -> list[Run]:
    """Seed after seed, so that a comparison that is cut off has whole seeds."""
    return [
        Run(key, seed, options.output / options.comparison, system)
        for seed in options.seeds
        for key, system in comparison.systems.items()
    ]


def write_start(comparison: Comparison, run: Run, options: argparse.Namespace) -> None:
    """Writes those parts of the trained weights that all systems start from."""
    kept = tuple(f"{part}." for part in comparison.kept_parts)
    weights = {
        name: tensor
        for name, tensor in read_tensors(options.weights).items()
        if name.startswith(kept)
    }
    save_weights(run.start, weights, {"trunk": str(options.weights), "parts": list(kept)})


def run_values(comparison: Comparison, run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """The values of a run: those of its system's config with other start, data and length."""
    system = comparison.systems[run.system]
    config = load_config(ROOT / system.config, [*system.overrides, *options.overrides])
    values = config_to_dict(config)
    with torch.device("meta"):
        names = build_network(config.model, build_label_space(config)).state_dict()
    values["initial_weights"] = {
        "file": str(run.start),
        "random_parts": random_parts(names, comparison.kept_parts),
    }
    for part, folder in {"train": options.data, "val": options.held_out}.items():
        values["data"][part] = {
            "json": str(folder / "gtFine" / f"cityscapes_panoptic_{part}.json"),
            "images": str(folder / "leftImg8bit" / part),
            "segments": None,
        }
    if comparison.clock == "process":
        values["data"]["num_workers"] = 0
    steps = comparison.steps or SCHEDULE_STEPS
    values["schedule"]["warmup_steps"] = int(WARMUP_SHARE * steps)
    values["training"] |= {
        "steps": steps,
        "max_minutes": 0.0 if comparison.steps else options.minutes,
        "clock": comparison.clock,
        "seed": run.seed,
        "log_interval_steps": LOG_INTERVAL_STEPS,
        "checkpoint_interval_steps": CHECKPOINT_INTERVAL_STEPS,
        "evaluation_interval_steps": 0,
    }
    return values


def prepare_run(comparison: Comparison, run: Run, options: argparse.Namespace) -> Config:
    """Writes start and config of a run and claims its folder.

    Raises:
        ValueError: the folder holds a run with another config.
    """
    if run.of.weights_of:
        return load_config(run.trained.config)
    run.output.mkdir(parents=True, exist_ok=True)
    write_start(comparison, run, options)
    text = yaml.safe_dump(run_values(comparison, run, options), sort_keys=False)
    run.config.write_text(text, encoding="utf-8")
    config = load_config(run.config)
    claim_run_folder(run.folder, config)
    return config


def finish_all(comparison: Comparison, options: argparse.Namespace) -> list[str]:
    """Runs what is left; returns what failed."""
    runs = runs_of(comparison, options)
    configs = [prepare_run(comparison, run, options) for run in runs]

    def finish(*, with_own_training: bool) -> list[str]:
        chosen = [
            (run, config)
            for run, config in zip(runs, configs, strict=True)
            if bool(run.of.weights_of) != with_own_training
        ]
        with ThreadPoolExecutor(options.jobs) as pool:
            done = list(
                pool.map(
                    lambda pair: finish_run(pair[0], pair[1].data.val, comparison.with_instances),
                    chosen,
                )
            )
        return [f"{run.name}: {why}" for (run, _), why in zip(chosen, done, strict=True) if why]

    return finish(with_own_training=True) + finish(with_own_training=False)


def settings(comparison: Comparison, options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on, as JSON values."""
    return {
        "systems": {
            key: {name: value for name, value in asdict(system).items() if value}
            for key, system in comparison.systems.items()
        },
        "weights": str(options.weights),
        "kept_parts": list(comparison.kept_parts),
        "steps": comparison.steps,
        "minutes": 0.0 if comparison.steps else options.minutes,
        "data": str(options.data),
        "held_out": str(options.held_out),
        "overrides": options.overrides,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }


def report(comparison: Comparison, options: argparse.Namespace) -> list[str]:
    """Prints the table, writes it where the options say; returns what is missing."""
    values = all_values(comparison, runs_of(comparison, options))
    seeds = complete_seeds(comparison, values)
    if not seeds:
        return [f"no seed has all systems in {options.output / options.comparison}"]
    text = f"Seeds: {', '.join(map(str, seeds))}.\n\n{system_table(comparison, values, seeds)}"
    print(text)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        page = replace_between_marks(page, text, *marks(options.comparison))
        options.write.write_text(page, encoding="utf-8")
    if options.json:
        runs = {f"{system}_seed{seed}": found for (system, seed), found in values.items()}
        write_json(options.json, {"settings": settings(comparison, options), "runs": runs})
    return []


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("comparison", choices=sorted(COMPARISONS), help="which systems, see tools/measure/systems")
    add("--output", type=Path, default=Path("runs/compare_systems"), help="folder of all runs")
    add(
        "--weights",
        type=Path,
        default=Path("checkpoints/street_scenes_256x512.safetensors"),
        help="where the common parts come from",
    )
    add("--data", type=Path, default=Path("data/street_scenes"), metavar="DIR", help="to learn")
    add(
        "--held-out",
        type=Path,
        default=Path("data/street_scenes_val"),
        metavar="DIR",
        help="prepared scenes to score on",
    )
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    add(
        "--minutes",
        type=float,
        default=7.0,
        help="time of each training, of its processor or on a GPU of the clock (default: 7)",
    )
    add("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    add("--no-runs", action="store_true", help="only the table of what is finished")
    add("--write", type=Path, metavar="MD", help="put the table between its marks there")
    add("--json", type=Path, help="write every number there")
    add("overrides", nargs="*", metavar="key=value", help="changes of the config of all runs")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    comparison = COMPARISONS[options.comparison]
    try:
        failures = [] if options.no_runs else finish_all(comparison, options)
        failures += report(comparison, options)
    except (OSError, ValueError) as error:
        failures = [str(error)]
    for failure in failures:
        print(f"compare_systems: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
