"""A cluster that the package starts obeys nobody else, on a host with an address of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import PROC, descendants, wait_until
from tests.support.ray_variables import IMPATIENT
from tests.support.simulated_hosts import SimulatedHost, simulated_hosts

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120
OWN_CLUSTER = """
import sys
import ray
from seamless_pr.pipelines.ray_support import ray_cluster
with ray_cluster(dashboard=True):
    print("at", ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""
STRANGER = """
import ray, sys
ray.init(address=sys.argv[1], logging_level="ERROR")
print("joined")
"""
# Whoever has no token is not known, or may not do this.
REFUSED = {401, 403}
# Answers of an HTTP server that has no such place: metrics.
ELSEWHERE = {404, 405}


@dataclass(frozen=True)
class OwnCluster:
    """A cluster of a stage on a host, and the address at which nodes and drivers join it."""

    host: SimulatedHost
    process: subprocess.Popen[str]
    address: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process of the cluster."""
        for pid in descendants(self.process.pid):
            if "raylet" in (PROC / str(pid) / "cmdline").read_text():
                pairs = (PROC / str(pid) / "environ").read_text().split("\0")
                return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        raise AssertionError("no raylet")

    def ask_ports(self, mark: Path, *more: str) -> dict[str, int | None]:
        command = [sys.executable, "tests/support/ask_ports.py", str(mark)]
        command += ["127.0.0.1", self.host.address, *more]
        done = self.host.run(command, cwd=ROOT, stdout=subprocess.PIPE)
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnCluster]:
    with simulated_hosts(1, tmp_path_factory.mktemp("hosts")) as (host,):
        free = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        free |= IMPATIENT
        # A shell that asks for the opposite.
        variables = {**free, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [*host.prefix, sys.executable, "-c", OWN_CLUSTER],
            cwd=ROOT,
            env={**variables, "RAY_TMPDIR": host.local_folder()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("at "):
            assert line, "the cluster did not start"
        yield OwnCluster(host, process, line.split()[1])
        process.communicate("", timeout=SECONDS)


def test_no_port_runs_what_a_stranger_says(cluster: OwnCluster, tmp_path: Path) -> None:
    answers = cluster.ask_ports(tmp_path / "mark")
    statuses = {status for status in answers.values() if status is not None}
    assert statuses & REFUSED
    assert statuses <= REFUSED | ELSEWHERE, answers
    # The agent listens on all addresses.
    assert any(answers[place] in REFUSED for place in answers if cluster.host.address in place)
    assert not (tmp_path / "mark").exists()


def test_the_same_question_with_the_token_is_obeyed(cluster: OwnCluster, tmp_path: Path) -> None:
    token = cluster.variables["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    answers = cluster.ask_ports(tmp_path / "mark", "--token", token)
    assert 200 in answers.values(), answers
    wait_until((tmp_path / "mark").exists, SECONDS, "the job")


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_stranger_cannot_join(cluster: OwnCluster, mode: str) -> None:
    environment = {**cluster.variables, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(
        [*cluster.host.prefix, sys.executable, "-c", STRANGER, cluster.address],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode != 0
    assert "joined" not in done.stdout
    assert "uthentication" in done.stderr
