"""The manifest of a conversion: counts and checksums, to tell later what was changed or lost."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seamless_pr.datasets.panoptic_records import PanopticDataset
from seamless_pr.datasets.raw_splits import RawSplit
from seamless_pr.files import safe_join
from seamless_pr.input_files import read_json, read_regular
from seamless_pr.structures.faults import Fault


def make_manifest(
    split: RawSplit, version: int, dataset: PanopticDataset, checksums: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What was converted: counts per class, and a checksum of every file.

    Args:
        split: where it came from.
        version: of the conversion.
        dataset: the result.
        checksums: name of an id PNG -> its checksum and those of its sources.
    """
    num_segments, num_crowds, pixels = Counter[int](), Counter[int](), Counter[int]()
    for annotation in dataset.annotations:
        for segment in annotation.segments:
            num_segments[segment.category_id] += 1
            num_crowds[segment.category_id] += segment.is_crowd
            pixels[segment.category_id] += segment.area or 0
    total = sum(image.height * image.width for image in dataset.images)
    return {
        "dataset": split.dataset,
        "settings": split.settings,
        "conversion_version": version,
        "counts": {
            "images": len(dataset.images),
            "segments": num_segments.total(),
            "crowd_segments": num_crowds.total(),
            "pixels": total,
            "labelled_pixels": pixels.total(),
            "classes": {
                category.name: {
                    "segments": num_segments[category.category_id],
                    "crowd_segments": num_crowds[category.category_id],
                    "pixels": pixels[category.category_id],
                }
                for category in dataset.categories
            },
        },
        "sha256": {
            name: {"png": png, "sources": sources} for name, (png, *sources) in checksums.items()
        },
    }


def manifest_of(folder: Path, name: str) -> Path:
    """Where the manifest of `<folder>/<name>.json` lies."""
    return folder / f"{name}.manifest.json"


def check_manifest(json_path: Path, png_dir: Path) -> list[Fault]:
    """PNGs that are not those that the conversion wrote; none where there is no manifest."""
    path = manifest_of(json_path.parent, json_path.stem)
    if not path.is_file():
        return []
    try:
        checksums = read_json(path)["sha256"]
        expected = {
            safe_join(png_dir, name, path): entry["png"] for name, entry in checksums.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [Fault(str(path), f"not a manifest ({error}); convert the dataset again")]
    return [
        Fault(str(png), "changed since it was converted; convert the dataset again")
        for png, checksum in expected.items()
        if png.is_file() and file_sha256(png) != checksum
    ]


def file_sha256(path: Path) -> str:
    """Checksum of a file as hexadecimal text."""
    return hashlib.sha256(read_regular(path)).hexdigest()
