"""Names, files and configurations of detectron2's zoo."""

from __future__ import annotations

import io
import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.weights.detectron2 import (
    fit_zoo_weights,
    our_name,
    our_tensor,
    read_zoo_file,
)
from seamless_pr.weights.detectron2_config import zoo_config_values
from tests.support.zoo_networks import zoo_shapes

NETWORKS = (
    "instance_cityscapes",
    "instance_coco",
    "semantic_cityscapes",
    "panoptic_fpn_coco",
)


def meta_tensors(network: str) -> dict[str, torch.Tensor]:
    """Names and shapes of a network without any memory."""
    return {name: torch.empty(shape, device="meta") for name, shape in zoo_shapes(network).items()}


def built_state(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    config = config_from_dict(zoo_config_values(tensors), "test")
    with torch.device("meta"):
        net = build_network(config.model, load_label_space(config.data.label_space))
    return net.state_dict()


@pytest.mark.parametrize("network", NETWORKS)
def test_the_config_read_off_the_weights_rebuilds_the_network(network: str) -> None:
    tensors = meta_tensors(network)
    _, report = fit_zoo_weights(tensors, built_state(tensors))
    assert report.faults() == []
    assert len(report.mapped) == len(tensors)


def in_layout(name: str, layout: str) -> str:
    """A present-day name of PointRend's mask heads as older versions had it."""
    if layout == "until 2020-11":
        name = name.replace("mask_head.coarse_head.", "mask_coarse_head.")
        name = name.replace("mask_head.point_head.", "mask_point_head.")
    return re.sub(r"(coarse_head\.)(fc[12])", r"\1coarse_mask_\2", name)


@pytest.mark.parametrize("layout", ["until 2020-11", "until 2021-04"])
def test_older_names_of_the_mask_heads_mean_the_same(layout: str) -> None:
    names = list(zoo_shapes("instance_cityscapes"))
    older = [in_layout(name, layout) for name in names]
    assert sum(old != new for old, new in zip(older, names)) in (4, 16)
    assert [our_name(name) for name in older] == [our_name(name) for name in names]


def test_a_part_in_two_layouts_is_refused() -> None:
    tensors = meta_tensors("instance_cityscapes")
    tensors["roi_heads.mask_coarse_head.coarse_mask_fc1.bias"] = torch.empty(1024, device="meta")
    with pytest.raises(ValueError, match="a second time"):
        zoo_config_values(tensors)


def test_constants_of_older_files_are_left_out_and_strangers_are_named() -> None:
    tensors = meta_tensors("instance_cityscapes")
    state = built_state(tensors)
    tensors["pixel_mean"] = torch.zeros(3, 1, 1)
    tensors["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    tensors["roi_heads.keypoint_head.conv_fcn1.weight"] = torch.zeros(1)
    del tensors["backbone.fpn_output2.bias"]
    _, report = fit_zoo_weights(tensors, state)
    assert report.left_over == ("roi_heads.keypoint_head.conv_fcn1.weight",)
    assert report.missing == ("trunk.neck.output.0.norm.bias",)


def test_background_moves_first_colours_turn_around_and_point_layers_become_matrices() -> None:
    rows = torch.arange(3.0)[:, None]
    assert our_tensor("instances.box_head.class_logits.weight", rows).flatten().tolist() == [
        2,
        0,
        1,
    ]
    colours = torch.arange(3.0).view(1, 3, 1, 1)
    assert our_tensor("trunk.backbone.conv1.weight", colours).flatten().tolist() == [2, 1, 0]
    assert our_tensor("instances.masks.point_head.layers.0.weight", torch.zeros(4, 5, 1)).shape == (
        4,
        5,
    )


def test_one_class_of_all_things_moves_last_only_where_there_is_one() -> None:
    rows = torch.arange(4.0)
    name = "semantics.head.predictor.bias"
    assert our_tensor(name, rows, merged_things=True).tolist() == [1, 2, 3, 0]
    assert our_tensor(name, rows).tolist() == [0, 1, 2, 3]


def resnext_tensors() -> dict[str, torch.Tensor]:
    """R50's names stretched to X101-32x8d: 3, 4, 23, 3 blocks with grouped convolutions."""
    tensors = {}
    for name, shape in zoo_shapes("instance_coco").items():
        names = [name]
        if match := re.match(r"(backbone\.bottom_up\.res4\.)5(\..*)", name):
            names += [f"{match[1]}{block}{match[2]}" for block in range(6, 23)]
        if match := re.search(r"res([2-5])\.\d+\.(conv[123])(.*)", name):
            stage, conv = int(match[1]), match[2]
            width = 256 * 2 ** (stage - 2)
            if conv in ("conv1", "conv2"):
                shape = (width, *shape[1:])
            if conv == "conv2" and len(shape) == 4:
                shape = (width, width // 32, 3, 3)
            if conv == "conv3" and len(shape) == 4:
                shape = (shape[0], width, 1, 1)
        tensors |= {n: torch.empty(shape, device="meta") for n in names}
    return tensors


def test_resnext_101_keeps_its_stride_in_the_3x3_and_its_own_deviation() -> None:
    tensors = resnext_tensors()
    values = zoo_config_values(tensors)["model"]
    assert values["backbone"]["name"] == "resnext101_32x8d"
    assert values["backbone"]["stride_in_1x1"] is False
    assert values["pixel_std"] == pytest.approx((58.395 / 255, 57.12 / 255, 57.375 / 255))
    _, report = fit_zoo_weights(tensors, built_state(tensors))
    assert report.faults() == []


def test_other_networks_are_refused_with_the_count_of_known_names() -> None:
    with pytest.raises(ValueError, match=r"0 of 1 names are known.*ResNet-FPN"):
        zoo_config_values({"backbone.net.blocks.0.weight": torch.zeros(1)})
    tensors = meta_tensors("instance_cityscapes")
    tensors["roi_heads.box_predictor.cls_score.bias"] = torch.empty(21, device="meta")
    with pytest.raises(ValueError, match="20 thing classes"):
        zoo_config_values(tensors)


def write_pickle(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickled_arrays_in_containers_are_read(tmp_path: Path, protocol: int) -> None:
    arrays = OrderedDict(weight=np.arange(6, dtype=np.float32).reshape(2, 3))
    content = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
    tensors = read_zoo_file(write_pickle(tmp_path / "model.pkl", content, protocol))
    assert list(tensors) == ["weight"]
    assert tensors["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_files_of_older_numpy_are_read(tmp_path: Path) -> None:
    pickled = pickle.dumps({"weight": np.ones(3, np.float32)}, protocol=2)
    (tmp_path / "model.pkl").write_bytes(pickled.replace(b"numpy._core.", b"numpy.core."))
    assert read_zoo_file(tmp_path / "model.pkl")["weight"].tolist() == [1, 1, 1]


def test_a_file_of_torch_is_read_the_same_way(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.ones(2)}, "iteration": 3}, tmp_path / "model.pth")
    assert read_zoo_file(tmp_path / "model.pth")["weight"].tolist() == [1, 1]


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_calls_anything_is_refused_before_it_runs(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "model.pkl", {"model": {"weight": _Trap(tmp_path / "sprung")}})
    with pytest.raises(ValueError, match=r"model\.pkl.*refers to (posix|nt)\.mkdir"):
        read_zoo_file(path)
    assert not (tmp_path / "sprung").exists()


def test_objects_hidden_in_an_array_are_refused(tmp_path: Path) -> None:
    array = np.empty(1, dtype=object)
    array[0] = _Trap(tmp_path / "sprung")
    with pytest.raises(ValueError, match="an array of the type 'O8'"):
        read_zoo_file(write_pickle(tmp_path / "model.pkl", {"weight": array}))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("model.txt", b"", "must be a .pkl"),
        ("model.pkl", b"", "not a pickle"),
        ("model.pkl", b"\x80\x02garbage", "not a pickle"),
        ("model.pkl", pickle.dumps([1, 2]), "must hold named arrays; got list"),
        ("model.pkl", pickle.dumps({"lr": 0.1}), "'lr' must be an array; got float"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_zoo_file(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_zoo_file(tmp_path / "other.pkl")


def test_half_a_file_is_an_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pickle.dump({"model": {"weight": np.zeros(1000)}}, buffer)
    (tmp_path / "model.pkl").write_bytes(buffer.getvalue()[:500])
    with pytest.raises(ValueError, match="not a pickle"):
        read_zoo_file(tmp_path / "model.pkl")
