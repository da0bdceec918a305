"""The four pipelines as jobs of a cluster that `ray start` made."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from seamless_pr.pipelines import evaluate, predict
from seamless_pr.pipelines.upload import upload_sizes
from seamless_pr.training.checkpoints import load_weights
from seamless_pr.training.run_log import read_log
from tests.support.hugging_face import save_tiny
from tests.support.processes import wait_until
from tests.support.ray_head import ray_head
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_run import write_tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600


@dataclass(frozen=True)
class JobServer:
    """A running cluster: the variables with which `ray job` finds it, and its temporary folder."""

    variables: dict[str, str]
    folder: Path

    def submit(self, *command: str, job: str | None = None) -> tuple[int, str]:
        """Exit status and log of a job, as `ray job submit` gives them."""
        name = ["--submission-id", job] if job else []
        return self.call("submit", "--working-dir", ".", *name, "--", "python", *command)

    def run(self, *command: str) -> str:
        """The log of a job that must end well; what `ray job submit` does without its process."""
        client = JobSubmissionClient(
            self.variables["RAY_API_SERVER_ADDRESS"],
            headers={"Authorization": f"Bearer {self.variables['RAY_AUTH_TOKEN']}"},
        )
        job = client.submit_job(
            entrypoint=shlex.join(["python", *command]), runtime_env={"working_dir": str(ROOT)}
        )
        over = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
        wait_until(lambda: client.get_job_status(job) in over, SECONDS, "the job")
        log: str = client.get_job_logs(job)
        assert client.get_job_status(job) == JobStatus.SUCCEEDED, log
        return log

    def call(self, *arguments: str) -> tuple[int, str]:
        """Exit status and output of `ray job`."""
        done = subprocess.run(
            ["ray", "job", *arguments],
            cwd=ROOT,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        return done.returncode, done.stdout + done.stderr

    def shipped_files(self) -> set[str]:
        """Names of the files that the newest upload brought."""
        parent = self.folder / "session_latest/runtime_resources/working_dir_files"
        uploads = [path for path in parent.iterdir() if path.is_dir()]
        newest = max(uploads, key=lambda path: path.stat().st_mtime)
        files = (path.relative_to(newest) for path in newest.rglob("*") if path.is_file())
        return {str(file) for file in files if "__pycache__" not in file.parts}


@pytest.fixture(scope="module")
def server() -> Iterator[JobServer]:
    """A cluster of two cores that `ray start` made."""
    # A busy machine takes its time to start workers.
    with ray_head(2, {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}) as head:
        yield JobServer(head.variables, head.folder)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_run(tmp_path_factory.mktemp("tiny_run"))


@pytest.fixture(scope="module")
def run(server: JobServer, config: Path) -> Path:
    """The folder of a run whose job is over; steps large enough for PQ to go up and down."""
    output = config.parent / "run"
    arguments = ["--config", str(config), "--output", str(output), "training.steps=3"]
    arguments += ["--storage", (config.parent / "storage/run").as_uri(), "optimizer.lr=0.1"]
    arguments += ["training.evaluation_interval_steps=1", "cluster.num_checkpoints_kept=1"]
    status, log = server.submit("pipelines/train.py", *arguments, job="training")
    assert status == 0, log
    assert "step 3/3" in log
    return output


@pytest.fixture(scope="module")
def predictions(server: JobServer, config: Path, run: Path) -> Path:
    output, data = config.parent / "predictions", config.parent / "data/val"
    arguments = ["--weights", str(run), "--images", str(data / "images"), "--output", str(output)]
    arguments += ["--image-ids", str(data / "panoptic.json")]
    log = server.run("pipelines/predict.py", *arguments)
    assert "2 images in" in log
    # Progress comes as lines, and not many of them.
    assert "2 of 2 images" in log
    return output


def test_a_dataset_is_verified_by_a_job_that_gets_the_code_and_nothing_else(
    server: JobServer, config: Path
) -> None:
    expected = set(upload_sizes(ROOT))
    data = config.parent / "data/val"
    files = ["--json", str(data / "panoptic.json"), "--png-dir", str(data / "panoptic")]
    log = server.run("pipelines/prepare.py", "verify", *files)
    assert "complete and consistent" in log
    assert server.shipped_files() == expected


def test_a_training_job_keeps_the_best_checkpoint_and_the_last(
    server: JobServer, config: Path, run: Path
) -> None:
    validated = {
        record["step"]: record["all"]["pq"]
        for record in read_log(run / "log.jsonl")
        if record["kind"] == "validation"
    }
    best_pq, last = max(validated.values()), 3
    storage = config.parent / "storage/run"
    snapshot = json.loads((storage / "checkpoint_manager_snapshot.json").read_text())
    kept = [entry["metrics"] for entry in snapshot["checkpoint_results"]]
    kept_pq = {metrics["step"]: metrics["pq"] for metrics in kept}
    assert kept_pq.items() <= validated.items()
    assert last in kept_pq
    assert max(kept_pq.values()) == best_pq
    assert len(kept_pq) == (1 if validated[last] == best_pq else 2)
    for step in kept_pq:
        weights = load_weights(storage / f"step_{step:08d}/weights.safetensors")[1]
        assert weights["step"] == step
    assert validated[load_weights(run / "weights.safetensors")[1]["step"]] == best_pq


def test_status_and_log_of_a_job_can_be_asked_for_later(server: JobServer, run: Path) -> None:
    assert "succeeded" in server.call("status", "training")[1].lower()
    status, log = server.call("logs", "training")
    assert status == 0
    for step in range(1, 4):
        assert log.count(f"step {step}/3 ") == 1
    # Ray's own lines about workers and checkpoints must not bury those of the run.
    assert len(log.splitlines()) < 100, log


def test_predictions_of_a_job_are_scored_and_compared_by_others(
    server: JobServer, config: Path, predictions: Path
) -> None:
    scores, truth = config.parent / "scores", config.parent / "data/val/panoptic.json"
    arguments = ["--ground-truth", str(truth), "--predictions", str(predictions)]
    server.run("pipelines/evaluate.py", *arguments, "--output", str(scores))
    evaluation = scores / "evaluation.json"
    assert len(json.loads(evaluation.read_text())["per_image"]) == 2
    compared = config.parent / "compared"
    arguments = ["--compare", str(evaluation), str(evaluation), "--output", str(compared)]
    assert evaluate.main(arguments) == 0
    assert json.loads((compared / "comparison.json").read_text())["pq"]["all"]["difference"] == 0


def test_a_job_that_fails_says_so_by_its_status_and_why_in_its_log(
    server: JobServer, config: Path
) -> None:
    truth = str(config.parent / "data/val/panoptic.json")
    arguments = ["--ground-truth", truth, "--predictions", truth, "--output", "scores"]
    status, log = server.submit("pipelines/evaluate.py", *arguments)
    assert status == 1
    assert "give an absolute path" in log


def test_a_job_labels_with_a_network_of_hugging_face(
    server: JobServer, config: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers", reason="pip install transformers")
    save_tiny("eomt", tmp_path / "net")
    classes = [{"id": place, "name": str(place), "isthing": place % 2} for place in range(5)]
    (tmp_path / "five.json").write_text(json.dumps({"categories": classes}))
    arguments = ["--weights", f"hf:{tmp_path / 'net'}", "--device", "cpu"]
    arguments += ["--images", str(config.parent / "data/val/images")]
    arguments += [f"data.label_space={tmp_path / 'five.json'}"]
    arguments += ["model.fusion.object_threshold=0.17", "model.fusion.overlap_threshold=0.1"]
    check_same_alone(server, arguments, tmp_path)


def test_a_job_labels_with_several_networks_that_see_each_image_several_times(
    server: JobServer, config: Path, tmp_path: Path
) -> None:
    weights = [
        str(write_tiny_checkpoint(tmp_path / f"{seed}.safetensors", seed)) for seed in (0, 1)
    ]
    arguments = ["--weights", *weights, "--ensemble", "--ensemble-scores", "30", "31", "--flip"]
    arguments += ["--scales", "1", "0.5", "--images", str(config.parent / "data/val/images")]
    arguments += ["--device", "cpu", "model.fusion.score_threshold=0.0"]
    record = check_same_alone(server, arguments, tmp_path)
    assert record["ensemble_weights"] == [0.6, 1.0]
    assert [len(member["views"]) for member in record["ensemble"]] == [4, 4]


def check_same_alone(server: JobServer, arguments: list[str], folder: Path) -> dict[str, Any]:
    """A job's maps are those of this process, and not all void; what it says of the predictor."""
    status, log = server.submit("pipelines/predict.py", *arguments, "--output", str(folder / "job"))
    assert status == 0, log
    assert predict.main([*arguments, "--output", str(folder / "alone")]) == 0
    ours, theirs = (
        {path.name: path.read_bytes() for path in (folder / run / "panoptic").rglob("*.png")}
        for run in ("job", "alone")
    )
    assert len(ours) == 2
    assert ours == theirs
    written = json.loads((folder / "job/panoptic.json").read_text())
    assert any(record["segments_info"] for record in written["annotations"])
    return json.loads((folder / "job/run.json").read_text())
