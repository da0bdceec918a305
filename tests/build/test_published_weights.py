"""Published weights of other programs, from their files to files to predict with."""

from __future__ import annotations

import json
import math
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seamless_pr.build.predictor import load_predictor
from seamless_pr.build.published_weights import (
    import_detectron2,
    import_maskformer,
    import_mmdetection,
)
from seamless_pr.inference.predictor import Predictor
from seamless_pr.training.checkpoints import load_weights
from seamless_pr.weights.maskformer import described_classes
from tests.support.hugging_face import tiny_maskformer
from tests.support.maskformer_golden import seeded_weights
from tests.support.mmdet_recipe import recipe_image, recipe_shapes

COMPLETE = "0 missing, 0 left over, 0 of another shape"


def smaller(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """With two blocks in each stage, and heads whose layers are 64 wide."""
    kept = {}
    for name, shape in shapes.items():
        if not re.match(r"backbone\.layer\d\.[2-9]", name):
            kept[name] = shape
        if not name.startswith(("backbone.", "neck.")):
            kept[name] = tuple(64 if side == 1024 else side for side in shape)
    return kept


@pytest.mark.slow
def test_a_winners_checkpoint_in_half_precision_becomes_a_file_to_predict_with(tmp_path):
    generator = torch.Generator().manual_seed(0)
    theirs = {}
    for name, shape in smaller(recipe_shapes("pointrend_winner_r50")).items():
        x = torch.randn(shape, generator=generator) / max(math.prod(shape[1:]), 1) ** 0.5
        # As the winner's: all halved but for the norms of the backbone.
        is_norm = ".bn" in name or "downsample.1" in name
        theirs[name] = x.abs() + 0.1 if is_norm else x.half()
    source, output = tmp_path / "epoch_44.pth", tmp_path / "winner.safetensors"
    torch.save({"meta": {"epoch": 44, "CLASSES": ("chair",)}, "state_dict": theirs}, source)
    report = import_mmdetection(source, output, ["data.shortest_side_pixels=32"])
    assert "future3d, two_branch, resnet26, point_rend" in report
    assert COMPLETE in report
    weights, _ = load_weights(output)
    assert all(x.dtype != torch.float16 for x in weights.values())
    kernel = theirs["point_rend_roihead.mask_point_head.predictor.weight"]
    found = weights["instances.masks.point_head.predictor.weight"]
    assert torch.equal(found, kernel.float()[..., 0])
    few = ["model.instances.box.max_detections=2", "model.instances.rpn.post_nms_test=20"]
    exact = load_predictor(output, "cpu", overrides=few)
    rounded = Predictor(exact.network, shortest_side_pixels=32, amp="bf16")
    (first,), (second,) = (of.predict([recipe_image(32, 48, 3)]) for of in (exact, rounded))
    assert len(first.instances) == len(second.instances) == 2
    torch.testing.assert_close(second.instances.scores, first.instances.scores, rtol=0, atol=0.05)


@pytest.mark.slow
def test_a_file_of_the_authors_becomes_a_file_to_predict_with(tmp_path):
    weights = {
        # The published files have no "pixel_decoder." in their names.
        name.replace("pixel_decoder.", ""): tensor.numpy()
        for name, tensor in seeded_weights(50, "STATE_DICT_r50_ppb_ade150.txt").items()
    }
    source, output = tmp_path / "model_final.pkl", tmp_path / "per_pixel.safetensors"
    with source.open("wb") as file:
        pickle.dump({"model": weights, "__author__": "third party"}, file)
    report = import_maskformer(source, output)
    assert "ade20k, per_pixel, resnet50" in report
    assert COMPLETE in report
    assert "CC BY-NC 4.0" in report
    predictor = load_predictor(output, "cpu", overrides=["data.shortest_side_pixels=64"])
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
    prediction = predictor.predict([image])[0]
    assert prediction.semantic_map.shape == (60, 80)
    assert prediction.semantic_map.max() < 150


def test_a_folder_without_weights_says_what_it_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        import_maskformer(tmp_path, tmp_path / "a.safetensors")


@pytest.mark.parametrize("import_", [import_detectron2, import_maskformer])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, import_):
    source = tmp_path / "model_final.pkl"
    source.write_bytes(pickle.dumps({"model": {"a": np.zeros(1), "b": print}}))
    with pytest.raises(ValueError, match=r"builtins\.print"):
        import_(source, tmp_path / "a.safetensors")


def test_classes_without_a_table_come_from_a_json_in_the_order_of_the_weights(tmp_path):
    path = tmp_path / "five.json"
    categories = [
        {"id": 10 * place, "name": f"class {place}", "isthing": int(place in (0, 1))}
        for place in range(5)
    ]
    path.write_text(json.dumps({"categories": categories}))
    space, order = described_classes(path)
    assert [category.category_id for category in space.categories] == [20, 30, 40, 0, 10]
    assert order == [2, 3, 4, 0, 1]


def test_hugging_face_weights_of_an_unknown_network_are_named(tmp_path):
    pytest.importorskip("transformers")
    state = {name: tensor.contiguous() for name, tensor in tiny_maskformer().state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="5 classes"):
        import_maskformer(tmp_path, tmp_path / "out.safetensors")
