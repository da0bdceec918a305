"""Training on two hosts with own addresses, one of which loses its power on the way."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.simulated_hosts import SimulatedHost, simulated_hosts
from tests.support.training_runs import differing, environment, train_with_ray

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PORT = 6379
# The default takes half a minute to notice that a host is gone.
CHECKS = {
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SimulatedHost]]:
    """A cluster of two hosts with one core each, the head on the first."""
    with simulated_hosts(2, tmp_path_factory.mktemp("hosts")) as (first, second):
        start_ray(first, "--head", f"--port={PORT}", f"--system-config={json.dumps(CHECKS)}")
        start_ray(second, f"--address={first.address}:{PORT}")
        yield [first, second]


def start_ray(host: SimulatedHost, *options: str) -> None:
    folder = host.local_folder()
    command = [str(Path(sys.executable).with_name("ray")), "start", *options, "--num-cpus=1"]
    command += [f"--node-ip-address={host.address}", f"--temp-dir={folder}"]
    host.run([*command, "--disable-usage-stats"], env=environment(), capture_output=True)


def test_a_run_over_two_hosts_outlives_one_of_them(
    hosts: list[SimulatedHost], training: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    first, second = hosts
    address = f"{first.address}:{PORT}"
    run = train_with_ray(
        training, tmp_path / "run", variables={"RAY_ADDRESS": address}, prefix=first.prefix
    )
    run.wait_for_checkpoint()
    for host in hosts:
        assert f"(ip={host.address}, " in run.log
    assert "node_rank=1" in run.log
    second.kill()
    assert run.process.poll() is None, run.log
    start_ray(second, f"--address={address}")
    run.finish()
    assert "going on after step 2" in run.log
    assert differing(run.output, undisturbed) == []
