"""Does PointRend help? Trains every pair of mask head and semantic head alike, and compares them.

Mask heads: four convolutions (28x28 masks), or PointRend. Semantic heads: MiniDL with bilinear
upsampling, or MiniDL refined by PointRend. Each of the four pairs is trained once per seed: the
same trained trunk (backbone, pyramid, proposals, boxes) with new heads, the same images in the same
order, the same number of steps. All are scored on scenes that no training saw; the runs with
PointRend in both are scored again with its subdivision switched off, the weights being the same.
Two more arms train them with other losses of the semantic points, to tell why these help or not.

example, 18 runs, on 2 cores about two and a half hours (docs/results.md has the outcome):
  python -m seamless_pr.street_scenes.dataset --root data/street_scenes --size 256x512 \\
      --train 1600 --val 100
  python pipelines/prepare.py cityscapes --root data/street_scenes
  python -m seamless_pr.street_scenes.dataset --root data/street_scenes_val --size 256x512 \\
      --train 0 --val 100
  python pipelines/prepare.py cityscapes --root data/street_scenes_val --splits val
  nice python tools/measure/compare_heads.py --write docs/results.md --json docs/results/heads.json

  # the tables of what is finished so far
  python tools/measure/compare_heads.py --no-runs

The same command goes on after an interruption: finished runs are kept, a run that was cut off
continues from its last checkpoint. Output of each run: OUTPUT/ARM_seedN.log.

exit codes: 0 compared; 1 the message says which run failed, or why; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from seamless_pr.ops.generators import keyed_seed
from seamless_pr.training.checkpoints import load_weights, save_weights
from seamless_pr.training.run_log import read_log
from seamless_pr.weights.tensor_files import read_tensors
from tools.measure.head_tables import (
    ARMS,
    AS_TRAINED,
    FACTORS,
    LOSS_ARMS,
    LOSS_ROWS,
    VARIANTS,
    AllScores,
    arm_values,
    complete_seeds,
    factor_values,
    loss_values,
    read_scores,
    switched_off_values,
    tables,
)
from tools.measure.results_table import replace_between_marks

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- heads -->", "<!-- /heads -->"
TRIMAP_PIXELS = (8, 20)
BOUNDARY_RATIO = 0.005
CHECKPOINTS_PER_RUN = 6
LAST_LOG_LINES = 5
# What is new in each run, besides the semantic head; everything else comes from the checkpoint.
RANDOM_PARTS = ["instances.masks", "semantics.point_head"]
SHARED_HEAD = "semantics.head"
POINT_LOSS = "semantic_point"
# What is compared here, whatever --config has: the published form, with as many points a step as
# the paper refines at 1024x2048.
PUBLISHED_POINTS = {
    "residual": False,
    "pixel_window": 0,
    "shared_gradient": True,
    "subdivision_points": 8192,
}
BOX_LOSSES = ("rpn_objectness", "rpn_box", "box_class", "box_delta")
ALL_ARMS = {**ARMS, **LOSS_ARMS}


@dataclass(frozen=True)
class Run:
    """One training with its predictions and scores.

    Attributes:
        arm: key of `ALL_ARMS`.
        seed: of new weights, image order, augmentation and drawn points.
        output: folder of all runs.
    """

    arm: str
    seed: int
    output: Path

    @property
    def folder(self) -> Path:
        return self.output / f"{self.arm}_seed{self.seed}"

    @property
    def config(self) -> Path:
        return self.folder.with_suffix(".yaml")

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    def predictions(self, variant: str = AS_TRAINED) -> Path:
        return self.folder / f"predictions{variant}"

    def evaluation(self, variant: str = AS_TRAINED) -> Path:
        return self.folder / f"evaluation{variant}" / "evaluation.json"

    @property
    def variants(self) -> tuple[str, ...]:
        return (AS_TRAINED, *(VARIANTS if self.arm in LOSS_ROWS else ()))

    @property
    def start(self) -> Path:
        return self.output / f"start_seed{self.seed}.safetensors"


def write_start(run: Run, options: argparse.Namespace) -> None:
    """Writes the trained weights with one new MiniDL head, the same for all arms of a seed.

    Each run draws its other heads itself, from the same seed. The new MiniDL head cannot be drawn
    there: it would depend on the mask head that is drawn before it.

    Raises:
        ValueError: an earlier comparison in this folder started from another trunk.
    """
    if run.start.exists():
        trunk = load_weights(run.start)[1].get("trunk")
        if trunk != str(options.weights):
            raise ValueError(
                f"{run.start} was made of {trunk}, not of {options.weights}; give another --output"
            )
        return
    config = load_config(options.config, options.overrides)
    torch.manual_seed(keyed_seed("start", run.seed))
    new = build_network(config.model, build_label_space(config)).state_dict()
    head = {name: t for name, t in new.items() if name.startswith(f"{SHARED_HEAD}.")}
    origin = {"trunk": str(options.weights), "seed": run.seed}
    save_weights(run.start, {**read_tensors(options.weights), **head}, origin)


def run_values(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """The values of a run: those of --config with other heads, seed, length and data."""
    arm = ALL_ARMS[run.arm]
    values = config_to_dict(load_config(options.config))
    model, names = values["model"], [*BOX_LOSSES, "semantic"]
    model["fusion"]["size"] = "original"
    if arm.mask_kind == "conv":
        shared = {part: model["instances"][part] for part in ("rpn", "roi", "box")}
        mask = {"hidden_channels": options.conv_channels}
        model["instances"] = {"kind": "mask_rcnn", **shared, "mask": mask}
        names.append("mask")
    else:
        names += ["mask_coarse", "mask_point"]
    points = model["semantics"]["points"] or {}
    model["semantics"]["points"] = None
    if arm.refinement == "point_rend":
        model["semantics"]["points"] = {
            **points,
            **PUBLISHED_POINTS,
            "hard_point_fraction": arm.hard_points,
        }
        names.append(POINT_LOSS)
    weights = {name: values["loss_weights"].get(name, 1.0) for name in names}
    if POINT_LOSS in weights:
        weights[POINT_LOSS] = arm.point_weight
    values["initial_weights"] = {"file": str(run.start), "random_parts": RANDOM_PARTS}
    values["loss_weights"] = weights
    values["data"] |= {
        "val": {
            "json": str(options.held_out / "gtFine" / "cityscapes_panoptic_val.json"),
            "images": str(options.held_out / "leftImg8bit" / "val"),
            "segments": None,
        },
        "num_workers": 0,
    }
    values["schedule"]["warmup_steps"] = options.warmup_steps
    values["training"] |= {
        "steps": options.steps,
        "seed": run.seed,
        "checkpoint_interval_steps": max(1, options.steps // CHECKPOINTS_PER_RUN),
        "evaluation_interval_steps": 0,
    }
    return values


def prepare_run(run: Run, options: argparse.Namespace) -> Config:
    """Writes the config of a run and claims its folder.

    Raises:
        ValueError: the folder holds a run with another config.
    """
    run.output.mkdir(parents=True, exist_ok=True)
    write_start(run, options)
    text = yaml.safe_dump(run_values(run, options), sort_keys=False)
    run.config.write_text(text, encoding="utf-8")
    config = load_config(run.config, options.overrides)
    claim_run_folder(run.folder, config)
    return config


def train_command(run: Run, overrides: Sequence[str]) -> list[str]:
    """Training; goes on where it was stopped."""
    return _python("train.py", "--config", run.config, "--output", run.folder, *overrides)


def score_commands(run: Run, config: Config, variant: str) -> list[list[str]]:
    """Prediction, which goes on where it was stopped, and evaluation."""
    truth, folder = config.data.val.json, run.predictions(variant)
    predict = ["--weights", run.weights, "--images", config.data.val.images, "--image-ids", truth]
    predict += ["--output", folder, "--instances"]
    if variant != AS_TRAINED:
        predict += VARIANTS[variant].overrides
    evaluate = ["--ground-truth", truth, "--predictions", folder, "--workers", 1]
    evaluate += ["--instances", folder / "instances.json", "--boundary", BOUNDARY_RATIO]
    evaluate += ["--trimap", *TRIMAP_PIXELS, "--output", run.evaluation(variant).parent]
    return [_python("predict.py", *predict), _python("evaluate.py", *evaluate)]


def _python(pipeline: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "pipelines" / pipeline), *map(str, arguments)]


def finish(run: Run, config: Config, options: argparse.Namespace) -> str | None:
    """Runs what is left of one run; returns the reason if it failed."""
    commands = [] if run.weights.exists() else [train_command(run, options.overrides)]
    for variant in run.variants:
        if not run.evaluation(variant).exists():
            commands += score_commands(run, config, variant)
    threads = str(options.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with run.log.open("a", encoding="utf-8") as log:
        for command in commands:
            done = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False)
            if done.returncode:
                return f"{Path(command[1]).name} ended with {done.returncode}, see {run.log}"
    print(f"finished {run.folder.name}", flush=True)
    return None


def finish_all(runs: Sequence[Run], options: argparse.Namespace) -> list[str]:
    """Runs what is left, several at a time, seed after seed; returns what failed."""
    configs = [prepare_run(run, options) for run in runs]
    with ThreadPoolExecutor(options.jobs) as pool:
        reasons = list(pool.map(lambda run, config: finish(run, config, options), runs, configs))
    return [f"{run.folder.name}: {why}" for run, why in zip(runs, reasons, strict=True) if why]


def read_all(runs: Sequence[Run]) -> AllScores:
    """The scores of all that is finished; the key of a variant is arm + variant."""
    return {
        (run.arm + variant, run.seed): read_scores(run.evaluation(variant))
        for run in runs
        for variant in run.variants
        if run.evaluation(variant).exists()
    }


def final_losses(run: Run) -> dict[str, float]:
    """Loss -> mean over the last lines of the run's log."""
    lines = [line for line in read_log(run.folder / "log.jsonl") if line["kind"] == "train"]
    last = [line["losses"] for line in lines[-LAST_LOG_LINES:]]
    return {name: statistics.fmean(losses[name] for losses in last) for name in last[0]}


def summary(scores: AllScores, seeds: Sequence[int], options: argparse.Namespace) -> dict[str, Any]:
    """Everything behind the tables, as JSON values in [0, 1]."""
    return {
        "settings": {
            "config": os.path.relpath(options.config, ROOT),
            "trunk": str(options.weights),
            "held_out": str(options.held_out),
            "steps": options.steps,
            "warmup_steps": options.warmup_steps,
            "conv_channels": options.conv_channels,
            "overrides": options.overrides,
            "seeds": list(seeds),
            "boundary_ratio": BOUNDARY_RATIO,
            "torch": torch.__version__,
            "processor": platform.processor() or platform.machine(),
        },
        "runs": {f"{arm}_seed{seed}": dict(values) for (arm, seed), values in scores.items()},
        "final_losses": {
            f"{arm}_seed{seed}": final_losses(Run(arm, seed, options.output))
            for arm, seed in scores
            if arm in ALL_ARMS
        },
        "arms": {arm: arm_values(scores, arm, seeds) for arm in ARMS},
        "differences": {name: factor_values(scores, name, seeds) for name in FACTORS},
        "refinement_switched_off": switched_off_values(scores, seeds)[1],
        "point_losses": loss_values(scores, seeds)[1],
    }


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("runs/compare_heads"), help="folder of all runs")
    add("--config", type=Path, default=ROOT / "configs/debug/street_scenes.yaml", metavar="YAML")
    add(
        "--weights",
        type=Path,
        default=Path("checkpoints/street_scenes_256x512.safetensors"),
        help="the trained trunk, of the network of --config",
    )
    add(
        "--held-out",
        type=Path,
        default=Path("data/street_scenes_val"),
        metavar="DIR",
        help="prepared scenes to score on",
    )
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    add("--steps", type=int, default=360, help="of each run (default: 360)")
    add("--warmup-steps", type=int, default=20, help="(default: 20)")
    add("--conv-channels", type=int, default=128, help="of the 4-conv masks (default: 128)")
    add("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    add("--threads", type=int, default=1, help="of each run (default: 1)")
    add("--no-runs", action="store_true", help="only the tables of what is finished")
    add("--write", type=Path, metavar="MD", help=f"put the tables between {BEGIN} and {END} there")
    add("--json", type=Path, help="write every number there")
    add("overrides", nargs="*", metavar="key=value", help="changes of the config of all runs")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    runs = [Run(arm, seed, options.output) for seed in options.seeds for arm in ALL_ARMS]
    try:
        failures = [] if options.no_runs else finish_all(runs, options)
        scores = read_all(runs)
        if seeds := complete_seeds(scores):
            report(scores, seeds, options)
        else:
            failures.append(f"no seed has all four arms in {options.output}")
    except (OSError, ValueError) as error:
        failures = [str(error)]
    for failure in failures:
        print(f"compare_heads: {failure}", file=sys.stderr)
    return 1 if failures else 0


def report(scores: AllScores, seeds: Sequence[int], options: argparse.Namespace) -> None:
    """Prints the tables, and writes them where the options say."""
    text = f"Seeds: {', '.join(map(str, seeds))}.\n\n{tables(scores, seeds)}"
    print(text)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        page = replace_between_marks(page, text, BEGIN, END)
        options.write.write_text(page, encoding="utf-8")
    if options.json:
        write_json(options.json, summary(scores, seeds, options))


if __name__ == "__main__":
    sys.exit(main())
