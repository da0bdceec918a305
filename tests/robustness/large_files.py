"""Files of less than 1 MB that claim, or unpack to, as much as their formats allow."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml
from PIL import Image

from seamless_pr.pipelines import evaluate, predict, prepare, train, wanted_predictor
from seamless_pr.training.checkpoints import load_weights, save_weights
from tests.evaluation.files import PanopticFiles
from tests.metrics.maps import fuzz_image
from tests.robustness.json_kinds import write_instances
from tests.robustness.map_kinds import tiny_predictor
from tests.robustness.mutators import png_chunk
from tests.robustness.sandbox import (
    REFUSED,
    RIGHT,
    Sandbox,
    StageRun,
    Verdict,
    run_cases,
    run_stage,
)
from tests.robustness.weight_kinds import _call
from tests.support.memory import forget_peak
from tests.support.panoptic_files import write_png
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_run import write_tiny_run

LARGEST_SIDE = 7_200  # 52 million pixels


@dataclass(frozen=True)
class LargeCase:
    """A file and the stage that reads it.

    Attributes:
        name: what it is.
        stage: who reads it.
        make: writes it into a sandbox; returns its path and the work.
    """

    name: str
    stage: str
    make: Callable[[Sandbox], tuple[Path, Callable[[], StageRun]]]


def run_large(index: int, folder: Path) -> dict[str, Any]:
    """What became of one of LARGE_CASES, in a process of its own."""
    case, sandbox = LARGE_CASES[index], Sandbox(folder / str(index))
    noted = sandbox.root / "path"

    def judged(_: Random) -> Verdict:
        # Made here as well: whatever that leaves in memory ends with this case.
        path, work = case.make(sandbox)
        noted.write_text(str(path))
        forget_peak()
        sandbox.watch()
        return sandbox.judge(work(), [path.name], passed_header=True)

    ((_, verdict),) = run_cases(judged, [0], case.name)
    path = Path(noted.read_text()) if noted.is_file() else noted
    size = path.stat().st_size if path.is_file() else 0
    assert size < 1_000_000, (case.name, size)
    is_failure = verdict.outcome not in (RIGHT, REFUSED)
    return {
        "name": case.name,
        "stage": case.stage,
        "bytes": size,
        "outcome": verdict.outcome,
        "memory": verdict.memory,
        "failures": [f"{case.name}: {verdict.outcome}: {verdict.detail}"] if is_failure else [],
    }


def flat_png(side: int, color: int, *, row: bytes | None = None) -> bytes:
    """A PNG whose rows are all the same, packed as small as PNG goes."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[color]
    header = side.to_bytes(4, "big") * 2 + bytes([8, color, 0, 0, 0])
    row = bytes(1 + side * channels) if row is None else row
    packer = zlib.compressobj(9)
    stream = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    palette = png_chunk(b"PLTE", bytes(768)) if color == 3 else b""
    chunks = png_chunk(b"IHDR", header) + palette + png_chunk(b"IDAT", stream)
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def _scored(data: Callable[[], bytes], side: str) -> Callable[[Sandbox], Any]:
    def make(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
        files = PanopticFiles(sandbox.inputs, [fuzz_image(np.random.default_rng(0))])
        path = sandbox.inputs / side / "0.png"
        path.write_bytes(data())
        return path, lambda: run_stage(evaluate.main, files.arguments())

    return make


def _special(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    files = PanopticFiles(sandbox.inputs, [fuzz_image(np.random.default_rng(0))])
    path = sandbox.inputs / "pred" / "0.png"
    path.unlink()
    os.mkfifo(path)
    return path, lambda: run_stage(evaluate.main, files.arguments())


def _endless(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    files = PanopticFiles(sandbox.inputs, [fuzz_image(np.random.default_rng(0))])
    path = sandbox.inputs / "pred" / "0.png"
    path.unlink()
    path.symlink_to("/dev/zero")
    return path, lambda: run_stage(evaluate.main, files.arguments())


def _labelled(name: str, data: Callable[[], bytes]) -> Callable[[Sandbox], Any]:
    def make(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
        predictor = tiny_predictor(sandbox)
        path = sandbox.inputs / "images" / name
        path.parent.mkdir()
        path.write_bytes(data())
        arguments = ["--weights", "W", "--images", path.parent, "--output", sandbox.output]

        def work() -> StageRun:
            with patch.object(wanted_predictor, "load_predictor", lambda *_, **__: predictor):
                return run_stage(predict.main, arguments)

        return path, work

    return make


def _picture(form: str, side: int, **options: Any) -> Callable[[], bytes]:
    def data() -> bytes:
        written = io.BytesIO()
        Image.new("L", (side, side), 90).save(written, form, **options)
        return written.getvalue()

    return data


def _two_channel_tiff(side: int) -> bytes:
    """Pixels that OpenCV reads and Pillow does not open; all rows are the same one."""
    num_tags = 9
    row = zlib.compress(bytes(2 * side))
    rows_at = 10 + 12 * num_tags + 4
    lengths_at = rows_at + 4 * side
    row_at = lengths_at + 4 * side
    bits = 8 << 16 | 8  # Of both channels, in place of an address.
    tags = ((256, side), (257, side), (258, bits), (259, 8), (262, 1), (273, rows_at), (277, 2),
            (278, 1), (279, lengths_at))  # fmt: skip
    counts = {258: 2, 273: side, 279: side}
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag != 258 else 3, counts.get(tag, 1), value)
        for tag, value in tags
    )
    head = b"II*\0" + struct.pack("<IH", 8, num_tags) + entries + bytes(4)
    return head + struct.pack("<I", row_at) * side + struct.pack("<I", len(row)) * side + row


def _jpeg_of_scans(num_more: int) -> bytes:
    data = _picture("JPEG", LARGEST_SIDE // 4, progressive=True)()
    end = data.rindex(b"\xff\xd9")
    return data[:end] + data[data.rindex(b"\xff\xda") : end] * num_more + data[end:]


def _archive(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    """Weights that unpack to 700 MB."""
    from seamless_pr.weights.tensor_files import read_tensors

    path = sandbox.inputs / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with archive.open("archive/data/0", "w") as member:
            for _ in range(700):
                member.write(bytes(1_000_000))
    return path, lambda: _call(read_tensors, path)


def _wide_config(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    """A network of 7 gigabytes."""
    path = write_tiny_run(sandbox.inputs)
    values = yaml.safe_load(path.read_text())
    values["model"]["neck"]["channels"] = 100_000_000
    path.write_text(yaml.safe_dump(values))

    def work() -> StageRun:
        run = run_stage(train.main, ["--config", path, "--output", sandbox.output])
        # What the command names is told by its keys.
        return StageRun(run.code, run.output, run.errors.replace("'model'", path.name), run.error)

    return path, work


def _wide_network(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    """Weights whose config describes a network of many gigabytes."""
    sound = write_tiny_checkpoint(sandbox.root / "sound.safetensors")
    weights, metadata = load_weights(sound)
    metadata["config"]["model"]["instances"]["box"]["hidden_channels"] = 500_000
    path = sandbox.inputs / "wide.safetensors"
    few = dict(sorted(weights.items(), key=lambda item: item[1].numel())[:20])
    save_weights(path, few, metadata)
    write_png(sandbox.inputs / "a.png", np.zeros((20, 30, 3), np.uint8))
    arguments = ["--weights", path, "--images", sandbox.inputs / "a.png", "--output",
                 sandbox.output]  # fmt: skip
    return path, lambda: run_stage(predict.main, arguments)


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 12)]
)


def _laughing_config(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    path = write_tiny_run(sandbox.inputs)
    path.write_text(f"{path.read_text()}\n{LAUGHS}\n")
    return path, lambda: run_stage(train.main, ["--config", path, "--output", sandbox.output])


def _laughing_description(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    path = sandbox.inputs / "yard.yaml"
    path.write_text(f"name: yard\n{LAUGHS}\nclasses: *a11\n")
    arguments = ["custom", "--description", path, "--output", sandbox.output]
    return path, lambda: run_stage(prepare.main, arguments)


def _many_masks(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    """A hundred masks of 52 million pixels each."""
    side = LARGEST_SIDE
    mask = {"size": [side, side], "counts": [0, side * side]}
    entries = [{"id": n, "image_id": 1, "category_id": 2, "segmentation": mask} for n in range(100)]
    description, path = write_instances(sandbox.inputs, entries, (side, side))
    arguments = ["custom", "--description", description, "--output", sandbox.output,
                 "--workers", 1]  # fmt: skip

    def work() -> StageRun:
        run = run_stage(prepare.main, arguments)
        # The picture is of another size; it is named, with what names it.
        return StageRun(run.code, run.output, f"{run.errors} objects.json", run.error)

    return path, work


def _many_polygons(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    """As many polygons of 52 million pixels as a file of 600 kB holds."""
    side = LARGEST_SIDE
    polygon = {"label": "road", "polygon": [[0, 0], [side, 0], [side, side], [0, side]]}
    path = sandbox.inputs / "gtFine" / "train" / "1" / "a_gtFine_polygons.json"
    path.parent.mkdir(parents=True)
    content = {"imgHeight": side, "imgWidth": side, "objects": [polygon] * 8000}
    path.write_text(json.dumps(content))
    arguments = ["idd", "--root", sandbox.inputs, "--splits", "train", "--output", sandbox.output,
                 "--workers", 1]  # fmt: skip
    return path, lambda: run_stage(prepare.main, arguments)


def _deep_json(sandbox: Sandbox) -> tuple[Path, Callable[[], StageRun]]:
    files = PanopticFiles(sandbox.inputs, [fuzz_image(np.random.default_rng(0))])
    files.pred_json.write_text("[" * 900_000)
    return files.pred_json, lambda: run_stage(evaluate.main, files.arguments())


def _noisy_row() -> bytes:
    """Every pixel another id than the one before."""
    return bytes([1]) + bytes([1, 0, 0]) * LARGEST_SIDE


LARGE_CASES = (
    LargeCase("id PNG with a palette, 52 million pixels", "evaluate",
              _scored(lambda: flat_png(LARGEST_SIDE, 3), "pred")),
    LargeCase("id PNG with a palette, 169 million pixels", "evaluate",
              _scored(lambda: flat_png(13_000, 3), "pred")),
    LargeCase("id PNG, 52 million pixels of 7200 ids", "evaluate",
              _scored(lambda: flat_png(LARGEST_SIDE, 2, row=_noisy_row()), "pred")),
    LargeCase("true id PNG, 52 million pixels of 7200 ids", "evaluate",
              _scored(lambda: flat_png(LARGEST_SIDE, 2, row=_noisy_row()), "gt")),
    LargeCase("a FIFO as an id PNG", "evaluate", _special),
    LargeCase("a link to /dev/zero as an id PNG", "evaluate", _endless),
    LargeCase("JSON of 900,000 brackets", "evaluate", _deep_json),
    LargeCase("PNG photograph, 52 million pixels", "predict",
              _labelled("a.png", lambda: flat_png(LARGEST_SIDE, 2))),
    LargeCase("PNG photograph, 169 million pixels", "predict",
              _labelled("a.png", lambda: flat_png(13_000, 0))),
    LargeCase("JPEG, 52 million pixels", "predict",
              _labelled("a.jpg", _picture("JPEG", LARGEST_SIDE, quality=5))),
    LargeCase("TIFF, 52 million pixels", "predict",
              _labelled("a.tif", _picture("TIFF", LARGEST_SIDE, compression="tiff_adobe_deflate"))),
    LargeCase("WebP, 81 million pixels", "predict",
              _labelled("a.webp", _picture("WEBP", 9_000, lossless=True, method=0))),
    LargeCase("GIF named .png, 52 million pixels", "predict",
              _labelled("a.png", _picture("GIF", LARGEST_SIDE))),
    LargeCase(".pth that unpacks to 700 MB", "weights", _archive),
    LargeCase("TIFF that Pillow does not open, 400 million pixels", "predict",
              _labelled("a.tif", lambda: _two_channel_tiff(20_000))),
    LargeCase("JPEG of 1,000 scans", "predict", _labelled("a.jpg", lambda: _jpeg_of_scans(1000))),
    LargeCase("weights of a network of 500,000 channels", "predict", _wide_network),
    LargeCase("config of a network of 100 million channels", "train", _wide_config),
    LargeCase("config of 8^12 values by aliases", "train", _laughing_config),
    LargeCase("description of 8^12 values by aliases", "prepare", _laughing_description),
    LargeCase("100 masks of 52 million pixels", "prepare", _many_masks),
    LargeCase("8,000 polygons of 52 million pixels", "prepare", _many_polygons),
)  # fmt: skip
