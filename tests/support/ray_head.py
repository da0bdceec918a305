"""A cluster on this machine that `ray start` made, for the commands `ray` and `serve`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.http_server import Reply, ask
from tests.support.processes import kill_all, wait_until
from tests.support.ray_variables import RAY_VARIABLES

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


@dataclass(frozen=True)
class RayHead:
    """A running cluster.

    Attributes:
        variables: with which commands find it.
        folder: its temporary files.
        pid: of the process that holds all others.
    """

    variables: dict[str, str]
    folder: Path
    pid: int

    def call(self, *command: str) -> tuple[int, str]:
        """Exit status and output of a command, as `ray job list`."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        return done.returncode, done.stdout + done.stderr

    def ask(self, path: str, body: bytes | None = None, *, method: str | None = None) -> Reply:
        """Asks the dashboard, with the token."""
        headers = {"Authorization": f"Bearer {self.variables['RAY_AUTH_TOKEN']}"}
        place = self.variables["RAY_DASHBOARD_ADDRESS"] + path
        return ask(place, body, headers, method=method)


@contextmanager
def ray_head(num_cpus: int, variables: dict[str, str] | None = None) -> Iterator[RayHead]:
    """Starts a cluster, and ends it."""
    gcs, dashboard, agent, client = free_ports(4)
    folder = tempfile.mkdtemp(prefix="ray")  # Short: it holds sockets.
    bin_folder = Path(sys.executable).parent
    environment = {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        **RAY_VARIABLES,
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}",
        **(variables or {}),
    }
    command = [str(bin_folder / "ray"), "start", "--head", "--block", f"--num-cpus={num_cpus}"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    command += ["--disable-usage-stats", f"--temp-dir={folder}"]
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait_for_port(dashboard, head)
        yield RayHead(environment, Path(folder), head.pid)
    finally:
        # Not `ray stop`, which ends every cluster of this machine; nor its patience of half a
        # minute.
        kill_all(head.pid)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        assert process.poll() is None, "ray start has ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, SECONDS, "the job server")
