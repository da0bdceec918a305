"""Names of weights of version 0.1."""

from __future__ import annotations

import pytest

from seamless_pr.weights.legacy import check_names, has_old_names, new_name


@pytest.mark.parametrize(
    "old, new",
    [
        ("backbone.conv1.weight", "trunk.backbone.conv1.weight"),
        ("fpn.lateral.0.conv.weight", "trunk.neck.lateral.0.conv.weight"),
        ("fpn", "trunk.neck"),
        ("mask_head.fc1.weight", "instances.masks.coarse_head.fc1.weight"),
        ("point_head.predictor.bias", "instances.masks.point_head.predictor.bias"),
        ("semantic_head.predictor.bias", "semantics.head.predictor.bias"),
        ("semantic_net.fpn.output.0.bias", "semantic_net.trunk.neck.output.0.bias"),
        ("instance_net.rpn_head.conv.weight", "instance_net.instances.rpn_head.conv.weight"),
    ],
)
def test_a_name_of_version_0_1_has_one_of_ours(old: str, new: str) -> None:
    assert new_name(old, renders_masks=True) == new


def test_the_mask_head_without_point_rend_is_no_coarse_head() -> None:
    name = new_name("mask_head.up.weight", renders_masks=False)
    assert name == "instances.masks.head.up.weight"


def test_a_part_that_version_0_1_did_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'decoder\.query' is no weight of a network of version"):
        new_name("decoder.query", renders_masks=True)


def test_weights_of_others_are_not_taken_for_old_ones() -> None:
    assert has_old_names(["backbone.conv1.weight", "semantic_head.predictor.bias"])
    assert has_old_names(["instance_net.backbone.bn1.bias", "semantic_net.fpn.a.bias"])
    assert not has_old_names(["trunk.backbone.conv1.weight", "semantics.head.predictor.bias"])
    assert not has_old_names(["backbone.bottom_up.stem.conv1.weight", "roi_heads.mask_head.a"])
    assert not has_old_names(["conv1.weight", "bn1.bias"])
    assert not has_old_names([])


def test_old_weights_are_refused_with_the_command_that_converts_them() -> None:
    with pytest.raises(ValueError, match=r"a\.safetensors holds .* 0\.1; .* update OLD NEW"):
        check_names(["backbone.conv1.weight"], "a.safetensors")
