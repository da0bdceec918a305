"""Pixels and strides of mmdetection's networks, as their configurations say."""

from __future__ import annotations

import torch

from seamless_pr.weights.mmdetection import fit_mmdetection_weights
from seamless_pr.weights.mmdetection_config import config_values
from seamless_pr.weights.mmdetection_inputs import TheirInputs
from seamless_pr.weights.tensor_files import stored_config
from tests.support.mmdet_recipe import recipe_shapes

VERSION_2 = """
model = dict(type='PointRend', backbone=dict(type='ResNet', depth=50, style='caffe'))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
"""
VERSION_3 = """
model = dict(
    backbone=dict(depth=101, style='pytorch', type='ResNeXt'),
    data_preprocessor=dict(
        bgr_to_rgb=False,
        mean=[
            103.53,
            116.28,
            123.675,
        ],
        std=[
            57.375,
            57.12,
            58.395,
        ],
        type='DetDataPreprocessor'))
"""
USUAL = (
    "img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)"
)


def test_the_text_of_a_configuration_tells_pixels_and_strides():
    assert TheirInputs.told_by(VERSION_2) == TheirInputs(
        std=(1.0, 1.0, 1.0), reads_bgr=True, stride_in_1x1=True
    )
    assert TheirInputs.told_by(VERSION_3) == TheirInputs(reads_bgr=True)
    assert TheirInputs.told_by(USUAL) == TheirInputs.told_by("") == TheirInputs()
    assert TheirInputs.told_by("mean=[0.5], std=[1, 2]") == TheirInputs()


def test_it_is_found_in_checkpoints_of_versions_2_and_3():
    assert stored_config({"meta": {"config": VERSION_2}, "state_dict": {}}) == VERSION_2
    assert stored_config({"meta": {"cfg": VERSION_3, "config": None}}) == VERSION_3
    assert stored_config({"meta": {"epoch": 3}}) == stored_config({"meta": 3}) == ""
    assert stored_config([]) == ""


def test_they_change_the_config_and_the_first_convolution():
    shapes = recipe_shapes("pointrend_mmdet3_r50_p2p6")
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    model = config_values(tensors, TheirInputs.told_by(VERSION_2))["model"]
    assert model["backbone"]["stride_in_1x1"]
    assert model["pixel_std"] == (1 / 255, 1 / 255, 1 / 255)
    assert model["pixel_mean"] == (123.675 / 255, 116.28 / 255, 103.53 / 255)
    first = {"backbone.conv1.weight": torch.randn(2, 3, 7, 7)}
    network = {"trunk.backbone.conv1.weight": torch.zeros(2, 3, 7, 7)}
    for reads_bgr in (False, True):
        state, _ = fit_mmdetection_weights(first, network, reads_bgr=reads_bgr)
        theirs = first["backbone.conv1.weight"]
        expected = theirs[:, [2, 1, 0]] if reads_bgr else theirs
        assert torch.equal(state["trunk.backbone.conv1.weight"], expected)
