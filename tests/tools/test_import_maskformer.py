"""Published MaskFormer weights on the command line."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seamless_pr.build.predictor import load_predictor
from tests.support.hugging_face import tiny_maskformer
from tests.support.maskformer_golden import seeded_weights
from tools import import_maskformer as tool


@pytest.mark.slow
def test_a_file_of_the_authors_becomes_a_file_to_predict_with(tmp_path, capsys):
    weights = {
        # The published files have no "pixel_decoder." in their names.
        name.replace("pixel_decoder.", ""): tensor.numpy()
        for name, tensor in seeded_weights(50, "STATE_DICT_r50_ppb_ade150.txt").items()
    }
    source, output = tmp_path / "model_final.pkl", tmp_path / "per_pixel.safetensors"
    with source.open("wb") as file:
        pickle.dump({"model": weights, "__author__": "third party"}, file)
    assert tool.main([str(source), str(output)]) == 0
    report = capsys.readouterr().out
    assert "ade20k, per_pixel, resnet50" in report
    assert "0 missing, 0 left over, 0 of another shape" in report
    assert "CC BY-NC 4.0" in report
    predictor = load_predictor(output, "cpu", overrides=["data.shortest_side_pixels=64"])
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
    prediction = predictor.predict([image])[0]
    assert prediction.semantic_map.shape == (60, 80)
    assert prediction.semantic_map.max() < 150


def test_a_folder_without_weights_says_what_it_looked_for(tmp_path, capsys):
    assert tool.main([str(tmp_path), str(tmp_path / "a.safetensors")]) == 1
    assert "model.safetensors" in capsys.readouterr().err


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    source = tmp_path / "model_final.pkl"
    source.write_bytes(pickle.dumps({"model": {"a": np.zeros(1), "b": print}}))
    assert tool.main([str(source), str(tmp_path / "a.safetensors")]) == 1
    assert "builtins.print" in capsys.readouterr().err


def test_classes_without_a_table_come_from_a_json_in_the_order_of_the_weights(tmp_path):
    path = tmp_path / "five.json"
    categories = [
        {"id": 10 * place, "name": f"class {place}", "isthing": int(place in (0, 1))}
        for place in range(5)
    ]
    path.write_text(json.dumps({"categories": categories}))
    space, order = tool.described_classes(path)
    assert [category.category_id for category in space.categories] == [20, 30, 40, 0, 10]
    assert order == [2, 3, 4, 0, 1]


def test_hugging_face_weights_of_an_unknown_network_are_named(tmp_path, capsys):
    pytest.importorskip("transformers")
    state = {name: tensor.contiguous() for name, tensor in tiny_maskformer().state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    assert tool.main([str(tmp_path), str(tmp_path / "out.safetensors")]) == 1
    assert "5 classes" in capsys.readouterr().err
