"""Files of version 0.1, converted by one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from seamless_pr.build.configs import config_from_dict, load_config
from seamless_pr.build.networks import build_network
from seamless_pr.build.predictor import load_predictor
from seamless_pr.build.updates import update_config, update_weights
from seamless_pr.config.legacy import converted
from seamless_pr.config.load import config_differences
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.training.checkpoints import load_weights, save_weights
from tests.support.small_config import PATHS

OLD_MODEL: dict[str, Any] = {
    "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}},
    "fpn": {"channels": 8},
    "box_head": {"hidden_channels": 8},
    "mask_head": {"coarse_hidden_channels": 8, "point_channels": 8},
    "semantic_head": {"hidden_channels": 8, "point_channels": 8},
}
LOSSES = dict.fromkeys(("mask_coarse", "semantic"), 1.0)
# Ours -> the names of version 0.1.
OLD_NAMES = {
    "trunk.backbone.": "backbone.",
    "trunk.neck.": "fpn.",
    "instances.rpn_head.": "rpn_head.",
    "instances.box_head.": "box_head.",
    "instances.masks.head.": "mask_head.",
    "instances.masks.coarse_head.": "mask_head.",
    "instances.masks.point_head.": "point_head.",
    "semantics.head.": "semantic_head.",
    "semantics.point_head.": "semantic_point_head.",
}


def old_name(name: str) -> str:
    for prefix in ("", "instance_net.", "semantic_net."):
        for ours, theirs in OLD_NAMES.items():
            if name.startswith(prefix + ours):
                return prefix + theirs + name.removeprefix(prefix + ours)
    raise AssertionError(name)


@pytest.mark.parametrize(
    "branches, mask_head", [("both", "point_rend"), ("both", "conv"), ("separate", "conv")]
)
def test_old_weights_become_the_same_network(tmp_path: Path, branches: str, mask_head: str) -> None:
    model = {**OLD_MODEL, "branches": branches}
    model["mask_head"] = {**OLD_MODEL["mask_head"], "kind": mask_head}
    old = {"model": model, "data": PATHS, "loss_weights": LOSSES}
    label_space = load_label_space("cityscapes")
    torch.manual_seed(0)
    network = build_network(config_from_dict(converted(old), "test").model, label_space)
    weights = {old_name(name): tensor for name, tensor in network.state_dict().items()}
    assert len(weights) == len(network.state_dict()) > 100
    metadata = {"config": old, "label_space": label_space.to_dict(), "step": 7}
    save_weights(tmp_path / "old.safetensors", weights, metadata)
    with pytest.raises(ValueError, match=r"old\.safetensors has the layout .*update OLD NEW"):
        load_predictor(tmp_path / "old.safetensors")

    report = update_weights(tmp_path / "old.safetensors", tmp_path / "new.safetensors")
    assert f"{len(weights)} tensors and their config" in report
    loaded = load_predictor(tmp_path / "new.safetensors").network.state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded[name], tensor), name
    assert load_weights(tmp_path / "new.safetensors")[1]["step"] == 7
    with pytest.raises(ValueError, match=r"new\.safetensors is no weights file of version 0\.1"):
        update_weights(tmp_path / "new.safetensors", tmp_path / "newer.safetensors")


def write(path: Path, values: dict[str, Any], header: str = "") -> Path:
    path.write_text(header + yaml.safe_dump(values, sort_keys=False))
    return path


def test_an_old_base_is_taken_into_the_file_and_its_header_stays(tmp_path: Path) -> None:
    base = {"model": OLD_MODEL, "data": PATHS, "loss_weights": LOSSES, "optimizer": {"lr": 0.5}}
    write(tmp_path / "base.yaml", base)
    own = {"base": "base.yaml", "model": {"mask_head": {"kind": "conv"}}, "training": {"steps": 3}}
    old = write(tmp_path / "old.yaml", own, "# What it is.\n#\n# More.\n")
    with pytest.raises(ValueError, match=r"base\.yaml has the layout of version 0\.1"):
        load_config(old)
    update_config(old, tmp_path / "new.yaml")
    assert (tmp_path / "new.yaml").read_text().startswith("# What it is.\n#\n# More.\n\nmodel:")
    config = load_config(tmp_path / "new.yaml")
    assert (config.model.instances.kind, config.model.neck.channels) == ("mask_rcnn", 8)
    assert (config.optimizer.lr, config.training.steps) == (0.5, 3)
    with pytest.raises(ValueError, match=r"new\.yaml is no config of version 0\.1"):
        update_config(tmp_path / "new.yaml", tmp_path / "newer.yaml")


def test_a_base_of_today_stays_the_base(tmp_path: Path) -> None:
    new_model = converted({"model": {**OLD_MODEL, "mask_head": {"kind": "conv"}}})["model"]
    write(tmp_path / "base.yaml", {"model": new_model, "data": PATHS, "loss_weights": LOSSES})
    (tmp_path / "runs").mkdir()
    own = {"base": "../base.yaml", "model": {"box": {"num_samples": 3}}}
    old = write(tmp_path / "runs/old.yaml", own)
    update_config(old, tmp_path / "runs/new.yaml")
    new, base = load_config(tmp_path / "runs/new.yaml"), load_config(tmp_path / "base.yaml")
    assert config_differences(base, new) == {"model.instances.box.num_samples": (512, 3)}


def test_a_config_with_a_key_that_no_version_had_is_refused(tmp_path: Path) -> None:
    values = {"model": {**OLD_MODEL, "wheels": 4}, "data": PATHS, "loss_weights": LOSSES}
    old = write(tmp_path / "old.yaml", values)
    with pytest.raises(ValueError, match=r"old\.yaml: unknown key 'model\.wheels'"):
        update_config(old, tmp_path / "new.yaml")
    assert not (tmp_path / "new.yaml").exists()
