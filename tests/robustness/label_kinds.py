"""Cases of label pictures: of one's own data, of three datasets and of semantic results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from PIL import Image

from seamless_pr.pipelines import evaluate, prepare
from tests.evaluation.files import PanopticFiles
from tests.metrics.maps import fuzz_image
from tests.robustness.map_kinds import damaged_png, has_header
from tests.robustness.sandbox import Sandbox, Verdict, run_stage
from tests.support.panoptic_files import write_png


class LabelPictures:
    """Label pictures of one's own data, of ADE20K and of Cityscapes, and semantic PNGs."""

    name = "label pictures"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.jobs: list[tuple[Path, Callable[[Sandbox], list[Any]], Any]] = []
        self._custom()
        self._cityscapes()
        self._ade20k()
        self._semantic()
        for _, arguments, main in self.jobs:
            sandbox.watch()
            assert run_stage(main, arguments(sandbox)).code == 0

    def case(self, random: Random) -> Verdict:
        path, arguments, main = random.choice(self.jobs)
        original = path.read_bytes()
        data = damaged_png(original, random)
        path.write_bytes(data)
        try:
            self.sandbox.watch()
            run = run_stage(main, arguments(self.sandbox))
            return self.sandbox.judge(run, [path.name], has_header(data))
        finally:
            path.write_bytes(original)

    def _custom(self) -> None:
        root = self.sandbox.inputs / "custom"
        values = np.array([[0, 1, 1, 201], [1, 203, 203, 2]], np.int32)
        pictures = {
            "deep": values.astype(np.uint16),
            "rgb": np.stack([values * 0, values >> 8, values & 255], -1).astype(np.uint8),
        }
        for name, pixels in pictures.items():
            write_png(root / "labels" / f"{name}.png", pixels)
            write_png(root / "images" / f"{name}.png", np.full((2, 4, 3), 90, np.uint8))
        palette = Image.fromarray(np.minimum(values, 201).astype(np.uint8), "P")
        palette.putpalette(bytes(768))
        palette.save(root / "labels" / "palette.png")
        write_png(root / "images" / "palette.png", np.full((2, 4, 3), 90, np.uint8))
        description = {
            "name": "yard", "object_divisor": 100, "void": [0],
            "classes": [{"id": 1, "name": "floor", "thing": False},
                        {"id": 2, "name": "box", "thing": True}],
            "splits": {"train": {"images": "images", "labels": "labels"}},
        }  # fmt: skip
        (root / "yard.yaml").write_text(yaml.safe_dump(description))

        def arguments(sandbox: Sandbox) -> list[Any]:
            return ["custom", "--description", root / "yard.yaml", "--output", sandbox.output,
                    "--workers", "1"]  # fmt: skip

        for name in (*pictures, "palette"):
            self.jobs.append((root / "labels" / f"{name}.png", arguments, prepare.main))
            self.jobs.append((root / "images" / f"{name}.png", arguments, prepare.main))

    def _cityscapes(self) -> None:
        root = self.sandbox.inputs / "cityscapes"
        values = np.array([[7, 23, 26001, 26002], [7, 0, 24, 4]], np.uint16)
        path = root / "gtFine" / "val" / "ulm" / "ulm_000000_000001_gtFine_instanceIds.png"
        write_png(path, values)

        def arguments(sandbox: Sandbox) -> list[Any]:
            return ["cityscapes", "--root", root, "--splits", "val", "--output", sandbox.output,
                    "--workers", "1"]  # fmt: skip

        self.jobs.append((path, arguments, prepare.main))

    def _ade20k(self) -> None:
        root = self.sandbox.inputs / "ade20k"
        classes = np.array([[1, 3, 13, 13], [1, 0, 13, 150]], np.uint8)
        instances = np.zeros((2, 4, 3), np.uint8)
        instances[0, 2], instances[0, 3] = (0, 1, 5), (0, 2, 5)
        name = "ADE_val_00000001"
        write_png(root / "annotations" / "validation" / f"{name}.png", classes)
        write_png(root / "annotations_instance" / "validation" / f"{name}.png", instances)
        write_png(root / "images" / "validation" / f"{name}.jpg", np.full((2, 4, 3), 9, np.uint8))

        def arguments(sandbox: Sandbox) -> list[Any]:
            return ["ade20k", "--root", root, "--splits", "val", "--output", sandbox.output,
                    "--workers", "1"]  # fmt: skip

        for folder in ("annotations", "annotations_instance"):
            path = root / folder / "validation" / f"{name}.png"
            self.jobs.append((path, arguments, prepare.main))

    def _semantic(self) -> None:
        folder = self.sandbox.inputs / "scored"
        files = PanopticFiles(folder, [fuzz_image(np.random.default_rng(3))])
        size = Image.open(folder / "gt" / "0.png").size
        values = np.random.default_rng(0).choice([0, 7, 23, 24], size[::-1]).astype(np.uint8)
        write_png(folder / "labels" / "0.png", values)

        def arguments(_: Sandbox) -> list[Any]:
            return files.arguments("--semantic-pngs", str(folder / "labels"))

        self.jobs.append((folder / "labels" / "0.png", arguments, evaluate.main))
