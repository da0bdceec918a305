"""Hosts with addresses and names of their own on this machine, by Linux network namespaces.

A bridge in one namespace joins the network cards of all others; the machine's own network stays as
it is. Needs root and iproute2.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

NETWORK = "10.77.0"
SWITCH_CARD = "br0"


class SimulatedHost:
    """A network namespace with one card; `run` and `start` put processes onto it."""

    def __init__(self, name: str, address: str, hosts_file: Path) -> None:
        self.name = name
        self.address = address
        self._hosts_file = hosts_file
        self._folders: list[str] = []

    @property
    def prefix(self) -> list[str]:
        """What a command begins with to run on this host."""
        # Name and hosts file are mounts and names of the new process alone.
        enter = (
            f"mount --bind {shlex.quote(str(self._hosts_file))} /etc/hosts && "
            f'hostname {self.name} && exec "$@"'
        )
        return ["ip", "netns", "exec", self.name, "unshare", "--uts", "bash", "-c", enter, "_"]

    def run(self, command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        """Runs a command on this host to its end, which must be a good one."""
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [*self.prefix, *command], check=True, text=True, **options
        )

    def local_folder(self) -> str:
        """A folder that goes with the host; short, for sockets have a limit of their names."""
        self._folders.append(tempfile.mkdtemp(prefix="ray"))
        return self._folders[-1]

    def remove(self) -> None:
        """Ends the host and removes what it leaves."""
        self.kill()
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def pids(self) -> list[int]:
        found = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False
        )
        return [int(line) for line in found.stdout.split()]

    def kill(self) -> None:
        """Ends every process of this host, as a power cut would."""
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def simulated_hosts(number: int, folder: Path) -> Iterator[list[SimulatedHost]]:
    """Some hosts that reach each other by address and by name; skips the test without the rights.

    Args:
        number: of hosts.
        folder: for the file of their names.
    """
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("simulated hosts need root, iproute2 and util-linux")
    # Short, as names of network cards are; another test run may have its own hosts.
    switch = f"sw{os.getpid()}"
    addresses = {f"h{os.getpid()}n{i}": f"{NETWORK}.{i}" for i in range(1, number + 1)}
    hosts_file = folder / "hosts"
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
    hosts_file.write_text("\n".join(lines) + "\n")
    hosts = [SimulatedHost(name, address, hosts_file) for name, address in addresses.items()]
    try:
        try:
            _connect(switch, hosts)
            hosts[0].run(["true"], capture_output=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield hosts
    finally:
        for host in hosts:
            host.remove()
        subprocess.run(["ip", "netns", "delete", switch], capture_output=True, check=False)


def _connect(switch: str, hosts: Sequence[SimulatedHost]) -> None:
    _ip("netns", "add", switch)
    _ip("-n", switch, "link", "add", SWITCH_CARD, "type", "bridge")
    _ip("-n", switch, "link", "set", SWITCH_CARD, "up")
    for number, host in enumerate(hosts):
        port = f"port{number}"
        _ip("netns", "add", host.name)
        # Both ends are born inside namespaces: the machine's own one never sees them.
        cable = ["type", "veth", "peer", "name", "eth0", "netns", host.name]
        _ip("-n", switch, "link", "add", port, *cable)
        _ip("-n", switch, "link", "set", port, "master", SWITCH_CARD, "up")
        _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host.name, "link", "set", "eth0", "up")
        _ip("-n", host.name, "link", "set", "lo", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
