"""Writes docs/images/rooms.svg and the table of rooms in CONTRIBUTING.md, from the imports.

python tools/architecture.py
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seamless_pr.files import write_whole
from tests.import_rules import LIBRARY, ROWS, read_imports, room_of

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/rooms.svg"
TABLE_PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- rooms -->", "<!-- /rooms -->"

# What each room holds; its keys are those of ROWS.
HOLDS = {
    "structures": "records without weights: ImageBatch, PanopticTarget, Instances, LabelSpace",
    "files": "the one way of writing files, and of following a name that a file gives",
    "input_files": "the one way of reading files of others: regular ones only, with a limit",
    "progress": "bars on a terminal, lines in a log",
    "ops": "pure functions on tensors: boxes, matching, masks, points, RoI pooling",
    "parallel": "mapping a function over files in several processes",
    "id_maps": "id PNGs in and out, runs, overlaps, areas: integers only, no network",
    "layers": "building blocks with weights: in-place ABN, MiniDL, ASPP, point head",
    "datasets": "label tables, readers of datasets, COCO panoptic in and out, transforms, loader",
    "models": "backbones, necks, branches, fusion, networks; no config, path or file is seen here",
    "drawing": "maps as pictures: colours, contours, legends",
    "training": "one step, the trainer, optimiser, schedule, checkpoints",
    "inference": "the predictor, and folders of predictions",
    "metrics": "PQ, PQ†, boundaries, mIoU, AP: count, add, compute",
    "weights": "checkpoints that others published, under our names",
    "street_scenes": "drawn streets with perfect ground truth",
    "evaluation": "files to scores, tables, comparison and HTML report; validation in training",
    "serving": "requests to answers: limits, batches, formats, the page; FastAPI, no Ray",
    "config": "typed settings, reading of YAML, the page of keys",
    "build": "the only place where settings meet classes: networks by kind, runs, load_predictor",
    "integrations": "adapters to packages that may be installed: detectron2, transformers, ...",
    "pipelines": "the stages behind the commands; the only room that imports ray",
}


@dataclass(frozen=True)
class Step:
    """One station of data on their way.

    Attributes:
        title: what the data are here, or what happens to them.
        place: file of the library that defines it, below the library; "": files of users.
        name: class, method or function in that file.
    """

    title: str
    place: str = ""
    name: str = ""


# One job a line: what goes through which hands, from files to files.
WAYS: dict[str, tuple[Step, ...]] = {
    "train": (
        Step("images, COCO panoptic"),
        Step("PanopticImages", "datasets/loader.py", "PanopticImages"),
        Step("PanopticTarget", "structures/panoptic_target.py", "PanopticTarget"),
        Step("Network.losses", "models/networks/network.py", "Network.losses"),
        Step("LossSum", "structures/loss_sum.py", "LossSum"),
        Step("Trainer", "training/trainer.py", "Trainer"),
        Step("weights, run folder"),
    ),
    "predict": (
        Step("images, weights"),
        Step("ImageBatch", "structures/image_batch.py", "ImageBatch"),
        Step("Network.outputs", "models/networks/network.py", "Network.outputs"),
        Step("Network.finish", "models/networks/network.py", "Network.finish"),
        Step("Prediction", "structures/prediction.py", "Prediction"),
        Step("PredictionFolder", "inference/prediction_folder.py", "PredictionFolder"),
        Step("COCO panoptic"),
    ),
    "evaluate": (
        Step("truth, predictions"),
        Step("sources", "evaluation/sources.py", "open_ground_truth"),
        Step("overlap of maps", "id_maps/overlap.py", "count_overlap"),
        Step("matches", "metrics/segment_matching.py", "match_segments"),
        Step("PQCounts add up", "metrics/panoptic_quality.py", "PQCounts"),
        Step("scores", "metrics/panoptic_quality.py", "compute_panoptic_scores"),
        Step("evaluation.json"),
    ),
}

# Subject -> colour and rooms.
SUBJECTS = {
    "records and files": (
        "#e7e9ee",
        ("structures", "files", "input_files", "progress", "parallel"),
    ),
    "networks": ("#d8e6fb", ("ops", "layers", "models")),
    "data": ("#fbe6cf", ("datasets", "street_scenes")),
    "scores and pictures": ("#d9f0dc", ("id_maps", "metrics", "evaluation", "drawing")),
    "networks at work": ("#f8dcdf", ("training", "inference", "weights", "serving")),
    "all together": ("#e9def6", ("config", "build", "pipelines", "integrations")),
}
COLORS = {room: color for color, rooms in SUBJECTS.values() for room in rooms}

# Pixels of the picture. Which sans-serif a browser has is not known: widths are for a wide one.
WIDTH = 1240
MARGIN = 16
GAP = 8
LINE = 15
CHARACTER = 6.3
STATION_HEIGHT = 42
ARROW = 12
JOB_WIDTH = 68
ROW_NUMBER_WIDTH = 22
NAME_WIDTH = 110


def imported_rooms(root: Path = ROOT) -> dict[str, set[str]]:
    """What each room imports, itself left out."""
    found: dict[str, set[str]] = {room: set() for row in ROWS for room in row}
    for statement in read_imports(root):
        if statement.target.split(".")[0] != LIBRARY:
            continue
        room, target = room_of(statement.importer), room_of(statement.target)
        if room in found and target in found and target != room:
            found[room].add(target)
    return found


def table_of_rooms() -> str:
    """Markdown of all rooms from the ground up, with what each may import."""
    lines = ["| row | room | holds | may import |", "|---:|---|---|---|"]
    for number, row in enumerate(ROWS, start=1):
        allowed = {1: "nothing of the package", 2: "row 1"}.get(number, f"rows 1 to {number - 1}")
        lines += [f"| {number} | `{room}` | {HOLDS[room]} | {allowed} |" for room in row]
    return "\n".join(lines)


def page_with_table(page: str) -> str:
    """The page with a current table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{TABLE_PAGE} must hold {BEGIN} and, after it, {END}")
    return f"{before}{BEGIN}\n{table_of_rooms()}\n{END}{after}"


@dataclass
class Picture:
    """An SVG that grows downward.

    Attributes:
        elements: so far.
        y: where the next thing goes.
    """

    elements: list[str] = field(default_factory=list)
    y: float = MARGIN

    def box(self, x: float, width: float, height: float, color: str) -> None:
        radius = min(5, height / 4)
        self.elements.append(
            f'<rect x="{x:g}" y="{self.y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
            f'fill="{color}" stroke="#8a93a5"/>'
        )

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start") -> None:
        kind = f' class="{style}"' if style else ""
        self.elements.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'
        )

    def arrow(self, x: float, y: float, length: float) -> None:
        self.elements.append(
            f'<path d="M{x:g} {y:g} h{length:g} m-4 -4 l4 4 l-4 4" class="arrow"/>'
        )

    def svg(self) -> str:
        """The whole file."""
        style = (
            "text{font:12px Helvetica,Arial,sans-serif;fill:#1c2433}"
            ".title{font-weight:bold}.head{font-weight:bold;font-size:15px}"
            ".holds{font-size:11px}.uses{font-size:11px;fill:#5d667a}"
            ".place{font-size:10px;fill:#3d475a}"
            ".arrow{fill:none;stroke:#56607a;stroke-width:1.5}"
        )
        size = f'width="{WIDTH}" height="{self.y:g}" viewBox="0 0 {WIDTH} {self.y:g}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f"<title>Rooms of {LIBRARY}</title>",
            f"<style>{style}</style>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *self.elements,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def draw_rooms(imports: dict[str, set[str]]) -> str:
    """The picture: the ways of data above, the rooms by rows below."""
    picture = Picture()
    _heading(picture, "The way of data", "each station: what it is, and the file that defines it")
    for job, steps in WAYS.items():
        _draw_way(picture, job, steps)
    picture.y += GAP
    _draw_legend(picture)
    _heading(picture, "The rooms", "a room imports rows below it only, never a neighbour")
    for number in range(len(ROWS), 0, -1):
        _draw_row(picture, number, imports)
    picture.y += MARGIN - GAP
    return picture.svg()


def _heading(picture: Picture, title: str, sentence: str) -> None:
    picture.text(MARGIN, picture.y + LINE, title, "head")
    picture.text(MARGIN + 150, picture.y + LINE, sentence, "holds")
    picture.y += LINE + GAP + 2


def _draw_legend(picture: Picture) -> None:
    """The colours, on the line of the heading that follows."""
    side = 11
    x = WIDTH - MARGIN + 12.0
    picture.y += LINE - side + 1
    for subject, (color, _) in reversed(SUBJECTS.items()):
        x -= len(subject) * CHARACTER + side + 16
        picture.box(x, side, side, color)
        picture.text(x + side + 4, picture.y + side - 1, subject, "holds")
    picture.y -= LINE - side + 1


def _draw_way(picture: Picture, job: str, steps: tuple[Step, ...]) -> None:
    picture.text(MARGIN, picture.y + STATION_HEIGHT / 2 + 4, job, "title")
    inner = WIDTH - 2 * MARGIN - JOB_WIDTH
    width = (inner - ARROW * (len(steps) - 1)) / len(steps)
    for index, step in enumerate(steps):
        x = MARGIN + JOB_WIDTH + index * (width + ARROW)
        room = step.place.partition("/")[0]
        picture.box(x, width, STATION_HEIGHT, COLORS[room] if room else "#ffffff")
        middle = x + width / 2
        if room:
            picture.text(middle, picture.y + 18, step.title, "title", "middle")
            picture.text(middle, picture.y + 33, step.place.removesuffix(".py"), "place", "middle")
        else:
            picture.text(middle, picture.y + 26, step.title, "holds", "middle")
        if index:
            picture.arrow(x - ARROW + 1, picture.y + STATION_HEIGHT / 2, ARROW - 2)
    picture.y += STATION_HEIGHT + GAP


def _draw_row(picture: Picture, number: int, imports: dict[str, set[str]]) -> None:
    row = ROWS[number - 1]
    x = MARGIN + ROW_NUMBER_WIDTH
    width = (WIDTH - MARGIN - x - GAP * (len(row) - 1)) / len(row)
    # A room alone in its row has place for its name and its texts side by side.
    beside, below = (NAME_WIDTH, 0) if len(row) == 1 else (0, LINE)
    per_line = int((width - beside - 2 * GAP) / CHARACTER)
    texts = {
        room: (textwrap.wrap(HOLDS[room], per_line), textwrap.wrap(_uses(imports[room]), per_line))
        for room in row
    }
    height = max(len(holds) + len(uses) for holds, uses in texts.values()) * LINE + below + 10
    picture.text(MARGIN, picture.y + 18, str(number), "uses")
    for room, (holds, uses) in texts.items():
        picture.box(x, width, height, COLORS[room])
        picture.text(x + GAP, picture.y + 18, room, "title")
        for index, line in enumerate(holds):
            picture.text(x + GAP + beside, picture.y + 18 + below + index * LINE, line, "holds")
        for index, line in enumerate(reversed(uses)):
            picture.text(x + GAP + beside, picture.y + height - 7 - index * LINE, line, "uses")
        x += width + GAP
    picture.y += height + GAP


def _uses(rooms: Iterable[str]) -> str:
    order = [room for row in reversed(ROWS) for room in row]
    names = sorted(rooms, key=order.index)
    return "imports " + ", ".join(names) if names else "imports nothing of the package"


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    write_whole(PICTURE, draw_rooms(imported_rooms()).encode())
    write_whole(TABLE_PAGE, page_with_table(TABLE_PAGE.read_text(encoding="utf-8")).encode())
    print(f"{PICTURE} and the table in {TABLE_PAGE} written")


if __name__ == "__main__":
    main()
