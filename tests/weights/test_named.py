"""Weights by name: what exists, what is said without a network, and that they fit a backbone."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import timm
import torch
from torchvision.models import ResNet18_Weights, resnet18

from seamless_pr.weights.imagenet import fit_backbone
from seamless_pr.weights.named import is_named, read_named


def test_names_are_told_from_files() -> None:
    assert is_named("torchvision:resnet50")
    assert is_named("timm:resnext101_64x4d.c1_in1k")
    assert not is_named("data/weights/resnet50.pth")
    assert not is_named("torchvision")
    assert not is_named("C:/weights.pth")


def test_unknown_networks_and_sets_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="torchvision has no network 'resnet51'"):
        read_named("torchvision:resnet51")
    with pytest.raises(ValueError, match="resnet50 has the weights IMAGENET1K_V1, IMAGENET1K_V2"):
        read_named("torchvision:resnet50.IMAGENET22K")
    with pytest.raises(ValueError, match="timm has no pretrained network 'resnet51'"):
        read_named("timm:resnet51")
    with pytest.raises(ValueError, match=r"timm has no weights 'resnet50\.nobody'; it has resn"):
        read_named("timm:resnet50.nobody")


def test_without_a_network_the_message_says_what_to_load_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    with pytest.raises(OSError, match=r"no route to host>\); without a network, load https") as e:
        read_named("torchvision:resnet18")
    assert "give the file as model.backbone.weights" in str(e.value)

    def no_hub(*_: object, **__: object) -> None:
        raise OSError("couldn't connect to the hub")

    monkeypatch.setattr(timm, "create_model", no_hub)
    with pytest.raises(OSError, match=r"'timm:resnet18\.a1_in1k' cannot be downloaded"):
        read_named("timm:resnet18.a1_in1k")


def test_what_torchvision_gives_fits_a_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    published = resnet18().state_dict()
    buffer = io.BytesIO()
    torch.save(published, buffer)
    name = Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / name).write_bytes(buffer.getvalue())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    backbone = timm.create_model("resnet18", features_only=True)
    state, report = fit_backbone(read_named("torchvision:resnet18"), backbone.state_dict())
    report.check("resnet18")
    assert torch.equal(state["layer3.0.conv1.weight"], published["layer3.0.conv1.weight"])
