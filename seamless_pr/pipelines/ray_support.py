"""What the stages share when they run on Ray: whether they do, and joining a cluster.

A stage uses Ray when `--ray` is given or when it runs inside a Ray job; Ray is imported then and
not before.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from seamless_pr.parallel import available_cores
from seamless_pr.pipelines.signals import Terminated
from seamless_pr.pipelines.upload import runtime_environment
from seamless_pr.structures.faults import first_line

TASK_RETRIES = 3
# Nothing calls home, and logs hold no colour codes.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def add_ray_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--ray`."""
    parser.add_argument(
        "--ray",
        action="store_true",
        help="spread the work with Ray: over the cluster that RAY_ADDRESS names, else over one "
        "started on this machine; always on inside a Ray job",
    )


def uses_ray(options: argparse.Namespace) -> bool:
    """Whether this run is spread by Ray; some stages never are."""
    return hasattr(options, "ray") and (bool(options.ray) or inside_ray_job())


def inside_ray_job() -> bool:
    """Whether `ray job submit` started this process."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@contextmanager
def ray_cluster(*, wanted_cpus: float = 1, dashboard: bool = False) -> Iterator[bool]:
    """Connects this process to a cluster, or starts one here, for the time of the context.

    Args:
        wanted_cpus: what the work needs at once; a started cluster has at least so many logical
            cores, and a lack of them on an existing one is said.
        dashboard: also start the dashboard of a new cluster.

    Yields:
        Whether the cluster was there before, and stays.

    Raises:
        ValueError: the upload would be too large.
        ConnectionError: no cluster at RAY_ADDRESS, or one that another token opens.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    joins = bool(os.environ.get("RAY_ADDRESS"))
    if not joins:
        lock_own_cluster()
    import ray

    if joins:
        # A job has its working directory already.
        _init(runtime_env=None if inside_ray_job() else runtime_environment())
    else:
        cpus = max(available_cores(), math.ceil(wanted_cpus))
        _init(address="local", num_cpus=cpus, include_dashboard=dashboard)
    try:
        available = ray.cluster_resources().get("CPU", 0)
        if available < wanted_cpus:
            print(f"waiting for {wanted_cpus:g} CPUs; the cluster has {available:g} now")
        yield joins
    finally:
        ray.shutdown()


def lock_own_cluster() -> None:
    """Sets the variables by which a cluster that this process starts obeys nobody else.

    Ray's ports listen on all addresses of the machine and run what they are told. The token is in
    the environment of this process and its children, and in no file.
    """
    # Also where the user's shell says otherwise, for the sake of a cluster elsewhere.
    os.environ["RAY_AUTH_MODE"] = "token"
    import secrets

    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if "ray" in sys.modules:
        # It has read what these variables were.
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def _init(**options: Any) -> None:
    """`ray.init` that leaves SIGTERM to the stage, and errors in words."""
    import ray
    from ray.exceptions import RayError

    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except SystemExit as end:
        # While Ray starts, its own handler answers SIGTERM, and by this.
        raise Terminated from end
    except (RayError, RuntimeError) as error:
        where = os.environ.get("RAY_ADDRESS") or "this machine"
        raise ConnectionError(f"no connection to Ray at {where}: {first_line(error)}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def cluster_failures() -> Iterator[None]:
    """Turns failures of the cluster itself into an OSError with the reason.

    Raises:
        OSError: what Ray could not mend by trying again.
    """
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise OSError(f"Ray gave up after {TASK_RETRIES} retries: {reason}") from error
