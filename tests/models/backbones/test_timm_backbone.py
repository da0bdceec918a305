"""timm networks with replaced norms: shapes, names, arithmetic, frozen parts."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from seamless_pr.layers.abn import ABN, InPlaceABN, make_norm_act
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from tools.measure.measure_abn_memory import BatchNormReLU, saved_bytes

SMALL = {"channels": (8, 16, 24, 32), "stem_width": 8}
# Small members of each family.
NETWORKS = {
    "resnet18": SMALL,
    "resnet10t": SMALL,
    "resnet50": {**SMALL, "layers": (1, 1, 1, 1)},
    "resnext50_32x4d": {**SMALL, "channels": (16, 16, 32, 32), "layers": (1, 1, 1, 1)},
    "res2net50_26w_4s": {**SMALL, "layers": (1, 1, 1, 1)},
    "res2net50d": {**SMALL, "layers": (1, 2, 1, 1)},
    "seresnet50": {**SMALL, "layers": (1, 1, 1, 1)},
    "regnetx_002": {},
}


def images(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


def randomize(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_have_the_announced_channels_and_strides(name):
    backbone = TimmBackbone(name, make_norm_act(), **NETWORKS[name])
    stages = backbone(images(65, 90))
    assert backbone.strides == (4, 8, 16, 32)
    for stage, channels, stride in zip(stages, backbone.out_channels, backbone.strides):
        assert stage.shape == (2, channels, -(-65 // stride), -(-90 // stride))


def kept_bytes(backbone: TimmBackbone, x: torch.Tensor) -> int:
    return saved_bytes(lambda: backbone(x), [x, *backbone.parameters(), *backbone.buffers()])


def test_a_whole_resnet_50_keeps_less_than_two_thirds_of_what_it_keeps_with_plain_norms():
    x = torch.zeros(1, 3, 64, 128)
    in_place, plain = (
        kept_bytes(TimmBackbone("resnet50", norm_act), x)
        for norm_act in (make_norm_act(), BatchNormReLU)
    )
    assert in_place <= 0.65 * plain


@pytest.mark.parametrize("kind", ["inplace_abn", "abn", "batch_norm"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "res2net50_26w_4s", "regnetx_002"])
def test_what_is_computed_again_changes_no_bit_of_gradients_and_statistics(name, kind):
    def trained(*, checkpointing: bool):
        torch.manual_seed(0)
        backbone = TimmBackbone(
            name, make_norm_act(kind), checkpointing=checkpointing, **NETWORKS[name]
        )
        randomize(backbone)
        stages = backbone(images(64, 96))
        sum(stage.square().mean() for stage in stages).backward()
        return backbone, stages

    (plain, expected), (saving, found) = (trained(checkpointing=value) for value in (False, True))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    for (key, ours), theirs in zip(saving.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), key
    for (key, ours), theirs in zip(saving.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs), key
    assert "num_batches_tracked" in str(saving.state_dict().keys())


def test_of_blocks_that_are_computed_again_only_what_they_pass_on_is_kept():
    x = torch.zeros(1, 3, 64, 128)
    blocks, saving = (
        TimmBackbone("resnet50", make_norm_act(), checkpointing=value) for value in (False, True)
    )
    # Inputs of 16 blocks, and nothing of the stem; the image itself is left out.
    sizes = [64 * 16 * 32, *[256 * 16 * 32] * 3, *[512 * 8 * 16] * 4, *[1024 * 4 * 8] * 6]
    sizes += [2048 * 2 * 4] * 2
    assert kept_bytes(saving, x) == 4 * sum(sizes)
    assert 4 * sum(sizes) < 0.5 * kept_bytes(blocks, x)


def test_statistics_of_another_package_are_refused_with_checkpointing():
    with pytest.raises(ValueError, match=r"norms of another package \(BatchNorm2d\)"):
        TimmBackbone("resnet18", lambda n, _: nn.BatchNorm2d(n), checkpointing=True, **SMALL)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_place_norms_train_like_plain_ones(name):
    plain = TimmBackbone(name, make_norm_act("abn"), **NETWORKS[name]).double()
    randomize(plain)
    in_place = TimmBackbone(name, make_norm_act(), **NETWORKS[name]).double()
    in_place.load_state_dict(plain.state_dict())
    x = images(64, 64).double()
    for backbone in (plain, in_place):
        sum(stage.square().mean() for stage in backbone(x)).backward()
    for expected, parameter in zip(plain.parameters(), in_place.parameters()):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(in_place.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_arithmetic_are_timms_but_for_the_slope(name):
    # In double precision: in single one timm's stages are off by up to 9e-7 of their largest value
    # (50 seeds), which is more than some wrong norms would change.
    network = timm.create_model(name, features_only=True, **NETWORKS[name]).double()
    # A slope of nearly 0 is a ReLU.
    backbone = TimmBackbone(name, make_norm_act(slope=1e-12), **NETWORKS[name]).double()
    assert list(backbone.state_dict()) == list(network.state_dict())
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    backbone.load_state_dict(network.state_dict())
    with torch.no_grad():
        for norm in backbone.modules():
            if isinstance(norm, InPlaceABN):
                norm.weight -= norm.eps  # it scales by |weight| + eps
    x = images(64, 64).double()
    expected = network.eval()(x)[-4:]
    torch.testing.assert_close(backbone.eval()(x), tuple(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("output_stride, multi_grid", [(16, ()), (8, ()), (8, (1, 2, 4))])
def test_a_dilated_network_computes_the_same_in_every_second_cell(output_stride, multi_grid):
    options = {**SMALL, "layers": (1, 1, 3, 3), "stem_type": "deep", "multi_grid": multi_grid}
    coarse, fine = (
        TimmBackbone("resnet50", make_norm_act(), output_stride=stride, **options).eval().double()
        for stride in (2 * output_stride, output_stride)
    )
    randomize(coarse)
    fine.load_state_dict(coarse.state_dict())
    x = images(96, 128).double()
    expected, found = coarse(x), fine(x)
    assert coarse.strides == (4, 8, 16, 2 * output_stride)
    assert fine.strides == tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
    for theirs, ours, stride in zip(expected, found, fine.strides):
        assert ours.shape[-2:] == (96 // stride, 128 // stride)
        step = ours.shape[-1] // theirs.shape[-1]
        torch.testing.assert_close(ours[..., ::step, ::step], theirs)
    assert found[-1].shape[-1] == 2 * expected[-1].shape[-1]


def test_dilations_of_the_last_stage_are_those_of_the_multi_grid():
    backbone = TimmBackbone(
        "resnet101", make_norm_act(), output_stride=16, multi_grid=(1, 2, 4), **SMALL
    )
    dilations = {
        name: module.dilation[0]
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and module.dilation != (1, 1)
    }
    assert dilations == {"layer4.0.conv2": 2, "layer4.1.conv2": 4, "layer4.2.conv2": 8}


def test_a_multi_grid_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"each of the 2 blocks .*'resnet18'; got 3 numbers"):
        TimmBackbone("resnet18", make_norm_act(), multi_grid=(1, 2, 4), **SMALL)


def test_a_network_that_cannot_be_dilated_is_refused():
    with pytest.raises(ValueError, match=r"'vgg11_bn' .*output_stride"):
        TimmBackbone("vgg11_bn", make_norm_act(), output_stride=16)


def test_last_norm_of_a_block_has_no_activation_and_the_sum_has():
    backbone = TimmBackbone("resnet18", make_norm_act(), **SMALL)
    block = backbone.get_submodule("layer2.0")
    assert block.bn1.activation == "leaky_relu"
    assert block.bn2.activation == "identity"
    assert backbone.get_submodule("layer2.0.downsample.1").activation == "identity"
    stages = backbone.eval()(images(64, 64))
    assert all(stage.min() < 0 for stage in stages)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_no_batch_norm_is_left_and_all_weights_start_at_one(name):
    backbone = TimmBackbone(name, make_norm_act(), **NETWORKS[name])
    norms = [module for module in backbone.modules() if isinstance(module, ABN)]
    assert norms
    assert not any(isinstance(module, nn.BatchNorm2d | nn.ReLU) for module in backbone.modules())
    assert all(bool((norm.weight == 1).all()) for norm in norms)


def test_other_kinds_of_norm_fit_in():
    backbone = TimmBackbone("resnet18", make_norm_act("group_norm"), **SMALL)
    assert not list(backbone.buffers())
    sum(stage.sum() for stage in backbone(images(64, 64))).backward()


@pytest.mark.parametrize("num_stages", range(6))
def test_frozen_stages_get_no_gradient_but_their_statistics_move(num_stages):
    backbone = TimmBackbone("resnet18", make_norm_act(), **SMALL)
    backbone.freeze(num_stages)
    parts = ["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]
    for index, names in enumerate(parts):
        for name in names:
            for parameter in backbone.get_submodule(name).parameters():
                assert parameter.requires_grad == (index >= num_stages)
    stages = backbone(images(64, 64))
    if num_stages < len(parts):
        sum(stage.sum() for stage in stages).backward()
    norms = [module for module in backbone.modules() if isinstance(module, InPlaceABN)]
    assert all(norm.num_batches_tracked == 1 for norm in norms)


def test_a_number_of_stages_that_does_not_exist_is_refused():
    backbone = TimmBackbone("resnet18", make_norm_act(), **SMALL)
    with pytest.raises(ValueError, match=r"0\.\.5 .*got 6"):
        backbone.freeze(6)


def test_a_copy_has_its_own_weights():
    backbone = TimmBackbone("resnet18", make_norm_act(), **SMALL).eval()
    twin = copy.deepcopy(backbone)
    expected = backbone(images(64, 64))
    torch.testing.assert_close(twin(images(64, 64)), expected, rtol=0, atol=0)
    nn.init.zeros_(twin.get_submodule("conv1").weight)
    assert not torch.equal(twin(images(64, 64))[0], expected[0])
    torch.testing.assert_close(backbone(images(64, 64)), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name, message",
    [
        ("convnext_atto", "no BatchNorm2d"),
        ("efficientnet_b0", "uses SiLU"),
        ("mobilenetv2_035", "uses ReLU6"),
        ("resnet_18", "no network 'resnet_18'; similar names: .*resnet18"),
    ],
)
def test_networks_of_other_families_are_refused_by_name(name, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(name, make_norm_act())


def test_unknown_names_and_options_are_refused_by_name():
    with pytest.raises(ValueError, match="'resnet9000'"):
        TimmBackbone("resnet9000", make_norm_act())
    with pytest.raises(ValueError, match=r"'resnet18' with the options .*'wdth'"):
        TimmBackbone("resnet18", make_norm_act(), wdth=3)


@pytest.mark.parametrize(
    "channels",
    [[], [8, 8, 16, 2**63], [8, 8, 16, 16.5], [8, 8, 16, None], [8, 8, False, 16]],
)
def test_options_that_timm_stumbles_over_are_refused_in_one_line(channels, recwarn):
    with pytest.raises(ValueError, match="'resnet18' with the options") as refused:
        TimmBackbone("resnet18", make_norm_act(), channels=channels)
    assert "\n" not in str(refused.value)
    assert str(channels) in str(refused.value)
    assert not recwarn.list


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained_cfg", "cache_dir"])
def test_options_that_would_read_files_are_refused(option):
    with pytest.raises(ValueError, match=f"'resnet18' may not name files or weights, as {option} "):
        TimmBackbone("resnet18", make_norm_act(), **{option: "evil.pth"})


def test_a_network_without_stride_32_is_refused():
    with pytest.raises(ValueError, match=r"\[32\] are missing"):
        TimmBackbone("resnet18", make_norm_act(), out_indices=(0, 1, 2, 3), **SMALL)


def test_the_stride_moves_into_the_first_convolution_of_a_block() -> None:
    small = {"channels": (8, 16, 24, 32), "stem_width": 8, "layers": (1, 1, 1, 1)}
    norm_act = make_norm_act("frozen_batch_norm", slope=0.0)
    strides = {}
    for in_1x1 in (False, True):
        backbone = TimmBackbone("resnet50", norm_act, stride_in_1x1=in_1x1, **small)
        block = backbone.get_submodule("layer2.0")
        strides[in_1x1] = (block.conv1.stride, block.conv2.stride)
        assert [stage.shape[-1] for stage in backbone(torch.zeros(1, 3, 64, 64))] == [16, 8, 4, 2]
    assert strides == {False: ((1, 1), (2, 2)), True: ((2, 2), (1, 1))}
    with pytest.raises(ValueError, match="no bottleneck block"):
        TimmBackbone("resnet18", norm_act, stride_in_1x1=True)


def test_stages_without_end_are_not_built() -> None:
    with pytest.raises(ValueError, match="'layers' of backbone 'resnet18' names 1000000"):
        TimmBackbone("resnet18", make_norm_act(), layers=[2, 2, 10**6, 2])
