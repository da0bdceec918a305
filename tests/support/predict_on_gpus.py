"""pipelines/predict.py on a cluster that counts GPUs where there are none.

    python -m tests.support.predict_on_gpus NUM_GPUS ARGUMENTS...

Stages, blocks and reservations are those of a GPU cluster; each network runs on the CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from seamless_pr.inference.predictor import Predictor
from seamless_pr.pipelines import predict, ray_prediction
from seamless_pr.pipelines.wanted_predictor import load_wanted_predictor

NUM_CPUS = 2


@contextmanager
def cluster_with_gpus(**_: object) -> Iterator[None]:
    import ray

    ray.init(
        address="local",
        num_cpus=NUM_CPUS,
        num_gpus=int(sys.argv[1]),
        include_dashboard=False,
        object_store_memory=300 * 2**20,
    )
    yield
    ray.shutdown()


def load_on_cpu(options: argparse.Namespace, device: str) -> Predictor:
    assert device == "cuda"
    return load_wanted_predictor(options, "cpu")


if __name__ == "__main__":
    changed: Any = ray_prediction
    changed.ray_cluster = cluster_with_gpus
    changed.load_wanted_predictor = load_on_cpu
    sys.exit(predict.main([*sys.argv[2:], "--ray"]))
