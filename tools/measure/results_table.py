"""Several evaluations in one table: tools/measure/results_table.py NAME=evaluation.json ..."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Heading -> keys into evaluation.json; all values in [0, 1] there.
COLUMNS: dict[str, tuple[str, str]] = {
    "PQ": ("all", "pq"),
    "PQ things": ("things", "pq"),
    "PQ stuff": ("stuff", "pq"),
    "SQ": ("all", "sq"),
    "RQ": ("all", "rq"),
    "PQ†": ("pq_dagger", "all"),
}
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def read_evaluation(path: Path) -> dict[str, Any]:
    """Reads an evaluation.json of `pipelines/evaluate.py`.

    Raises:
        ValueError: not such a file; the message names what is missing.
    """
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist; pipelines/evaluate.py --output writes it"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON ({error}); run pipelines/evaluate.py again"
        ) from error
    for group, key in COLUMNS.values():
        if not isinstance(evaluation, dict) or key not in evaluation.get(group, {}):
            raise ValueError(
                f"{path} has no '{group}.{key}'; expected a file of pipelines/evaluate.py"
            )
    return evaluation


def percent(value: float | None) -> str:
    """0.4567 -> 45.7; a dash where no class was there to measure."""
    return "–" if value is None else f"{100 * value:.1f}"


def cell(values: Sequence[float], *, is_difference: bool = False) -> str:
    """Mean and standard deviation (n - 1) in percent; "*" where all differences agree in sign."""
    mean = 100 * statistics.fmean(values)
    text = f"{mean:+.1f}" if is_difference else f"{mean:.1f}"
    if len(values) > 1:
        text += f" ± {100 * statistics.stdev(values):.1f}"
    agrees = all(value > 0 for value in values) or all(value < 0 for value in values)
    return f"{text} *" if is_difference and agrees and len(values) > 1 else text


def results_rows(results: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A heading row, then a row per result."""
    rows = [["", *COLUMNS]]
    for name, evaluation in results.items():
        rows.append([name, *(percent(evaluation[group][key]) for group, key in COLUMNS.values())])
    return rows


def markdown_table(rows: list[list[str]]) -> str:
    """Names to the left, numbers to the right, columns aligned for readers of the source."""
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])


def replace_between_marks(text: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """The text with `table` between the two marks, each of which is a line.

    Raises:
        ValueError: the marks are missing or in the wrong order.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"expected a line {begin} and after it a line {end}; add them")
    return f"{before}{begin}\n{table}\n{end}{after}"


def parse_result(argument: str) -> tuple[str, Path]:
    name, separator, path = argument.partition("=")
    if not separator or not name or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=evaluation.json, got '{argument}'")
    return name, Path(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=parse_result, metavar="NAME=FILE")
    parser.add_argument(
        "--write", type=Path, help=f"replace what stands between {BEGIN} and {END} in this file"
    )
    options = parser.parse_args(arguments)
    try:
        results = {name: read_evaluation(path) for name, path in options.results}
        table = markdown_table(results_rows(results))
        if options.write:
            text = options.write.read_text(encoding="utf-8")
            options.write.write_text(replace_between_marks(text, table), encoding="utf-8")
    except ValueError as error:
        print(f"results_table: {error}", file=sys.stderr)
        return 1
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
