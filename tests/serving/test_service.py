"""Networks of others behind a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.id_maps.id_png import decode_id_png
from seamless_pr.integrations.predictors import load_predictor
from seamless_pr.serving.app import make_app
from seamless_pr.serving.service import PanopticService
from seamless_pr.serving.warm_up import warm_up
from tests.support.color_server import as_file, flag
from tests.support.http_server import ask, http_server
from tests.support.hugging_face import NUM_LABELS, save_tiny


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
