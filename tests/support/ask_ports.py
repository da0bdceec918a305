"""Asks every listening port of a host to run a command, as a stranger or with the token.

    python tests/support/ask_ports.py MARK ADDRESS... [--token TOKEN]

prints one JSON object: address:port -> HTTP status, or null where nobody speaks HTTP. Obeyed, the
command makes the file MARK. Ports are those of the network namespace that this runs in.
"""

from __future__ import annotations

import http.client
import json
import sys
from pathlib import Path

LISTENING = "0A"


def listening_ports() -> set[int]:
    ports = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", name).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def ask(address: str, port: int, mark: str, token: str | None) -> int | None:
    """The status of a job that is handed in where the dashboard takes jobs, or the agent."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    statuses: list[int] = []
    for path in ("/api/jobs/", "/api/job_agent/jobs/"):
        connection = http.client.HTTPConnection(address, port, timeout=30)
        try:
            connection.request("POST", path, json.dumps({"entrypoint": f"touch {mark}"}), headers)
            statuses.append(connection.getresponse().status)
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()
    # The answer of a place that exists, if there is one.
    known = [status for status in statuses if status not in (404, 405)]
    return (known or statuses or [None])[0]


if __name__ == "__main__":
    words = sys.argv[1:]
    token = words[words.index("--token") + 1] if "--token" in words else None
    addresses = words[1 : words.index("--token")] if token else words[1:]
    answers = {
        f"{address}:{port}": ask(address, port, words[0], token)
        for address in addresses
        for port in sorted(listening_ports())
    }
    print(json.dumps(answers))
