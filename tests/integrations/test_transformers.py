"""Networks of Hugging Face in the jobs of this package, offline, on small random networks."""

from __future__ import annotations

import argparse
import copy
import json
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from seamless_pr.datasets.label_spaces import load_label_space, load_labels
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.inference.tile_labels import label_tile
from seamless_pr.integrations.predictors import load_predictor
from seamless_pr.integrations.transformers import _table_of
from seamless_pr.pipelines import predict
from seamless_pr.pipelines.paths import absolute
from seamless_pr.pipelines.ray_prediction import network_loader
from seamless_pr.pipelines.ray_tiles import TileNetwork
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.views import View
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
    assert predict.main([*arguments, "--scales", "0.5", "1", "--flip", "--semantic-pngs"]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["views"] == [[0.5, False], [0.5, True], [1.0, False], [1.0, True]]
    written = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert {entry["image_id"] for entry in written["annotations"]} == {"a", "b"}
    with Image.open(tmp_path / "out" / "semantic" / "a.png") as picture:
        assert set(np.unique(np.array(picture))) <= set(range(1, NUM_LABELS + 1))


def test_a_folder_is_made_absolute_and_a_repository_stays_a_name(tmp_path, monkeypatch):
    (tmp_path / "net").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute("hf:net") == f"hf:{tmp_path / 'net'}"
    assert absolute("hf:facebook/maskformer-swin-base-coco") == (
        "hf:facebook/maskformer-swin-base-coco"
    )


def copied(folders, family, folder, **changes):
    """A saved network in a folder of its own; `changes` go into its image processor's settings."""
    shutil.copytree(folders[0] / family, folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | changes))
    return folder


def load(folders, folder, *overrides, views=()):
    classes = f"data.label_space={folders[0] / 'five.json'}"
    return load_predictor(f"hf:{folder}", "cpu", overrides=[classes, *overrides], views=views)


def test_a_oneformer_needs_no_table_of_another_repository(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    # As published: its image processor names a file that lies elsewhere.
    other = {"class_info_file": "ade20k_panoptic.json", "repo_path": "shi-labs/oneformer_demo"}
    predictor = load(folders, copied(folders, "oneformer", tmp_path / "net", **other))
    assert predictor.network.task_tokens is not None


@pytest.mark.parametrize("family", ["maskformer", "mask2former"])
def test_sizes_of_image_processors_of_version_4_are_read(folders, tmp_path, family):
    folder = copied(folders, family, tmp_path / "net", size=640, max_size=2560)
    predictor = load(folders, folder)
    assert (predictor.shortest_side_pixels, predictor.longest_side_pixels) == (640, 2560)


def weights_without(folder, pattern):
    """Takes parameters out of a saved network; returns their names."""
    tensors = load_file(folder / "model.safetensors")
    removed = [name for name in tensors if re.search(pattern, name)]
    for name in removed:
        del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return removed


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_weights_that_are_not_there_are_not_drawn_at_random(folders, tmp_path, family):
    folder = copied(folders, family, tmp_path / "net")
    removed = weights_without(folder, r"class_(predictor|embed)\.weight")
    with pytest.raises(ValueError, match="lack 1 of the network") as error:
        load(folders, folder)
    assert len(removed) == 1
    assert removed[0] in str(error.value)


def test_a_norm_that_no_stage_reads_may_be_missing(folders, tmp_path):
    folder = copied(folders, "mask2former", tmp_path / "net")
    removed = weights_without(folder, r"pixel_level_module\.encoder\.\w+\.layernorm\.")
    assert len(removed) == 2
    changed, picture = load(folders, folder), image(48, 64)
    (found,), (expected,) = (
        predictor.predict([picture])
        for predictor in (changed, predictor_of(folders, "mask2former"))
    )
    assert torch.equal(found.semantic_map, expected.semantic_map)


@pytest.mark.parametrize(
    "name, content",
    [
        ("model.safetensors", None),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0 half of "),
        ("preprocessor_config.json", None),
        ("preprocessor_config.json", b"{"),
    ],
)
def test_a_folder_that_lacks_something_says_what(folders, tmp_path, name, content):
    folder = copied(folders, "maskformer", tmp_path / "net")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="its weights or its image processor cannot be read"):
        load(folders, folder)


def test_code_of_a_repository_is_not_run_and_nobody_is_asked(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda text: pytest.fail(text))
    code = {"AutoConfig": "code.Config"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": code}))
    (tmp_path / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(FileNotFoundError, match="custom code"):
        load(folders, tmp_path)


# Tiles and views.


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("views", [(), (View(), View(flip=True), View(0.75))], ids=["", "views"])
def test_tiles_have_the_classes_of_the_map_that_the_network_makes_of_them(folders, family, views):
    # Random networks find little that their views agree about; classes add up all the same.
    wanted = ["model.fusion.task=semantic"] if views else THRESHOLDS
    predictor = load(folders, folders[0] / family, *wanted, views=views)
    picture = image(64, 64)
    tile = label_tile(predictor, picture)
    (prediction,) = predictor.predict([picture])
    num_stuff = predictor.label_space.num_stuff
    classes = prediction.panoptic.semantic_map()
    assert np.array_equal(tile.stuff_scores.argmax(0), classes.clamp(max=num_stuff).numpy())
    assert np.array_equal(
        tile.things > 0, ((classes >= num_stuff) & (classes < NUM_LABELS)).numpy()
    )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_mosaics_are_labelled_in_tiles_in_one_command(folders, tmp_path, family):
    Image.fromarray(image(90, 130).permute(1, 2, 0).numpy()).save(tmp_path / "mosaic.png")
    arguments = ["--weights", f"hf:{folders[0] / family}", "--device", "cpu"]
    arguments += ["--images", str(tmp_path / "mosaic.png"), "--output", str(tmp_path / "out")]
    arguments += [f"data.label_space={folders[0] / 'five.json'}", *THRESHOLDS]
    assert predict.main([*arguments, "--tile", "64", "--overlap", "16"]) == 0
    (entry,) = json.loads((tmp_path / "out/panoptic.json").read_text())["annotations"]
    id_map = read_id_png(tmp_path / "out/panoptic/mosaic.png")
    assert id_map.shape == (90, 130)
    areas = {segment["id"]: segment["area"] for segment in entry["segments_info"]}
    assert areas
    assert areas == {i: int((id_map == i).sum()) for i in np.unique(id_map) if i}


def test_a_worker_that_labels_tiles_loads_these_networks_by_its_options(folders):
    parser = argparse.ArgumentParser()
    predict.add_options(parser)
    arguments = ["--weights", f"hf:{folders[0] / 'eomt'}", "--images", "x", "--output", "y"]
    options = parser.parse_args([*arguments, f"data.label_space={folders[0] / 'five.json'}"])
    predict.check(parser, options)
    worker = TileNetwork(pickle.loads(pickle.dumps(network_loader(options, {}))), ".")
    assert worker.label(image(64, 64).numpy()).things.shape == (64, 64)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--tile", "65"], "tiles of 65 pixels are too large.*make tiles of 64"),
        (["--tile", "64", "--scales", "1", "2"], "at most 32 x 32 .*longest_side_pixels"),
        (["--scales", "1", "2"], "at most 32 x 32 .*longest_side_pixels"),
        (["data.longest_side_pixels=65"], "at most 64 x 64 .*sides of 65 pixels"),
    ],
)
def test_squares_that_an_eomt_cannot_see_are_refused_before_the_first_image(
    folders, tmp_path, options, message, capsys
):
    Image.new("RGB", (90, 80)).save(tmp_path / "a.png")
    arguments = ["--weights", f"hf:{folders[0] / 'eomt'}", "--device", "cpu"]
    arguments += ["--images", str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]
    classes = f"data.label_space={folders[0] / 'five.json'}"
    assert predict.main([*arguments, classes, *options]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_ensembles_take_none_of_these_networks(folders, tmp_path, capsys):
    arguments = ["--weights", f"hf:{folders[0] / 'eomt'}", "a.safetensors", "--ensemble"]
    with pytest.raises(SystemExit):
        predict.main([*arguments, "--images", str(tmp_path), "--output", str(tmp_path / "out")])
    assert "predict with it alone" in capsys.readouterr().err
