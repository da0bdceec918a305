"""From a weights file to a network that labels images."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import seamless_pr
from seamless_pr.build.ensemble import _view
from seamless_pr.build.networks import outline_network
from seamless_pr.build.predictor import load_predictor
from seamless_pr.config.load import config_to_dict
from seamless_pr.config.query_networks import MaskFormerSettings, SwinBackboneSettings
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.layers.abn import InPlaceABN
from seamless_pr.ops.resize import NetworkSides
from seamless_pr.structures.views import View
from seamless_pr.training.checkpoints import load_weights, save_weights
from tests.support.tiny_checkpoint import tiny_config, write_tiny_checkpoint


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("run") / "checkpoints/best.safetensors")


@pytest.fixture
def image() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (80, 128, 3)).astype(np.uint8)


def test_image_becomes_a_map_of_its_own_size(weights: Path, image: np.ndarray) -> None:
    segmentation = load_predictor(weights, "cpu")(image)
    assert segmentation.image_size == (80, 128)
    assert segmentation.label_space == load_label_space("cityscapes")
    assert not any(segment.is_crowd for segment in segmentation.segments)


def test_in_16_bits_norms_are_folded(weights: Path, image: np.ndarray) -> None:
    exact, half = (load_predictor(weights, "cpu", amp=amp) for amp in ("none", "bf16"))
    norms = [
        [
            module.is_folded
            for module in predictor.network.modules()
            if isinstance(module, InPlaceABN)
        ]
        for predictor in (exact, half)
    ]
    assert not any(norms[0])
    # All but those behind several convolutions at once, one for each of the four levels.
    assert norms[1].count(False) == 4
    expected, found = (predictor.predict([image])[0].semantic_map for predictor in (exact, half))
    assert float((found != expected).double().mean()) < 0.05


@pytest.mark.parametrize("level", [0, 1])
def test_folder_of_a_run_means_its_best_weights(
    weights: Path, image: np.ndarray, level: int
) -> None:
    from_file, from_folder = load_predictor(weights), load_predictor(weights.parents[level])
    assert from_folder.describe() == from_file.describe()
    assert torch.equal(from_folder(image).id_map, from_file(image).id_map)


def test_image_size_comes_from_the_config_and_overrides_come_last(weights: Path) -> None:
    assert load_predictor(weights).shortest_side_pixels == 64
    changed = load_predictor(weights, overrides=["data.shortest_side_pixels=48"])
    assert changed.shortest_side_pixels == 48
    assert changed.describe() != load_predictor(weights).describe()


def test_members_and_views_round_sides_as_their_networks_do(weights: Path) -> None:
    rounded = ["data.rounded_sides=true", "data.shortest_side_pixels=48"]
    viewed = load_predictor(weights, "cpu", overrides=[*rounded, "data.view_sides_pixels=[32]"])
    assert viewed.sides == NetworkSides(48, 4096, rounded=True)
    assert all(view.rounded_sides for view in viewed.network.views)  # type: ignore[union-attr]
    other = load_predictor(weights, "cpu", overrides=["data.shortest_side_pixels=64"])
    assert _view(load_predictor(weights, "cpu", overrides=rounded), other) == View(
        shortest_side_pixels=48, longest_side_pixels=4096, rounded_sides=True
    )


def test_public_names_work_together_as_the_readme_shows(weights: Path, image: np.ndarray) -> None:
    segmentation = seamless_pr.load_predictor(weights)(image)
    picture, segments_info = seamless_pr.to_coco(segmentation)
    assert picture.shape == image.shape
    assert {info["id"] for info in segments_info} == set(np.unique(picture[..., 0])) - {0}
    assert seamless_pr.draw_panoptic(image, segmentation).shape[1] == 128
    assert {"load_predictor", "draw_panoptic", "to_coco"} <= set(dir(seamless_pr))
    with pytest.raises(AttributeError, match="no attribute 'load_predicter'"):
        _ = seamless_pr.load_predicter


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import seamless_pr, sys; print('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere; give a .safetensors"):
        load_predictor(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="train the run until its first checkpoint"):
        load_predictor(tmp_path)


@pytest.mark.parametrize("kept", [0, 6, 0.5])
def test_truncated_weights_are_named(weights: Path, tmp_path: Path, kept: float) -> None:
    content = weights.read_bytes()
    size = round(kept * len(content)) if kept < 1 else int(kept)
    (tmp_path / "cut.safetensors").write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"cut.safetensors is not a complete .* copy it again"):
        load_predictor(tmp_path / "cut.safetensors")


def test_weights_of_another_program_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"other.safetensors has no config and label space"):
        load_predictor(tmp_path / "other.safetensors")


def test_other_classes_than_demanded_are_refused(weights: Path) -> None:
    cityscapes = load_label_space("cityscapes")
    load_predictor(weights, label_space=replace(cityscapes, name="the same under another name"))
    with pytest.raises(
        ValueError,
        match=r"trained on label space 'cityscapes', but 'vistas_v1_2' is wanted: \d+ categories",
    ):
        load_predictor(weights, label_space=load_label_space("vistas_v1_2"))


def test_weights_that_do_not_fit_their_config_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out overrides that change the network"):
        load_predictor(weights, overrides=["model.neck.channels=24"])
    tensors, metadata = load_weights(weights)
    removed = sorted(tensors)[0]
    del tensors[removed]
    save_weights(tmp_path / "less.safetensors", tensors, metadata)
    with pytest.raises(
        ValueError, match=rf"less\.safetensors: 1 tensors do not fit .*{removed} is missing"
    ):
        load_predictor(tmp_path / "less.safetensors")


def test_tables_that_stand_in_no_file_are_counted_against_it(tmp_path: Path) -> None:
    """80 x 80 cells look at as many others: 328 MB in each block, its bias 0.3 MB."""
    config = tiny_config()
    backbone = SwinBackboneSettings(channels=3, depths=(1,) * 4, num_heads=(3,) * 4, window_size=80)
    model = MaskFormerSettings(backbone=backbone)
    space = load_label_space("cityscapes")
    values = config_to_dict(replace(config, model=model))
    metadata = {"config": values, "label_space": space.to_dict()}
    outline = outline_network(model, space)
    weights = {name: torch.zeros(tensor.shape) for name, tensor in outline.state_dict().items()}
    save_weights(tmp_path / "windows.safetensors", weights, metadata)
    message = r"windows\.safetensors: .* take 1\.\d+ GB .*relative_position_index alone 0\.328"
    with pytest.raises(ValueError, match=message):
        load_predictor(tmp_path / "windows.safetensors")


@pytest.mark.parametrize("channels", [[8, 8, 16, 16.5], [], [2**40, 8, 8, 8]])
def test_a_config_of_which_no_network_can_be_made_is_told_with_its_file(
    weights: Path, tmp_path: Path, channels: list[float]
) -> None:
    tensors, metadata = load_weights(weights)
    metadata["config"]["model"]["backbone"]["options"]["channels"] = channels
    save_weights(tmp_path / "odd.safetensors", tensors, metadata)
    with pytest.raises(
        ValueError, match=r"odd\.safetensors: 'model' cannot be built: 'backbone': timm cannot"
    ) as refused:
        load_predictor(tmp_path / "odd.safetensors")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("device", ["cuda:77", "gpu", "meta"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(device: str) -> None:
    with pytest.raises(ValueError, match=f"no device '{device}' here; there is cpu.*give one of"):
        load_predictor("unused", device)
