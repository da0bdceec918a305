"""`export network`: a trained network as a graph for runtimes that do not know this package."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seamless_pr.build.predictor import load_predictor
from seamless_pr.datasets.images import read_image
from seamless_pr.files import write_json, writing_folder
from seamless_pr.inference.exported import (
    CLASS_MAP,
    DESCRIPTION,
    OUTPUTS,
    ClassMap,
    WholePrediction,
    compile_program,
    described,
    exported_program,
    save_onnx,
    save_program,
)
from seamless_pr.pipelines.stage import ExitCode
from seamless_pr.street_scenes.dataset import draw_street_scene, parse_size

# Format -> name of its file.
FILES = {"program": "network.pt2", "compiled": "network_compiled.pt2", "onnx": "network.onnx"}
PARTS = {"whole": (WholePrediction, OUTPUTS), "classes": (ClassMap, CLASS_MAP)}
# Rounding moves single pixels between two classes; more than this share is no rounding.
MOST_CHANGED = 0.001

# Pixels -> outputs, in their order.
Run = Callable[[Tensor], Sequence[Any]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, required=True, metavar="W")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--size",
        type=parse_size,
        required=True,
        metavar="HxW",
        help="of the images, which the graph does not resize",
    )
    parser.add_argument("--batch-size", type=int, default=1, help="images in a pass (default: 1)")
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=tuple(FILES),
        default=["program"],
        help="program: for torch.export.load; compiled: machine code of AOTInductor for this "
        "processor; onnx (default: program)",
    )
    parser.add_argument(
        "--part",
        choices=tuple(PARTS),
        default="whole",
        help="whole: pixels to panoptic maps; classes: to the class of every pixel (default: "
        "whole)",
    )
    parser.add_argument(
        "--image",
        metavar="FILE",
        help="of that size, to compare and to time with (default: a drawn street scene)",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="of timing; the median counts (default: 3)"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config values to change")


def run(options: argparse.Namespace) -> ExitCode:
    """Writes the graphs, and what each says about one image beside what the network says."""
    predictor = load_predictor(options.weights, "cpu", overrides=options.overrides)
    kind, outputs = PARTS[options.part]
    module = kind(predictor.network).eval()
    pixels = _pixels(options.image, options.size, options.batch_size)
    description = {
        **described(predictor.label_space, outputs),
        **predictor.describe(),
        "part": options.part,
        "size": list(options.size),
        "batch_size": options.batch_size,
        "torch": torch.__version__,
    }
    with torch.no_grad():
        expected = _outputs(module(pixels))
    program = exported_program(module, pixels)
    checks = {}
    with writing_folder(options.output) as folder:
        for form in options.formats:
            path = folder / FILES[form]
            if form == "program":
                save_program(program, path, description)
            elif form == "compiled":
                compile_program(program, path)
            else:
                save_onnx(program, path, outputs)
            checks[form] = _check(_load(form, path), pixels, expected, options.rounds)
        checks["package"] = _check(_eager(module), pixels, expected, options.rounds)
        write_json(folder / DESCRIPTION, {**description, "checks": checks})
    for form, check in checks.items():
        print(
            f"{form}: {check['changed_pixels']:.2%} of the pixels changed, {check['seconds']:.2f} s"
        )
    changed = max(check["changed_pixels"] for check in checks.values())
    return ExitCode.DONE if changed <= MOST_CHANGED else ExitCode.FAILED


def _pixels(image: str | None, size: tuple[int, int], batch_size: int) -> Tensor:
    if image is None:
        drawn = [draw_street_scene(0, "val", index, size).image for index in range(batch_size)]
        return torch.from_numpy(np.stack(drawn)).movedim(-1, 1).contiguous()
    pixels = read_image(image)
    if tuple(pixels.shape[1:]) != size:
        raise ValueError(
            f"{image} has {pixels.shape[1]}x{pixels.shape[2]} pixels; give one of "
            f"{size[0]}x{size[1]}, or another --size"
        )
    return pixels.expand(batch_size, -1, -1, -1).contiguous()


def _outputs(found: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def _eager(module: torch.nn.Module) -> Run:
    return lambda pixels: _outputs(module(pixels))


def _load(form: str, path: Path) -> Run:
    """The graph as another program would load it."""
    if form == "program":
        return _eager(torch.export.load(path).module())
    if form == "compiled":
        compiled = torch._inductor.aoti_load_package(str(path))
        return lambda pixels: _outputs(compiled(pixels))
    from onnxruntime import InferenceSession, SessionOptions

    settings = SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def run_session(pixels: Tensor) -> list[Any]:
        found: list[Any] = session.run(None, {"pixels": pixels.numpy()})
        return found

    return run_session


@torch.no_grad()
def _check(
    run_graph: Run, pixels: Tensor, expected: Sequence[Tensor], rounds: int
) -> dict[str, float]:
    """The share of pixels with another label than the network gives them, and seconds a pass."""
    found = torch.as_tensor(run_graph(pixels)[0])
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run_graph(pixels)
        seconds.append(time.perf_counter() - start)
    return {
        "changed_pixels": float((found != expected[0]).double().mean()),
        "seconds": statistics.median(seconds),
    }
