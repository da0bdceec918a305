"""The measurement of a server: what its page says of stored numbers, and its clients."""

from __future__ import annotations

import http.server
import threading
from typing import Any

import pytest

from tools.measure import serving


def stored(late: float = 505.0) -> dict[str, Any]:
    def clients(rate: float, latencies: list[float]) -> dict[str, Any]:
        return {"rate": rate, "latencies": latencies, "failures": 0}

    rounds = [
        {"load": 1.0, "plain": 2.0, "clients": {"1": clients(1.8, [0.5] * 100)}},
        {"load": 3.0, "plain": 4.0, "clients": {"1": clients(3.2, [0.5] * 99 + [0.9])}},
        {"load": 2.0, "plain": 2.0, "clients": {"1": clients(2.0, [0.4] * 10)}},
    ]
    return {
        "machine": {"cpu": "CPU", "cores": 2, "python": "3.11"},
        "image_size": [256, 512],
        "seconds": 12,
        "rounds": rounds,
        "memory": {"early": 500.0, "late": late, "requests": 5000, "failures": 2},
    }


def test_each_round_is_compared_with_its_own_loop() -> None:
    text = serving.section(stored())
    assert "| plain loop | 2.00 | | | |" in text
    assert "| 1 client | 2.00 | 90 % (80 to 100) | 500 ms | 500 ms |" in text
    assert "500 MiB; over 4,000 to 5,000: 505 MiB (+1.0 %)" in text
    assert "load 1.0 to 3.0" in text
    assert "Failed requests: 2." in text


def test_clients_ask_again_as_soon_as_they_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(503 if len(bodies) % 5 == 0 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(serving, "PORT", server.server_port)
        clients = serving.Clients([b"a", b"b", b"c"], num_clients=2)
        rate = clients.run(requests=40)
        server.shutdown()
        thread.join()
    assert 40 <= len(clients.latencies) <= 41
    assert len(bodies) == len(clients.latencies) + len(clients.failures)
    assert set(clients.failures) == {503}
    assert set(bodies) == {b"a", b"b", b"c"}
    assert rate > 1
