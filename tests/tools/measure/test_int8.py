"""Eight bits: a graph of one convolution is quantised, and a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.datasets.label_spaces import load_label_space
from tools.measure import int8 as tool

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = (64, 128)


def class_graph(folder: Path) -> None:
    """Pixels to classes, as `export network --part classes` writes them, by one convolution."""
    from onnx import TensorProto, helper, numpy_helper

    names = [category.name for category in load_label_space("cityscapes").categories]
    # What is more blue than red is sky, the rest road.
    weights = np.zeros((len(names), 3, 3, 3), np.float32)
    weights[names.index("sky"), :, 1, 1] = [-1, 0, 1]
    bias = np.full(len(names), -1000, np.float32)
    bias[[names.index("road"), names.index("sky")]] = [0, -30]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["values", "weights", "bias"], ["logits"], pads=[1, 1, 1, 1]),
        helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["class_map"], to=TensorProto.INT16),
    ]
    graph = helper.make_graph(
        nodes,
        "classes",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 3, *SIZE])],
        [helper.make_tensor_value_info("class_map", TensorProto.INT16, [1, *SIZE])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / tool.GRAPH)
    (folder / "network.json").write_text(json.dumps({"size": SIZE}), encoding="utf-8")


def test_a_graph_is_quantised_measured_and_not_measured_twice(tmp_path: Path) -> None:
    class_graph(tmp_path)
    result = tool.measure(tmp_path, 2, 1, 1)
    assert json.loads(json.dumps(result)) == result
    quantised = onnx.load(tmp_path / "network_int8_1.onnx")
    assert "QuantizeLinear" in {node.op_type for node in quantised.graph.node}
    single, whole = result["graphs"]["int8"], result["graphs"]["fp32"]
    assert whole["conversions"] == 0 < whole["convolutions"]
    assert single["convolutions"] > 0
    assert whole["stuff"] > 0
    assert single["stuff"] == pytest.approx(whole["stuff"], abs=0.05)
    text = tool.section(result)
    page = tool.PAGE.read_text(encoding="utf-8")
    assert text in tool.replaced(page, text, tool.MARKS)
    # What is done stays: nothing is labelled again, and a third scene is added.
    record = tmp_path / "network_1_threads.json"
    before = json.loads(record.read_text(encoding="utf-8"))
    again = tool.evaluate(tmp_path / tool.GRAPH, SIZE, 3, 1, record)
    after = json.loads(record.read_text(encoding="utf-8"))
    assert after[:2] == before
    assert len(after) == 3
    fresh = tool.evaluate(tmp_path / tool.GRAPH, SIZE, 3, 1, tmp_path / "fresh.json")
    assert {key: again[key] for key in ("pq", "things", "stuff")} == {
        key: fresh[key] for key in ("pq", "things", "stuff")
    }
