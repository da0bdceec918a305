"""The configs of released detectron2 models describe the networks that their weights build."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seamless_pr.build.configs import config_from_dict, load_config
from seamless_pr.config.load import config_differences
from seamless_pr.weights.detectron2_config import zoo_config_values
from tests.support.zoo_networks import zoo_shapes

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    "config, network",
    [
        ("cityscapes/pointrend_r50.yaml", "instance_cityscapes"),
        ("coco/pointrend_r50_1x.yaml", "instance_coco"),
        ("coco/pointrend_r50_3x.yaml", "instance_coco"),
        ("coco/panoptic_fpn_r50_1x.yaml", "panoptic_fpn_coco"),
        ("cityscapes/semantic_fpn_pointrend_r101.yaml", "semantic_cityscapes"),
    ],
)
def test_the_config_is_the_one_that_the_weights_bring(config: str, network: str) -> None:
    tensors = {n: torch.empty(shape, device="meta") for n, shape in zoo_shapes(network).items()}
    imported = config_from_dict(zoo_config_values(tensors), network)
    written = load_config(CONFIGS / config)
    different = {
        key: pair
        for key, pair in config_differences(written, imported).items()
        if key.startswith(("model.", "data.label_space", "data.shortest", "loss_weights"))
        # The config's number follows the size of the image: the same at 1024x2048.
        and key != "model.semantics.points.subdivision_points"
    }
    different = {
        key: pair for key, pair in different.items() if pair[0] != pytest.approx(pair[1], rel=1e-6)
    }
    assert different == {}
