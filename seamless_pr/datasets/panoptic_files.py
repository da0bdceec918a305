"""Splits that are in the COCO panoptic format already, such as Vistas and COCO: found and checked.

Nothing is converted: a JSON, a folder of id PNGs and a folder of images are what training and
evaluation read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seamless_pr.datasets.coco_panoptic import parse_panoptic_json, write_panoptic_json
from seamless_pr.datasets.panoptic_records import PanopticDataset
from seamless_pr.datasets.raw_splits import held_out_ids
from seamless_pr.datasets.verification import verify_records, with_sizes_put_right
from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.label_space import Category


@dataclass(frozen=True)
class PanopticFiles:
    """One split in the COCO panoptic format.

    Attributes:
        dataset: name of the dataset, for people.
        name: of the split, for files that are made from it.
        json_path, png_dir: the ground truth.
        images_dir: folder of the RGB images, or None.
        records: content of the JSON; image sizes that it exchanges are put right.
        notes: what is unusual and needs no repair.
        faults: what is wrong with the JSON or its classes already.
    """

    dataset: str
    name: str
    json_path: Path
    png_dir: Path
    images_dir: Path | None
    records: PanopticDataset
    notes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    def check(
        self,
        *,
        num_workers: int | None = None,
        show_progress: bool = True,
        map_items: ItemMap = map_in_processes,
    ) -> list[Fault]:
        """Everything that is wrong: JSON, classes, every PNG, every image."""
        faults = verify_records(
            self.records,
            self.json_path,
            self.png_dir,
            self.images_dir,
            num_workers=num_workers,
            show_progress=show_progress,
            map_items=map_items,
        )
        return [*self.faults, *faults]

    def write_holdout(self, output: Path, num_images: int, seed: int) -> tuple[Path, Path]:
        """Writes `<name>_rest.json` and `<name>_holdout.json`; both use the same PNG folder.

        Raises:
            ValueError: the split has too few images.
        """
        ids = [annotation.image_id for annotation in self.records.annotations]
        held = held_out_ids(ids, num_images, seed)
        paths = []
        for part in ("rest", "holdout"):
            records = PanopticDataset(
                tuple(i for i in self.records.images if (i.image_id in held) == (part != "rest")),
                tuple(
                    annotation
                    for annotation in self.records.annotations
                    if (annotation.image_id in held) == (part != "rest")
                ),
                self.records.categories,
            )
            paths.append(output / f"{self.name}_{part}.json")
            write_panoptic_json(paths[-1], records)
        return paths[0], paths[1]


def open_panoptic_files(
    dataset: str,
    name: str,
    json_path: Path,
    png_dir: Path,
    images_dir: Path | None,
    check_categories: Callable[[Sequence[Category]], tuple[tuple[Category, ...], list[Fault]]],
) -> PanopticFiles:
    """Reads the JSON.

    Args:
        dataset, name, json_path, png_dir, images_dir: see `PanopticFiles`.
        check_categories: the JSON's categories -> those to go on with, and what is wrong.

    Raises:
        FileNotFoundError: no such JSON.
    """
    records, faults = parse_panoptic_json(json_path)
    categories, category_faults = check_categories(records.categories)
    if faults and not records.categories:
        category_faults = []  # The file is broken as a whole, which the reader has said.
    images, note = with_sizes_put_right(records, png_dir)
    return PanopticFiles(
        dataset,
        name,
        json_path,
        png_dir,
        images_dir,
        replace(records, images=images, categories=categories),
        (f"{json_path}: {note}",) if note else (),
        (*faults, *category_faults),
    )
