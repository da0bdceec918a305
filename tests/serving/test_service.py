"""Networks of others behind a server."""

from __future__ import annotations

import asyncio
import json
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, patch

import numpy as np
import pytest
from torch import Tensor

from seamless_pr.id_maps.id_png import decode_id_png
from seamless_pr.integrations.predictors import load_predictor
from seamless_pr.serving import service as service_module
from seamless_pr.serving.app import make_app
from seamless_pr.serving.photos import Photo, load_photo
from seamless_pr.serving.service import PanopticService
from seamless_pr.serving.warm_up import check_size, warm_up
from tests.support.color_server import as_file, color_predictor, flag
from tests.support.http_server import ask, http_server
from tests.support.hugging_face import NUM_LABELS, save_tiny


def test_a_request_of_many_images_holds_the_pixels_of_few() -> None:
    service = PanopticService(color_predictor(batch_size=1))
    alive: set[int] = set()
    most = 0

    async def counted(*arguments: Any) -> Tensor:
        nonlocal most
        image = await load_photo(*arguments)
        alive.add(id(image))
        weakref.finalize(image, alive.discard, id(image))
        most = max(most, len(alive))
        return image

    photos = [Photo(f"{number}.png", as_file(flag())) for number in range(16)]
    with (
        patch.object(service_module, "load_photo", counted),
        patch.object(service_module, "read_photos", AsyncMock(return_value=photos)),
    ):
        answer = asyncio.run(service.answer(None, "json"))
    service.close()
    assert len(json.loads(answer.body)["images"]) == 16
    # Threads that have nothing new to do keep their last one.
    assert 1 <= most <= 4 + 2


def test_a_network_whose_images_would_be_huge_is_refused_before_they_take_memory() -> None:
    for check in (check_size, warm_up):
        with pytest.raises(ValueError, match="would grow to 20000 x 40000"):
            check(color_predictor(side=20_000))


@pytest.mark.slow
def test_a_network_of_hugging_face_is_served_as_it_predicts(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    save_tiny("maskformer", tmp_path)
    categories = [
        {"id": n + 1, "name": f"class {n}", "isthing": int(n < 2)} for n in range(NUM_LABELS)
    ]
    (tmp_path / "five.json").write_text(json.dumps({"categories": categories}))
    overrides = [
        f"data.label_space={tmp_path / 'five.json'}",
        "model.fusion.task=semantic",
    ]
    predictor = load_predictor(f"hf:{tmp_path}", "cpu", overrides=overrides)
    warm_up(predictor)
    service = PanopticService(predictor)
    with http_server(make_app(service)) as address:
        reply = ask(f"{address}v1/panoptic?format=png", as_file(flag()))
    service.close()
    assert reply.status == 200, reply.body
    expected = predictor(flag()).id_map.numpy()
    assert expected.any()
    assert np.array_equal(decode_id_png(reply.body), expected)
