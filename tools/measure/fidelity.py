"""Writes docs/fidelity.md: what paper, released code and this package do, and how far apart.

examples:
  # run the comparisons (some minutes) and write the page
  python tools/measure/fidelity.py

  # write it again after a change of the readings, with the stored differences
  python tools/measure/fidelity.py --stored

The differences come from the test results themselves, which are stored in
docs/results/fidelity.json, the readings from docs/fidelity_items.yaml.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from seamless_pr.build.configs import load_config
from seamless_pr.config.schema import Config
from tools.measure import count_mask_flops

ROOT = Path(__file__).resolve().parents[2]
ITEMS = ROOT / "docs" / "fidelity_items.yaml"
OUTPUT = ROOT / "docs" / "fidelity.md"
STORED = ROOT / "docs" / "results" / "fidelity.json"
CONFIG = ROOT / "configs" / "cityscapes" / "seamless_r50.yaml"
# Readings of PointRend are read off a config that has it.
CONFIGS = {"PointRend": ROOT / "configs" / "cityscapes" / "seamless_pointrend_r50.yaml"}
PROPERTY = "agreement:"
COMPARISONS = ("tests/fidelity", "tests/models/test_golden_pointrend.py")

INTRODUCTION = """# Fidelity

How this package reads Seamless Scene Segmentation (Porzi et al., CVPR 2019) and PointRend
(Kirillov et al., CVPR 2020), and how closely its numbers are those of the released code ("the
reference"; of PointRend detectron2). Written by `python tools/measure/fidelity.py` from
`docs/fidelity_items.yaml`, the results of `tests/fidelity` and of
`tests/models/test_golden_pointrend.py`, and the shapes of PointRend's layers; do not edit.

Where paper and released code differ, the code is the default: it is what the published checkpoint
was trained with. `tools/convert_weights.py` loads that checkpoint. Modern alternatives are named
options."""

MEASURED = """## Measured differences

Same seeded weights, same images, on a CPU. Unless a unit is named, a difference is the largest
one of the tensor over the largest magnitude in it, of a score or a mask logit it is absolute.
Limits are what the reference differs from itself by with oneDNN off or with one thread, for whole
networks (dense tensors 7e-6, up to 10 of 1000 proposals and 11 detections exchanged at near-ties,
boxes 0.03 pixels, 186 pixels of a panoptic map), and rounding for single operations. Networks run
on contiguous tensors, as the reference did. Gradients are compared in double precision; in single
precision the total norm moves by 1e-4 with the number of threads, because the slope of a leaky
ReLU at an input within rounding of 0 is decided by the order of additions.

Of PointRend (`instance_`, `semantic_`, `panoptic_fpn_`) the numbers are detectron2's own, on the
same imported weights. It differs from an independent recomputation by about 1e-6 in its features
and 5e-6 in refined logits; where two points are equally uncertain but for that, either may be
chosen. Side by side, where it is installed: `tests/integrations/test_detectron2.py`."""


@dataclass(frozen=True)
class Measurement:
    """One compared tensor: "case/tensor", its difference to the reference and what is allowed."""

    name: str
    difference: float
    limit: float

    @property
    def case(self) -> str:
        return self.name.partition("/")[0]


def read_measurements(path: Path) -> list[Measurement]:
    """The records of the fixture `agree` (tests/conftest.py) in a JUnit file of pytest.

    Raises:
        ValueError: a test failed, or none has recorded anything.
    """
    tree = ElementTree.parse(path)
    failed = [case.get("name", "") for case in tree.iter("testcase") if has_failed(case)]
    if failed:
        raise ValueError(f"{len(failed)} comparisons failed: {', '.join(failed)}; see pytest")
    found = []
    for record in tree.iter("property"):
        name, value = record.get("name", ""), record.get("value", "")
        if name.startswith(PROPERTY):
            difference, limit = map(float, value.split())
            found.append(Measurement(name.removeprefix(PROPERTY), difference, limit))
    if not found:
        raise ValueError(f"{path} holds no measured differences; see run_tests")
    return found


def has_failed(case: ElementTree.Element) -> bool:
    return case.find("failure") is not None or case.find("error") is not None


def run_tests(junit: Path) -> None:
    """Runs the comparisons and leaves their results in `junit`; failures are read from there."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *COMPARISONS]
    family = ["-o", "junit_family=xunit1", f"--junitxml={junit}"]
    subprocess.run([*command, *family], cwd=ROOT, check=False)


def measure(results: Path | None) -> list[Measurement]:
    """The differences of a JUnit file, or of a run of the tests."""
    if results is not None:
        return read_measurements(results)
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder, "results.xml")
        run_tests(junit)
        return read_measurements(junit)


def stored_measurements() -> list[Measurement]:
    """The differences of the last run that wrote the page."""
    return [Measurement(**values) for values in json.loads(STORED.read_text(encoding="utf-8"))]


def value_at(config: Config, key: str) -> Any:
    value = reduce(getattr, key.split("."), config)
    if isinstance(value, tuple):
        return " ".join(f"{number:g}" for number in value)
    return f"{value:g}" if isinstance(value, float) else value


def filled(text: str, config: Config) -> str:
    """`text` with every {config.key} replaced by its value."""
    return re.sub(r"\{([\w.]+)\}", lambda match: str(value_at(config, match[1])), str(text))


def check_option(option: str, base: Path) -> None:
    """An option, an override or another config, must load and must change the config.

    Args:
        option: `key=value`, or the path of another config.
        base: the config that it changes.

    Raises:
        ValueError: an unknown key, a wrong value, or the value that is the default anyway.
    """
    if option.endswith(".yaml"):
        changed = load_config(ROOT / option)
    else:
        changed = load_config(base, [option])
    if changed == load_config(base):
        raise ValueError(f"{ITEMS}: option {option} is the default already")


def items_table(rows: Sequence[dict[str, Any]], base: Path) -> str:
    config = load_config(base)
    lines = ["| | paper | released code | default here | option |", "|---|---|---|---|---|"]
    for row in rows:
        options = row.get("options", [])
        for option in options:
            check_option(option, base)
        cells = [row["item"], row["paper"], row["reference"], row["ours"]]
        cells = [filled(cell, config).replace("|", "\\|") for cell in cells]
        cells.append(" ".join(f"`{option}`" for option in options))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measurements_table(measurements: Sequence[Measurement]) -> str:
    lines = ["| tensor | difference | allowed |", "|---|---:|---:|"]
    for found in measurements:
        tensor = found.name.partition("/")[2]
        lines.append(f"| {tensor} | {found.difference:.2g} | {found.limit:.2g} |")
    return "\n".join(lines)


def document(measurements: Sequence[Measurement]) -> str:
    """The text of docs/fidelity.md."""
    groups = yaml.safe_load(ITEMS.read_text(encoding="utf-8"))
    parts = [INTRODUCTION, "## Readings"]
    for title, rows in groups.items():
        parts += [f"### {title}", items_table(rows, CONFIGS.get(title, CONFIG))]
    parts += [count_mask_flops.section(), MEASURED]
    for case in dict.fromkeys(found.case for found in measurements):
        of_case = [found for found in measurements if found.case == case]
        parts += [f"### {case}", measurements_table(of_case)]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--results", type=Path, help=f"JUnit file of pytest {' '.join(COMPARISONS)}"
    )
    source.add_argument("--stored", action="store_true", help="take the stored differences")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    try:
        measurements = stored_measurements() if options.stored else measure(options.results)
        text = document(measurements)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.output.write_text(text, encoding="utf-8")
    if options.output == OUTPUT and not options.stored:
        STORED.write_text(json.dumps(list(map(asdict, measurements)), indent=1) + "\n")
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
