"""Post-processing of both programs: they label alike, and the numbers are of what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="pip install transformers")

from tools.measure import benchmark_postprocessing as tool

SIZE = (64, 128)


def test_both_programs_find_nearly_the_same_map():
    found = tool.ours(SIZE, 25)()
    (result,) = tool.theirs(SIZE, 25)()
    # Ids differ, and so do sizes of masks a little: theirs are resized as probabilities.
    classes = {info["id"]: info["label_id"] for info in result["segments_info"]}
    theirs = result["segmentation"].apply_(lambda value: classes.get(int(value), 32767))
    assert (found.semantic_map() == theirs).float().mean() > 0.9
    assert len(found.segments) > 5


def test_the_table_has_medians_and_the_median_ratio_of_pairs():
    values = {"kept": {"25": {
        "seamless_pr": {"seconds": [1.0, 2.0, 3.0], "peak_bytes": 2_000_000},
        "transformers": {"seconds": [2.0, 8.0, 9.0], "peak_bytes": 5_000_000},
    }}}  # fmt: skip
    cells = [cell.strip() for cell in tool.table(values).splitlines()[-1].split("|")[1:-1]]
    assert cells == ["25", "2.00 s", "8.00 s", "3.0", "2 / 5"]


def test_time_is_measured_for_both_and_memory_grows_with_what_is_kept(tmp_path: Path):
    times = tool.seconds(SIZE, 5, rounds=2)
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys(tool.PROGRAMS, 2)
    assert min(min(found) for found in times.values()) > 0
    # Memory that this process has had and keeps would hide what is taken anew.
    peak = tool.peak_bytes_of_new_process("transformers", (512, 512), 100)
    # A hundred masks of float32 at full size.
    assert peak > 0.9 * 100 * 512 * 512 * 4
