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

exit codes: 0 trained; 1 the message says why not; 2 wrong arguments; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from seamless_pr.build.runs import build_trainer
from seamless_pr.config.load import load_config
from seamless_pr.config.run_folder import claim_run_folder
from seamless_pr.config.schema import Config
from seamless_pr.pipelines.ray_support import add_ray_option, check_output, uses_ray
from seamless_pr.training.distributed import barrier, join_torchrun, leave, rank

EXIT_ERROR, INTERRUPTED = 1, 130


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        config = load_config(options.config, options.overrides)
        output = Path(options.output) if options.output else default_output(options.config)
        if uses_ray(options):
            from seamless_pr.pipelines.ray_training import train_on_cluster

            check_output(output)
            train_on_cluster(config, output, options.storage)
        else:
            train(config, output)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        return INTERRUPTED
    return 0


def train(config: Config, output: Path) -> None:
    """Trains in this process, alone or as a worker of torchrun."""
    device = join_torchrun()
    try:
        if rank() == 0:
            claim_run_folder(output, config)
        barrier()
        trainer = build_trainer(config, output, device=device)
        trainer.run()
        if rank() == 0:
            print(f"weights: {output / 'weights.safetensors'}", flush=True)
    finally:
        leave()


def default_output(config_path: str) -> Path:
    """configs/debug/street_scenes.yaml -> runs/debug/street_scenes."""
    parts = Path(config_path).with_suffix("").parts
    if "configs" in parts:
        parts = parts[len(parts) - parts[::-1].index("configs") :]
    else:
        parts = parts[-1:]
    return Path("runs", *parts)


if __name__ == "__main__":
    sys.exit(main())
