"""The application behind a real HTTP server: what clients send, and what they are told."""

from __future__ import annotations

import functools
import http.client
import http.server
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from seamless_pr.datasets.images import read_image
from seamless_pr.id_maps.id_png import decode_id_png
from seamless_pr.inference.predictor import Predictor
from seamless_pr.serving.app import make_app
from seamless_pr.serving.limits import ServingLimits
from seamless_pr.serving.service import PanopticService
from seamless_pr.structures.image_batch import ImageBatch
from tests.support.color_network import ColorNetwork
from tests.support.color_server import LIMITS, Server, as_file, color_predictor, flag
from tests.support.http_server import Reply, ask, http_server
from tests.support.processes import wait_until

TOKEN = "open sesame"


def form(files: Mapping[str, bytes], uris: tuple[str, ...] = ()) -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
        + data
        for name, data in files.items()
    ]
    parts += [
        f'--x\r\nContent-Disposition: form-data; name="uri"\r\n\r\n{uri}'.encode() for uri in uris
    ]
    body = b"\r\n".join([*parts, b"--x--\r\n"])
    return body, {"Content-Type": "multipart/form-data; boundary=x"}


def bomb(width: int, height: int) -> bytes:
    """A small PNG of many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    end = chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_a_body_is_labelled_as_the_predictor_labels_the_file(
    server: Server, suffix: str, tmp_path
) -> None:
    data = as_file(flag(), suffix)
    reply = ask(f"{server.address}v1/panoptic?format=png", data)
    assert reply.status == 200
    (tmp_path / f"image{suffix}").write_bytes(data)
    expected = color_predictor()(read_image(tmp_path / f"image{suffix}"))
    assert np.array_equal(decode_id_png(reply.body), expected.id_map.numpy())


def test_files_of_a_form_are_labelled_in_their_order(server: Server) -> None:
    body, headers = form({"a/../b.png": as_file(flag()), "c.png": as_file(flag(60, 50))})
    reply = ask(f"{server.address}v1/panoptic", body, headers)
    images = reply.json()["images"]
    names = [(image["file_name"], image["height"], image["width"]) for image in images]
    assert names == [("b.png", 48, 80), ("c.png", 60, 50)]


def test_a_bad_file_of_a_form_harms_no_other(server: Server) -> None:
    body, headers = form({"a.png": as_file(flag())[:90], "b.png": as_file(flag())})
    reply = ask(f"{server.address}v1/panoptic", body, headers)
    assert reply.status == 200
    (error,) = reply.json()["errors"]
    assert error["file_name"] == "a.png"
    assert "cannot be read as an image" in error["reason"]
    assert [image["file_name"] for image in reply.json()["images"]] == ["b.png"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"", {}, 422, "a request holds 1 to 4 images; got 0"),
        (b"hello", {}, 422, "unknown format"),
        (as_file(flag())[:90], {}, 422, "cannot be read as an image"),
        (b"GIF89a", {}, 422, "cannot be read as an image"),
        (bomb(40_000, 40_000), {}, 413, "too many pixels"),
        (bomb(40_000, 100), {}, 413, "40000 x 100 pixels"),
        (bytes(LIMITS.max_bytes + 1), {}, 413, "at most 0.190735 MiB"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "form cannot be read"),
        (*form({f"{n}.png": b"" for n in range(5)}), 400, "form cannot be read"),
        (b"[", {"Content-Type": "application/json"}, 400, "no JSON"),
        (b'{"uris": [' + b"{}," * 10_000 + b"{}]}", {"Content-Type": "application/json"}, 413,
         "at most 0.015625 MiB"),
        (as_file(flag(70_000, 3)), {}, 413, "image: an image of 70000 x 3 pixels would grow to"),
        (b'{"uris": "x"}', {"Content-Type": "application/json"}, 422, "JSON names images as"),
        (b'{"uris": ["/etc/passwd"]}', {"Content-Type": "application/json"}, 403, "not below"),
        (*form({}, ("file:///etc/passwd",)), 403, "not below a prefix"),
        (b'--x\r\nContent-Disposition: form-data; name="\\ud800"\r\n\r\n1\r\n--x--\r\n',
         {"Content-Type": "multipart/form-data; boundary=x; charset=unicode_escape"}, 422,
         "'\\ud800' is no file"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_why(
    server: Server, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    reply = ask(f"{server.address}v1/panoptic", body, headers)
    assert (reply.status, reason in reply.json()["error"]) == (status, True), reply.body
    assert server.service.num_waiting == 0


def test_an_endless_body_is_not_read_to_its_end(server: Server) -> None:
    host = urlsplit(server.address).netloc
    connection = http.client.HTTPConnection(host, timeout=20)
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65_536
            yield bytes(65_536)

    try:
        connection.request("POST", "/v1/panoptic", parts(), {"Transfer-Encoding": "chunked"})
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # Hung up on.
    finally:
        connection.close()
    assert sent < 65_536_000
    assert ask(f"{server.address}readyz").status == 200


def test_a_client_that_hangs_up_is_no_fault_of_the_server(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    before = num_requests(server, 400)
    address = urlsplit(server.address)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        client.sendall(b"POST /v1/panoptic HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc")
    wait_until(lambda: num_requests(server, 400) == before + 1, 20, "the end of the request")
    assert "a request failed" not in caplog.text
    assert server.service.num_waiting == 0


def test_the_other_addresses_answer(server: Server) -> None:
    assert ask(f"{server.address}healthz").body == b"alive"
    assert ask(f"{server.address}readyz").body == b"ready"
    model = ask(f"{server.address}v1/model").json()
    assert model["network"]["label_space"] == "toy"
    assert [category["name"] for category in model["categories"]] == ["road", "sky", "car"]
    assert model["limits"]["max_pixels"] == LIMITS.max_pixels
    schema = ask(f"{server.address}openapi.json").json()
    assert "post" in schema["paths"]["/v1/panoptic"]
    docs = ask(f"{server.address}docs").body.decode()
    assert all(path in docs for path in schema["paths"])
    assert "src=" not in docs
    assert ask(f"{server.address}v1/examples/0").body[:2] == b"\xff\xd8"
    assert ask(f"{server.address}v1/examples/99").status == 404


def num_requests(server: Server, status: int) -> float:
    lines = ask(f"{server.address}metrics").body.decode().splitlines()
    name = f'seamless_pr_requests_total{{status="{status}"}} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def test_metrics_count_requests_by_status(server: Server) -> None:
    before = num_requests(server, 200), num_requests(server, 422)
    ask(f"{server.address}v1/panoptic", as_file(flag()))
    ask(f"{server.address}v1/panoptic", b"hello")
    assert num_requests(server, 200) == before[0] + 1
    assert num_requests(server, 422) == before[1] + 1


def test_other_pages_may_not_read_answers(server: Server) -> None:
    reply = ask(f"{server.address}v1/panoptic", as_file(flag()), {"Origin": "https://evil.org"})
    assert not [name for name in reply.headers if name.lower().startswith("access-control")]


class SlowNetwork(ColorNetwork):
    """Waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def outputs(self, batch: ImageBatch) -> ImageBatch:
        assert self.go.wait(20)
        return super().outputs(batch)


def test_a_full_queue_answers_at_once_and_says_when_to_come_again() -> None:
    network = SlowNetwork()
    service = PanopticService(
        Predictor(network, shortest_side_pixels=48), ServingLimits(max_waiting=3, seconds=20)
    )
    with http_server(make_app(service)) as address, ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(ask, f"{address}v1/panoptic", as_file(flag())) for _ in range(3)]
        while service.num_waiting < 3:
            time.sleep(0.01)
        refused = ask(f"{address}v1/panoptic", as_file(flag()))
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert ask(f"{address}healthz").status == 200
        network.go.set()
        assert [future.result().status for future in waiting] == [200] * 3
        assert ask(f"{address}v1/panoptic", as_file(flag())).status == 200
    service.close()


def test_a_request_that_takes_too_long_is_told_so_and_leaves_its_place() -> None:
    network = SlowNetwork()
    limits = ServingLimits(max_waiting=1, seconds=0.2)
    service = PanopticService(Predictor(network, shortest_side_pixels=48), limits)
    with http_server(make_app(service)) as address:
        reply = ask(f"{address}v1/panoptic", as_file(flag()))
        assert reply.status == 504
        assert "no answer within 0.2 s" in reply.json()["error"]
        network.go.set()
        while not network.batches:
            time.sleep(0.01)
        assert ask(f"{address}v1/panoptic", as_file(flag())).status == 200
    service.close()


def test_a_client_that_is_slow_to_send_leaves_its_place() -> None:
    service = PanopticService(color_predictor(), ServingLimits(max_waiting=1, seconds=2))
    with http_server(make_app(service)) as address:
        host = urlsplit(address).netloc
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.putrequest("POST", "/v1/panoptic")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"x")
        while service.num_waiting < 1:
            time.sleep(0.01)
        assert ask(f"{address}v1/panoptic", as_file(flag())).status == 503
        assert connection.getresponse().status == 408
        connection.close()
        assert service.num_waiting == 0
        assert ask(f"{address}v1/panoptic", as_file(flag())).status == 200
    service.close()


def test_pages_that_are_allowed_may_read_answers_and_no_others() -> None:
    service = PanopticService(color_predictor())
    friend, name = "https://example.org", "Access-Control-Allow-Origin"
    with http_server(make_app(service, allow_origins=[friend])) as address:
        for origin, allowed in ((friend, friend), ("https://evil.org", None)):
            reply = ask(f"{address}v1/panoptic", as_file(flag()), {"Origin": origin})
            assert reply.headers[name] == allowed
    service.close()


def test_with_a_token_strangers_see_the_page_and_nothing_else() -> None:
    service = PanopticService(color_predictor())
    with http_server(make_app(service, token=TOKEN)) as address:
        for path in ("v1/panoptic", "v1/model", "metrics"):
            body = as_file(flag()) if path == "v1/panoptic" else None
            for headers in ({}, {"Authorization": "Bearer open"}, {"Authorization": TOKEN}):
                reply = ask(f"{address}{path}", body, headers)
                assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
            known = ask(f"{address}{path}", body, {"Authorization": f"Bearer {TOKEN}"})
            assert known.status == 200
        for path in ("", "healthz", "readyz", "docs"):
            assert ask(f"{address}{path}").status == 200
    service.close()


@pytest.fixture
def photos(tmp_path) -> Iterator[str]:
    """The address of a storage behind HTTP: an image, a redirection to another, a large file."""
    (tmp_path / "a.png").write_bytes(as_file(flag()))
    (tmp_path / "large.png").write_bytes(bytes(300_000))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/there.png":
                self.send_response(302)
                self.send_header("Location", "/a.png")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as storage:
        thread = threading.Thread(target=storage.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{storage.server_port}/"
        storage.shutdown()
        thread.join()


def test_images_behind_allowed_uris_are_fetched_within_limits(photos: str) -> None:
    limits = ServingLimits(max_bytes=200_000, uri_prefixes=(photos,))
    service = PanopticService(color_predictor(), limits)

    def label(name: str) -> Reply:
        body = f'{{"uris": ["{photos}{name}"]}}'.encode()
        headers = {"Content-Type": "application/json"}
        return ask(f"{address}v1/panoptic?format=png", body, headers)

    with http_server(make_app(service)) as address:
        expected = color_predictor()(torch.from_numpy(flag()).permute(2, 0, 1))
        reply = label("a.png")
        assert reply.status == 200, reply.body
        assert np.array_equal(decode_id_png(reply.body), expected.id_map.numpy())
        assert label("large.png").status == 413
        assert label("none.png").status == 422
        # Where an allowed address sends on to is not asked.
        assert label("there.png").status in (422, 502)
    service.close()


def test_a_network_is_exchanged_while_clients_ask(server: Server) -> None:
    old = server.service.predictor
    statuses: list[int] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            statuses.append(ask(f"{server.address}v1/panoptic", as_file(flag())).status)

    with ThreadPoolExecutor(3) as clients:
        asking = [clients.submit(keep_asking) for _ in range(3)]
        for side in (24, 32, 48):
            server.service._batcher.exchange(partial(color_predictor, side))
            seen = len(statuses)
            while len(statuses) < seen + 6:
                time.sleep(0.01)
        stop.set()
        for future in asking:
            future.result()
    server.service._batcher.exchange(lambda: old)
    assert set(statuses) == {200}
