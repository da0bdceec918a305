"""A checkpoint of a network small enough for tests; its weights are random."""

from __future__ import annotations

from pathlib import Path

import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.config.load import config_to_dict
from seamless_pr.config.schema import Config
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.training.checkpoints import save_weights
from tests.support.tiny_run import POINT_REND_LOSSES


def tiny_config() -> Config:
    files = {"json": "unused.json", "images": "unused"}
    values = {
        "model": {
            "kind": "two_branch",
            "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}},
            "norm_act": {"sync": False},
            "neck": {"channels": 16},
            "instances": {
                "kind": "point_rend",
                "rpn": {"pre_nms_test": 100, "post_nms_test": 20},
                "box": {"hidden_channels": 32},
                "mask": {"hidden_channels": 32},
                "points": {"hidden_channels": 16},
            },
            "semantics": {
                "kind": "mini_dl",
                "hidden_channels": 8,
                "points": {"hidden_channels": 16},
            },
        },
        "data": {"train": files, "val": files, "shortest_side_pixels": 64},
        "loss_weights": dict.fromkeys(POINT_REND_LOSSES, 1.0),
    }
    return config_from_dict(values, "the tiny test config")


def write_tiny_checkpoint(path: Path, seed: int = 0, label_space: str = "cityscapes") -> Path:
    """Random weights for these classes; returns the path."""
    torch.manual_seed(seed)
    config, classes = tiny_config(), load_label_space(label_space)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"config": config_to_dict(config), "label_space": classes.to_dict()}
    save_weights(path, build_network(config.model, classes).state_dict(), metadata)
    return path
