from __future__ import annotations

from collections.abc import Iterator

import pytest

from seamless_pr.serving.app import make_app
from seamless_pr.serving.service import PanopticService
from tests.support.color_network import ColorNetwork
from tests.support.color_server import LIMITS, Server, color_predictor
from tests.support.http_server import http_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    predictor = color_predictor()
    service = PanopticService(predictor, LIMITS)
    with http_server(make_app(service)) as address:
        network = predictor.network
        assert isinstance(network, ColorNetwork)
        yield Server(address, service, network)
    service.close()
