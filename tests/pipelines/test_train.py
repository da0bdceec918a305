from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from seamless_pr.build.predictor import load_predictor
from seamless_pr.pipelines.train import default_output, main
from seamless_pr.training.checkpoints import load_weights
from seamless_pr.training.run_log import read_log
from tests.support.tiny_run import write_tiny_run

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_run(tmp_path_factory.mktemp("tiny_run"))


@pytest.fixture(scope="module")
def undisturbed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody stopped, in a process with one thread as all others here."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    command = [sys.executable, "pipelines/train.py", "--config", str(config)]
    subprocess.run([*command, "--output", str(output)], cwd=ROOT, env=ENVIRONMENT, check=True)
    return output


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run / "weights.safetensors")[0]


@pytest.mark.slow
def test_a_run_that_is_killed_and_started_again_ends_with_the_same_bits(
    config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "pipelines/train.py"), "--config", str(config)]
    # From another folder, to see that the script finds the package beside it.
    options = {"cwd": tmp_path, "env": ENVIRONMENT}
    process = subprocess.Popen([*command, "--output", "run"], **options)
    checkpoint = tmp_path / "run/checkpoints/step_00000002"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run/weights.safetensors").exists()
    again = subprocess.run([*command, "--output", "run"], **options, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "going on after step" in again.stdout
    ours, theirs = weights_of(tmp_path / "run"), weights_of(undisturbed)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    records = read_log(tmp_path / "run/log.jsonl")
    assert [record["step"] for record in records] == list(range(1, 7))


# What torchrun tells its workers, in forks of one process that has imported everything: six
# workers and three launchers would import it nine times. tests/pipelines/test_ray_training.py
# starts torchrun itself.
WORKERS = """
import json, os, socket, sys
from seamless_pr.build import predictor, runs
from seamless_pr.pipelines.train import main
from seamless_pr.training import trainer
for num_workers, arguments in json.loads(sys.argv[1]):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"WORLD_SIZE": num_workers, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    workers = []
    for rank in range(num_workers):
        workers.append(os.fork())
        if workers[-1] == 0:
            names |= {"RANK": rank, "LOCAL_RANK": rank}
            os.environ.update({name: str(value) for name, value in names.items()})
            os._exit(main(arguments))
    if any(os.waitpid(worker, 0)[1] for worker in workers):
        sys.exit(f"one of {num_workers} workers failed")
"""


@pytest.mark.slow
def test_two_and_three_workers_train_the_same_weights_as_one_on_the_joined_batch(
    config: Path, tmp_path: Path
) -> None:
    # Choices between near-ties (hard pixels, proposals) amplify rounding; small steps make few, and
    # from the weights of this seed none (3e-6; from those of seed 0 one moves weights by 1e-4).
    overrides = ["training.steps=5", "optimizer.lr=0.001", "model.semantics.hard_pixel_fraction=1"]
    overrides.append("training.seed=2")
    arguments = ["--config", str(config), *overrides]
    # Three workers share four images unequally.
    jobs = [(n, [*arguments, "--output", str(tmp_path / str(n))]) for n in (1, 2, 3)]
    command = [sys.executable, "-c", WORKERS, json.dumps(jobs)]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True)
    alone_log, alone_weights = read_log(tmp_path / "1/log.jsonl"), weights_of(tmp_path / "1")
    for name in "23":
        log = read_log(tmp_path / name / "log.jsonl")
        assert [record["checksum_spread"] for record in log] == [0] * 5
        for alone, shared in zip(alone_log[:3], log[:3]):
            assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-5, abs=1e-6)
        for key, tensor in weights_of(tmp_path / name).items():
            if "running" not in key:
                torch.testing.assert_close(tensor, alone_weights[key], rtol=0, atol=1e-5, msg=key)


@pytest.mark.slow
def test_validation_judges_the_weights_and_the_result_can_predict(
    config: Path, tmp_path: Path
) -> None:
    overrides = ["training.steps=2", "training.evaluation_interval_steps=1"]
    arguments = ["--config", str(config), "--output", str(tmp_path / "run"), *overrides]
    assert main(arguments) == 0
    validations = [
        record for record in read_log(tmp_path / "run/log.jsonl") if record["kind"] == "validation"
    ]
    assert [record["step"] for record in validations] == [1, 2]
    assert all(0 <= record["all"]["pq"] <= 1 for record in validations)
    metadata = load_weights(tmp_path / "run/weights.safetensors")[1]
    best = max(validations, key=lambda record: record["all"]["pq"])
    assert metadata["metrics"]["all"]["pq"] == best["all"]["pq"]
    predictor = load_predictor(tmp_path / "run")
    assert [category.name for category in predictor.label_space.categories] == [
        "road",
        "sky",
        "car",
    ]
    assert predictor(torch.zeros(3, 30, 50, dtype=torch.uint8)).image_size == (30, 50)
    # A finished run has nothing left to do.
    assert main(arguments) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplab_v3_r103", "deeplab_v3_pointrend_r103"])
def test_the_deeplab_recipe_trains_small_and_predicts_at_half_its_stride(
    config: Path, tmp_path: Path, name: str
) -> None:
    data = config.parent / "data"
    parts = [
        f"data.{part}.{key}={data / part / file}"
        for part in ("train", "val")
        for key, file in (("json", "panoptic.json"), ("images", "images"), ("segments", "panoptic"))
    ]
    small = [
        "model.backbone.name=resnet50",
        "model.backbone.options.layers=[1,1,2,3]",
        "model.backbone.options.channels=[8,16,24,32]",
        "model.backbone.options.stem_width=8",
        "model.semantics.hidden_channels=8",
        "model.semantics.pooling_size=4",
        *(["model.semantics.points.hidden_channels=8"] if "pointrend" in name else []),
        "data.shortest_side_pixels=64",
        "data.longest_side_pixels=256",
        "data.crop_size_pixels=[64,64]",
        "data.crop_max_class_fraction=0.75",
        "data.ssd_colors=true",
        "data.batch_size=4",
        "data.num_workers=0",
        "schedule.warmup_steps=2",
        "training.steps=3",
        "training.evaluation_interval_steps=3",
        "training.log_interval_steps=1",
    ]
    recipe = ROOT / f"configs/cityscapes/{name}.yaml"
    run = tmp_path / "run"
    assert main(["--config", str(recipe), "--output", str(run), *parts, *small]) == 0
    records = read_log(run / "log.jsonl")
    assert [record["kind"] for record in records] == ["train"] * 3 + ["validation"]
    predictor = load_predictor(run, overrides=["model.backbone.output_stride=8"])
    assert predictor.network.trunk.backbone.strides == (4, 8, 8, 8)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 60, 100), dtype=torch.uint8, generator=generator)
    segmentation = predictor(image)
    assert segmentation.image_size == (60, 100)
    assert not segmentation.semantic_map().eq(predictor.label_space.IGNORE_TRAIN_ID).any()


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["optimizer.learnrate=1"], "unknown key 'optimizer.learnrate'"),
        (["training.steps=many"], "'training.steps' must be a whole number; got 'many'"),
        (["data.train.json=nothing.json"], "nothing.json"),
        (["data.val.images=nowhere"], "nowhere"),
        (["optimizer.lr_multipliers.neck=10"], "names neck, but the parts of the network are"),
        (["data.label_space=cityscape"], "no label space 'cityscape'"),
        (["model.backbone.name=vit_tiny_patch16_224"], "vit_tiny_patch16_224"),
        (["training.amp=fp16"], "needs a GPU"),
    ],
)
def test_bad_input_ends_with_a_sentence_and_no_traceback(
    config: Path, tmp_path: Path, capsys, overrides: list[str], message: str
) -> None:
    overrides = ["training.evaluation_interval_steps=1", *overrides]
    assert main(["--config", str(config), "--output", str(tmp_path / "run"), *overrides]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_the_folder_of_another_run_is_left_alone(config: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--config", str(config), "--output", str(tmp_path)]
    # Stops before the first step, but the folder is claimed.
    assert main([*arguments, "data.val.json=x", "training.evaluation_interval_steps=1"]) == 1
    before = (tmp_path / "config.yaml").read_text()
    assert main([*arguments, "optimizer.lr=0.5"]) == 1
    assert "optimizer.lr: 0.01 in the folder, 0.5 now" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == before


def test_ctrl_c_ends_without_a_traceback(config: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seamless_pr.training.trainer.Trainer.run", interrupted)
    assert main(["--config", str(config), "--output", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_the_default_folder_mirrors_the_place_of_the_config() -> None:
    assert default_output("configs/debug/street_scenes.yaml") == Path("runs/debug/street_scenes")
    assert default_output("/elsewhere/mine.yaml") == Path("runs/mine")
