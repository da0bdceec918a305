"""Our networks and datasets in detectron2: its evaluators, its visualiser, its own networks.

detectron2 is on no package index; where it is missing, nothing here can run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seamless_pr.build.predictor import load_predictor
from seamless_pr.datasets.coco_panoptic import read_panoptic_json, write_panoptic_json
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.integrations import detectron2 as ours
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from tests.support.detectron2_networks import NETWORKS, detectron2_network
from tests.support.panoptic_files import write_panoptic_dataset
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.zoo_networks import imported_network

pytest.importorskip(
    "detectron2", reason="detectron2 is not installed: pip install its repository to run these"
)

IMAGE_SIZE = (48, 64)
# Segments may exchange this many pixels on their borders.
MOVED_PIXELS = 5
# Category ids of Cityscapes.
ROAD, SKY, CAR = 7, 23, 26
CATEGORY_OF = {1: SKY, 2: ROAD, 3: CAR, 4: CAR}


@pytest.fixture
def catalogs():
    """Leaves the catalogs as they were."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    known = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - known:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def drawn_map() -> np.ndarray:
    """Sky over road, two cars."""
    id_map = np.full(IMAGE_SIZE, 1, np.int32)
    id_map[24:] = 2
    id_map[20:36, 4:20] = 3
    id_map[20:36, 24:40] = 4
    return id_map


@pytest.fixture
def streets(tmp_path: Path, catalogs) -> str:
    """Two images, registered with everything that evaluators read."""
    maps = {"first": drawn_map(), "second": drawn_map()[:, ::-1].copy()}
    path = write_panoptic_dataset(tmp_path / "data", maps, CATEGORY_OF)
    # Official evaluators refuse predictions of classes that the ground truth does not name.
    categories = load_label_space("cityscapes").categories
    write_panoptic_json(path, replace(read_panoptic_json(path), categories=categories))
    ours.register_panoptic_dataset(
        "streets",
        path,
        path.parent / "images",
        label_space=load_label_space("cityscapes"),
        evaluator_files=tmp_path / "files",
    )
    return "streets"


def evaluators(name: str, folder: Path) -> dict[str, Any]:
    from detectron2.evaluation import COCOEvaluator, COCOPanopticEvaluator, SemSegEvaluator

    return {
        "panoptic": COCOPanopticEvaluator(name, str(folder)),
        "instances": COCOEvaluator(name, output_dir=str(folder), distributed=False),
        "semantic": SemSegEvaluator(name, distributed=False, output_dir=str(folder)),
    }


def truth_as_output(record: dict[str, Any], space: LabelSpace, lost: int) -> dict[str, Any]:
    """What a perfect network would say, without the segment `lost`."""
    from detectron2.structures import Boxes, Instances

    from seamless_pr.id_maps.id_png_files import read_id_png
    from seamless_pr.integrations.detectron2_records import ContiguousIds, panoptic_record

    ids = ContiguousIds(space)
    id_map = torch.from_numpy(read_id_png(record["pan_seg_file_name"]))
    id_map[id_map == lost] = 0
    segments = tuple(
        Segment(i, space.train_id_of[CATEGORY_OF[i]], int((id_map == i).sum()), 1.0)
        for i in id_map.unique().tolist()
        if i > 0
    )
    segmentation = PanopticSegmentation(id_map, segments, space)
    things = [s for s in segments if space.is_thing(s.train_id)]
    masks = torch.stack([id_map == s.segment_id for s in things])
    classes = torch.tensor([space.thing_index(s.train_id) for s in things])
    instances = Instances(
        IMAGE_SIZE,
        pred_boxes=Boxes(torch.stack([mask_box(mask) for mask in masks])),
        scores=torch.ones(len(things)),
        pred_classes=classes,
        pred_masks=masks,
    )
    semantic = segmentation.semantic_map()
    semantic[semantic == LabelSpace.IGNORE_TRAIN_ID] = 0
    one_hot = torch.nn.functional.one_hot(semantic, space.num_classes).movedim(-1, 0).float()
    return {
        "panoptic_seg": panoptic_record(segmentation, ids),
        "instances": instances,
        "sem_seg": ids.things_first(one_hot),
    }


def mask_box(mask: Tensor) -> Tensor:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


def test_evaluators_count_our_classes_as_they_are(streets: str, tmp_path: Path):
    from detectron2.data import DatasetCatalog

    pytest.importorskip("panopticapi", reason="panopticapi is not installed")
    space = load_label_space("cityscapes")
    records = DatasetCatalog.get(streets)
    outputs = [truth_as_output(record, space, lost=0) for record in records]
    scores = evaluated(evaluators(streets, tmp_path / "scores"), records, outputs)
    assert scores["panoptic"]["panoptic_seg"]["PQ"] == pytest.approx(100)
    assert scores["instances"]["segm"]["AP"] == pytest.approx(100)
    assert scores["instances"]["segm"]["AP-car"] == pytest.approx(100)
    assert scores["semantic"]["sem_seg"]["IoU-road"] == pytest.approx(100)
    assert scores["semantic"]["sem_seg"]["IoU-car"] == pytest.approx(100)

    # Without one of two cars: PQ of cars 2 / (2 + 1), of road and sky 1.
    outputs = [truth_as_output(record, space, lost=3) for record in records]
    scores = evaluated(evaluators(streets, tmp_path / "scores"), records, outputs)
    assert scores["panoptic"]["panoptic_seg"]["PQ"] == pytest.approx(100 * (2 + 2 / 3) / 3)
    assert scores["panoptic"]["panoptic_seg"]["PQ_st"] == pytest.approx(100)
    assert 40 < scores["instances"]["segm"]["AP-car"] < 60


def evaluated(by_name: dict[str, Any], records: Any, outputs: Any) -> dict[str, Any]:
    for evaluator in by_name.values():
        evaluator.reset()
        evaluator.process(records, outputs)
    return {name: evaluator.evaluate() for name, evaluator in by_name.items()}


def test_a_network_runs_through_detectron2s_loader_evaluators_and_visualiser(
    streets: str, tmp_path: Path
):
    from detectron2.data import MetadataCatalog, build_detection_test_loader
    from detectron2.evaluation import DatasetEvaluators, inference_on_dataset
    from detectron2.modeling import build_model
    from detectron2.utils.visualizer import Visualizer

    pytest.importorskip("panopticapi", reason="panopticapi is not installed")
    weights = write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    cfg = ours.predictor_config(weights, streets)
    cfg.DATALOADER.NUM_WORKERS = 0
    model = build_model(cfg).eval()
    loader = build_detection_test_loader(cfg, streets)
    by_name = evaluators(streets, tmp_path / "scores")
    results = inference_on_dataset(model, loader, DatasetEvaluators(list(by_name.values())))
    assert {"panoptic_seg", "sem_seg", "bbox"} <= results.keys()

    record = next(iter(loader))[0]
    (output,) = model([record])
    height, width = IMAGE_SIZE
    picture = np.zeros((height, width, 3), np.uint8)
    visualizer = Visualizer(picture, MetadataCatalog.get(streets))
    drawn = visualizer.draw_panoptic_seg_predictions(*output["panoptic_seg"]).get_image()
    drawn = Visualizer(drawn, MetadataCatalog.get(streets)).draw_instance_predictions(
        output["instances"]
    )
    assert drawn.get_image().any()


def test_default_predictor_gives_what_our_predictor_gives(tmp_path: Path):
    from detectron2.engine import DefaultPredictor

    weights = write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    predictor = load_predictor(weights, "cpu")
    # At network size, so that no library resizes the image.
    side = predictor.shortest_side_pixels
    picture = np.random.default_rng(0).integers(0, 256, (side, 2 * side, 3)).astype(np.uint8)
    ((segmentation, detections),) = predictor.predict([picture])
    # DefaultPredictor takes BGR and turns it into the config's format itself.
    output = DefaultPredictor(ours.predictor_config(weights))(picture[:, :, ::-1])
    assert torch.equal(output["panoptic_seg"][0], segmentation.id_map)
    assert len(output["instances"]) == len(detections)
    assert output["sem_seg"].shape == (19, side, 2 * side)


def test_catalogs_refuse_a_name_twice_and_foreign_classes(tmp_path: Path, catalogs):
    path = write_panoptic_dataset(tmp_path, {"first": drawn_map()}, CATEGORY_OF)
    ours.register_panoptic_dataset("twice", path, tmp_path / "images")
    with pytest.raises(ValueError, match="'twice' already"):
        ours.register_panoptic_dataset("twice", path, tmp_path / "images")
    with pytest.raises(ValueError, match=r"categories \[26\] of .*'coco_panoptic'"):
        ours.register_panoptic_dataset(
            "other", path, tmp_path, label_space=load_label_space("coco_panoptic")
        )


def test_a_dataset_that_numbers_its_classes_otherwise_is_refused(tmp_path: Path, catalogs):
    path = write_panoptic_dataset(tmp_path / "data", {"first": drawn_map()}, CATEGORY_OF)
    ours.register_panoptic_dataset("three_classes", path, path.parent / "images")
    weights = write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match=r"'three_classes' numbers its classes otherwise"):
        ours.predictor_config(weights, "three_classes")


def test_training_and_configs_without_weights_are_refused(tmp_path: Path):
    from detectron2.config import get_cfg

    weights = write_tiny_checkpoint(tmp_path / "tiny.safetensors")
    model = ours.seamless_pr_network(ours.predictor_config(weights))
    with pytest.raises(ValueError, match=r"pipelines/train\.py"):
        model.train()([{"image": torch.zeros(3, 64, 64)}])
    with pytest.raises(ValueError, match="predictor_config"):
        ours.seamless_pr_network(get_cfg())


# Imported networks beside detectron2's own


def input_records(seed: int, sizes: tuple[tuple[int, int], ...]) -> list[dict[str, Any]]:
    """Smooth random BGR images; the results are wanted a third larger."""
    generator = torch.Generator().manual_seed(seed)
    records = []
    for height, width in sizes:
        coarse = 255 * torch.rand(1, 3, height // 12, width // 12, generator=generator)
        image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
        records.append(
            {
                "image": image[0].clamp(0, 255).to(torch.uint8),
                "height": height * 4 // 3,
                "width": width * 4 // 3,
            }
        )
    return records


@pytest.mark.slow
@pytest.mark.parametrize("seed, network", enumerate(NETWORKS, start=1))
def test_imported_weights_give_detectron2s_own_outputs(seed: int, network: str):
    # Neither size is a multiple of 32, and they differ: both networks pad.
    records = input_records(seed, ((150, 203), (130, 220)))
    theirs = detectron2_network(seed, network)
    own = ours.SeamlessMetaArch(imported_network(theirs.state_dict(), network), "BGR").eval()
    with torch.no_grad():
        expected, found = theirs(records), own(records)
    for one, other in zip(found, expected, strict=True):
        assert ("instances" in one) == ("instances" in other)
        assert ("sem_seg" in one) == ("sem_seg" in other)
        if "instances" in other:
            assert_same_instances(one["instances"], other["instances"])
        if "sem_seg" in other:
            semantic = other["sem_seg"]
            if not own.has_instances:
                # Cityscapes' classes of semantics alone stand in the dataset's own order.
                semantic = own.ids.things_first(semantic)
            difference = (one["sem_seg"] - semantic).abs()
            # A point chosen at a tie moves a few logits.
            assert (difference > 2e-5 * semantic.abs().max()).float().mean() < 1e-4
        if "panoptic_seg" in other:
            assert_same_segments(one["panoptic_seg"], other["panoptic_seg"])


def assert_same_instances(found: Any, expected: Any) -> None:
    assert len(found) == len(expected) > 0
    # Deep random weights amplify rounding, which depends on the processor: up to 5e-4 was seen.
    torch.testing.assert_close(found.scores, expected.scores, rtol=2e-3, atol=1e-5)
    # Row by row the nearest: detections of equal score may swap.
    distances = (found.pred_boxes.tensor[:, None] - expected.pred_boxes.tensor).abs().amax(-1)
    distances += 1e3 * (found.pred_classes[:, None] != expected.pred_classes)
    nearest = distances.argmin(1)
    assert sorted(nearest.tolist()) == list(range(len(found)))
    assert distances.amin(1).max() < 2e-2
    masks = expected.pred_masks[nearest]
    assert (found.pred_masks != masks).sum() <= 5 + 5e-4 * masks.sum()


def assert_same_segments(found: Any, expected: Any) -> None:
    (our_map, our_infos), (their_map, their_infos) = found, expected
    our_class = {info["id"]: (info["isthing"], info["category_id"]) for info in our_infos}
    their_class = {info["id"]: (info["isthing"], info["category_id"]) for info in their_infos}
    pairs, counts = torch.stack([our_map.flatten(), their_map.flatten()]).unique(
        dim=1, return_counts=True
    )
    moved = counts <= MOVED_PIXELS
    assert int(counts[moved].sum()) <= 1e-3 * our_map.numel()
    pairs = pairs[:, ~moved]
    assert len(set(pairs[0].tolist())) == len(set(pairs[1].tolist())) == pairs.shape[1] > 1
    for own_id, their_id in pairs.t().tolist():
        assert our_class.get(own_id) == their_class.get(their_id)
