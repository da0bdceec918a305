from __future__ import annotations

import json
from pathlib import Path

import pytest

from seamless_pr.datasets.instance_results import read_instance_results
from seamless_pr.structures.faults import FaultyDataError

GOOD = {"size": [2, 3], "counts": [1, 2, 3]}


def test_each_faulty_entry_is_listed_once(tmp_path: Path) -> None:
    sound = {"image_id": 1, "category_id": 2.0, "score": 1, "segmentation": GOOD}
    entries = [
        sound,
        {**sound, "image_id": None},
        {**sound, "image_id": 7.5},
        {**sound, "category_id": [2]},
        {**sound, "score": float("inf")},
        {**sound, "score": True},
        {**sound, "segmentation": {**GOOD, "counts": [-1]}},
        "seven",
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(FaultyDataError) as error:
        read_instance_results(path)
    assert [fault.message.split(":")[0] for fault in error.value.faults] == [
        f"entry {index}" for index in range(1, 8)
    ]
    path.write_text(json.dumps(entries[:1]))
    (result,) = read_instance_results(path)
    assert (result.image_id, result.category_id, result.score) == (1, 2, 1.0)
