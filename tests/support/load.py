"""Clients in a closed loop: each asks again as soon as it is answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException

from tests.support.http_server import ask

NO_ANSWER = 0


@dataclass
class Load:
    """What clients were answered.

    Attributes:
        statuses: of HTTP, of each attempt; NO_ANSWER where the connection broke.
        lost: requests that had no map after one more attempt.
        answers: bodies of the answers with status 200, in the order of time.
    """

    address: str
    bodies: Sequence[bytes]
    num_clients: int
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    answers: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._clients = [
            threading.Thread(target=self._ask_again, args=(n,)) for n in range(self.num_clients)
        ]
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()

    def until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Goes on until something is so, and each client has been answered once more after it."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"in vain; answers so far: {self.statuses}"
            time.sleep(0.1)
        wanted = self.statuses.total() + 2 * self.num_clients
        while self.statuses.total() < wanted:
            assert time.monotonic() < deadline, f"no more answers than {self.statuses}"
            time.sleep(0.1)

    def _ask_again(self, number: int) -> None:
        while not self._stop.is_set():
            body = self.bodies[number % len(self.bodies)]
            if not (self._attempt(body) or self._attempt(body)):
                self.lost += 1

    def _attempt(self, body: bytes) -> bool:
        try:
            reply = ask(self.address, body)
        except (OSError, HTTPException):
            self.statuses[NO_ANSWER] += 1
            return False
        self.statuses[reply.status] += 1
        if reply.status == 200:
            self.answers.append(reply.body)
        return reply.status == 200
