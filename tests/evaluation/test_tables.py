from __future__ import annotations

import csv
import io
from pathlib import Path

from seamless_pr.evaluation.tables import (
    TextTable,
    csv_text,
    latex_text,
    markdown_text,
    percent,
    plain_text,
    write_table,
)

TABLE = TextTable(
    ("class", "PQ", "PQ†"), (("traffic_light & sign", "45.1", "–"), ("a|b", "3.0", "4.0"))
)


def test_percent_has_one_decimal_and_a_dash_for_nothing() -> None:
    assert (percent(0.45678), percent(0.0), percent(1.0), percent(None)) == (
        "45.7",
        "0.0",
        "100.0",
        "–",
    )


def test_plain_text_is_aligned() -> None:
    lines = plain_text(TABLE).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith("traffic_light & sign  45.1")


def test_csv_reads_back_with_empty_cells() -> None:
    rows = list(csv.reader(io.StringIO(csv_text(TABLE))))
    assert rows == [
        ["class", "PQ", "PQ†"],
        ["traffic_light & sign", "45.1", ""],
        ["a|b", "3.0", "4.0"],
    ]


def test_markdown_escapes_bars_and_aligns_numbers_right() -> None:
    lines = markdown_text(TABLE).splitlines()
    assert lines[1].endswith("-:|------:|")
    assert "a\\|b" in lines[3]


def test_latex_escapes_special_letters() -> None:
    text = latex_text(TABLE)
    assert r"traffic\_light \& sign & 45.1 & -- \\" in " ".join(text.split())
    assert r"PQ$^\dagger$" in text
    assert text.startswith(r"\begin{tabular}{lrr}")


HOSTILE = TextTable(
    ("class", "PQ"),
    (
        ('=HYPERLINK("http://x")', "-1.0"),
        ("@SUM(A1)", "+2.5"),
        ("-cmd|' /C calc'!A0", "3"),
        ("\\input{/etc/passwd} 100% #1 ~^", "4"),
        ("two\nlines", "5"),
        ("<!--<script>", "6"),
    ),
)


def test_a_name_is_no_formula_in_a_spreadsheet_and_a_number_stays_one() -> None:
    rows = list(csv.reader(io.StringIO(csv_text(HOSTILE))))
    assert [row[0] for row in rows[1:4]] == [
        '\'=HYPERLINK("http://x")',
        "'@SUM(A1)",
        "'-cmd|' /C calc'!A0",
    ]
    assert [row[1] for row in rows[1:]] == ["-1.0", "+2.5", "3", "4", "5", "6"]


def test_a_name_is_no_command_of_latex_and_no_row_or_element_of_its_own() -> None:
    text = latex_text(HOSTILE)
    assert r"\textbackslash{}input\{/etc/passwd\} 100\% \#1 \textasciitilde{}" in text
    assert "two lines" in text
    markdown = markdown_text(HOSTILE)
    assert r"\<!--\<script>" in markdown
    assert len(markdown.splitlines()) == 2 + len(HOSTILE.rows)


def test_a_name_begins_no_option_of_latex_no_link_and_no_command_of_a_terminal() -> None:
    names = ("[1cm] road", "*road", "a\\|b ![p](http://x) `c`", "\x1b[2Jroad", "n" * 100_000)
    table = TextTable(("class", "PQ"), tuple((name, "1") for name in names))
    latex = latex_text(table).splitlines()
    assert [line.split("road")[0].strip() for line in latex[4:6]] == ["{}[1cm]", "{}*"]
    markdown = markdown_text(table).splitlines()
    assert r"a\\\|b !\[p](http://x) \`c\`" in markdown[4]
    for text in (latex_text(table), markdown_text(table), plain_text(table)):
        assert "\x1b" not in text
        assert len(text) < 5000


def test_a_table_is_written_in_every_form(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "out" / "classes")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "classes.csv",
        "classes.md",
        "classes.tex",
    ]
