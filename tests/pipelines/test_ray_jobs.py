"""The four pipelines as jobs of a cluster that `ray start` made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from seamless_pr.engine.run_log import read_log
from tests.support.processes import descendants, wait_until
from tests.support.tiny_run import write_tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Variables with which `ray job submit` finds a cluster of two cores."""
    gcs, dashboard, agent, client = free_ports(4)
    folder = tempfile.mkdtemp(prefix="ray")  # Short: it holds sockets.
    bin_folder = Path(sys.executable).parent
    variables = {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        # A busy machine takes its time to start workers.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    command = [str(bin_folder / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    command += ["--disable-usage-stats", f"--temp-dir={folder}"]
    head = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(dashboard, head)
        yield variables
    finally:
        # Not `ray stop`, which ends every cluster of this machine.
        started = descendants(head.pid)
        head.terminate()
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
        for pid in started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        assert process.poll() is None, "ray start has ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, SECONDS, "the job server")


def submit(environment: dict[str, str], *command: str) -> tuple[int, str]:
    """Exit status and log of a job."""
    whole = ["ray", "job", "submit", "--working-dir", ".", "--", "python", *command]
    done = subprocess.run(
        whole, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    return done.returncode, done.stdout + done.stderr


def test_a_dataset_is_checked_trained_on_labelled_and_scored_by_jobs(
    environment: dict[str, str], tmp_path: Path
) -> None:
    config = write_tiny_run(tmp_path)
    data, run = tmp_path / "data/val", tmp_path / "run"
    files = ["--json", str(data / "panoptic.json"), "--png-dir", str(data / "panoptic")]
    status, log = submit(environment, "pipelines/prepare.py", "verify", *files)
    assert status == 0, log
    assert "complete and consistent" in log

    arguments = ["--config", str(config), "--output", str(run), "training.steps=2"]
    arguments += ["training.evaluation_interval_steps=1", "training.checkpoint_interval_steps=1"]
    status, log = submit(environment, "pipelines/train.py", *arguments)
    assert status == 0, log
    assert "step 2/2" in log
    snapshot = json.loads((run / "ray/checkpoint_manager_snapshot.json").read_text())
    validated = {
        record["step"]: record["all"]["pq"]
        for record in read_log(run / "log.jsonl")
        if record["kind"] == "validation"
    }
    kept = [entry["metrics"] for entry in snapshot["checkpoint_results"]]
    assert {metrics["step"]: metrics["pq"] for metrics in kept} == validated

    predictions = tmp_path / "predictions"
    arguments = ["--weights", str(run), "--images", str(data / "images")]
    arguments += ["--output", str(predictions), "--image-ids", str(data / "panoptic.json")]
    status, log = submit(environment, "pipelines/predict.py", *arguments)
    assert status == 0, log
    assert "2 images in" in log

    scores = tmp_path / "scores"
    arguments = ["--ground-truth", str(data / "panoptic.json"), "--predictions", str(predictions)]
    status, log = submit(environment, "pipelines/evaluate.py", *arguments, "--output", str(scores))
    assert status == 0, log
    assert len(json.loads((scores / "evaluation.json").read_text())["per_image"]) == 2

    # A job that fails says so by its status, and why in its log.
    status, log = submit(environment, "pipelines/evaluate.py", *arguments, "--output", "scores")
    assert status == 1
    assert "give an absolute path" in log
