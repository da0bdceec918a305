"""ImageNet weights for backbones, and their way into a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from seamless_pr.build.weights import load_backbones
from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.backbones.stage_extras import StageExtras
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.weights.imagenet import BUILT_IN, fit_backbone
from seamless_pr.weights.seamseg import seamseg_name
from seamless_pr.weights.tensor_files import read_tensors

CONVOLUTION = "layer1.1.conv2.weight"


def backbone() -> TimmBackbone:
    return TimmBackbone("resnet18", make_norm_act())


@pytest.mark.parametrize("with_classifier", [True, False])
def test_torchvision_files_fit_with_and_without_classifier(tmp_path: Path, with_classifier: bool):
    weights = torchvision.models.resnet18(weights=None).state_dict()
    weights["bn1.weight"][0] = -0.5
    if not with_classifier:
        weights = {name: t for name, t in weights.items() if not name.startswith("fc.")}
    torch.save(weights, tmp_path / "resnet18.pth")
    net = backbone()
    load_backbones(net, tmp_path / "resnet18.pth")
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_timm_safetensors_fit(tmp_path: Path):
    weights = timm.create_model("resnet18", pretrained=False).state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    net = backbone()
    load_backbones(net, tmp_path / "model.safetensors")
    assert torch.equal(net.state_dict()[CONVOLUTION], weights[CONVOLUTION])


def test_files_of_seamsegs_converter_fit():
    state = backbone().state_dict()
    theirs = {
        str(seamseg_name(f"trunk.backbone.{name}")).removeprefix("body.backbone."): tensor + 1
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert "mod2.block1.convs.conv1.weight" in theirs
    fitted, report = fit_backbone(theirs, state)
    assert report.faults() == []
    assert torch.equal(fitted[CONVOLUTION], state[CONVOLUTION] + 1)


def test_weights_of_another_network_are_refused_with_every_name(tmp_path: Path):
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "r50.pth")
    with pytest.raises(ValueError, match=r"r50\.pth does not fit(.|\n)*layer4\.0\.conv3\.weight"):
        load_backbones(backbone(), tmp_path / "r50.pth")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth does not exist"):
        load_backbones(backbone(), tmp_path / "none.pth")


def test_weights_may_stand_under_the_key_of_a_training_program(tmp_path: Path):
    torch.save({"epoch": 3, "state_dict": {"a": torch.ones(1)}}, tmp_path / "a.pth")
    assert list(read_tensors(tmp_path / "a.pth")) == ["a"]


@pytest.mark.parametrize("content", [[torch.ones(1)], {}, {"a": torch.ones(1), "b": "text"}])
def test_files_without_tensors_are_named(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth must hold names and tensors"):
        read_tensors(tmp_path / "a.pth")


def test_truncated_safetensors_are_named(tmp_path: Path):
    (tmp_path / "a.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(ValueError, match=r"a\.safetensors is not a complete"):
        read_tensors(tmp_path / "a.safetensors")


def test_what_is_built_into_a_backbone_needs_no_weights_in_the_file() -> None:
    options = {"channels": (16, 16, 16, 16), "stem_width": 8, "layers": (1, 1, 1, 1)}
    plain = TimmBackbone("resnet50", make_norm_act(), **options)
    extras = StageExtras("v2", context_ratio=0.25)
    extended = TimmBackbone("resnet50", make_norm_act(), extras=extras, **options)
    state, report = fit_backbone(plain.state_dict(), extended.state_dict())
    report.check("plain", BUILT_IN)
    with pytest.raises(ValueError, match="conv_offset"):
        report.check("plain")
    torch.testing.assert_close(
        state["layer2.0.conv2.weight"], plain.state_dict()["layer2.0.conv2.weight"]
    )
