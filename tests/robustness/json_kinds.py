"""Cases of the JSONs of every stage, in every form that is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml

from seamless_pr.pipelines import evaluate, export, predict, prepare, wanted_predictor
from tests.evaluation.files import PanopticFiles
from tests.metrics.maps import fuzz_image
from tests.robustness.map_kinds import tiny_predictor
from tests.robustness.mutators import damage_json
from tests.robustness.sandbox import RIGHT, Sandbox, StageRun, Verdict, run_stage
from tests.robustness.structure_mutators import retype_json
from tests.support.panoptic_files import write_png

Main = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Job:
    """A file, the command that reads it, and what is asked of its result.

    Attributes:
        path: of the file.
        main, arguments: of the stage.
        fault: what is wrong with a result of exit code 0; empty if nothing.
    """

    path: Path
    main: Main
    arguments: list[Any]
    fault: Callable[[StageRun], str] = lambda run: ""


class Jsons:
    """The JSONs of every stage, in every form that is read."""

    name = "JSON"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.predictor = tiny_predictor(sandbox)
        self.jobs = [
            *self._scored(), *self._verified(), *self._instances(), *self._polygons(),
            *self._image_ids(), *self._submissions(),
        ]  # fmt: skip
        for job in self.jobs:
            sandbox.watch()
            run = self._run(job)
            assert run.code == 0, run.errors
            assert not job.fault(run)

    def case(self, random: Random) -> Verdict:
        job = random.choice(self.jobs)
        original = job.path.read_bytes()
        data = random.choice((damage_json, damage_json, retype_json))(original, random)
        job.path.write_bytes(data)
        try:
            self.sandbox.watch()
            run = self._run(job)
            verdict = self.sandbox.judge(run, [job.path.name], is_json(data))
        finally:
            job.path.write_bytes(original)
        fault = job.fault(run) if verdict.outcome == RIGHT else ""
        return Verdict("wrong", verdict.passed_header, fault) if fault else verdict

    def _run(self, job: Job) -> StageRun:
        with patch.object(wanted_predictor, "load_predictor", lambda *_, **__: self.predictor):
            return run_stage(job.main, job.arguments)

    def _scored(self) -> list[Job]:
        folder = self.sandbox.inputs / "scored"
        files = PanopticFiles(folder, [fuzz_image(np.random.default_rng(s)) for s in range(2)])
        run_stage(evaluate.main, files.arguments("--output", str(folder)))
        stored = folder / "evaluation.json"
        instances = folder / "instances.json"
        size = json.loads(files.gt_json.read_text())["images"][0]
        mask = {"size": [size["height"], size["width"]],
                "counts": [0, size["height"] * size["width"]]}  # fmt: skip
        entry = {"image_id": "image_0", "category_id": 24, "score": 0.5, "segmentation": mask}
        instances.write_text(json.dumps([entry, {**entry, "category_id": 0}]))
        output = ["--output", self.sandbox.output]
        score = files.arguments(*map(str, output))

        def fault(_: StageRun) -> str:
            return _score_fault(self.sandbox.output / "evaluation.json")

        return [
            Job(files.gt_json, evaluate.main, score, fault),
            Job(files.pred_json, evaluate.main, score, fault),
            Job(files.pred_json, evaluate.main, [*score, "--lenient"], fault),
            Job(instances, evaluate.main, [*score, "--instances", instances], fault),
            Job(stored, evaluate.main, ["--compare", stored, stored, *output]),
            Job(stored, evaluate.main, [*score, "--baseline", stored], fault),
        ]

    def _verified(self) -> list[Job]:
        folder = self.sandbox.inputs / "verified"
        files = PanopticFiles(folder, [fuzz_image(np.random.default_rng(s)) for s in range(2)])
        arguments = ["verify", "--json", files.gt_json, "--png-dir", folder / "gt", "--workers", 1]
        page = ["inspect", "--dataset", files.gt_json, "--png-dir", folder / "gt", "--output",
                self.sandbox.output / "page.html"]  # fmt: skip
        return [Job(files.gt_json, prepare.main, arguments), Job(files.gt_json, prepare.main, page)]

    def _instances(self) -> list[Job]:
        polygon = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0]
        objects = [
            {"id": 1, "image_id": 1, "category_id": 2, "segmentation": [polygon], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "iscrowd": 1,
             "segmentation": {"size": [6, 8], "counts": [40, 8]}},
        ]  # fmt: skip
        description, path = write_instances(self.sandbox.inputs / "instances", objects, (6, 8))
        arguments = ["custom", "--description", description, "--output", self.sandbox.output,
                     "--workers", 1]  # fmt: skip
        return [Job(path, prepare.main, arguments)]

    def _polygons(self) -> list[Job]:
        root = self.sandbox.inputs / "idd"
        objects = [
            {"label": "road", "polygon": [[0, 3], [8, 3], [8, 6], [0, 6]], "deleted": 0, "id": 1},
            {"label": "car", "polygon": [[1, 1], [4.5, 1], [4, 4]], "id": 2},
            {"label": "cargroup", "polygon": [[5, 1], [7, 1], [7, 4]], "id": 3},
        ]
        path = root / "gtFine" / "val" / "0" / "0001_gtFine_polygons.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"imgHeight": 6, "imgWidth": 8, "objects": objects}))
        arguments = ["idd", "--root", root, "--splits", "val", "--output", self.sandbox.output,
                     "--workers", 1]  # fmt: skip
        return [Job(path, prepare.main, [*arguments, *more]) for more in
                ([], ["--accept-degenerate"])]  # fmt: skip

    def _image_ids(self) -> list[Job]:
        root = self.sandbox.inputs / "listed"
        write_png(root / "images" / "a.png", np.zeros((20, 30, 3), np.uint8))
        path = root / "ids.json"
        images = [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}]
        category = {"id": 26, "name": "car", "isthing": 1}
        path.write_text(json.dumps({"images": images, "categories": [category]}))
        arguments = ["--weights", "W", "--images", root / "images", "--output",
                     self.sandbox.output, "--image-ids", path]  # fmt: skip
        return [Job(path, predict.main, arguments)]

    def _submissions(self) -> list[Job]:
        """A folder of predictions, sent to the evaluation server of Cityscapes."""
        folder = self.sandbox.inputs / "predictions"
        images = self.sandbox.inputs / "sent"
        write_png(images / "ulm_000000_000001_leftImg8bit.png", np.zeros((20, 30, 3), np.uint8))
        with patch.object(wanted_predictor, "load_predictor", lambda *_, **__: self.predictor):
            run_stage(predict.main, ["--weights", "W", "--images", images, "--output", folder,
                                     "--instances"])  # fmt: skip
        arguments = ["submission", "cityscapes", "--predictions", folder, "--output",
                     self.sandbox.output, "--workers", 1]  # fmt: skip
        return [
            Job(folder / name, export.main, arguments)
            for name in ("panoptic.json", "instances.json")
        ]


def write_instances(
    root: Path, objects: list[dict[str, Any]], size: tuple[int, int]
) -> tuple[Path, Path]:
    """A picture of 6x8 with the objects of category 2 in a COCO JSON, which gives it a size.

    Returns:
        The description of these data for `prepare custom`, and the JSON.
    """
    height, width = size
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}],
        "annotations": objects, "categories": [{"id": 2, "name": "box"}],
    }  # fmt: skip
    write_png(root / "images" / "a.png", np.zeros((6, 8, 3), np.uint8))
    path = root / "objects.json"
    path.write_text(json.dumps(content))
    description = {
        "name": "yard", "classes": [{"id": 1, "name": "floor", "thing": False}],
        "splits": {"train": {"images": "images", "instances": path.name}},
    }  # fmt: skip
    (root / "yard.yaml").write_text(yaml.safe_dump(description))
    return root / "yard.yaml", path


def is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _score_fault(path: Path) -> str:
    """Whether a stored evaluation holds anything but scores in 0..1 and counts."""
    values = json.loads(path.read_text(), parse_constant=lambda name: f"not a number: {name}")
    rows = [values["all"], values["things"], values["stuff"], *values["per_category"]]
    for row in rows:
        for key in ("pq", "sq", "rq"):
            if row[key] is not None and not 0 <= row[key] <= 1:
                return f"{key} = {row[key]}"
    counted = sum(row["tp"] + row["fn"] for row in values["per_category"])
    if len(values["per_image"]) != values["num_images"]:
        return "images are missing"
    return "" if counted >= 0 else "negative counts"
