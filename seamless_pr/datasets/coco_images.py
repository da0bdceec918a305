"""Images and classes of any COCO JSON, which may be one of instances, of captions or bare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.panoptic_reader import StatedCategory
from seamless_pr.datasets.panoptic_records import ImageId, ImageRecord
from seamless_pr.input_files import read_json
from seamless_pr.structures.faults import Fault, FaultyDataError


def read_image_names(path: Path) -> list[ImageRecord]:
    """Ids and file names of `images`; sizes are 0, as they are not read.

    Raises:
        FileNotFoundError: no such file.
        FaultyDataError: not JSON, no images, or images without a usable id or name, all of them.
    """
    entries = _read(path).get("images")
    if not isinstance(entries, list) or not entries:
        raise _unusable(path, "it has no 'images' with 'id' and 'file_name'")
    faults: list[Fault] = []
    records: dict[ImageId, ImageRecord] = {}
    for index, entry in enumerate(entries):
        values = entry if isinstance(entry, Mapping) else {}
        image_id = checked.image_id(values.get("id"))
        name = checked.file_name(values.get("file_name"))
        if image_id is None:
            found = checked.shown(values.get("id") if values else entry)
            message = f"images[{index}]: 'id' must be an integer or a text; got {found}"
        elif name is None:
            found = checked.shown(values.get("file_name"))
            message = f"images[{index}]: 'file_name' must be the name of a picture; got {found}"
        elif image_id in records:
            message = f"image {image_id!r} occurs more than once in 'images'"
        else:
            records[image_id] = ImageRecord(image_id, name, 0, 0)
            continue
        faults.append(Fault(str(path), message))
    if faults:
        raise FaultyDataError(f"{path} cannot give the ids of images", faults)
    return list(records.values())


def read_stated_categories(path: Path) -> list[StatedCategory]:
    """What the file says about its classes; entries that say nothing are passed over."""
    entries = _read(path).get("categories")
    stated = []
    for entry in entries if isinstance(entries, list) else ():
        values = entry if isinstance(entry, Mapping) else {}
        limit = checked.MAX_CATEGORY_ID
        category_id = checked.whole(values.get("id"), -limit, limit)
        if category_id is not None:
            name, is_thing = checked.text(values.get("name")), checked.flag(values.get("isthing"))
            stated.append(StatedCategory(category_id, name, is_thing))
    return stated


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"image ids come from 'path', 'name' or a COCO JSON file; there is no file {path}"
        )
    try:
        content = read_json(path)
    except ValueError as error:
        raise _unusable(path, f"it {str(error).removeprefix(f'{path} ')}") from error
    if not isinstance(content, Mapping):
        raise _unusable(path, f"expected an object with 'images'; got {checked.shown(content)}")
    return content


def _unusable(path: Path, message: str) -> FaultyDataError:
    advice = "give a COCO JSON of the images"
    return FaultyDataError(
        f"{path} cannot give the ids of images", [Fault(str(path), f"{message}; {advice}")]
    )
