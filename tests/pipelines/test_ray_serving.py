"""The Serve config of the repository on a cluster of this machine, while clients ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from seamless_pr.datasets.images import read_image
from seamless_pr.id_maps.id_png import decode_id_png
from seamless_pr.inference.predictor import Predictor
from seamless_pr.inference.tile_grid import Tiling
from seamless_pr.inference.tiled_predictor import TiledPredictor
from seamless_pr.integrations.predictors import load_predictor
from seamless_pr.pipelines import predict
from seamless_pr.street_scenes.dataset import draw_street_scene
from tests.support.color_server import as_file
from tests.support.http_server import ask
from tests.support.hugging_face import NUM_LABELS, save_tiny
from tests.support.load import NO_ANSWER, Load
from tests.support.processes import kill_one, wait_until
from tests.support.ray_head import RayHead, free_ports, ray_head
from tests.support.tiny_checkpoint import write_tiny_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/clusters/serve.yaml"
SECONDS = 300
APPLICATIONS = "/api/serve/applications/"
BOTH = "RUNNING 2"


@dataclass
class Deployment:
    """The application on a cluster.

    Attributes:
        head: the cluster.
        folder: holds its config, weights and photos.
        address: of the application, with a slash at the end.
        config: content of the Serve config.
    """

    head: RayHead
    folder: Path
    address: str
    config: dict[str, Any]

    @property
    def panoptic(self) -> dict[str, Any]:
        """The replicas' part of the config."""
        return self.config["applications"][0]["deployments"][0]

    def deploy(self, weights: Path) -> None:
        """`serve deploy` of the config with these weights."""
        self.panoptic["user_config"]["weights"] = str(weights)
        file = self.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(self.config))
        code, output = self.head.call("serve", "deploy", str(file))
        assert code == 0, output

    def change(self, **of_panoptic: Any) -> None:
        """Changes the replicas' part of the config in a moment, as `serve deploy` does."""
        self.panoptic.update(of_panoptic)
        reply = self.head.ask(APPLICATIONS, json.dumps(self.config).encode(), method="PUT")
        assert reply.status == 200, reply.body

    def network(self) -> dict[str, Any]:
        """What a replica says of its network; empty while there is none."""
        try:
            reply = ask(f"{self.address}v1/model")
            return reply.json()["network"] if reply.status == 200 else {}
        except OSError:
            return {}

    def all_have(self, network: Predictor) -> bool:
        """Whether replicas have this network and are at rest; asks each of them some times."""
        wanted = network.describe().items()
        return all(wanted <= self.network().items() for _ in range(6)) and self.status() == BOTH

    def status(self) -> str:
        """Of the application, and the number of its replicas at work."""
        reply = self.head.ask(APPLICATIONS)
        assert reply.status == 200, reply.body
        (application,) = reply.json()["applications"].values()
        replicas = application["deployments"].get("Panoptic", {}).get("replicas", [])
        running = sum(replica["state"] == "RUNNING" for replica in replicas)
        return f"{application['status']} {running}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    files = []
    for index, size in enumerate([(64, 128), (64, 128), (96, 96)]):
        files.append(folder / f"{index}.png")
        files[-1].write_bytes(as_file(draw_street_scene(3, "val", index, size).image))
    return files


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("weights")
    return [write_tiny_checkpoint(folder / f"{n}.safetensors", n) for n in range(2)]


@pytest.fixture(scope="module")
def deployment(
    weights: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    config = yaml.safe_load(CONFIG.read_text())
    (port,) = free_ports(1)
    config["http_options"]["port"] = port
    panoptic = config["applications"][0]["deployments"][0]
    panoptic["user_config"] |= {"device": "cpu", "amp": "none"}
    panoptic["ray_actor_options"] |= {"num_cpus": 1, "num_gpus": 0}
    del panoptic["autoscaling_config"]
    panoptic["num_replicas"] = 2
    with ray_head(3, {"PYTHONPATH": str(ROOT)}) as head:
        folder = tmp_path_factory.mktemp("deployment")
        deployed = Deployment(head, folder, f"http://127.0.0.1:{port}/", config)
        deployed.deploy(weights[0])
        wait_until(lambda: deployed.status() == BOTH, SECONDS, "two replicas")
        yield deployed


def test_maps_are_those_of_predict(
    deployment: Deployment, photos: list[Path], weights: list[Path], tmp_path: Path
) -> None:
    arguments = ["--weights", str(weights[0]), "--images", str(photos[0].parent)]
    assert predict.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    for photo in photos:
        reply = ask(f"{deployment.address}v1/panoptic?format=png", photo.read_bytes())
        assert reply.status == 200, reply.body
        predicted = decode_id_png((tmp_path / "out/panoptic" / photo.name).read_bytes())
        assert np.array_equal(decode_id_png(reply.body), predicted)


def test_metrics_are_those_of_all_replicas(deployment: Deployment, photos: list[Path]) -> None:
    def total() -> float:
        lines = ask(f"{deployment.address}metrics").body.decode().splitlines()
        name = 'seamless_pr_requests_total{status="200"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    # What a replica counted before it was asked may still be on its way.
    wait_until(lambda: total() >= 3, 10, "the counts of the test before")
    before = total()
    for _ in range(6):
        assert ask(f"{deployment.address}v1/panoptic", photos[0].read_bytes()).status == 200
    wait_until(lambda: total() == before + 6, 10, "the counts of both replicas")


def test_a_client_that_asks_once_more_loses_nothing_when_a_replica_dies(
    deployment: Deployment, photos: list[Path]
) -> None:
    bodies = [photo.read_bytes() for photo in photos]
    with Load(f"{deployment.address}v1/panoptic?format=png", bodies, num_clients=4) as load:
        load.until(lambda: load.statuses[200] >= 8)
        assert kill_one(deployment.head.pid, "ServeReplica:seamless_pr:Panoptic")
        load.until(lambda: deployment.status() != BOTH, SECONDS)
        load.until(lambda: deployment.status() == BOTH, SECONDS)
    assert load.lost == 0
    # What the dead replica had in its hands fails, and nothing else; nothing is told to wait.
    failed = {status: n for status, n in load.statuses.items() if status != 200}
    assert set(failed) <= {500, NO_ANSWER}
    assert sum(failed.values()) <= 4
    assert len({decode_id_png(answer).tobytes() for answer in load.answers}) <= len(set(bodies))


def test_weights_are_updated_under_load_without_a_failed_request(
    deployment: Deployment, photos: list[Path], weights: list[Path]
) -> None:
    bodies = [photos[0].read_bytes()]
    old, new = (load_predictor(file, "cpu") for file in weights)
    assert deployment.all_have(old)
    with Load(f"{deployment.address}v1/panoptic?format=png", bodies, num_clients=3) as load:
        load.until(lambda: load.statuses[200] >= 6)
        deployment.deploy(weights[1])
        load.until(lambda: deployment.all_have(new), SECONDS)
    assert set(load.statuses) == {200}
    image = read_image(photos[0])
    maps = [predictor(image).id_map.numpy() for predictor in (old, new)]
    assert not np.array_equal(*maps)
    answers = [decode_id_png(answer) for answer in load.answers]
    assert np.array_equal(answers[0], maps[0])
    assert np.array_equal(answers[-1], maps[1])
    assert all(any(np.array_equal(answer, own) for own in maps) for answer in answers)


def test_strangers_cannot_deploy(deployment: Deployment) -> None:
    place = deployment.head.variables["RAY_DASHBOARD_ADDRESS"] + APPLICATIONS
    assert ask(place).status in (401, 403)
    told = ask(place, json.dumps({"applications": []}).encode())
    assert told.status in (401, 403, 405)
    assert deployment.status() == BOTH


@pytest.mark.parametrize("kind", ["tiles", "hugging_face"])
def test_tiles_and_networks_of_others_are_served_as_they_predict(
    deployment: Deployment, photos: list[Path], weights: list[Path], kind: str, tmp_path: Path
) -> None:
    if kind == "tiles":
        network = {"weights": str(weights[1]), "tile": 48, "overlap": 12}
        words = ["--weights", network["weights"], "--tile", "48"]
        wanted = TiledPredictor(load_predictor(weights[1], "cpu"), Tiling(48, 12))
    else:
        pytest.importorskip("transformers", reason="pip install transformers")
        save_tiny("maskformer", tmp_path / "net")
        five = [{"id": n + 1, "name": str(n), "isthing": n % 2} for n in range(NUM_LABELS)]
        (tmp_path / "five.json").write_text(json.dumps({"categories": five}))
        changes = [f"data.label_space={tmp_path / 'five.json'}", "model.fusion.task=semantic"]
        network = {"weights": f"hf:{tmp_path / 'net'}", "overrides": changes}
        words = ["--weights", network["weights"], *changes]
        wanted = load_predictor(network["weights"], "cpu", overrides=changes)
    deployment.change(user_config={"device": "cpu", "batch_size": 8, **network})
    wait_until(lambda: deployment.all_have(wanted), SECONDS, "the other network")
    words = [*words, "--images", str(photos[0].parent), "--device", "cpu"]
    assert predict.main([*words, "--output", str(tmp_path / "out")]) == 0
    for photo in photos:
        reply = ask(f"{deployment.address}v1/panoptic?format=png", photo.read_bytes())
        assert reply.status == 200, reply.body
        predicted = decode_id_png((tmp_path / "out/panoptic" / photo.name).read_bytes())
        assert predicted.any()
        assert np.array_equal(decode_id_png(reply.body), predicted)


def test_replicas_come_with_the_load_and_go_with_it(
    deployment: Deployment, photos: list[Path], weights: list[Path]
) -> None:
    """What is RUNNING can be asked: no client sees one come or go."""
    shipped = yaml.safe_load(CONFIG.read_text())["applications"][0]["deployments"][0]
    patience = {"upscale_delay_s": 0.5, "downscale_delay_s": 1.0, "look_back_period_s": 1.0}
    small = {"max_replicas": 2, "target_ongoing_requests": 1, "metrics_interval_s": 0.2}
    scaling = {**shipped["autoscaling_config"], **patience, **small}
    assert scaling["min_replicas"] == 1
    deployment.change(
        num_replicas="auto",
        autoscaling_config=scaling,
        user_config={"device": "cpu", "batch_size": 8, "weights": str(weights[0])},
    )
    wait_until(lambda: deployment.status() == "RUNNING 1", SECONDS, "one replica")
    with Load(
        f"{deployment.address}v1/panoptic?format=png", [photos[0].read_bytes()], num_clients=4
    ) as load:
        load.until(lambda: deployment.status() == BOTH, SECONDS)
    wait_until(lambda: deployment.status() == "RUNNING 1", SECONDS, "one replica again")
    assert set(load.statuses) == {200}
    assert len(set(load.answers)) == 1
