"""Published MaskFormer weights: layouts, configs that are read off, order of classes."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.weights.maskformer import (
    fit_maskformer_weights,
    official_order,
    original_names,
    weights_kind,
)
from seamless_pr.weights.maskformer_config import maskformer_config_values
from tests.support.maskformer_golden import shapes_of

LISTINGS = {
    "r50_base_ade150": ("maskformer", "resnet50", "semantic", 32, (512, 2048)),
    "r50_enc6_coco133": ("maskformer", "resnet50", "panoptic", 1, (800, 1333)),
    "swint_base_ade150": ("maskformer", "swin_tiny", "semantic", 32, (512, 2048)),
    "swint_base_coco133": ("maskformer", "swin_tiny", "panoptic", 1, (800, 1333)),
    "r50_ppb_ade150": ("per_pixel", "resnet50", None, 1, (512, 2048)),
    "r50_ppbplus_ade150": ("per_pixel", "resnet50", None, 1, (512, 2048)),
}


def tensors_of(listing):
    """Tensors without memory."""
    shapes = shapes_of(f"STATE_DICT_{listing}.txt")
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def old_layout(tensors):
    """As in the files that the authors published: no "pixel_decoder." in the names."""
    return {name.replace("pixel_decoder.", ""): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("layout", ["new", "old"])
@pytest.mark.parametrize("listing", LISTINGS)
def test_the_config_read_off_weights_rebuilds_their_network(listing, layout):
    kind, backbone, task, size_divisor, sides = LISTINGS[listing]
    tensors = tensors_of(listing)
    if layout == "old":
        tensors = old_layout(tensors)
    original = original_names(tensors)
    config = config_from_dict(maskformer_config_values(original), "the weights")
    assert config.model.kind == kind
    assert config.model.backbone.name == backbone
    assert getattr(getattr(config.model, "fusion", None), "task", None) == task
    assert config.model.size_divisor == size_divisor
    assert (config.data.shortest_side_pixels, config.data.longest_side_pixels) == sides
    space = load_label_space(config.data.label_space)
    with torch.device("meta"):
        network = build_network(config.model, space)
    assert set(config.loss_weights) == set(network.loss_names)
    # Classes are put into order on the CPU: only their layers need values.
    zeros = {name: torch.zeros(t.shape) if t.ndim < 3 else t for name, t in tensors.items()}
    _, report = fit_maskformer_weights(zeros, network.state_dict(), official_order(space))
    assert report.faults() == []


def test_the_three_convolutions_of_the_deeplab_stem_are_recognised():
    tensors = tensors_of("r50_base_ade150")
    backbone = {
        (name if name.startswith("backbone.") else f"backbone.{name}"): tensor
        for name, tensor in tensors_of("r101c_backbone").items()
    }
    rest = {name: t for name, t in tensors.items() if not name.startswith("backbone.")}
    values = maskformer_config_values(original_names(backbone | rest))
    assert values["model"]["backbone"] == {
        "kind": "timm",
        "name": "resnet101",
        "options": {"stem_type": "deep", "stem_width": 64},
        "multi_grid": [1, 2, 4],
    }


def test_classes_change_from_the_order_of_the_dataset_to_stuff_first():
    space = load_label_space("coco_panoptic")
    order = official_order(space)
    # COCO has 80 things, then 53 kinds of stuff.
    assert order == [*range(80, 133), *range(80)]
    tensors = {
        "sem_seg_head.predictor.class_embed.weight": torch.arange(134.0)[:, None],
        "sem_seg_head.predictor.class_embed.bias": torch.arange(134.0),
    }
    network = {"class_embed.weight": torch.zeros(134, 1), "class_embed.bias": torch.zeros(134)}
    state, report = fit_maskformer_weights(tensors, network, order)
    report.check("classes")
    assert state["class_embed.bias"].tolist() == [*order, 133]
    assert state["class_embed.weight"][:, 0].tolist() == [*order, 133]


def test_the_classes_of_baselines_are_the_rows_of_their_predictor_or_queries():
    order = [2, 0, 1]
    for name, ours in (
        ("sem_seg_head.predictor.weight", "head.predictor.weight"),
        ("sem_seg_head.predictor.query_embed.weight", "head.query_decoder.query_embed.weight"),
    ):
        state, report = fit_maskformer_weights(
            {name: torch.arange(3.0)[:, None]}, {ours: torch.zeros(3, 1)}, order
        )
        report.check(name)
        assert state[ours][:, 0].tolist() == order


def test_a_label_space_of_another_size_is_refused():
    tensors = {"sem_seg_head.predictor.class_embed.weight": torch.zeros(20, 4)}
    with pytest.raises(ValueError, match="19 classes, the label space has 3"):
        fit_maskformer_weights(tensors, {}, [0, 1, 2])


def test_weights_of_other_networks_are_refused():
    with pytest.raises(ValueError, match="no predictor of MaskFormer"):
        weights_kind({"backbone.fc.weight": torch.zeros(1)})


def test_an_unknown_number_of_classes_asks_for_categories():
    tensors = tensors_of("r50_small_prenorm_7cls")
    with pytest.raises(ValueError, match="7 classes"):
        maskformer_config_values(original_names(tensors))


def test_every_name_without_a_place_is_reported():
    tensors = tensors_of("r50_ppb_ade150")
    tensors = {name: torch.zeros(1) if "predictor" in name else t for name, t in tensors.items()}
    tensors["sem_seg_head.predictor.weight"] = torch.zeros(2, 256, 1, 1)
    tensors["backbone.res6.0.conv1.weight"] = torch.zeros(1)
    _, report = fit_maskformer_weights(
        tensors, {"head.predictor.weight": torch.zeros(2, 1)}, [1, 0]
    )
    assert "backbone.res6.0.conv1.weight" in report.left_over
    assert report.misshapen == ("sem_seg_head.predictor.weight: (2, 256, 1, 1), not (2, 1)",)
