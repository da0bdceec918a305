"""Trains a network on images with panoptic ground truth.

examples:
  # a small network on drawn street scenes, on any computer
  python pipelines/train.py --config configs/debug/street_scenes.yaml

  # another value of the config, another folder
  python pipelines/train.py --config configs/debug/street_scenes.yaml \\
      optimizer.lr=0.01 --output runs/slow

  # one process per GPU of this machine; data.batch_size counts the images of all of them
  torchrun --nproc-per-node 8 pipelines/train.py \\
      --config configs/cityscapes/seamless_pointrend_r50.yaml

  # over a Ray cluster: paths on storage that all nodes share, see docs/cluster.md
  ray job submit --working-dir . -- python pipelines/train.py --config configs/... \\
      --output /shared/runs/first cluster.num_workers=8

The run folder gets config.yaml (all values), log.jsonl, tensorboard/, checkpoints/
(best.safetensors, last.safetensors and what is needed to go on) and, at the end,
weights.safetensors: the best weights, or the last ones of a run without validation.
The same command goes on with a run that was stopped.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from seamless_pr.build.configs import load_config
from seamless_pr.build.run_folder import run_folder
from seamless_pr.build.runs import build_trainer
from seamless_pr.config.schema import Config
from seamless_pr.pipelines.ray_support import add_ray_option, uses_ray
from seamless_pr.pipelines.stage import Stage
from seamless_pr.structures.faults import FaultyDataError, first_line
from seamless_pr.training.distributed import barrier, join_torchrun, leave, rank
from seamless_pr.training.trainer import Trainer


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="YAML", help="the run, see configs/")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="run folder (default: runs/ and the path of the config below configs/)",
    )
    add_ray_option(parser)
    parser.add_argument(
        "--storage",
        metavar="DIR|URI",
        help="where Ray keeps the checkpoints of this run, also s3://... (default: OUTPUT/ray)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="changes of the config, as optimizer.lr=0.01",
    )


def check(_: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.output is None:
        options.output = str(default_output(options.config))


def run(options: argparse.Namespace) -> None:
    config = load_config(options.config, options.overrides)
    if uses_ray(options):
        from seamless_pr.pipelines.ray_training import train_on_cluster

        train_on_cluster(config, Path(options.output), options.storage)
    else:
        train(config, Path(options.output), options.config)


def train(config: Config, output: Path, source: str = "config") -> None:
    """Trains in this process, alone or as a worker of torchrun.

    Args:
        config: the run.
        output: its folder.
        source: where the config comes from, for messages.
    """
    device = join_torchrun()
    try:
        with run_folder(output, config) if rank() == 0 else nullcontext():
            barrier()
            _build(config, output, device, source).run()
        if rank() == 0:
            print(f"weights: {output / 'weights.safetensors'}", flush=True)
    finally:
        leave()


def _build(config: Config, output: Path, device: torch.device, source: str) -> Trainer:
    """The trainer; whatever of the config cannot be had is told with the config's name."""
    try:
        return build_trainer(config, output, device=device)
    except FaultyDataError:
        raise
    # A network of timm raises TypeErrors about model.backbone.options, PyTorch RuntimeErrors about
    # sizes that no tensor has.
    except (OSError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        reason = str(error) if isinstance(error, OSError | ValueError) else first_line(error)
        raise ValueError(reason if source in reason else f"{source}: {reason}") from error


def default_output(config_path: str) -> Path:
    """configs/debug/street_scenes.yaml -> runs/debug/street_scenes."""
    parts = Path(config_path).with_suffix("").parts
    if "configs" in parts:
        parts = parts[len(parts) - parts[::-1].index("configs") :]
    else:
        parts = parts[-1:]
    return Path("runs", *parts)


STAGE = Stage(
    doc=__doc__ or "",
    add_options=add_options,
    check=check,
    run=run,
    inputs=("config",),
    outputs=("output", "storage"),
    when_stopped="the same command goes on from the newest checkpoint",
)
main = STAGE.main

if __name__ == "__main__":
    sys.exit(main())
