"""Conversion of whole checkpoints on the command line."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest
import torch
import torchvision
import yaml

from seamless_pr.build import released_weights
from seamless_pr.build.configs import load_config
from seamless_pr.build.predictor import load_predictor
from seamless_pr.config.load import save_config
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.training.checkpoints import load_weights
from seamless_pr.weights.seamseg_snapshot import read_snapshot
from tests.support.small_config import PATHS
from tests.support.snapshots import (
    CONFIG_INI,
    tiny_seamless_config,
    write_tiny_snapshot,
)
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tools import convert_weights as tool


@pytest.fixture
def config_path(tmp_path: Path) -> str:
    save_config(tiny_seamless_config(), tmp_path / "tiny.yaml")
    return str(tmp_path / "tiny.yaml")


@pytest.mark.parametrize("counters", [True, False])
def test_a_snapshot_becomes_a_file_to_predict_with(tmp_path, config_path, counters, capsys):
    network = write_tiny_snapshot(tmp_path / "in" / "last.tar", counters=counters)
    output = tmp_path / "out.safetensors"
    arguments = ["from-seamseg", str(tmp_path / "in"), str(output), "--config", config_path]
    assert tool.main(arguments) == 0
    report = capsys.readouterr().out
    assert "0 missing, 0 left over, 0 of another shape" in report
    weights, _ = load_weights(output)
    torch.testing.assert_close(weights, dict(network.state_dict()), rtol=0, atol=0)
    predictor = load_predictor(output, "cpu", overrides=["model.fusion.stuff_area_fraction=0.0"])
    assert predictor.label_space == load_label_space("cityscapes")
    segmentation = predictor(torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8))
    assert segmentation.image_size == (70, 90)


def test_the_way_back_restores_the_snapshot(tmp_path, config_path):
    write_tiny_snapshot(tmp_path / "a.tar", config="[body]\nbody = resnet18")
    ours, back = tmp_path / "a.safetensors", tmp_path / "b.tar"
    first = ["from-seamseg", str(tmp_path / "a.tar"), str(ours), "--config", config_path]
    assert tool.main(first) == 0
    assert tool.main(["to-seamseg", str(ours), str(back)]) == 0
    old, new = (torch.load(path, weights_only=True) for path in (tmp_path / "a.tar", back))
    assert new["config"] == old["config"] == "[body]\nbody = resnet18"
    for part, tensors in old["state_dict"].items():
        torch.testing.assert_close(new["state_dict"][part], tensors, rtol=0, atol=0)


def test_names_must_match_unless_they_are_named(tmp_path, config_path, capsys):
    write_tiny_snapshot(tmp_path / "a.tar")
    output = tmp_path / "a.safetensors"
    command = ["from-seamseg", str(tmp_path / "a.tar"), str(output), "--config", config_path]
    other_classes = [*command, "--label-space", "idd"]
    assert tool.main(other_classes) == 1
    message = capsys.readouterr().err
    assert "of another shape: sem_head.conv_sem.weight" in message
    assert not output.exists()
    class_layers = ["roi_head.roi_*", "sem_head.conv_sem.*"]
    assert tool.main([*other_classes, "--allow", *class_layers]) == 0
    assert "of another shape: roi_head.roi_cls.bias" in capsys.readouterr().out
    assert load_predictor(output, "cpu").label_space == load_label_space("idd")


def test_networks_of_point_rend_have_no_place_in_the_released_code(tmp_path, capsys):
    source = write_tiny_checkpoint(tmp_path / "a.safetensors")
    assert tool.main(["to-seamseg", str(source), str(tmp_path / "a.tar")]) == 1
    assert "released code has no layer for" in capsys.readouterr().err


def test_a_snapshot_without_any_config_asks_for_one(tmp_path, capsys):
    write_tiny_snapshot(tmp_path / "a.tar")
    assert tool.main(["from-seamseg", str(tmp_path / "a.tar"), str(tmp_path / "a.st")]) == 1
    assert "give the YAML of its network with --config" in capsys.readouterr().err


def test_the_config_of_the_snapshot_decides_the_network(tmp_path, capsys):
    write_tiny_snapshot(tmp_path / "a.tar", config=CONFIG_INI)
    assert tool.main(["from-seamseg", str(tmp_path / "a.tar"), str(tmp_path / "a.st")]) == 1
    assert "missing in the file: trunk.backbone.layer1.0.conv3.weight" in capsys.readouterr().err
    snapshot = read_snapshot(tmp_path / "a.tar")
    config = released_weights._snapshot_config(snapshot, tmp_path / "a.tar")
    assert config.model.instances.kind == "mask_rcnn"
    assert config.model.semantics.points is None
    assert config.model.semantics.pooling_size == 32
    assert (config.model.fusion.size, config.model.fusion.stuff_area_pixels) == ("network", 2048)
    assert config.data.shortest_side_pixels == 1920


def write_metadata(path: Path, names: list[str], num_stuff: int) -> None:
    meta = {
        "num_stuff": num_stuff,
        "num_thing": len(names) - num_stuff,
        "categories": names,
        "palette": [[index, 0, 1] for index in range(len(names))],
        "original_ids": [index + 40 for index in range(len(names))],
    }
    path.write_bytes(msgpack.packb({"images": [], "meta": meta}))


def test_metadata_gives_colours_to_a_known_table(tmp_path, config_path):
    space = load_label_space("cityscapes")
    write_tiny_snapshot(tmp_path / "in" / "a.tar")
    names = [category.name for category in space.categories]
    write_metadata(tmp_path / "in" / "metadata.bin", names, space.num_stuff)
    output = tmp_path / "a.safetensors"
    arguments = ["from-seamseg", str(tmp_path / "in"), str(output), "--config", config_path]
    assert tool.main(arguments) == 0
    found = load_predictor(output, "cpu").label_space
    assert [c.category_id for c in found.categories] == [c.category_id for c in space.categories]
    assert found.categories[3].color == (3, 0, 1)


def test_metadata_of_other_classes_makes_its_own_table(tmp_path, config_path):
    write_tiny_snapshot(tmp_path / "in" / "a.tar")
    names = [f"class {index}" for index in range(19)]
    write_metadata(tmp_path / "in" / "metadata.bin", names, 11)
    output = tmp_path / "a.safetensors"
    arguments = ["from-seamseg", str(tmp_path / "in"), str(output), "--config", config_path]
    assert tool.main(arguments) == 0
    found = load_predictor(output, "cpu").label_space
    assert [c.category_id for c in found.categories] == list(range(40, 59))
    assert (found.num_stuff, found.categories[18].name) == (11, "class 18")


def test_a_backbone_file_loses_its_classifier(tmp_path, capsys):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    output = tmp_path / "r18.safetensors"
    arguments = ["backbone", str(tmp_path / "r18.pth"), str(output), "--name", "resnet18"]
    assert tool.main(arguments) == 0
    weights, metadata = load_weights(output)
    assert metadata["backbone"] == "resnet18"
    assert "layer4.1.conv2.weight" in weights
    assert not any(name.startswith("fc.") for name in weights)


def test_files_of_version_0_1_are_updated_by_one_command(tmp_path, capsys):
    values = {
        "model": {"branches": "semantic", "semantic_head": {"refinement": "none"}},
        "data": PATHS,
        "loss_weights": {"semantic": 1.0},
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(values))
    arguments = ["update", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml")]
    assert tool.main(arguments) == 0
    assert "new.yaml" in capsys.readouterr().out
    assert load_config(tmp_path / "new.yaml").model.semantics.kind == "mini_dl"
    write_tiny_checkpoint(tmp_path / "new.safetensors")
    arguments = ["update", str(tmp_path / "new.safetensors"), str(tmp_path / "newer.safetensors")]
    assert tool.main(arguments) == 1
    assert "is no weights file of version 0.1" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["from-detectron2", "from-mmdetection", "from-maskformer"])
def test_files_without_weights_of_a_network_are_refused_by_name(tmp_path, command, capsys):
    source = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(2)}, source)
    output = tmp_path / "out.safetensors"
    assert tool.main([command, str(source), str(output)]) == 1
    assert "expected" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("command", "tensors"),
    [
        (
            "from-detectron2",
            {"backbone.bottom_up.res2.0.conv2.weight": (), "roi_heads.box_head.fc1.weight": ()},
        ),
        (
            "from-mmdetection",
            {"backbone.layer1.0.conv1.weight": (), "neck.lateral_convs.0.conv.weight": ()},
        ),
        (
            "from-maskformer",
            {
                "sem_seg_head.predictor.class_embed.weight": (134, 8),
                "sem_seg_head.predictor.class_embed.bias": (),
                "backbone.res2.0.conv1.weight": (1,),
            },
        ),
        (
            "from-maskformer",
            {
                "sem_seg_head.predictor.class_embed.weight": (134, 8),
                "sem_seg_head.predictor.class_embed.bias": (134,),
                **{f"backbone.res{n}.0.conv1.weight": (1,) for n in range(2, 6)},
            },
        ),
    ],
)
def test_parts_of_networks_and_shapes_of_nothing_are_refused_by_name(
    tmp_path, command, tensors, capsys
):
    values = {name: torch.ones(shape) for name, shape in tensors.items()}
    torch.save({"state_dict" if "mmdet" in command else "model": values}, tmp_path / "w.pth")
    assert tool.main([command, str(tmp_path / "w.pth"), str(tmp_path / "o.safetensors")]) == 1
    assert str(tmp_path / "w.pth") in capsys.readouterr().err


def test_a_snapshot_of_scalars_and_classes_without_colours_are_refused_by_name(tmp_path, capsys):
    path = tmp_path / "a.tar"
    write_tiny_snapshot(path, config=CONFIG_INI)
    arguments = ["from-seamseg", str(path), str(tmp_path / "a.safetensors")]
    content = torch.load(path, weights_only=True)
    content["state_dict"]["sem_head"]["conv_sem.bias"] = torch.tensor(1.0)
    torch.save(content, path)
    assert tool.main(arguments) == 1
    assert f"{path} is not what it is taken for (TypeError: " in capsys.readouterr().err
    meta = {
        "categories": ["a", "b"],
        "palette": [[1, 2, 3]],
        "original_ids": [1, 2],
        "num_stuff": 1,
    }
    (tmp_path / "metadata.bin").write_bytes(msgpack.packb({"meta": meta}))
    assert tool.main(arguments) == 1
    assert "metadata.bin is not the metadata.bin" in capsys.readouterr().err
