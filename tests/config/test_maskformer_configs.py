"""Configs of the published MaskFormer networks: sizes, losses, recipes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.training.optimizer import make_optimizer
from tests.support.maskformer_networks import numbered_space

CONFIGS = Path(__file__).parents[2] / "configs"
# Parameters that train.
PUBLISHED = {
    "ade20k/maskformer_r50": (150, 41_254_743),
    "ade20k/maskformer_r101": (150, 60_194_647),
    "ade20k/maskformer_r101c": (150, 60_318_039),
    "ade20k/maskformer_swin_tiny": (150, 41_757_009),
    "ade20k/maskformer_swin_small": (150, 63_074_913),
    "ade20k/maskformer_swin_base": (150, 101_829_391),
    "ade20k/maskformer_swin_large": (150, 211_575_627),
    "ade20k/per_pixel_r50": (150, 31_033_942),
    "ade20k/per_pixel_plus_r50": (150, 41_228_736),
    "ade20k/maskformer_panoptic_r50": (150, 45_016_407),
    "ade20k/maskformer_panoptic_r101": (150, 63_956_311),
    "coco_stuff_10k/maskformer_r50": (171, 41_260_140),
    "coco_stuff_10k/maskformer_r101": (171, 60_200_044),
    "coco_stuff_10k/maskformer_r101c": (171, 60_323_436),
    "coco_stuff_10k/per_pixel_r50": (171, 31_039_339),
    "coco_stuff_10k/per_pixel_plus_r50": (171, 41_234_112),
    "ade20k_full/per_pixel_r50": (847, 31_213_071),
    "ade20k_full/per_pixel_plus_r50": (847, 41_407_168),
    "ade20k_full/maskformer_r50": (847, 41_433_872),
    "ade20k_full/maskformer_r101": (847, 60_373_776),
    "ade20k_full/maskformer_r101c": (847, 60_497_168),
    "cityscapes/maskformer_r101": (19, 60_160_980),
    "cityscapes/maskformer_r101c": (19, 60_284_372),
    "vistas/maskformer_r50": (65, 41_232_898),
    "coco/maskformer_panoptic_r50": (133, 45_012_038),
    "coco/maskformer_panoptic_r101": (133, 63_951_942),
    "coco/maskformer_panoptic_swin_tiny": (133, 41_752_640),
    "coco/maskformer_panoptic_swin_small": (133, 63_070_544),
    "coco/maskformer_panoptic_swin_base": (133, 101_825_022),
    "coco/maskformer_panoptic_swin_large": (133, 211_571_258),
}
ALL = sorted(
    str(path.relative_to(CONFIGS).with_suffix(""))
    for path in CONFIGS.glob("*/*.yaml")
    if path.parent.name not in ("networks", "schedules", "datasets")
    and path.stem.startswith(("maskformer", "per_pixel"))
)


def test_every_published_network_has_a_config():
    assert set(PUBLISHED) < set(ALL)
    assert len(ALL) == 33


def test_the_network_of_the_test_server_learns_from_training_and_validation_images():
    alone = load_config(CONFIGS / "ade20k/maskformer_swin_large.yaml")
    both = load_config(CONFIGS / "ade20k/maskformer_swin_large_trainval.yaml")
    parts = [alone.data.train, alone.data.val]
    assert [(part.json, part.images) for part in both.data.train] == [
        (part.json, part.images) for part in parts
    ]
    assert (both.model, both.optimizer, both.training) == (
        alone.model,
        alone.optimizer,
        alone.training,
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_builds_the_published_network(name):
    num_classes, num_parameters = PUBLISHED[name]
    config = load_config(CONFIGS / f"{name}.yaml")
    with torch.device("meta"):
        network = build_network(config.model, numbered_space(num_classes))
    trained = [p for p in network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == num_parameters
    assert set(config.loss_weights) == set(network.loss_names)
    assert config.optimizer.clip_grad_norm == 0.01
    make_optimizer(network, config.optimizer)


@pytest.mark.parametrize("name", ALL)
def test_a_config_has_the_published_recipe_of_its_backbone(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    is_swin = config.model.backbone.kind == "swin"
    assert config.optimizer.lr == (6e-5 if is_swin else 1e-4)
    assert config.optimizer.weight_decay == (0.01 if is_swin else 1e-4)
    assert config.optimizer.lr_multipliers == ({} if is_swin else {"trunk.backbone": 0.1})
    assert config.schedule.warmup_steps == (1500 if is_swin else 0)
    if config.model.kind == "maskformer":
        assert config.loss_weights["mask_focal"] == config.loss_weights["mask_focal_3"] == 20.0
        is_panoptic = config.model.fusion.task == "panoptic"
        assert is_panoptic == ("panoptic" in name)
        assert config.model.losses.targets == ("segments" if is_panoptic else "classes")
    assert config.data.rounded_sides


def test_steps_and_thresholds_are_those_of_the_dataset():
    steps = {name: load_config(CONFIGS / f"{name}.yaml").training.steps for name in ALL}
    assert steps["ade20k/maskformer_r50"] == steps["ade20k/maskformer_swin_tiny"] == 160_000
    assert steps["ade20k/maskformer_panoptic_r50"] == 720_000
    assert steps["ade20k_full/maskformer_r101c"] == 200_000
    assert steps["coco_stuff_10k/per_pixel_r50"] == 60_000
    assert steps["cityscapes/maskformer_r101"] == 90_000
    assert steps["vistas/maskformer_r50"] == 300_000
    coco = load_config(CONFIGS / "coco/maskformer_panoptic_swin_tiny.yaml")
    assert coco.training.steps == 554_400
    assert coco.schedule.milestones == (369_600,)
    assert (coco.model.fusion.object_threshold, coco.model.size_divisor) == (0.8, 1)
    ade = load_config(CONFIGS / "ade20k/maskformer_panoptic_r101.yaml")
    assert (ade.model.fusion.object_threshold, ade.model.size_divisor) == (0.7, 32)
