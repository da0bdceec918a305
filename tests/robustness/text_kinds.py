"""Cases of texts: JSON of every kind that is read, configs, descriptions, overrides and lists."""

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

from seamless_pr.build.configs import load_config
from seamless_pr.config.words import parse_yaml
from seamless_pr.pipelines import evaluate, export, predict, prepare, train, wanted_predictor
from seamless_pr.training.trainer import Trainer
from tests.evaluation.files import PanopticFiles
from tests.metrics.maps import fuzz_image
from tests.robustness.map_kinds import tiny_predictor
from tests.robustness.mutators import HOSTILE, damage_json, damage_text
from tests.robustness.sandbox import RIGHT, Sandbox, StageRun, Verdict, run_stage
from tests.support.panoptic_files import write_png
from tests.support.tiny_run import write_tiny_run

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
        data = damage_json(original, random)
        job.path.write_bytes(data)
        try:
            self.sandbox.watch()
            run = self._run(job)
            verdict = self.sandbox.judge(run, [job.path.name], _is_json(data))
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
        root = self.sandbox.inputs / "instances"
        polygon = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0]
        objects = [
            {"id": 1, "image_id": 1, "category_id": 2, "segmentation": [polygon], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "iscrowd": 1,
             "segmentation": {"size": [6, 8], "counts": [40, 8]}},
        ]  # fmt: skip
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
            "annotations": objects, "categories": [{"id": 2, "name": "box"}],
        }  # fmt: skip
        write_png(root / "images" / "a.png", np.zeros((6, 8, 3), np.uint8))
        path = root / "objects.json"
        path.write_text(json.dumps(content))
        description = {
            "name": "yard", "classes": [{"id": 1, "name": "floor", "thing": False}],
            "splits": {"train": {"images": "images", "instances": "objects.json"}},
        }  # fmt: skip
        (root / "yard.yaml").write_text(yaml.safe_dump(description))
        arguments = ["custom", "--description", root / "yard.yaml", "--output", self.sandbox.output,
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


def _is_json(data: bytes) -> bool:
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


YAML_WORDS = (
    *(str(value)[:400] for value in HOSTILE if not isinstance(value, str) or "\0" not in value),
    "&a [*a, *a]", "*a", "!!python/object/apply:os.system ['true']", "{a: b, a: c}", "? x", "- -",
    "model: {kind: per_pixel}", "<<: {a: 1}", "0x7f", "1_000", "12:30", "2001-01-01", "~", "|", ">",
    "'", '"', "[", "{", "optimizer.lr=0.1", "???", "${data.train}", "key: value", "kind: nothing",
)  # fmt: skip


class Configs:
    """The config of a training, up to its first step."""

    name = "configs"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.path = write_tiny_run(sandbox.inputs)

    def case(self, random: Random) -> Verdict:
        original = self.path.read_bytes()
        if random.random() < 0.5:
            values = json.dumps(yaml.safe_load(original)).encode()
            data = damage_json(values, random, share_of_bytes=0)
            if _is_json(data) and random.random() < 0.8:
                data = yaml.safe_dump(json.loads(data), allow_unicode=True).encode(
                    errors="surrogatepass"
                )
        else:
            data = damage_text(original, random, YAML_WORDS)
        self.path.write_bytes(data)
        try:
            return _build(self.sandbox, self.path, (), _is_yaml(data))
        finally:
            self.path.write_bytes(original)


class Overrides:
    """Words of the command line that change a config."""

    name = "overrides"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.path = write_tiny_run(sandbox.inputs)
        self.keys = [*_keys(yaml.safe_load(self.path.read_text()))]

    def case(self, random: Random) -> Verdict:
        words = []
        for _ in range(random.randint(1, 2)):
            key = random.choice(self.keys)
            value = random.choice(YAML_WORDS).replace("\n", " ")
            kind = random.random()
            if kind < 0.1:
                key = key.rpartition(".")[0] or key
            elif kind < 0.2:
                key = f"{key}.{random.choice(('x', '0', '', 'kind'))}"
            elif kind < 0.25:
                key = random.choice(("", "=", "..", "a", "+data", "~model", "\ud800"))
            words.append(f"{key}={value}" if random.random() < 0.95 else key)
        return _build(self.sandbox, self.path, words, all("=" in word for word in words))


def _build(sandbox: Sandbox, path: Path, words: Sequence[str], passed_header: bool) -> Verdict:
    """Everything of a training but its steps; a sound config must be stored as it was read."""
    sandbox.watch()
    arguments = ["--config", path, "--output", sandbox.output, *words]
    with patch.object(Trainer, "run", lambda _: {}):
        run = run_stage(train.main, arguments)
    names = [path.name, *(word.partition("=")[0].rpartition(".")[2] for word in words), *words]
    # A key that stands in another file's place is named with its path in the config.
    verdict = sandbox.judge(run, [*names, "config", "data.", "model.", "memory"], passed_header)
    if verdict.outcome == RIGHT:
        stored = load_config(sandbox.output / "config.yaml")
        if stored != load_config(path, words):
            return Verdict("wrong", passed_header, "the stored config is another one")
    return verdict


def _keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _keys(value, f"{prefix}{key}.")
    return found


def _is_yaml(data: bytes) -> bool:
    try:
        return isinstance(parse_yaml(data.decode()), dict)
    except ValueError:
        return False


class Descriptions:
    """Descriptions of one's own data."""

    name = "descriptions"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.path = sandbox.inputs / "yard.yaml"
        values = np.array([[0, 1, 1, 201], [1, 203, 203, 2]], np.uint16)
        write_png(sandbox.inputs / "labels" / "a.png", values)
        write_png(sandbox.inputs / "images" / "a.png", np.full((2, 4, 3), 90, np.uint8))
        description = {
            "name": "yard", "object_divisor": 100, "void": [0], "label_suffix": "",
            "classes": [{"id": 1, "name": "floor", "thing": False},
                        {"id": 2, "name": "box", "thing": True, "color": [1, 2, 3]}],
            "splits": {"train": {"images": "images", "labels": "labels"}},
        }  # fmt: skip
        self.path.write_text(yaml.safe_dump(description))

    def case(self, random: Random) -> Verdict:
        original = self.path.read_bytes()
        if random.random() < 0.6:
            values = json.dumps(yaml.safe_load(original)).encode()
            data = damage_json(values, random, share_of_bytes=0.05)
        else:
            data = damage_text(original, random, YAML_WORDS)
        self.path.write_bytes(data)
        try:
            self.sandbox.watch()
            arguments = ["custom", "--description", self.path, "--output", self.sandbox.output,
                         "--workers", 1]  # fmt: skip
            run = run_stage(prepare.main, arguments)
            # What a sound description says may not fit the files that it names.
            return self.sandbox.judge(run, [self.path.name, "labels", "images"], _is_yaml(data))
        finally:
            self.path.write_bytes(original)


class Lists:
    """Text files with one image a line."""

    name = "lists"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.predictor = tiny_predictor(sandbox)
        self.path = sandbox.inputs / "list.txt"
        for name in ("a.png", "b/c.png"):
            write_png(sandbox.inputs / name, np.zeros((20, 30, 3), np.uint8))
        self.lines = [b"# photographs", b"a.png", b"b/c.png"]

    def case(self, random: Random) -> Verdict:
        lines = [*self.lines]
        strange = (
            b"missing.png", b"/dev/zero", b"/dev/stdin", b"../../../../escape.png", b"b", b".",
            b"x" * 300 + b".png", b"x/" * 3000 + b".png", b"\xff.png", "größe.png".encode(),
            b"http://127.0.0.1:1/x.png", b"nosuch://x/y.png", b"://", b"a.png ", b"a.png\0",
            b"A.PNG", b"./a.png", b"b/../a.png", b"~/x.png", b"$HOME/x.png", b"*.png", b"file:///x",
            b"\xed\xa0\x80.png", b"a.png#", b"list.txt", b"weights", b"file:///etc/passwd",
        )  # fmt: skip
        for _ in range(random.randint(1, 2)):
            lines.insert(random.randrange(len(lines) + 1), random.choice(strange))
        ending = random.choice((b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b"\x0c"))
        data = ending.join(lines)
        if random.random() < 0.15:
            data = data.decode(errors="replace").encode(random.choice(("utf-16", "utf-8-sig")))
        self.path.write_bytes(data)
        self.sandbox.watch()
        arguments = ["--weights", "W", "--images", self.path, "--output", self.sandbox.output]
        with patch.object(wanted_predictor, "load_predictor", lambda *_, **__: self.predictor):
            run = run_stage(predict.main, arguments)
        names = ["list.txt", *(line.decode(errors="replace").strip() for line in lines)]
        verdict = self.sandbox.judge(run, [name[:60] for name in names if name], True)
        # With its ending, if another line has the same name without it.
        results = self.sandbox.output.glob("panoptic/a*.png")
        if (verdict.outcome == RIGHT or run.code == 3) and not any(results):
            return Verdict("wrong", True, "the sound image has no result")
        return verdict
