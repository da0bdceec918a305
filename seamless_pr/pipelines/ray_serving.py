"""The Ray Serve application: replicas of a network, and the counts of all of them.

`application` is what `serve run`, `serve deploy` and configs/clusters/serve.yaml name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

from seamless_pr.serving.counts import CountsBoard

APPLICATION = "seamless_pr"
NETWORKS, COUNTS = "Panoptic", "Counts"
TOKEN_VARIABLE = "SEAMLESS_PR_TOKEN"
PUSH_SECONDS = 1.0
# Neither a line for each request, nor one for each time that counts are told.
LOGGING = {"log_level": "WARNING", "enable_access_log": False}
# Of the address itself, pages and metrics, beside the images that may wait.
OTHER_REQUESTS = 64
# One arena of the C library for all threads: what a thread frees, the next one finds.
REPLICA_VARIABLES = {"MALLOC_ARENA_MAX": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class PanopticReplica:
    """A network behind HTTP, in a process of its own.

    Its network comes by `reconfigure`, when it starts and whenever the weights are updated: then
    the new one is loaded beside the old one between two batches, and takes over.
    """

    def __init__(self, options: Mapping[str, Any], counts: Any) -> None:
        """Waits for a network.

        Args:
            options: `limits`, fields of `ServingLimits`; `allow_origins`; `token`, else what the
                environment variable says.
            counts: handle of the `CountsBoard`.
        """
        from ray import serve

        self._options = dict(options)
        self._counts = counts
        self._name = serve.get_replica_context().replica_id.unique_id
        self._service: Any = None
        self._app: Any = None
        self._pushing: asyncio.Task[None] | None = None

    async def reconfigure(self, network: Mapping[str, Any]) -> None:
        """Loads a network; the first one opens the service.

        Args:
            network: `weights`, and arguments of `load_predictor`; `tile` and `overlap`, pixels, for
                images that are seen in tiles.
        """
        load = partial(_load, network)
        if self._service is not None:
            await self._service.exchange(load)
            return
        predictor = await asyncio.to_thread(load)
        from seamless_pr.serving.app import make_app
        from seamless_pr.serving.limits import ServingLimits
        from seamless_pr.serving.service import PanopticService

        limits = dict(self._options.get("limits", {}))
        limits["uri_prefixes"] = tuple(limits.get("uri_prefixes", ()))
        self._service = PanopticService(predictor, ServingLimits(**limits))
        self._app = make_app(
            self._service,
            token=self._options.get("token") or os.environ.get(TOKEN_VARIABLE, ""),
            allow_origins=self._options.get("allow_origins", ()),
            metrics=self._metrics,
        )
        self._pushing = asyncio.create_task(self._push_often())

    def check_health(self) -> None:
        """Serve replaces a replica whose network has ended.

        Raises:
            RuntimeError: it has, or there never was one.
        """
        if self._service is None:
            raise RuntimeError(f"the user_config of deployment {NETWORKS} names no weights")
        if not self._service.is_ready():
            raise RuntimeError("the thread of the network has ended")

    def __serve_build_asgi_app__(self) -> Any:
        async def app(scope: Mapping[str, Any], receive: _Receive, send: _Send) -> None:
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            # Serve asks a replica when it has its network.
            await self._app(scope, receive, send)

        return app

    async def _push(self) -> None:
        taken = self._service.counts.take()
        await self._counts.add.remote(self._name, taken, self._service.num_waiting)

    async def _push_often(self) -> None:
        while True:
            await asyncio.sleep(PUSH_SECONDS)
            try:
                await self._push()
            except Exception:  # The board is started again, and counts go on from 0.
                continue

    async def _metrics(self) -> str:
        await self._push()
        text: str = await self._counts.text.remote()
        return text


def _load(network: Mapping[str, Any]) -> Any:
    from seamless_pr.inference.cpu_memory import keep_freed_memory
    from seamless_pr.inference.tile_grid import Tiling
    from seamless_pr.inference.tiled_predictor import TiledPredictor
    from seamless_pr.integrations.predictors import load_predictor
    from seamless_pr.serving.warm_up import warm_up

    arguments = dict(network)
    tile, overlap = arguments.pop("tile", None), arguments.pop("overlap", None)
    predictor = load_predictor(arguments.pop("weights"), **arguments)
    if tile:
        predictor = TiledPredictor(predictor, Tiling.of(tile, overlap))
    if predictor.device.type == "cpu":
        keep_freed_memory()
    warm_up(predictor)
    return predictor


def application(arguments: Mapping[str, Any]) -> Any:
    """Builds the application.

    Args:
        arguments: see `PanopticReplica`; `network`, the first value of the replicas' `user_config`,
            where the config of the deployment does not say it; and `deployment`, options of the
            replicas' deployment.

    Returns:
        What `serve.run` takes.
    """
    from ray import serve

    options = dict(arguments)
    network, deployment = options.pop("network", None), dict(options.pop("deployment", {}))
    limits = options.get("limits", {})
    actor = {"num_cpus": 1, **deployment.pop("ray_actor_options", {})}
    actor.setdefault("runtime_env", {"env_vars": REPLICA_VARIABLES})
    replicas = serve.deployment(
        name=NETWORKS,
        user_config=network,
        max_ongoing_requests=limits.get("max_waiting", 32) + OTHER_REQUESTS,
        graceful_shutdown_timeout_s=limits.get("seconds", 60.0),
        health_check_period_s=5,
        ray_actor_options=actor,
    )(serve.ingress()(PanopticReplica))
    board = serve.deployment(
        name=COUNTS, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0}
    )(CountsBoard)
    return replicas.options(**deployment).bind(options, board.bind())
