"""Tables of an evaluation for people: console, CSV, Markdown, LaTeX. Numbers are in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seamless_pr.files import write_whole
from seamless_pr.structures.faults import quoted, spelled

DASH = "–"
# OWASP, "CSV injection".
FORMULA_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r")
CLASS_COLUMNS = {"PQ": "pq", "SQ": "sq", "RQ": "rq", "PQ†": "pq_dagger", "IoU": "iou"}
BOUNDARY_COLUMNS = {"Boundary PQ": "boundary_pq", "Boundary IoU": "boundary_iou"}
COUNT_COLUMNS = {"TP": "tp", "FP": "fp", "FN": "fn"}
# What of a name is a command of LaTeX, and what its fonts lack.
LATEX = {letter: rf"\{letter}" for letter in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\^{}",
    "\\": r"\textbackslash{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "†": r"$^\dagger$",
    DASH: "--",
}
# What begins a pipe, a link, a picture of elsewhere or a tag in Markdown, and what undoes that.
MARKDOWN = str.maketrans({letter: rf"\{letter}" for letter in "\\|<[`"})
# Behind a line of a table LaTeX reads these as commands.
LATEX_BEGINNINGS = ("[", "*")
MIN_PADDING = 2  # columns of short headings stand apart
GROUP_NAMES = {"all": "all", "things": "things", "stuff": "stuff"}


@dataclass(frozen=True)
class TextTable:
    """Rows of texts under a heading; the first column names, the others are numbers."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def percent(value: float | None) -> str:
    """0.4567 -> 45.7; a dash where there is nothing to measure."""
    return DASH if value is None else f"{100 * value:.1f}"


def summary_table(evaluation: dict[str, Any]) -> TextTable:
    """Means over all classes, things and stuff.

    Args:
        evaluation: content of evaluation.json.
    """
    boundary = evaluation.get("boundary")
    heading = ["", "PQ", "SQ", "RQ", "PQ†"] + (["Boundary PQ"] if boundary else []) + ["classes"]
    rows = []
    for group, name in GROUP_NAMES.items():
        means = evaluation[group]
        cells = [percent(means[key]) for key in ("pq", "sq", "rq")]
        cells.append(percent(evaluation["pq_dagger"][group]))
        if boundary:
            cells.append(percent(boundary[group]["pq"]))
        rows.append((name, *cells, str(means["num_categories"])))
    return TextTable(tuple(heading), tuple(rows))


def class_table(evaluation: dict[str, Any]) -> TextTable:
    """Scores and counts of each class."""
    columns = dict(CLASS_COLUMNS)
    if evaluation.get("boundary"):
        columns |= BOUNDARY_COLUMNS
    rows = []
    for row in evaluation["per_category"]:
        occurs = row["is_counted"]
        scores = [
            percent(row[key] if occurs or key not in ("pq", "sq", "rq", "boundary_pq") else None)
            for key in columns.values()
        ]
        rows.append((row["name"], *scores, *(str(row[key]) for key in COUNT_COLUMNS.values())))
    return TextTable(("class", *columns, *COUNT_COLUMNS), tuple(rows))


def other_lines(evaluation: dict[str, Any]) -> list[str]:
    """The single numbers beside the tables, a line each."""
    semantic = evaluation["semantic"]
    lines = [
        f"mean IoU {percent(semantic['mean_iou'])} over {semantic['num_categories']} classes, "
        f"pixel accuracy {percent(semantic['pixel_accuracy'])}, "
        f"mean of both {percent(semantic.get('scene_parsing'))}"
    ]
    if evaluation.get("boundary"):
        boundary = evaluation["boundary"]
        lines.append(
            f"mean Boundary IoU {percent(boundary['mean_iou'])} "
            f"(band of {100 * boundary['dilation_ratio']:g} % of the diagonal)"
        )
    for trimap in evaluation.get("trimap", ()):
        lines.append(
            f"mean IoU within {trimap['width_pixels']} px of a border {percent(trimap['mean_iou'])}"
        )
    for name, scores in evaluation.get("instances", {}).items():
        title = "AP* (LVIS annotations)" if name == "lvis" else f"AP ({name} rules)"
        lines.append(f"{title} {percent(scores['ap'])}, AP50 {percent(scores['ap50'])}")
    if evaluation.get("semantic_pngs"):
        of_pngs = evaluation["semantic_pngs"]
        lines.append(
            f"semantic PNGs: mean IoU {percent(of_pngs['mean_iou'])}, pixel accuracy "
            f"{percent(of_pngs['pixel_accuracy'])}, mean of both "
            f"{percent(of_pngs['scene_parsing'])}, PQ with every class as stuff "
            f"{percent(of_pngs['as_stuff']['pq'])}"
        )
    return lines


def plain_text(table: TextTable) -> str:
    """Aligned columns for a console of any width; nothing is cut."""
    heading, *lines = _shown(table)
    rows, widths = _padded(heading, lines)
    rows.insert(1, ["-" * width for width in widths])
    return "".join("  ".join(cells).rstrip() + "\n" for cells in rows)


def csv_text(table: TextTable) -> str:
    """Comma separated, a dash as an empty cell.

    Spreadsheets run texts that begin like a formula; names get an apostrophe in front, which tells
    them that the rest is text. Numbers stay as they are.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in (table.heading, *table.rows):
        writer.writerow([_spreadsheet_cell(cell) for cell in row])
    return buffer.getvalue()


def _spreadsheet_cell(text: str) -> str:
    if text == DASH:
        return ""
    return f"'{text}" if text.startswith(FORMULA_BEGINNINGS) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def markdown_text(table: TextTable) -> str:
    """A Markdown table, columns aligned for readers of the source."""
    heading, *rows = ([cell.translate(MARKDOWN) for cell in row] for row in _shown(table))
    padded, widths = _padded(heading, rows)
    first, *others = widths
    rule = [f":{'-' * (first + 1)}", *(f"{'-' * (width + 1)}:" for width in others)]
    lines = [f"| {' | '.join(cells)} |" for cells in padded]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]]) + "\n"


def latex_text(table: TextTable) -> str:
    """A LaTeX tabular for the booktabs package."""
    heading, *rows = (
        ["".join(LATEX.get(letter, letter) for letter in cell) for cell in row]
        for row in _shown(table)
    )
    for row in rows:
        if row[0].startswith(LATEX_BEGINNINGS):
            row[0] = f"{{}}{row[0]}"
    padded, _ = _padded(heading, rows)
    first, *others = (" " + " & ".join(cells) + r" \\" for cells in padded)
    columns = "l" + "r" * (len(heading) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", first, r"\midrule"]
    return "\n".join([*lines, *others, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _shown(table: TextTable) -> list[list[str]]:
    """Heading and rows for people: names in one line, cut where they would widen all others."""
    return [
        [quoted(spelled(" ".join(cell.split()))) for cell in row]
        for row in (table.heading, *table.rows)
    ]


def _padded(
    heading: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[int]]:
    """Heading and rows with all cells of a column as wide, the first to the left; the widths."""
    widths = [
        max(len(name) + MIN_PADDING, *(len(row[column]) for row in rows), 0)
        for column, name in enumerate(heading)
    ]
    padded = [
        [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (heading, *rows)
    ]
    return padded, widths


WRITERS: dict[str, Callable[[TextTable], str]] = {
    ".csv": csv_text,
    ".md": markdown_text,
    ".tex": latex_text,
}


def write_tables(evaluation: dict[str, Any], folder: Path) -> None:
    """Writes summary and per-class tables as CSV, Markdown and LaTeX."""
    write_table(summary_table(evaluation), folder / "summary")
    write_table(class_table(evaluation), folder / "classes")


def write_table(table: TextTable, stem: Path) -> None:
    """Writes a table as CSV, Markdown and LaTeX; the suffix is added to `stem`."""
    for suffix, write in WRITERS.items():
        write_whole(stem.with_name(stem.name + suffix), write(table).encode())
