"""Training as a Ray Train run: the library's trainer in every worker, checkpoints through Ray."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.run_folder import run_folder
from seamless_pr.build.runs import build_trainer
from seamless_pr.config.load import config_to_dict
from seamless_pr.config.schema import ClusterConfig, Config
from seamless_pr.files import writing
from seamless_pr.pipelines.paths import with_absolute_paths
from seamless_pr.pipelines.ray_support import cluster_failures, inside_ray_job, ray_cluster
from seamless_pr.pipelines.ray_tasks import work_in
from seamless_pr.training.checkpoints import WEIGHTS_NAME
from seamless_pr.training.distributed import of_first_worker

STORAGE_NAME = "ray"
# Weights that no validation has judged rank below all others.
UNJUDGED_PQ = -1.0
RAY_TRAIN_SETTINGS = {
    # A report waits for the controller's next look at its workers, by default 2 seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Ray would show what a worker prints and a copy of it in its log.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
# What the user's shell says about network interfaces holds for the workers too.
NETWORK_VARIABLES = ("GLOO_", "NCCL_")


def train_on_cluster(config: Config, output: Path, storage: str | None) -> None:
    """Trains over the workers that the config asks for.

    Args:
        config: the run.
        output: run folder, absolute, on storage that all nodes share.
        storage: folder (absolute) or URI of Ray's checkpoints, of this run alone; None:
            `output`/ray.

    Raises:
        OSError: workers were lost or failed more often than `cluster.max_failures`.
        ValueError: the run folder belongs to another run, or `storage` is no folder.
    """
    storage = storage or str(output / STORAGE_NAME)
    storage_parts(storage)  # A wrong one must not claim the run folder.
    for name, value in RAY_TRAIN_SETTINGS.items():
        os.environ.setdefault(name, value)
    cluster = config.cluster
    wanted = (cluster.min_workers or cluster.num_workers) * cluster.cpus_per_worker
    with (
        ray_cluster(wanted_cpus=wanted, dashboard=True),
        cluster_failures(),
        run_folder(output, config),
    ):
        result = _fit(config, output, storage)
        weights = output / WEIGHTS_NAME
        if not weights.exists():
            # The first worker's disk is elsewhere; its weights came here with a checkpoint.
            _fetch_weights(result, weights)
    print(f"weights: {weights}", flush=True)


def _fit(config: Config, output: Path, storage: str) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    cluster = config.cluster
    parent, name = storage_parts(storage)
    evaluates = config.training.evaluation_interval_steps > 0
    variables = {
        key: value for key, value in os.environ.items() if key.startswith(NETWORK_VARIABLES)
    }
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config=worker_settings(config, output),
        scaling_config=scaling_config(cluster),
        run_config=RunConfig(
            name=name,
            storage_path=parent,
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=cluster.num_checkpoints_kept,
                checkpoint_score_attribute="pq" if evaluates else None,
            ),
            worker_runtime_env={"env_vars": variables},  # type: ignore[call-arg]
        ),
    )
    try:
        return _in_thread(trainer.fit)
    except TrainingFailedError as error:
        raise OSError(
            f"training failed and {cluster.max_failures} restarts (cluster.max_failures) did not "
            f"help; the same command goes on from the last checkpoint\n{error}"
        ) from error


def _in_thread(call: Callable[[], Any]) -> Any:
    """Calls in another thread, where Ray cannot take Ctrl-C over (and then ends the process)."""
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome.result()


def worker_settings(config: Config, output: Path) -> dict[str, Any]:
    """What `_train_worker` is told, in plain containers."""
    values = config_to_dict(config)
    # In a job relative paths are those of its working directory, which its workers have.
    values = values if inside_ray_job() else with_absolute_paths(values)
    return {"config": values, "output": str(output), "folder": os.getcwd()}


def storage_parts(storage: str) -> tuple[str, str]:
    """Ray's words for a place: the folder or URI of all runs, and the name of this one.

    Raises:
        ValueError: a URI that names a bucket and no folder in it.
    """
    place, mark, query = storage.partition("?") if "://" in storage else (storage, "", "")
    parent, _, name = place.rstrip("/").rpartition("/")
    if "://" in storage and not parent.partition("://")[2]:
        raise ValueError(
            f"--storage {storage} names no folder for this run; give for example "
            f"{place.rstrip('/')}/run{mark}{query}"
        )
    return f"{parent or '/'}{mark}{query}", name


def scaling_config(cluster: ClusterConfig) -> Any:
    """Ray's words for the workers of the config; asks the cluster whether it has GPUs."""
    import ray
    from ray.train import ScalingConfig

    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    use_gpu = has_gpus if cluster.use_gpu is None else cluster.use_gpu
    fewest = cluster.min_workers
    return ScalingConfig(
        num_workers=cluster.num_workers if fewest is None else (fewest, cluster.num_workers),  # type: ignore[arg-type]
        use_gpu=use_gpu,
        resources_per_worker={"CPU": cluster.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
    )


def _train_worker(settings: dict[str, Any]) -> None:
    """One worker, in the process group that Ray has made; starts where Ray's checkpoint stands."""
    import ray.train
    from ray.train.torch import get_device

    work_in(settings["folder"])
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    config = config_from_dict(settings["config"], "the config of the run")
    checkpoint = ray.train.get_checkpoint()
    with ExitStack() as stack:
        resume_from = stack.enter_context(checkpoint.as_directory()) if checkpoint else None
        trainer = build_trainer(
            config,
            settings["output"],
            device=device,
            resume_from=resume_from,
            on_checkpoint=_report,
        )
    first = int(of_first_worker(trainer.steps_done, device))
    if first != trainer.steps_done:
        raise ValueError(
            f"the first worker found a checkpoint of step {first}, another one of step "
            f"{trainer.steps_done}; the run folder {settings['output']} must lie on storage that "
            "all nodes share"
        )
    trainer.run()


def _report(step: int, folder: Path | None, metrics: Mapping[str, Any]) -> None:
    """Hands a checkpoint to Ray and waits until it counts: a loss right after costs nothing."""
    import ray.train

    pq = float(metrics["all"]["pq"]) if metrics else UNJUDGED_PQ
    checkpoint = None if folder is None else ray.train.Checkpoint.from_directory(folder)
    ray.train.report(
        {"step": step, "pq": pq},
        checkpoint=checkpoint,
        checkpoint_dir_name=f"step_{step:08d}",
    )
    ray.train.get_all_reported_checkpoints(ray.train.CheckpointConsistencyMode.COMMITTED)


def _fetch_weights(result: Any, target: Path) -> None:
    """Copies the weights of the best checkpoint (of the last one without validation)."""
    judged = [(metrics["pq"], checkpoint) for checkpoint, metrics in result.best_checkpoints]
    best = max(judged, key=lambda pair: pair[0])[1] if judged else result.checkpoint
    with best.as_directory() as folder, open(Path(folder) / WEIGHTS_NAME, "rb") as weights:
        with writing(target) as copy:
            shutil.copyfileobj(weights, copy)
