"""Measures a served network against the plain loop on the same machine, in turns.

    python tools/measure/serving.py            # requests a second, latency, memory
    python tools/measure/serving.py --page     # only writes docs/serving.md again

Clients in a closed loop, each asking again as soon as it is answered, send drawn scenes to one
replica of the shipped network behind pipelines/serve.py's application. The plain loop does the same
work without HTTP and Ray in a process of its own: decoding, network, encoding of the same answer,
with as many threads. The rounds are stored in docs/results/serving.json.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2

from seamless_pr.files import write_json
from seamless_pr.street_scenes.dataset import draw_street_scene
from tools.measure.benchmark_inference import cpu_name

ROOT = Path(__file__).resolve().parents[2]
STORED_RESULT = ROOT / "docs" / "results" / "serving.json"
PAGE = ROOT / "docs" / "serving.md"
BEGIN, END = "<!-- serving benchmark -->", "<!-- /serving benchmark -->"
WEIGHTS = ROOT / "checkpoints" / "street_scenes_256x512.safetensors"
IMAGE_SIZE = (256, 512)
NUM_SCENES = 4
PORT = 8899
PATH = "/v1/panoptic?format=coco"
# Requests whose memory is compared; by so many clients, with images of these sizes.
EARLY, LATE = (500, 1000), (4000, 5000)
MEMORY_CLIENTS = 4
MEMORY_SIZES = ((64, 128), (80, 160), (96, 192))
# Of the network while memory is measured, so that 5,000 requests take minutes.
SMALL = ("data.shortest_side_pixels=32", "model.instances.rpn.post_nms_test=8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=12, help="of each measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        answer_with_plain_rates()
        return
    if not options.page:
        measure(options)
    write_page()


def scenes(sizes: Sequence[tuple[int, int]]) -> list[bytes]:
    """Drawn scenes of these sizes as JPEG files."""
    drawn = (draw_street_scene(5, "val", n, size).image for n, size in enumerate(sizes))
    return [cv2.imencode(".jpg", image[..., ::-1])[1].tobytes() for image in drawn]


def answer_with_plain_rates() -> None:
    """For each line of seconds on stdin, the images a second of the loop without a server."""
    from seamless_pr.datasets.images import decode_image
    from seamless_pr.inference.cpu_memory import keep_freed_memory
    from seamless_pr.integrations.predictors import load_predictor
    from seamless_pr.serving.answers import Labelled, encode

    photos, predictor = scenes([IMAGE_SIZE] * NUM_SCENES), load_predictor(WEIGHTS, "cpu")
    keep_freed_memory()

    def label(data: bytes) -> None:
        image = decode_image(data, "image")
        encode([Labelled("image", image, predictor(image))], predictor.label_space, "coco")

    label(photos[0])
    for line in sys.stdin:
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < float(line):
            label(photos[count % len(photos)])
            count += 1
        print(count / (time.perf_counter() - started), flush=True)


class PlainLoop:
    """The loop without a server, in a process of its own that waits while it is not asked."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--plain"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rate(0.1)

    def rate(self, seconds: float) -> float:
        """Images a second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate("")


class Clients:
    """Asks in a closed loop; keeps how long each answer took."""

    def __init__(self, photos: Sequence[bytes], num_clients: int) -> None:
        self.photos, self.num_clients = photos, num_clients
        self.latencies: list[float] = []
        self.failures: list[int] = []

    def run(self, seconds: float = float("inf"), requests: float = float("inf")) -> float:
        """Asks until the time or the requests are over; returns answers a second."""
        started = time.perf_counter()
        threads = [
            threading.Thread(target=self._ask, args=(n, started + seconds, requests))
            for n in range(self.num_clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(self.latencies) / (time.perf_counter() - started)

    def _ask(self, number: int, end: float, requests: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
        while time.perf_counter() < end and len(self.latencies) < requests:
            before = time.perf_counter()
            connection.request("POST", PATH, self.photos[number % len(self.photos)])
            number += self.num_clients
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                self.latencies.append(time.perf_counter() - before)
            else:
                self.failures.append(answer.status)
        connection.close()


def measure(options: argparse.Namespace) -> None:
    """Rounds of the plain loop and of the server, then its memory."""
    from ray import serve

    from seamless_pr.pipelines import serve as stage
    from seamless_pr.pipelines.ray_serving import LOGGING, application
    from seamless_pr.pipelines.ray_support import ray_cluster

    words = ["--weights", str(WEIGHTS), "--device", "cpu", "--port", str(PORT)]
    arguments = stage.arguments(stage.STAGE.parser().parse_args(words), "", on_gpu=False)
    with ray_cluster():
        serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config=LOGGING)

        def run(**network: Any) -> None:
            changed = {**arguments, "network": {**arguments["network"], **network}}
            serve.run(application(changed), logging_config=LOGGING)

        run()
        rounds = _rounds(options)
        run(overrides=list(SMALL))
        memory = _memory()
        serve.shutdown()
    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()}
    write_json(
        STORED_RESULT,
        {
            "machine": machine,
            "image_size": IMAGE_SIZE,
            "seconds": options.seconds,
            "rounds": rounds,
            "memory": memory,
        },
    )


def _rounds(options: argparse.Namespace) -> list[dict[str, Any]]:
    """In each the plain loop and all numbers of clients, every other time the other way round."""
    photos, plain = scenes([IMAGE_SIZE] * NUM_SCENES), PlainLoop()
    Clients(photos, 2).run(seconds=3)
    rounds = []
    for index in range(options.rounds):
        found: dict[str, Any] = {"load": round(os.getloadavg()[0], 2), "clients": {}}
        for number in [0, *options.clients][:: 1 if index % 2 else -1]:
            if number == 0:
                found["plain"] = round(plain.rate(options.seconds), 3)
                continue
            clients = Clients(photos, number)
            rate = clients.run(seconds=options.seconds)
            found["clients"][str(number)] = {
                "rate": round(rate, 3),
                "latencies": [round(latency, 4) for latency in clients.latencies],
                "failures": len(clients.failures),
            }
        rates = {number: value["rate"] for number, value in found["clients"].items()}
        print(f"round {index}: plain {found['plain']}, clients {rates}", flush=True)
        rounds.append(found)
    plain.close()
    return rounds


def _memory() -> dict[str, Any]:
    """MiB of the replica, mean over early and over late requests, with a smaller network."""
    pid = _replica_pid()
    samples: list[tuple[int, float]] = []
    clients = Clients(scenes(MEMORY_SIZES), MEMORY_CLIENTS)
    thread = threading.Thread(target=clients.run, kwargs={"requests": LATE[1]})
    thread.start()
    while thread.is_alive():
        samples.append((len(clients.latencies), _resident_mib(pid)))
        time.sleep(0.25)
    found = {
        name: round(statistics.mean(mib for count, mib in samples if low <= count <= high), 1)
        for name, (low, high) in (("early", EARLY), ("late", LATE))
    }
    print("memory", found, flush=True)
    return {**found, "requests": len(clients.latencies), "failures": len(clients.failures)}


def _replica_pid() -> int:
    """Of the only process of Ray's that calls itself a replica of the network."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_text()
                parents = _ancestors(int(folder.name))
            except OSError:
                continue
            if title.startswith("ray::ServeReplica") and "Panoptic" in title:
                found += [int(folder.name)] if os.getpid() in parents else []
    (pid,) = found
    return pid


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pid = int(fields[1])
        found.add(pid)
    return found


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_page() -> None:
    """The section of docs/serving.md out of the stored result."""
    import json

    stored = json.loads(STORED_RESULT.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    text = f"{before}{BEGIN}\n{section(stored)}\n{END}{after}"
    PAGE.write_text(text, encoding="utf-8")


def section(stored: dict[str, Any]) -> str:
    """The measurement in Markdown."""
    rounds, memory, machine = stored["rounds"], stored["memory"], stored["machine"]
    plain = statistics.median(found["plain"] for found in rounds)
    lines = [
        "| | images a second | of the plain loop | p50 | p99 |",
        "|---|---:|---:|---:|---:|",
        f"| plain loop | {plain:.2f} | | | |",
    ]
    failures = memory["failures"]
    for number in sorted(rounds[0]["clients"], key=int):
        of_rounds = [found["clients"][number] for found in rounds]
        failures += sum(own["failures"] for own in of_rounds)
        shares = sorted(100 * own["rate"] / found["plain"] for own, found in zip(of_rounds, rounds))
        latencies = sorted(latency for own in of_rounds for latency in own["latencies"])
        p50, p99 = (latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.99))
        lines.append(
            f"| {number} client{'s' * (number != '1')} | "
            f"{statistics.median(own['rate'] for own in of_rounds):.2f} | "
            f"{statistics.median(shares):.0f} % ({shares[0]:.0f} to {shares[-1]:.0f}) | "
            f"{1000 * p50:.0f} ms | {1000 * p99:.0f} ms |"
        )
    loads = [found["load"] for found in rounds]
    change = 100 * (memory["late"] / memory["early"] - 1)
    height, width = stored["image_size"]
    lines += [
        "",
        f"The shipped network, one replica with one thread; drawn scenes of {height}x{width}, JPEG "
        f"in, PNG and JSON out. {machine['cpu']}, {machine['cores']} cores, which clients, proxy "
        f"and others shared (load {min(loads):.1f} to {max(loads):.1f}): median of {len(rounds)} "
        f"rounds (smallest to largest) of {stored['seconds']:g} s each, the plain loop in every "
        "round; latencies of all rounds together. One client alone is below saturation. Memory of "
        f"the replica over requests {EARLY[0]:,} to {EARLY[1]:,}: {memory['early']:.0f} MiB; over "
        f"{LATE[0]:,} to {LATE[1]:,}: {memory['late']:.0f} MiB ({change:+.1f} %), by "
        f"{MEMORY_CLIENTS} clients with images of {len(MEMORY_SIZES)} sizes and {' '.join(SMALL)}. "
        f"Failed requests: {failures}. `python tools/measure/serving.py` measures again; "
        "[results/serving.json](results/serving.json).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
