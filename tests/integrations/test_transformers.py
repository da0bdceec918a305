"""Networks of Hugging Face in the jobs of this package, offline, on small random networks."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from PIL import Image

from seamless_pr.datasets.label_spaces import load_label_space, load_labels
from seamless_pr.integrations.predictors import load_predictor
from seamless_pr.integrations.transformers import _table_of
from seamless_pr.pipelines import predict
from seamless_pr.pipelines.paths import absolute
from seamless_pr.structures.image_batch import ImageBatch
from tests.oracles import query_rules
from tests.support.hugging_face import FAMILIES, NUM_LABELS, save_tiny

transformers = pytest.importorskip("transformers", reason="pip install transformers")

THRESHOLDS = ["model.fusion.object_threshold=0.17", "model.fusion.overlap_threshold=0.5"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Family -> (folder, network), and a file that names the classes."""
    base = tmp_path_factory.mktemp("hub")
    categories = [
        {"id": place + 1, "name": f"class {place}", "isthing": int(place < 2)}
        for place in range(NUM_LABELS)
    ]
    (base / "five.json").write_text(json.dumps({"categories": categories}))
    saved = {family: save_tiny(family, base / family) for family in FAMILIES}
    return base, saved


def predictor_of(folders, family, *overrides):
    base, _ = folders
    classes = f"data.label_space={base / 'five.json'}"
    return load_predictor(f"hf:{base / family}", "cpu", overrides=[classes, *overrides])


def image(height, width):
    generator = torch.Generator().manual_seed(height)
    return torch.randint(256, (3, height, width), generator=generator).byte()


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_maps_are_those_of_the_rules_on_the_networks_own_outputs(folders, family):
    predictor = predictor_of(folders, family, *THRESHOLDS)
    picture = image(90, 130)
    # In double precision no pixel is a tie that rounding decides.
    net, theirs = predictor.network.double(), copy.deepcopy(folders[1][family]).double()
    ((prediction),) = predictor.predict([picture])
    batch = net.padded(ImageBatch.from_images([predictor.resize(picture)]))
    inputs = {"pixel_values": net.pixels(batch)}
    if family == "oneformer":
        inputs["task_inputs"] = net.task_tokens
    with torch.no_grad():
        outputs = theirs(**inputs)
    # Their labels: things are 0 and 1. Ours: stuff first.
    order = [2, 3, 4, 0, 1]
    classes = outputs.class_queries_logits[0][:, [*order, NUM_LABELS]]
    frame = (batch.padded_size, batch.image_sizes[0], (90, 130))
    ids, segments = query_rules.panoptic_map(
        classes,
        outputs.masks_queries_logits[0],
        *frame,
        stuff={0, 1, 2},
        object_threshold=0.17,
        overlap_threshold=0.5,
    )
    assert len(segments) > 0
    assert torch.equal(prediction.panoptic.id_map, ids)
    assert [(s.segment_id, s.train_id, s.area) for s in prediction.panoptic.segments] == segments
    scores = query_rules.semantic_scores(
        classes, outputs.masks_queries_logits[0], *frame, before=True
    )
    assert torch.equal(prediction.semantic_map, scores.argmax(0))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["maskformer", "mask2former", "oneformer", "eomt"])
def test_pixels_reach_the_network_as_its_own_processor_gives_them(folders, family):
    predictor = predictor_of(folders, family)
    # A size that needs no resizing on either side.
    picture = image(64, 96) if family != "eomt" else image(64, 48)
    processor = transformers.AutoImageProcessor.from_pretrained(folders[0] / family)
    arguments = {"task_inputs": ["the task is panoptic"]} if family == "oneformer" else {}
    if family == "oneformer":
        expected = processor(picture, ["the task is panoptic"], return_tensors="pt")
    else:
        expected = processor(picture, return_tensors="pt", **arguments)
    net = predictor.network
    batch = net.padded(ImageBatch.from_images([predictor.resize(picture)]))
    torch.testing.assert_close(net.pixels(batch), expected["pixel_values"], rtol=0, atol=1e-5)


def test_a_oneformer_is_told_the_task(folders):
    tokens = predictor_of(folders, "oneformer").network.task_tokens
    semantic = predictor_of(folders, "oneformer", "model.fusion.task=semantic").network.task_tokens
    assert tokens.shape == semantic.shape == (1, 12)
    assert not torch.equal(tokens, semantic)


@pytest.mark.slow
def test_tasks_and_sizes_are_options(folders):
    predictor = predictor_of(
        folders, "maskformer", "model.fusion.task=semantic", "data.shortest_side_pixels=32"
    )
    ((prediction),) = predictor.predict([image(70, 50)])
    assert prediction.semantic_map.shape == (70, 50)
    assert predictor.resize(image(70, 50)).shape == (3, 44, 32)
    assert predictor.describe()["shortest_side_pixels"] == 32


def test_the_record_of_a_run_depends_on_the_weights(folders):
    digests = {
        predictor_of(folders, family).describe()["weights_sha256"]
        for family in ("maskformer", "mask2former")
    }
    assert len(digests) == 2


@pytest.mark.parametrize("table", ["coco_panoptic", "ade20k", "cityscapes", "vistas_v1_2"])
def test_labels_of_known_datasets_need_no_file(table):
    names = [label.name for label in load_labels(table) if not label.is_ignored]
    assert _table_of(names) == table
    assert _table_of([name.split(",")[0].title() for name in names]) == table
    assert _table_of(names[::-1]) is None
    assert _table_of(names[:-1]) is None


@pytest.mark.slow
def test_a_network_with_known_labels_has_their_things(tmp_path):
    labels = [label.name for label in load_labels("cityscapes") if not label.is_ignored]
    network = FAMILIES["maskformer"]()
    network.class_predictor = torch.nn.Linear(32, len(labels) + 1)
    save_tiny("maskformer", tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.id2label = dict(enumerate(labels))
    network.config = config
    network.criterion.empty_weight = torch.ones(len(labels) + 1)
    network.save_pretrained(tmp_path)
    predictor = load_predictor(f"hf:{tmp_path}", "cpu")
    assert predictor.label_space == load_label_space("cityscapes")


def test_labels_that_no_table_knows_ask_for_a_file(folders):
    with pytest.raises(ValueError, match=r"data\.label_space=FILE\.json"):
        load_predictor(f"hf:{folders[0] / 'maskformer'}", "cpu")


def test_classes_of_another_number_are_refused(folders):
    with pytest.raises(ValueError, match="5 labels, 'cityscapes' has 19"):
        predictor_of(folders, "maskformer", "data.label_space=cityscapes")


def test_demanded_classes_must_be_those_of_the_network(folders):
    base, _ = folders
    with pytest.raises(ValueError, match="knows the classes of 'five'"):
        load_predictor(
            f"hf:{base / 'maskformer'}",
            "cpu",
            label_space=load_label_space("cityscapes"),
            overrides=[f"data.label_space={base / 'five.json'}"],
        )


@pytest.mark.parametrize("override", ["model.fusion.size=network", "object_threshold"])
def test_other_overrides_are_refused(folders, override):
    with pytest.raises(ValueError, match="does not change a network of Hugging Face"):
        predictor_of(folders, "maskformer", override)


def test_a_threshold_that_is_no_number_is_named(folders):
    with pytest.raises(ValueError, match="must be a number; got 'high'"):
        predictor_of(folders, "maskformer", "model.fusion.object_threshold=high")


def test_a_name_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="hf:nobody/nothing is no folder"):
        load_predictor("hf:nobody/nothing", "cpu")


def test_other_kinds_of_networks_are_refused(tmp_path):
    transformers.ResNetConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a resnet; networks that label by queries"):
        load_predictor(f"hf:{tmp_path}", "cpu")


def test_an_eomt_that_reads_squares_is_refused(tmp_path):
    save_tiny("eomt", tmp_path)
    processor = transformers.EomtImageProcessor(do_split_image=True)
    processor.save_pretrained(tmp_path)
    labels = load_labels("cityscapes")
    assert labels
    (tmp_path / "five.json").write_text(
        json.dumps({"categories": [{"id": i, "name": str(i), "isthing": 0} for i in range(5)]})
    )
    with pytest.raises(ValueError, match="overlapping squares"):
        load_predictor(
            f"hf:{tmp_path}", "cpu", overrides=[f"data.label_space={tmp_path / 'five.json'}"]
        )


def test_these_networks_do_not_train(folders):
    net = predictor_of(folders, "maskformer").network
    with pytest.raises(ValueError, match="for prediction"):
        net.losses(ImageBatch.from_images([image(32, 32)]), [], [])


@pytest.mark.slow
def test_a_folder_of_photos_is_labelled_in_one_command(folders, tmp_path, capsys):
    base, _ = folders
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(image(48, 70).permute(1, 2, 0).numpy()).save(
            tmp_path / f"photos/{name}.png"
        )
    arguments = ["--weights", f"hf:{base / 'mask2former'}", "--images", str(tmp_path / "photos")]
    arguments += ["--output", str(tmp_path / "out"), "--device", "cpu"]
    arguments += [f"data.label_space={base / 'five.json'}", *THRESHOLDS]
    assert predict.main([*arguments, "--scales", "0.5", "1", "--flip"]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["views"] == [[0.5, False], [0.5, True], [1.0, False], [1.0, True]]
    written = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert {entry["image_id"] for entry in written["annotations"]} == {"a", "b"}


def test_a_folder_is_made_absolute_and_a_repository_stays_a_name(tmp_path, monkeypatch):
    (tmp_path / "net").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute("hf:net") == f"hf:{tmp_path / 'net'}"
    assert absolute("hf:facebook/maskformer-swin-base-coco") == (
        "hf:facebook/maskformer-swin-base-coco"
    )
