"""Puts what `export network` measured into docs/export.md.

examples:
  python pipelines/export.py network --weights checkpoints/street_scenes_256x512.safetensors \\
      --output runs/graph --size 256x512 --rounds 5 --formats program compiled onnx
  python tools/measure/exported.py runs/graph/network.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from seamless_pr.files import write_json
from tools.measure.benchmark_inference import cpu_name, replaced

ROOT = Path(__file__).resolve().parents[2]
STORED_RESULT = ROOT / "docs" / "results" / "exported.json"
PAGE = ROOT / "docs" / "export.md"
MARKS = ("<!-- exported -->", "<!-- /exported -->")
KEPT = ("size", "batch_size", "part", "amp", "torch", "threads", "rounds", "checks")
NAMES = {
    "package": "the package",
    "program": "`network.pt2`",
    "compiled": "`network_compiled.pt2`",
    "onnx": "`network.onnx`",
}


def section(result: dict[str, Any]) -> str:
    """The table and the conditions it was measured under."""
    lines = [
        "| | s an image | pixels of another segment | largest difference of a score |",
        "|---|---:|---:|---:|",
    ]
    images = result["batch_size"]
    for form, check in result["checks"].items():
        cells = [f"{check['seconds'] / images:.3f}", "", ""]
        if "changed_pixels" in check:
            pixels = check["changed_pixels"] * images * result["size"][0] * result["size"][1]
            cells[1:] = [f"{pixels:.0f}", f"{check['score_difference']:.0e}"]
        lines.append(f"| {NAMES[form]} | {' | '.join(cells)} |")
    height, width = result["size"]
    text = (
        f"The shipped checkpoint on a drawn scene of {height}x{width}, {result['threads']} "
        f"thread{'s' * (result['threads'] > 1)} of {result['cpu']}, torch {result['torch']}, "
        f"medians of {result['rounds']} passes on a machine that others used as well."
    )
    return "\n".join([*lines, "", text])


def main(arguments: Sequence[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("description", type=Path, help="network.json")
    options = parser.parse_args(arguments)
    description = json.loads(options.description.read_text(encoding="utf-8"))
    result = {key: description[key] for key in KEPT} | {"cpu": cpu_name()}
    write_json(STORED_RESULT, result)
    page = replaced(PAGE.read_text(encoding="utf-8"), section(result), MARKS)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
