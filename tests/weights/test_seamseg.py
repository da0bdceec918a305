"""Names of the released checkpoints."""

from __future__ import annotations

import pytest

from seamless_pr.weights.seamseg import our_name


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("body.backbone.mod1.conv1.weight", "backbone.conv1.weight"),
        ("body.backbone.mod1.bn1.running_var", "backbone.bn1.running_var"),
        ("body.backbone.mod2.block1.convs.bn3.bias", "backbone.layer1.0.bn3.bias"),
        ("body.backbone.mod5.block1.proj_conv.weight", "backbone.layer4.0.downsample.0.weight"),
        ("body.backbone.mod3.block1.proj_bn.weight", "backbone.layer2.0.downsample.1.weight"),
        ("body.fpn.lateral.3.bn.weight", "fpn.lateral.3.norm.weight"),
        ("body.fpn.extra.1.conv.weight", "fpn.extra.1.conv.weight"),
        ("sem_head.output.2.conv1_dil.weight", "semantic_head.mini_dls.2.conv_dilated.weight"),
        ("sem_head.output.0.bn2.bias", "semantic_head.mini_dls.0.mix.norm.bias"),
        ("sem_head.conv_sem.bias", "semantic_head.predictor.bias"),
        ("body.backbone.fc.weight", None),
    ],
)
def test_names_of_the_trunk(theirs, ours):
    assert our_name(theirs) == ours
