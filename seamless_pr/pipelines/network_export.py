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
from torch import Tensor, nn

from seamless_pr.build.predictor import load_predictor
from seamless_pr.datasets.images import read_image
from seamless_pr.files import is_unused, write_json, writing_folder
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
    segmentations,
)
from seamless_pr.inference.predictor import AMP_TYPES, Predictor
from seamless_pr.pipelines.stage import ExitCode
from seamless_pr.street_scenes.dataset import draw_street_scene, parse_size
from seamless_pr.structures.limits import MAX_PIXELS
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation

# Format -> name of its file.
FILES = {"program": "network.pt2", "compiled": "network_compiled.pt2", "onnx": "network.onnx"}
PARTS = {"whole": (WholePrediction, OUTPUTS), "classes": (ClassMap, CLASS_MAP)}
# Rounding moves single pixels between two classes (none of 131,072 with the shipped checkpoint, in
# every format); more than this share is no rounding.
MOST_CHANGED = 0.001
# Weights of ONNX stand beside their graph.
_OWN_FILES = (*FILES.values(), f"{FILES['onnx']}.data", DESCRIPTION)

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
        "machine; onnx (default: program)",
    )
    parser.add_argument(
        "--part",
        choices=tuple(PARTS),
        default="whole",
        help="whole: pixels to panoptic maps; classes: to the class of every pixel (default: "
        "whole)",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu or cuda: where program and compiled run (default: cpu)"
    )
    parser.add_argument(
        "--amp",
        choices=tuple(AMP_TYPES),
        default="none",
        help="16-bit arithmetic of program and compiled (default: none)",
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


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.batch_size < 1 or options.rounds < 1:
        parser.error("--batch-size and --rounds must be at least 1")
    height, width = options.size
    if not 0 < height * width * options.batch_size <= MAX_PIXELS:
        parser.error(
            f"--size and --batch-size make {height * width * options.batch_size} pixels; expected "
            f"1 to {MAX_PIXELS}"
        )
    if options.amp != "none" and "onnx" in options.formats:
        parser.error(
            "--amp changes program and compiled; runtimes of ONNX choose arithmetic themselves"
        )


def run(options: argparse.Namespace) -> ExitCode:
    """Writes the graphs, and how each differs from the network on one image.

    Raises:
        ValueError: the folder holds something else than an earlier export, which this one replaces.
    """
    if not is_unused(options.output, *_OWN_FILES):
        raise ValueError(
            f"{options.output} holds files that are no export of a network, and all of it would be "
            "replaced; give a new folder"
        )
    predictor = load_predictor(
        options.weights,
        options.device,
        overrides=options.overrides,
        batch_size=options.batch_size,
        amp=options.amp,
    )
    predictor.check_device()
    kind, outputs = PARTS[options.part]
    module = kind(predictor.network, AMP_TYPES[options.amp]).eval()
    pixels = _pixels(options.image, options.size, options.batch_size)
    description = {
        **described(predictor.label_space, outputs),
        **predictor.describe(),
        "part": options.part,
        "size": list(options.size),
        "batch_size": options.batch_size,
        "device": predictor.device.type,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
    }
    expected, seconds = _network_itself(predictor, module, pixels, options.rounds)
    checks: dict[str, dict[str, float]] = {"package": {"seconds": seconds}}
    program = exported_program(module, pixels.to(predictor.device))
    with writing_folder(options.output) as folder:
        for form in options.formats:
            path = folder / FILES[form]
            if form == "program":
                save_program(program, path, description)
            elif form == "compiled":
                compile_program(program, path)
            else:
                save_onnx(program, path, outputs)
            found, seconds = _timed(_load(form, path, predictor.device), pixels, options.rounds)
            maps = segmentations(found, predictor.label_space)
            checks[form] = {**_differences(maps, expected), "seconds": seconds}
        write_json(folder / DESCRIPTION, {**description, "checks": checks})
    for form, values in checks.items():
        print(f"{form}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    changed = max(checks[form]["changed_pixels"] for form in options.formats)
    return ExitCode.DONE if options.amp != "none" or changed <= MOST_CHANGED else ExitCode.FAILED


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


def _network_itself(
    predictor: Predictor, module: nn.Module, pixels: Tensor, rounds: int
) -> tuple[list[PanopticSegmentation], float]:
    """What this package says about the images, and its seconds a pass."""
    if isinstance(module, ClassMap):
        run_module = _on_device(module, predictor.device)
        found, seconds = _timed(run_module, pixels, rounds)
        return segmentations(found, predictor.label_space), seconds
    sizes = [(pixels.shape[2], pixels.shape[3])] * len(pixels)
    predictions, seconds = _timed(
        lambda images: predictor.predict_resized(list(images), sizes), pixels, rounds
    )
    return [prediction.require_panoptic() for prediction in predictions], seconds


def _load(form: str, path: Path, device: torch.device) -> Run:
    """The graph as another program would load it."""
    if form == "program":
        return _on_device(torch.export.load(path).module(), device)
    if form == "compiled":
        return _on_device(torch._inductor.aoti_load_package(str(path)), device)
    from onnxruntime import InferenceSession, SessionOptions

    settings = SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    # Errors; it warns of operations that it could have folded and has not.
    settings.log_severity_level = 3
    session = InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def run_session(pixels: Tensor) -> list[Tensor]:
        return [torch.as_tensor(values) for values in session.run(None, {"pixels": pixels.numpy()})]

    return run_session


def _on_device(graph: Callable[[Tensor], Any], device: torch.device) -> Run:
    """Pixels and outputs are in the memory of the host."""

    @torch.no_grad()
    def run_graph(pixels: Tensor) -> list[Tensor]:
        found = graph(pixels.to(device))
        return [values.cpu() for values in ([found] if isinstance(found, Tensor) else found)]

    return run_graph


def _timed(run_pass: Run, pixels: Tensor, rounds: int) -> tuple[Sequence[Any], float]:
    """What a pass finds, and the median seconds of others after it."""
    found = run_pass(pixels)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run_pass(pixels)
        seconds.append(time.perf_counter() - start)
    return found, statistics.median(seconds)


def _differences(
    found: Sequence[PanopticSegmentation], expected: Sequence[PanopticSegmentation]
) -> dict[str, float]:
    """How far maps are apart, whatever the numbers of their segments.

    Partners are segments of one class that share more than half of their union.

    Returns:
        "changed_pixels": the share of pixels that lie in a segment and in no partner of it;
        "score_difference": the largest one of partners.
    """
    changed = pixels = 0
    score_difference = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        our_segments, their_segments = (
            {s.segment_id: s for s in m.segments} for m in (ours, theirs)
        )
        keys, shared = (
            torch.stack([ours.id_map, theirs.id_map]).flatten(1).unique(dim=1, return_counts=True)
        )
        our_ids, their_ids = keys.tolist()
        our_areas, their_areas = (m.id_map.flatten().bincount().tolist() for m in (ours, theirs))
        pixels += ours.id_map.numel()
        for ours_id, theirs_id, count in zip(our_ids, their_ids, shared.tolist(), strict=True):
            if ours_id == theirs_id == 0:
                continue
            a, b = our_segments.get(ours_id), their_segments.get(theirs_id)
            union = our_areas[ours_id] + their_areas[theirs_id] - count
            if a is None or b is None or a.train_id != b.train_id or 2 * count <= union:
                changed += count
            else:
                score_difference = max(score_difference, abs((a.score or 0) - (b.score or 0)))
    return {"changed_pixels": changed / pixels, "score_difference": score_difference}
