"""Serves a network over HTTP: an image in, its panoptic map out; and a page to try it on.

examples:
  # the page at http://127.0.0.1:8000, for this machine alone
  python pipelines/serve.py --weights runs/city/checkpoints/best.safetensors

  # a published network of Hugging Face: pip install "seamless_pr[serve,transformers]"
  python pipelines/serve.py --weights hf:facebook/mask2former-swin-tiny-coco-panoptic

  # four GPUs, for the network of the house, with a token for those who may use it
  python pipelines/serve.py --weights W --replicas 4 --device cuda --batch-size 8 --amp bf16 \\
      --host 0.0.0.0 --token-file token.txt

  # large photos at their own resolution, tile by tile
  python pipelines/serve.py --weights W --tile 1024 --overlap 256 --max-pixels 200000000

  # ask it
  curl --data-binary @photo.jpg "http://127.0.0.1:8000/v1/panoptic?format=overlay" -o labelled.jpg

Starts Ray on this machine, or joins the cluster that RAY_ADDRESS names; docs/serving.md says how to
deploy to a cluster, scale and update. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from seamless_pr.inference.predictor import AMP_TYPES
from seamless_pr.input_files import read_text
from seamless_pr.integrations.predictors import load_predictor
from seamless_pr.pipelines.paths import absolute
from seamless_pr.pipelines.ray_support import ray_cluster
from seamless_pr.pipelines.stage import Stage, finite
from seamless_pr.pipelines.wanted_predictor import add_tile_options, check_tile_options
from seamless_pr.serving.limits import MIB, ServingLimits
from seamless_pr.serving.warm_up import check_size
from seamless_pr.structures.faults import first_line

LOOPBACK = "127.0.0.1"
WATCH_SECONDS = 2.0
DEFAULTS = ServingLimits()
# The proxy's patience beyond that of the service, which has words for it.
PATIENCE_SECONDS = 15.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        required=True,
        metavar="W",
        help=".safetensors file, run or checkpoint folder; or hf: and a network of Hugging Face",
    )
    parser.add_argument("--host", default=LOOPBACK, help=f"address to listen at ({LOOPBACK})")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (8000)")
    parser.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="networks, each in its process (1)"
    )
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument(
        "--cpus-per-replica", type=int, default=1, metavar="N", help="cores of each network (1)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=4,
        help="most images of one size that go through a network together (4)",
    )
    parser.add_argument(
        "--amp", choices=tuple(AMP_TYPES), default="none", help="16-bit arithmetic (default: none)"
    )
    add_tile_options(parser)
    _add_limits(parser)
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="clients must send its first line: Authorization: Bearer TOKEN",
    )
    parser.add_argument(
        "--allow-origins",
        nargs="+",
        default=[],
        metavar="ORIGIN",
        help="other web pages that may ask, as https://example.org (default: none)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="changes of the network's config, as model.fusion.score_threshold=0.4",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-mib",
        type=finite,
        default=DEFAULTS.max_bytes / MIB,
        metavar="M",
        help=f"larger requests are refused ({DEFAULTS.max_bytes / MIB:g})",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=DEFAULTS.max_pixels,
        metavar="N",
        help=f"larger images are refused ({DEFAULTS.max_pixels})",
    )
    parser.add_argument(
        "--max-waiting",
        type=int,
        default=DEFAULTS.max_waiting,
        metavar="N",
        help=f"images in the hands of a network; more are told to come again "
        f"({DEFAULTS.max_waiting})",
    )
    parser.add_argument(
        "--timeout",
        type=finite,
        default=DEFAULTS.seconds,
        metavar="S",
        help=f"seconds after which a request is given up ({DEFAULTS.seconds:g})",
    )
    parser.add_argument(
        "--allow-uris",
        nargs="+",
        default=[],
        metavar="PREFIX",
        help="read images that clients name below these, as s3://bucket/photos/ (default: none)",
    )


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Fills in the overlap; refuses what could not be served."""
    check_tile_options(parser, options)
    if options.replicas < 1 or options.cpus_per_replica < 1 or options.batch_size < 1:
        parser.error("--replicas, --cpus-per-replica and --batch-size must be at least 1")
    if not 0 < options.port < 65536:
        parser.error(f"--port must be 1 to 65535; got {options.port}")
    try:
        _limits(options)
    except ValueError as error:
        parser.error(str(error))


def run(options: argparse.Namespace) -> None:
    token = _read_token(options.token_file)
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{error}; a server needs more than the other stages: pip install "seamless_pr[serve]"'
        ) from error
    options.weights = absolute(options.weights)
    # Errors of weights, classes and devices in words, before anything is started.
    predictor = load_predictor(
        options.weights, options.device, overrides=options.overrides, amp=options.amp
    )
    predictor.check_device()
    if not options.tile:
        try:
            check_size(predictor)
        except ValueError as error:
            raise ValueError(f"{options.weights} cannot be served: {error}") from error
    on_gpu = predictor.device.type == "cuda"
    del predictor
    from seamless_pr.pipelines.ray_serving import APPLICATION, LOGGING, application

    with ray_cluster(wanted_cpus=options.replicas * options.cpus_per_replica) as others_use_it:
        serve.start(
            http_options={
                "host": options.host,
                "port": options.port,
                "request_timeout_s": options.timeout + PATIENCE_SECONDS,
            },
            logging_config=LOGGING,
        )
        try:
            try:
                serve.run(
                    application(arguments(options, token, on_gpu)),
                    name=APPLICATION,
                    logging_config=LOGGING,
                )
            except RuntimeError as error:
                # Of Serve, whose log above has what the replicas say.
                raise OSError(
                    f"{options.weights} cannot be served: {first_line(error)}; the log above says "
                    "why"
                ) from error
            print(f"the page is at http://{options.host}:{options.port}/ (Ctrl-C ends it)")
            if options.host != LOOPBACK and not token:
                print("whoever reaches this address may use it; --token-file asks for a token")
            sys.stdout.flush()
            _watch()
        finally:
            serve.delete(APPLICATION)
            # The end of an own cluster is the end of its Serve.
            if others_use_it and not serve.status().applications:
                serve.shutdown()


def arguments(options: argparse.Namespace, token: str, on_gpu: bool) -> dict[str, Any]:
    """What `application` builds a server from."""
    actor = {"num_cpus": options.cpus_per_replica, "num_gpus": 1 if on_gpu else 0}
    tiles = {"tile": options.tile, "overlap": options.overlap} if options.tile else {}
    return {
        "limits": _limits(options),
        "token": token,
        "allow_origins": options.allow_origins,
        "network": {
            "weights": str(options.weights),
            # Ray shows a replica its own GPU only.
            "device": "cuda" if on_gpu else "cpu",
            "overrides": options.overrides,
            "batch_size": options.batch_size,
            "amp": options.amp,
            **tiles,
        },
        "deployment": {"num_replicas": options.replicas, "ray_actor_options": actor},
    }


def _limits(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of `ServingLimits`.

    Raises:
        ValueError: a limit that is none.
    """
    limits = {
        "max_bytes": int(options.max_mib * MIB),
        "max_pixels": options.max_pixels,
        "max_waiting": options.max_waiting,
        "seconds": options.timeout,
    }
    ServingLimits(**limits, uri_prefixes=tuple(options.allow_uris))
    return {**limits, "uri_prefixes": options.allow_uris}


def _read_token(path: Path | None) -> str:
    if path is None:
        return ""
    token = read_text(path).partition("\n")[0].strip()
    if len(token) < 8:
        raise ValueError(f"the first line of {path} must be a token of 8 letters or more")
    return token


def _watch() -> None:
    """Waits for Ctrl-C or SIGTERM."""
    while True:
        time.sleep(WATCH_SECONDS)


STAGE = Stage(
    doc=__doc__ or "",
    add_options=add_options,
    run=run,
    check=check,
    outputs=(),
    when_stopped="what was being answered is answered",
)
main = STAGE.main

if __name__ == "__main__":
    sys.exit(main())
