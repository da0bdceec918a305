"""Quantises an exported ONNX graph to 8 bits and measures what that costs and brings.

examples:
  python pipelines/export.py network --weights checkpoints/street_scenes_256x512.safetensors \\
      --output runs/graph --size 256x512 --formats onnx --rounds 1

  # some minutes on two threads; what a stopped run has measured stays in the folder
  python tools/measure/int8.py runs/graph --threads 2

ONNX Runtime's static quantisation of the convolutions: weights by channel, activations by the
extremes that they take on drawn training scenes. PQ is on drawn scenes that no training saw.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.files import write_json
from seamless_pr.inference.exported import DESCRIPTION, segmentations
from seamless_pr.metrics.panoptic_quality import PQCounts
from seamless_pr.street_scenes.painting import PaintedScene
from tools.measure.benchmark_inference import cpu_name, replaced
from tools.measure.drawn_truth import drawn_scenes, pq_cells, pq_scores, scene_counts

ROOT = Path(__file__).resolve().parents[2]
STORED_RESULT = ROOT / "docs" / "results" / "int8.json"
PAGE = ROOT / "docs" / "export.md"
MARKS = ("<!-- int8 -->", "<!-- /int8 -->")
GRAPH = "network.onnx"
SINGLE, QUANTISED = "fp32", "int8"
# Of a profile of ONNX Runtime: convolutions, and what 8 bits need besides.
CONVOLUTIONS = {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"}
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}
PROFILED_PASSES = 2
# A level of ONNX Runtime's log.
ERRORS_ONLY = 3


def pixels_of(scene: PaintedScene) -> np.ndarray:
    return np.ascontiguousarray(scene.image.transpose(2, 0, 1)[None])


def quantized(folder: Path, size: tuple[int, int], num_scenes: int) -> Path:
    """The graph with convolutions in 8 bits, made if it is not in the folder.

    Args:
        folder: of `export network`.
        size: (height, width) of its images.
        num_scenes: that show which values activations take.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.scenes = drawn_scenes("train", num_scenes, size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            scene = next(self.scenes, None)
            return None if scene is None else {"pixels": pixels_of(scene)}

    result = folder / f"network_int8_{num_scenes}.onnx"
    if not result.is_file():
        # Else a line for every constant that it leaves alone.
        onnxruntime.set_default_logger_severity(ERRORS_ONLY)
        prepared, unfinished = (result.with_suffix(end) for end in (".prepared", ".unfinished"))
        # Norms go into the convolutions before them, as they do in single precision.
        quant_pre_process(onnx.load(folder / GRAPH), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            unfinished,
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
        os.replace(unfinished, result)
        prepared.unlink()
    return result


def session(graph: Path, threads: int, profile: Path | None = None) -> Any:
    from onnxruntime import InferenceSession, SessionOptions

    settings = SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = ERRORS_ONLY
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(profile)
    return InferenceSession(graph, settings, providers=["CPUExecutionProvider"])


def evaluate(
    graph: Path, size: tuple[int, int], num_scenes: int, threads: int, record: Path
) -> dict[str, float]:
    """PQ of a graph on drawn scenes, and the median seconds of an image.

    Args:
        graph: in ONNX.
        size: (height, width) of its images.
        num_scenes: the first of the validation scenes.
        threads: of ONNX Runtime.
        record: JSON of the scenes that were done before, which are not done again.
    """
    space = load_label_space("cityscapes")
    rows = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else []
    run = session(graph, threads)
    for number, scene in enumerate(drawn_scenes("val", num_scenes, size)):
        if number < len(rows):
            continue
        start = time.perf_counter()
        outputs = run.run(None, {"pixels": pixels_of(scene)})
        seconds = time.perf_counter() - start
        (found,) = segmentations([torch.as_tensor(values) for values in outputs], space)
        counts = asdict(scene_counts(scene, found, space))
        plain = {name: [int(value) for value in values] for name, values in counts.items()}
        rows.append({"seconds": seconds, "counts": plain})
        write_json(record, rows)
        print(f"{record.stem}: scene {number + 1} of {num_scenes}, {seconds:.2f} s", flush=True)
    rows = rows[:num_scenes]
    return {
        **pq_scores([_counts(row["counts"]) for row in rows], space),
        "seconds": statistics.median(row["seconds"] for row in rows),
    }


def _counts(plain: dict[str, list[int]]) -> PQCounts:
    """Of one scene; sums of IoU are large integers, the others arrays."""
    return PQCounts(
        **{
            name: tuple(values) if name.endswith("units") else np.array(values, np.int64)
            for name, values in plain.items()
        }
    )


def seconds_in_convolutions(graph: Path, size: tuple[int, int], threads: int) -> dict[str, float]:
    """Seconds of a pass in convolutions, and in conversions from and to 8 bits."""
    (scene,) = drawn_scenes("val", 1, size)
    with tempfile.TemporaryDirectory() as folder:
        run = session(graph, threads, Path(folder) / "profile")
        for _ in range(PROFILED_PASSES):
            run.run(None, {"pixels": pixels_of(scene)})
        events = json.loads(Path(run.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node"]

    def total(names: set[str]) -> float:
        of_names = (e["dur"] for e in nodes if e["args"].get("op_name") in names)
        return sum(of_names) / 1e6 / PROFILED_PASSES

    return {"convolutions": total(CONVOLUTIONS), "conversions": total(CONVERSIONS)}


def section(result: dict[str, Any]) -> str:
    """The table and the conditions it was measured under."""
    lines = [
        "| convolutions of `network.onnx` | PQ | PQ things | PQ stuff | s an image "
        "| of these in convolutions | converting |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in result["graphs"].items():
        times = " | ".join(f"{row[key]:.3f}" for key in ("seconds", "convolutions", "conversions"))
        lines.append(f"| {name} | {pq_cells(row)} | {times} |")
    height, width = result["size"]
    text = (
        f"The shipped checkpoint on the first {result['scenes']} validation scenes of "
        f"{height}x{width}; ONNX Runtime {result['onnxruntime']} on {result['threads']} thread"
        f"{'s' * (result['threads'] > 1)} of {result['cpu']}, load of the machine "
        f"{result['load']:.1f}, medians; activations between the extremes of "
        f"{result['calibration_scenes']} training scenes. `tools/measure/int8.py`."
    )
    return "\n".join([*lines, "", text])


def measure(folder: Path, num_scenes: int, calibration_scenes: int, threads: int) -> dict[str, Any]:
    """All numbers as JSON values; `folder` is that of `export network`."""
    import onnxruntime

    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    size = (description["size"][0], description["size"][1])
    graphs = {SINGLE: folder / GRAPH, QUANTISED: quantized(folder, size, calibration_scenes)}
    found = {}
    for name, graph in graphs.items():
        record = folder / f"{graph.stem}_{threads}_threads.json"
        found[name] = evaluate(graph, size, num_scenes, threads, record)
        found[name] |= seconds_in_convolutions(graph, size, threads)
    return {
        "graphs": found,
        "size": list(size),
        "scenes": num_scenes,
        "calibration_scenes": calibration_scenes,
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
        "cpu": cpu_name(),
        "load": os.getloadavg()[0],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graph", type=Path, help="folder of `export network`")
    parser.add_argument("--scenes", type=int, default=40, help="of PQ (default: 40)")
    parser.add_argument("--calibration-scenes", type=int, default=8, help="default: 8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing in docs")
    options = parser.parse_args(arguments)
    result = measure(options.graph, options.scenes, options.calibration_scenes, options.threads)
    print(section(result))
    if not options.dry_run:
        page = replaced(PAGE.read_text(encoding="utf-8"), section(result), MARKS)
        write_json(STORED_RESULT, result)
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
