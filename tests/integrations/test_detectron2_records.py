"""Our classes, maps and detections as detectron2's records; detectron2 itself is not needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.integrations.detectron2_files import (
    instances_file,
    semantic_folder,
    write_evaluator_files,
)
from seamless_pr.integrations.detectron2_records import (
    ContiguousIds,
    dataset_records,
    image_batch,
    instance_fields,
    output_sizes,
    panoptic_record,
    semantic_record,
)
from seamless_pr.ops.masks import BoxMasks, ImageMasks
from seamless_pr.structures.faults import FaultyDataError
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.settings import FusionSettings
from tests.support.color_network import TOY_SPACE
from tests.support.panoptic_files import write_panoptic_dataset

# Train ids of TOY_SPACE: road 0, sky 1, car 2; category ids 7, 23, 26.
PLAIN, MERGED = ContiguousIds(TOY_SPACE), ContiguousIds(TOY_SPACE, merged_things=True)


def test_things_are_numbered_first_in_both_tables():
    assert [PLAIN.semantic_id(train_id) for train_id in range(3)] == [1, 2, 0]
    assert [PLAIN.segment_id(train_id) for train_id in range(3)] == [1, 2, 0]
    metadata = PLAIN.metadata()
    assert metadata["thing_classes"] == ["car"]
    assert metadata["stuff_classes"] == ["car", "road", "sky"]
    assert metadata["stuff_colors"][1] == (128, 64, 128)
    assert metadata["thing_dataset_id_to_contiguous_id"] == {26: 0}
    assert metadata["stuff_dataset_id_to_contiguous_id"] == {26: 0, 7: 1, 23: 2}


def test_merged_things_are_class_0_of_the_semantic_branch_alone():
    space = load_label_space("coco_panoptic")
    ids = ContiguousIds(space, merged_things=True)
    person, first_stuff = space.train_id_of[1], 0
    assert (ids.semantic_id(person), ids.segment_id(person)) == (0, 0)
    bicycle = space.train_id_of[2]
    assert (ids.semantic_id(bicycle), ids.segment_id(bicycle)) == (0, 1)
    assert (ids.semantic_id(first_stuff), ids.segment_id(first_stuff)) == (1, 1)
    metadata = ids.metadata()
    assert len(metadata["thing_classes"]) == 80
    assert len(metadata["stuff_classes"]) == len(metadata["stuff_colors"]) == 54
    # 0 is no category of COCO.
    assert metadata["stuff_dataset_id_to_contiguous_id"][0] == 0
    assert len(metadata["stuff_dataset_id_to_contiguous_id"]) == 54


def test_semantic_outputs_change_their_order():
    outputs = torch.tensor([10.0, 11.0, 12.0])
    assert PLAIN.things_first(outputs).tolist() == [12, 10, 11]
    assert MERGED.things_first(outputs).tolist() == [12, 10, 11]
    with pytest.raises(ValueError, match=r"expected 3 semantic outputs.*got 2"):
        PLAIN.things_first(outputs[:2])


def test_images_of_either_channel_order_and_dtype_make_one_batch():
    rgb = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    records = [{"image": rgb.flip(0).float()}, {"image": torch.ones(3, 1, 4, dtype=torch.uint8)}]
    batch = image_batch(records, "BGR")
    assert batch.images.shape == (2, 3, 2, 4)
    assert batch.images.dtype == torch.uint8
    assert torch.equal(batch.images[0, :, :, :2], rgb)
    assert batch.image_sizes == ((2, 2), (1, 4))
    assert torch.equal(image_batch([{"image": rgb}], "RGB").images[0], rgb)
    assert output_sizes([{"height": 20, "width": 30}, {}], batch) == [(20, 30), (1, 4)]


@pytest.mark.parametrize(
    "records, input_format, message",
    [
        ([], "RGB", "at least one"),
        ([{"image": torch.zeros(2, 2, 3)}], "RGB", r"must be \[3, h, w\]"),
        ([{"image": torch.zeros(3, 2, 2)}], "L", "must be one of BGR, RGB"),
    ],
)
def test_other_inputs_are_refused(records, input_format, message):
    with pytest.raises(ValueError, match=message):
        image_batch(records, input_format)


def test_a_panoptic_map_lists_what_has_pixels():
    id_map = torch.tensor([[1, 1, 2], [3, 0, 4]], dtype=torch.int32)
    segments = (
        Segment(1, 2, 2, score=0.75),
        Segment(2, 0, 1, score=1.0),
        Segment(3, 1, 1, score=1.0),
        Segment(4, 2, 1, score=1.0, is_crowd=True),
        Segment(5, 2, 0, score=0.5),
    )
    found, infos = panoptic_record(PanopticSegmentation(id_map, segments, TOY_SPACE), PLAIN)
    # What only the semantic branch calls a car is void.
    assert found.tolist() == [[1, 1, 2], [3, 0, 0]]
    assert infos == [
        {"id": 1, "isthing": True, "category_id": 0, "area": 2, "score": 0.75},
        {"id": 2, "isthing": False, "category_id": 1, "area": 1},
        {"id": 3, "isthing": False, "category_id": 2, "area": 1},
    ]


def test_logits_are_cut_to_the_valid_part_and_resized():
    logits = torch.zeros(3, 2, 4)
    logits[1, :, :2], logits[2, :, 2:] = 1.0, 5.0
    # Half of the padded width is valid.
    found = semantic_record(logits, (8, 16), (8, 8), (4, 4), PLAIN)
    assert found.shape == (3, 4, 4)
    # Sky, train id 1, is semantic id 2 and fills the valid half.
    assert set(found.argmax(0)[:, :3].flatten().tolist()) == {2}


def instances() -> Instances:
    boxes = torch.tensor([[1.0, 1.0, 3.0, 3.0], [2.0, 0.0, 9.0, 2.0], [5.0, 5.0, 5.0, 6.0]])
    masks = BoxMasks(torch.full((3, 4, 4), 8.0), boxes)
    return Instances(torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0, 0, 0]), boxes, masks)


def test_instances_come_by_score_with_pasted_masks_inside_the_image():
    fields = instance_fields(instances(), (4, 5), FusionSettings())
    assert fields.scores.tolist() == [0.5, 0.25]
    assert fields.boxes.tolist() == [[2, 0, 5, 2], [1, 1, 3, 3]]
    assert fields.masks.shape == (2, 4, 5)
    assert fields.masks[1].int().tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_masks_without_boxes_get_the_box_of_their_pixels():
    probs = torch.zeros(2, 4, 5)
    probs[0, 1:3, 1:4] = 0.9
    found = Instances(
        torch.tensor([0.5, 0.6]), torch.tensor([0, 0]), None, ImageMasks(probs, (4, 5), (4, 5))
    )
    fields = instance_fields(found, (4, 5), FusionSettings())
    # An empty mask has no box, so it is left out.
    assert fields.scores.tolist() == [0.5]
    assert fields.boxes.tolist() == [[1, 1, 4, 3]]


def test_no_instance_gives_empty_fields():
    fields = instance_fields(instances().select(torch.zeros(3).bool()), (4, 5), FusionSettings())
    assert fields.masks.shape == (0, 4, 5)
    assert fields.classes.dtype == torch.int64
    with pytest.raises(ValueError, match="no masks"):
        instance_fields(replace(instances(), masks=None), (4, 5), FusionSettings())


@pytest.fixture
def street(tmp_path: Path) -> Path:
    id_map = np.array([[1, 1, 1], [2, 3, 0]], np.int32)
    return write_panoptic_dataset(tmp_path, {"a": id_map}, {1: 23, 2: 26, 3: 26})


def test_a_dataset_becomes_standard_records(street: Path):
    dataset = read_panoptic_json(street)
    folder = street.parent
    (record,) = dataset_records(dataset, folder / "images", folder / "panoptic", PLAIN)
    assert Path(record["file_name"]).is_file()
    assert Path(record["pan_seg_file_name"]).is_file()
    assert (record["image_id"], record["height"], record["width"]) == ("a", 2, 3)
    assert [info["category_id"] for info in record["segments_info"]] == [2, 0, 0]
    assert [info["isthing"] for info in record["segments_info"]] == [False, True, True]
    assert "sem_seg_file_name" not in record


def test_files_of_the_other_evaluators_are_written_once(street: Path):
    dataset, folder = read_panoptic_json(street), street.parent / "files"
    write_evaluator_files(dataset, street.parent / "panoptic", PLAIN, folder)
    picture = np.array(Image.open(semantic_folder(folder) / "a.png"))
    assert picture.tolist() == [[2, 2, 2], [0, 0, 255]]
    instances_file(folder).write_text("written once")
    write_evaluator_files(dataset, street.parent / "panoptic", PLAIN, folder)
    assert instances_file(folder).read_text() == "written once"


def test_files_of_another_ground_truth_or_of_other_class_numbers_are_written_anew(street: Path):
    folder = street.parent / "files"
    write_evaluator_files(read_panoptic_json(street), street.parent / "panoptic", PLAIN, folder)
    first = instances_file(folder).read_bytes()
    id_map = np.array([[1, 1, 1], [1, 2, 2]], np.int32)
    other = write_panoptic_dataset(street.parent / "other", {"a": id_map}, {1: 23, 2: 26})
    dataset = read_panoptic_json(other)
    write_evaluator_files(dataset, other.parent / "panoptic", PLAIN, folder)
    assert instances_file(folder).read_bytes() != first
    assert np.array(Image.open(semantic_folder(folder) / "a.png")).tolist() == [[2] * 3, [2, 0, 0]]
    instances_file(folder).write_text("of other numbers")
    write_evaluator_files(dataset, other.parent / "panoptic", MERGED, folder)
    assert instances_file(folder).read_text() != "of other numbers"


def test_images_of_records_lie_in_their_folder_and_have_the_size_of_the_png(street: Path):
    dataset, folder = read_panoptic_json(street), street.parent
    (image,) = dataset.images
    exchanged = replace(image, height=image.width, width=image.height)
    dataset = replace(dataset, images=(exchanged,))
    (record,) = dataset_records(dataset, folder / "images", folder / "panoptic", PLAIN)
    assert (record["height"], record["width"]) == (2, 3)
    (folder / "photo.png").write_bytes((folder / "images" / image.file_name).read_bytes())
    for name in ("../photo.png", str(folder / "photo.png")):
        outside = replace(
            dataset,
            images=(replace(image, image_id=5, file_name=name),),
            annotations=(replace(dataset.annotations[0], image_id=5),),
        )
        with pytest.raises(FaultyDataError, match="images of the dataset are not in"):
            dataset_records(outside, folder / "images", folder / "panoptic", PLAIN)


def test_instances_of_a_dataset_are_its_things(street: Path):
    from pycocotools.coco import COCO

    dataset, folder = read_panoptic_json(street), street.parent / "files"
    write_evaluator_files(dataset, street.parent / "panoptic", MERGED, folder)
    coco = COCO(str(instances_file(folder)))
    assert [entry["category_id"] for entry in coco.dataset["annotations"]] == [26, 26]
    assert coco.annToMask(coco.dataset["annotations"][0]).tolist() == [[0, 0, 0], [1, 0, 0]]
    assert coco.dataset["annotations"][1]["bbox"] == [1, 1, 1, 1]


def test_an_id_that_the_json_does_not_list_is_named(street: Path):
    from seamless_pr.id_maps.id_png_files import write_id_png

    write_id_png(street.parent / "panoptic" / "a.png", np.array([[9, 1, 1], [2, 3, 0]]))
    with pytest.raises(ValueError, match=r"a\.png: segment ids \[9\]"):
        write_evaluator_files(
            read_panoptic_json(street), street.parent / "panoptic", PLAIN, street.parent / "files"
        )
    assert not instances_file(street.parent / "files").exists()
