"""Configs of the 3D-FUTURE winner and of panoptic networks out of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = sorted((CONFIGS / "debug").glob("near_scenes_*.yaml"))
RUNS = [
    *sorted((CONFIGS / "future3d").glob("*.yaml")),
    *sorted(CONFIGS.glob("*/*_panoptic.yaml")),
    *SMALL,
]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_loss_of_the_network_has_a_weight(path: Path) -> None:
    config = load_config(path)
    with torch.device("meta"):
        network = build_network(config.model, load_label_space(config.data.label_space))
    assert set(config.loss_weights) == set(network.loss_names)
    is_panoptic = path.stem.endswith("_panoptic") or path in SMALL
    assert (network.semantics is not None) == is_panoptic


def test_there_are_five_candidates_and_five_steps_before_them() -> None:
    names = [path.stem for path in RUNS if path.parent.name == "future3d"]
    assert sum(name.startswith("pointrend") for name in names) == 5
    assert sum(name.startswith("ablation") for name in names) == 5


def test_the_candidates_have_the_published_numbers() -> None:
    numbers = {}
    for path in RUNS:
        if path.stem.startswith("pointrend") and path.parent.name == "future3d":
            model, optimizer = load_config(path).model, load_config(path).optimizer
            instances = model.instances
            numbers[path.stem] = (
                model.neck.kind == "bfp" and model.neck.num_refinements,
                instances.roi.size,
                instances.box.num_layers,
                instances.mask.conv_channels,
                (instances.points.num_layers, instances.points.hidden_channels),
                (optimizer.lr, optimizer.clip_grad_norm),
            )
    assert numbers == {
        "pointrend_x101": (False, 7, 2, 256, (3, 256), (0.02, 0)),
        "pointrend_x101_bfp": (1, 7, 2, 256, (3, 256), (0.01, 0)),
        "pointrend_x101_bfp_wide": (1, 7, 2, 256, (3, 512), (0.02, 0)),
        "pointrend_res2net101_bfp": (1, 7, 4, 512, (5, 512), (0.01, 35)),
        "pointrend_res2net101_bfp2_roi10": (2, 10, 4, 512, (5, 512), (0.01, 35)),
    }
