"""A head is a class, a settings class and an entry: toys of both kinds train and predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import KINDS, Inputs, Kind
from seamless_pr.build.predictor import load_predictor
from seamless_pr.build.runs import build_trainer
from seamless_pr.inference.folders import predict_folder
from seamless_pr.inference.image_list import list_images
from seamless_pr.integrations.detectron2_records import (
    ContiguousIds,
    instance_fields,
    panoptic_record,
)
from seamless_pr.models.instances.branch import InstanceBranch
from seamless_pr.ops.masks import BoxMasks, ImageMasks
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.kinds import Kinded
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.settings import FusionSettings, Positive
from tests.support.tiny_run import SIZE, tiny_run_values, write_tiny_data

# The object that both toys find: the left half of the image.
HALF = SIZE[1] // 2


@dataclass(frozen=True, kw_only=True)
class ToySettings(Kinded):
    kind: str = "toy"
    pull: Positive = 1.0


class ToyBranch(InstanceBranch):
    """Finds the left half of every image; learns to say how bright it is."""

    loss_names = ("toy",)

    def __init__(self, channels: int, pull: float) -> None:
        super().__init__()
        self.predictor, self.pull = nn.Conv2d(channels, 1, 1), pull

    def losses(self, features: Features, batch: ImageBatch, targets, generators):
        said = self.predictor(features.finest).mean((1, 2, 3))
        wanted = batch.images.float().mean((1, 2, 3)) / 255
        return {"toy": LossSum(self.pull * (said - wanted).square().sum(), len(batch))}

    def detect(self, features: Features, batch: ImageBatch, proposals=None) -> list[Instances]:
        ones = torch.ones(1, device=features.finest.device)
        boxes = ones.new_tensor([[0.0, 0.0, HALF, SIZE[0]]])
        found = [Instances(0.9 * ones, ones.long() * 0, boxes) for _ in range(len(batch))]
        return self.add_masks(features, batch, found)

    def add_masks(self, features, batch: ImageBatch, instances: Sequence[Instances]):
        return [
            Instances(found.scores, found.thing_indices, found.boxes, box_masks(found.boxes))
            for found in instances
        ]


class BoxlessToy(ToyBranch):
    """The same with masks of whole images and no box."""

    def add_masks(self, features, batch: ImageBatch, instances: Sequence[Instances]):
        probs = torch.zeros(1, *batch.padded_size, device=features.finest.device)
        probs[..., :HALF] = 1.0
        return [
            Instances(
                found.scores,
                found.thing_indices,
                None,
                ImageMasks(probs, batch.padded_size, image_size),
            )
            for found, image_size in zip(instances, batch.image_sizes, strict=True)
        ]


def box_masks(boxes: Tensor) -> BoxMasks:
    return BoxMasks(boxes.new_full((len(boxes), 28, 28), 9.0), boxes)


def toy_kind(branch: type[ToyBranch]) -> Kind:
    def build(settings: ToySettings, inputs: Inputs) -> ToyBranch:
        return branch(inputs.channels[0], settings.pull)

    return Kind(ToySettings, build)


@pytest.fixture(params=[ToyBranch, BoxlessToy], ids=["masks of boxes", "masks of images"])
def run(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that has trained for two steps."""
    monkeypatch.setitem(KINDS["instances"], "toy", toy_kind(request.param))
    write_tiny_data(tmp_path / "data", num_train=2, num_val=1)
    values = tiny_run_values(tmp_path / "data")
    values["model"] |= {"instances": {"kind": "toy", "pull": 2.0}}
    values["model"]["semantics"]["points"] = None
    values["loss_weights"] = {"toy": 1.0, "semantic": 1.0}
    values["data"] |= {"batch_size": 2}
    values["training"] |= {"steps": 2, "checkpoint_interval_steps": 2}
    build_trainer(config_from_dict(values, "toy"), tmp_path / "run").run()
    return tmp_path / "run"


def test_a_head_of_a_dozen_lines_trains_and_predicts_in_the_jobs(run: Path, tmp_path: Path):
    weights = run / "weights.safetensors"
    predictor = load_predictor(weights, "cpu")
    assert "instances.predictor.weight" in predictor.network.state_dict()

    images = list_images(tmp_path / "data/val/images")
    predict_folder(predictor, images, tmp_path / "out", instances=True)
    (record,) = json.loads((tmp_path / "out/instances.json").read_text())
    assert record["score"] == pytest.approx(0.9)
    assert record["bbox"] == pytest.approx([0, 0, HALF, SIZE[0]], abs=0.5)
    panoptic = json.loads((tmp_path / "out/panoptic.json").read_text())
    first = panoptic["annotations"][0]["segments_info"][0]
    assert first["area"] == HALF * SIZE[0], "the object wins over the semantics"
    assert first["bbox"] == [0, 0, HALF, SIZE[0]]

    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    (prediction,) = predictor.predict([image])
    fields = instance_fields(prediction.instances, SIZE, FusionSettings())
    assert fields.boxes.tolist() == [[0, 0, HALF, SIZE[0]]]
    assert int(fields.masks.sum()) == HALF * SIZE[0]
    ids = ContiguousIds(predictor.label_space, False)
    id_map, segments = panoptic_record(prediction.require_panoptic(), ids)
    assert segments[0]["isthing"]
    assert int((id_map == segments[0]["id"]).sum()) == HALF * SIZE[0]


def test_settings_of_the_new_head_are_checked_as_all_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(KINDS["instances"], "toy", toy_kind(ToyBranch))
    values = tiny_run_values(Path("data"))
    values["model"] |= {"instances": {"kind": "toy", "pull": -1.0}}
    with pytest.raises(ValueError, match=r"'model\.instances\.pull' must be .*got"):
        config_from_dict(values, "toy.yaml")
    values["model"] |= {"instances": {"kind": "toy", "rpn": {}}}
    with pytest.raises(ValueError, match=r"rpn.*point_rend"):
        config_from_dict(values, "toy.yaml")
