"""pipelines/serve.py as it is started, on a host with an address of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.id_maps.id_png import decode_id_png
from seamless_pr.pipelines import predict
from seamless_pr.street_scenes.dataset import draw_street_scene
from tests.support.color_server import as_file
from tests.support.processes import PROC, descendants, kill_all, wait_until
from tests.support.ray_variables import IMPATIENT
from tests.support.simulated_hosts import SimulatedHost, simulated_hosts
from tests.support.tiny_checkpoint import write_tiny_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120
PORT = 8000
TOKEN = "open sesame"
TILES = ["--tile", "48", "--overlap", "12"]
ASK = """
import sys, urllib.request
address, token, photo, answer = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}"}
request = urllib.request.Request(address, open(photo, "rb").read(), headers)
open(answer, "wb").write(urllib.request.urlopen(request, timeout=60).read())
"""


@dataclass(frozen=True)
class Server:
    """A server on a host.

    Attributes:
        process: the stage.
        log: what it prints.
        weights: of its network.
    """

    host: SimulatedHost
    process: subprocess.Popen[str]
    log: Path
    weights: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    weights = write_tiny_checkpoint(folder / "weights.safetensors")
    (folder / "token").write_text(f"{TOKEN}\n")
    command = ["pipelines/serve.py", "--weights", str(weights), "--token-file", folder / "token"]
    command += ["--device", "cpu", *TILES, "model.fusion.score_threshold=0.1"]
    free = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    free |= IMPATIENT
    with simulated_hosts(1, tmp_path_factory.mktemp("hosts")) as (host,):
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*host.prefix, sys.executable, *command],
                cwd=ROOT,
                # A shell that asks for the opposite.
                env={**free, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": host.local_folder()},
                stdout=log,
                stderr=log,
                text=True,
            )
        try:
            started = Server(host, process, folder / "log", weights)
            wait_until(
                lambda: "the page is at" in started.log.read_text() or process.poll() is not None,
                SECONDS,
                "the server",
            )
            assert process.poll() is None, started.log.read_text()
            yield started
        finally:
            kill_all(process.pid)


def test_the_page_listens_on_loopback_alone_and_no_port_runs_what_a_stranger_says(
    server: Server, tmp_path: Path
) -> None:
    address, mark = server.host.address, tmp_path / "mark"
    command = [sys.executable, "tests/support/ask_ports.py", str(mark), "127.0.0.1", address]
    done = server.host.run(command, cwd=ROOT, stdout=subprocess.PIPE)
    answers: dict[str, int | None] = json.loads(done.stdout)
    ports = {int(place.rpartition(":")[2]) for place in answers}
    # The server itself; Ray's own ones for its processes, but none for its dashboard.
    assert PORT in ports
    assert len(ports) > 5
    assert 8265 not in ports
    # Ray listens on all addresses; the page on this machine's alone.
    assert answers[f"{address}:{PORT}"] is None
    assert {status for status in answers.values() if status} <= {401, 403, 404, 405}, answers
    assert not mark.exists()


def test_a_photo_in_tiles_has_the_map_of_predict(server: Server, tmp_path: Path) -> None:
    photo = tmp_path / "photos/a.png"
    photo.parent.mkdir()
    photo.write_bytes(as_file(draw_street_scene(3, "val", 0, (90, 150)).image))
    address = f"http://127.0.0.1:{PORT}/v1/panoptic?format=png"
    answer = tmp_path / "answer.png"
    server.host.run([sys.executable, "-c", ASK, address, TOKEN, str(photo), str(answer)])
    words = ["--weights", str(server.weights), "--images", str(photo.parent), *TILES]
    words += ["--output", str(tmp_path / "out"), "--device", "cpu"]
    assert predict.main([*words, "model.fusion.score_threshold=0.1"]) == 0
    predicted = decode_id_png((tmp_path / "out/panoptic/a.png").read_bytes())
    assert len(np.unique(predicted)) > 1
    assert np.array_equal(decode_id_png(answer.read_bytes()), predicted)
    # Nobody wants a line for each request.
    assert "POST" not in server.log.read_text()


def test_ctrl_c_ends_it_with_its_answer_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    photo, answer = tmp_path / "photo.png", tmp_path / "answer.png"
    photo.write_bytes(as_file(draw_street_scene(4, "val", 1, (200, 400)).image))
    processes = descendants(server.process.pid)
    assert len(processes) > 4
    url = f"http://127.0.0.1:{PORT}/v1/panoptic?format=png"
    client = subprocess.Popen(
        [*server.host.prefix, sys.executable, "-c", ASK, url, TOKEN, str(photo), str(answer)]
    )
    time.sleep(1)
    assert client.poll() is None
    os.kill(server.process.pid, signal.SIGINT)
    assert client.wait(SECONDS) == 0
    assert decode_id_png(answer.read_bytes()).any()
    assert server.process.wait(SECONDS) == 130
    log = server.log.read_text()
    assert "failed" not in log
    assert log.splitlines()[-1] == "stopped by Ctrl-C; what was being answered is answered"
    wait_until(lambda: not any((PROC / str(pid)).exists() for pid in processes), 60, "the end")
