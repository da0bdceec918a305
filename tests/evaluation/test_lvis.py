"""AP* against two other implementations of the rules of LVIS, and by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from seamless_pr.datasets.instance_results import InstanceResult
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.datasets.lvis import coco_synsets, read_lvis
from seamless_pr.evaluation.instances import RuleScores
from seamless_pr.evaluation.lvis import score_lvis
from seamless_pr.evaluation.map_files import LoadedMap, MapFile, Source
from seamless_pr.pipelines.evaluate import main
from seamless_pr.structures.faults import FaultyDataError
from tests.evaluation.files import CAR, PERSON, PanopticFiles, street

SIZE = (120, 160)
COCO = load_label_space("coco_panoptic")
# COCO's id, and the category as LVIS files state it.
CATEGORIES = {
    1: {"id": 793, "name": "person", "synset": "person.n.01"},
    3: {"id": 207, "name": "car_(automobile)", "synset": "car.n.01"},
    35: {"id": 964, "name": "ski", "synset": "ski.n.01"},
    21: {"id": 80, "name": "cow", "synset": "beef.n.01"},
}
ZIPPER = {"id": 1202, "name": "zipper", "synset": "slide_fastener.n.01"}
OURS = {entry["id"]: category_id for category_id, entry in CATEGORIES.items()}


@dataclass
class Files:
    """An LVIS file and COCO results, written and as plain containers."""

    lvis: dict[str, Any]
    results: list[dict[str, Any]]
    path: Path

    def score(self) -> tuple[RuleScores, list[str]]:
        self.path.write_text(json.dumps(self.lvis))
        by_image: dict[Any, list[InstanceResult]] = {}
        for result in self.results:
            by_image.setdefault(result["image_id"], []).append(InstanceResult(**result))
        image_ids = [image["id"] for image in self.lvis["images"]]
        return score_lvis(self.path, _source(image_ids), by_image, COCO)


def _source(image_ids: list[Any]) -> Source:
    def read(path: Path) -> LoadedMap:
        raise AssertionError("no map is needed")

    return Source("truth.json", tuple(MapFile(i, Path("map.png"), read) for i in image_ids))


def _polygon(rng: np.random.Generator) -> list[float]:
    height, width = SIZE
    sides = rng.choice([12.0, 40.0, 110.0], 2)
    x, y = rng.uniform(0, width - 10), rng.uniform(0, height - 10)
    right, bottom = min(x + sides[0], width), min(y + sides[1], height)
    return [round(float(v), 2) for v in (x, y, right, y + 2, right, bottom, x + 1, bottom)]


def _mask(polygon: list[float]) -> NDArray[np.bool_]:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon], *SIZE))).astype(bool)


def _result(mask: NDArray[np.bool_], image_id: int, category_id: int, score: float) -> Any:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = {"size": [*SIZE], "counts": encoded["counts"].decode()}
    values = {"image_id": image_id, "category_id": category_id, "score": score}
    return {**values, "segmentation": runs}


@cache
def _fuzzed(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Images with all kinds of annotated categories; one has more than 300 instances."""
    rng = np.random.default_rng(seed)
    ids = [*OURS, ZIPPER["id"]]
    lvis: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    lvis["categories"] = [*CATEGORIES.values(), ZIPPER]
    results = []
    for image_id in range(1, 31):
        kinds = rng.choice(["absent", "negative", "there", "partly there"], len(ids))
        image = {"id": image_id, "height": SIZE[0], "width": SIZE[1]}
        of_kind = {kind: [i for i, k in zip(ids, kinds) if k == kind] for kind in set(kinds)}
        lvis["images"].append(
            image
            | {"neg_category_ids": of_kind.get("negative", [])}
            | {"not_exhaustive_category_ids": of_kind.get("partly there", [])}
        )
        for category_id, kind in zip(ids, kinds):
            masks = []
            for _ in range(int(rng.integers(1, 5)) if "there" in kind else 0):
                polygon = _polygon(rng)
                masks.append(_mask(polygon))
                place = {"image_id": image_id, "category_id": category_id}
                shape = {"segmentation": [polygon], "area": float(masks[-1].sum())}
                box = [
                    float(v)
                    for v in coco_mask.toBbox(
                        coco_mask.encode(np.asfortranarray(masks[-1].astype(np.uint8)))
                    )
                ]
                number = {"id": len(lvis["annotations"]) + 1}
                lvis["annotations"].append({**place, **shape, "bbox": box, **number})
            if category_id not in OURS:
                continue
            found = [np.roll(mask, rng.integers(-3, 4, 2), (0, 1)) for mask in masks * 2]
            found += [_mask(_polygon(rng)) for _ in range(90 if image_id == 1 else 2)]
            for mask in found:
                if rng.random() < 0.85 and mask.any():
                    score = float(rng.integers(1, 400)) / 400
                    results.append(_result(mask, image_id, OURS[category_id], score))
    return lvis, results


def _in_coco_ids(lvis: dict[str, Any]) -> dict[str, Any]:
    """The same file with the categories and ids of COCO alone, as the oracles read it."""

    def kept(ids: list[int]) -> list[int]:
        return [OURS[category_id] for category_id in ids if category_id in OURS]

    lists = ("neg_category_ids", "not_exhaustive_category_ids")
    return {
        "images": [
            {**image, **{key: kept(image[key]) for key in lists}} for image in lvis["images"]
        ],
        "annotations": [
            {**entry, "category_id": OURS[entry["category_id"]]}
            for entry in lvis["annotations"]
            if entry["category_id"] in OURS
        ],
        "categories": [
            {"id": category_id, "name": entry["name"], "frequency": "f"}
            for category_id, entry in CATEGORIES.items()
        ],
    }


def _files(seed: int, folder: Path) -> Files:
    lvis, results = _fuzzed(seed)
    return Files(lvis, list(results), folder / "lvis.json")


KEYS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


@pytest.mark.parametrize("seed", range(3))
def test_every_mean_equals_that_of_hotcoco(seed: int, tmp_path: Path) -> None:
    hotcoco = pytest.importorskip("hotcoco", reason="hotcoco is in the test extra")
    files = _files(seed, tmp_path)
    scores, notes = files.score()
    path = tmp_path / "coco_ids.json"
    path.write_text(json.dumps(_in_coco_ids(files.lvis)))
    truth = hotcoco.LVIS(str(path))
    found = tmp_path / "results.json"
    found.write_text(json.dumps(files.results))
    evaluator = hotcoco.LVISeval(truth, hotcoco.LVISResults(truth, str(found)), "segm")
    evaluator.run()
    theirs = evaluator.get_results(per_class=True)
    for key, name in zip(KEYS, ("AP", "AP50", "AP75", "APs", "APm", "APl")):
        assert scores.means[key] == pytest.approx(theirs[name], abs=1e-12), key
    assert 0.1 < scores.means["ap"] < 0.9
    assert sum(ap is not None for ap, _ in scores.per_thing) == len(CATEGORIES)
    assert not [note for note in notes if "image" in note]


@pytest.mark.parametrize("seed", range(3))
def test_every_mean_equals_that_of_vernier(seed: int, tmp_path: Path) -> None:
    core = pytest.importorskip("vernier._core", reason="vernier is in the test extra")
    files = _files(seed, tmp_path)
    scores, _ = files.score()
    truth = core.CocoDataset.from_lvis_json(json.dumps(_in_coco_ids(files.lvis)).encode())
    grid = core.evaluate_segm_grid(
        truth,
        json.dumps([dict(result, bbox=[0, 0, 1, 1]) for result in files.results]).encode(),
        parity_mode="strict",
        max_dets_per_image=300,
        use_cats=True,
        dt_area="mask",
    )
    theirs = grid.accumulate([300]).summarize_lvis(truth, [300]).stats
    for key, value in zip(KEYS, theirs):
        assert scores.means[key] == pytest.approx(value, abs=1e-12), key


def _square(left: int, top: int, side: int = 40) -> NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def _by_hand(folder: Path, negative: list[int], partly: list[int]) -> Files:
    """One person, found; a second person and a car, both found where nothing is annotated."""
    image = {"id": 7, "height": SIZE[0], "width": SIZE[1]}
    image |= {"neg_category_ids": negative, "not_exhaustive_category_ids": partly}
    polygon = [10.0, 10.0, 50.0, 10.0, 50.0, 50.0, 10.0, 50.0]
    person = {"id": 1, "image_id": 7, "category_id": 793, "segmentation": [polygon]}
    car = {"id": 2, "image_id": 8, "category_id": 207, "segmentation": [polygon]}
    second = {**image, "id": 8, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    lvis = {
        "images": [image, second],
        "annotations": [person, car],
        "categories": [*CATEGORIES.values()],
    }
    results = [
        _result(_square(10, 10), 7, 1, 0.5),
        _result(_square(90, 60), 7, 1, 0.9),
        _result(_square(10, 10), 8, 3, 0.5),
        _result(_square(10, 10), 7, 3, 0.9),
    ]
    return Files(lvis, results, folder / "lvis.json")


def _ap_of(scores: RuleScores, name: str) -> float | None:
    names = [category.name for category in COCO.thing_categories]
    return scores.per_thing[names.index(name)][0]


@pytest.mark.parametrize(
    "negative, partly, person, car",
    [([], [], 0.5, 1.0), ([], [793], 1.0, 1.0), ([207], [], 0.5, 0.5), ([207], [207], 0.5, 1.0)],
)
def test_only_what_was_looked_for_counts(
    negative: list[int], partly: list[int], person: float, car: float, tmp_path: Path
) -> None:
    scores, notes = _by_hand(tmp_path, negative, partly).score()
    assert _ap_of(scores, "person") == pytest.approx(person)
    assert _ap_of(scores, "car") == pytest.approx(car)
    assert _ap_of(scores, "dog") is None
    assert scores.means["ap"] == pytest.approx((person + car) / 2)
    assert notes == [
        "76 things have no category of LVIS: bicycle, motorcycle, airplane, bus, train, truck, "
        "boat, traffic light, fire hydrant, stop sign"
    ]


def test_instances_beyond_the_best_300_of_an_image_do_not_count(tmp_path: Path) -> None:
    files = _by_hand(tmp_path, [], [])
    others = [_result(_square(90, 60), 7, 18, 0.6)] * 300  # dogs, of which nothing is known
    files.results = [entry for entry in files.results if entry["score"] < 0.9] + others
    assert _ap_of(files.score()[0], "person") == 0
    files.results.pop()
    assert _ap_of(files.score()[0], "person") == pytest.approx(1.0)


def test_images_of_one_file_alone_are_left_out_and_noted(tmp_path: Path) -> None:
    files = _by_hand(tmp_path, [], [])
    files.path.write_text(json.dumps(files.lvis))
    scores, notes = score_lvis(files.path, _source(["8", 9, 10]), {}, COCO)
    assert scores.means["ap"] == 0
    assert _ap_of(scores, "person") is None
    assert _ap_of(scores, "car") == 0
    assert notes[:2] == [
        "1 of 2 images of LVIS are not in the ground truth and are left out of AP*",
        "2 images are not annotated in LVIS; AP* is of the others",
    ]


def test_things_of_coco_have_the_synsets_of_the_official_mapping() -> None:
    synsets = coco_synsets()
    assert [*synsets] == [category.name for category in COCO.thing_categories]
    assert len(set(synsets.values())) == 80
    assert synsets["cow"] == "beef.n.01"
    assert synsets["suitcase"] == "bag.n.06"


def test_without_synsets_names_and_synonyms_join(tmp_path: Path) -> None:
    entries = [
        {"id": 5, "name": "traffic_light"},
        {"id": 6, "name": "mouse_(animal)", "synset": "mouse.n.01", "synonyms": ["mouse"]},
        {"id": 7, "name": "mouse_(computer_equipment)", "synset": "mouse.n.04"},
        {"id": 8, "name": "fireplug", "synonyms": ["fireplug", "fire_hydrant"]},
        {"id": 9, "name": "zipper", "synset": "slide_fastener.n.01"},
    ]
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": entries}))
    names = ["traffic light", "mouse", "fire hydrant", "Zipper", "dog"]
    assert read_lvis(path).partners(names) == {
        "traffic light": 5,
        "mouse": 7,
        "fire hydrant": 8,
        "Zipper": 9,
    }


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": None}, "'images' must be a list; is it an LVIS file?"),
        ({"categories": [{"id": 793}]}, "categories[0] needs 'id' and 'name'"),
        ({"annotations": [{"image_id": 7}]}, "annotations[0] needs 'image_id' and a 'category_id'"),
        ({"images": [{"id": 7}]}, "images[0] needs id, height and width"),
        (
            {"images": [{"id": 7, "height": 3, "width": 3}]},
            "images[0] needs 'neg_category_ids', a list of category ids; is it a COCO file?",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 793, "segmentation": [[1, 2]]}]},
            "image 7: object 0: a polygon must be [x, y, x, y, ...]",
        ),
        (
            {"categories": [ZIPPER], "annotations": []},
            "none of its categories is one of truth.json",
        ),
    ],
)
def test_faults_of_the_file_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    files = _by_hand(tmp_path, [], [])
    files.lvis |= change
    files.path.write_text(json.dumps(files.lvis))
    with pytest.raises(FaultyDataError) as caught:
        score_lvis(files.path, _source([7, 8]), {}, COCO)
    assert message in str(caught.value)


def test_images_that_are_listed_twice_or_not_at_all_are_faults(tmp_path: Path) -> None:
    files = _by_hand(tmp_path, [], [])
    files.lvis["images"] = [files.lvis["images"][0]] * 2
    files.path.write_text(json.dumps(files.lvis))
    with pytest.raises(FaultyDataError, match=r"(?s)same id.*does not list: .'8'"):
        read_lvis(files.path)


def test_masks_of_another_size_are_a_fault(tmp_path: Path) -> None:
    files = _by_hand(tmp_path, [], [])
    files.lvis["images"][0]["height"] = 60
    with pytest.raises(FaultyDataError, match=r"image 7 is \[60, 160\] pixels.*\[120, 160\]"):
        files.score()


def test_the_command_scores_and_says_ap_star(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = PanopticFiles(tmp_path, street())
    person = np.zeros((3, 4), bool)
    person[1, 1] = True
    counts = coco_mask.encode(np.asfortranarray(person.astype(np.uint8)))["counts"].decode()
    runs = {"size": [3, 4], "counts": counts}
    lists = {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    lvis = {
        "images": [{"id": "image_0", "height": 3, "width": 4, **lists}],
        "annotations": [{"image_id": "image_0", "category_id": 2, "segmentation": runs}],
        "categories": [{"id": 2, "name": "person"}, {"id": 3, "name": "car"}],
    }
    result = {"image_id": "image_0", "score": 0.5, "segmentation": runs}
    results = [{**result, "category_id": PERSON}, {**result, "category_id": CAR}]
    for name, content in (("lvis.json", lvis), ("instances.json", results)):
        (tmp_path / name).write_text(json.dumps(content))
    instances = ["--instances", str(tmp_path / "instances.json")]
    output = tmp_path / "out"
    arguments = files.arguments(*instances, "--lvis", str(tmp_path / "lvis.json"))
    assert main([*arguments, "--output", str(output)]) == 0
    assert "AP* (LVIS annotations) 100.0, AP50 100.0" in capsys.readouterr().out
    values = json.loads((output / "evaluation.json").read_text())
    assert values["instances"]["lvis"]["per_category"]["person"]["ap"] == pytest.approx(1.0)
    assert values["instances"]["lvis"]["per_category"]["car"] == {"ap": None, "ap50": None}
    assert "1 images are not annotated in LVIS; AP* is of the others" in values["notes"]
    with pytest.raises(SystemExit):
        main(files.arguments("--lvis", str(tmp_path / "lvis.json")))
    assert "--lvis needs --instances" in capsys.readouterr().err
