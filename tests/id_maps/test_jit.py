from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.id_maps import jit, overlap
from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.id_maps.segments import _measure_runs, measure_segments

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "id_map", [np.ones((2, 3)), np.ones((2, 3), np.int64), np.ones(6, np.int32), np.ones((3, 2)).T]
)
def test_arrays_of_another_kind_never_reach_the_machine_code(id_map: np.ndarray) -> None:
    room = np.zeros(2, np.int64)
    with pytest.raises(TypeError, match="_measure_runs takes a contiguous int32 array of 2"):
        _measure_runs(id_map, room, room, np.zeros((2, 4), np.int32))


def test_a_wrong_number_of_arguments_is_an_error() -> None:
    with pytest.raises(ValueError):
        _measure_runs(np.ones((2, 3), np.int32))


def test_a_later_process_loads_the_machine_code_without_the_compiler() -> None:
    measure_segments(np.ones((2, 3), np.int32))  # compiled by now at the latest
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from seamless_pr.id_maps.segments import measure_segments\n"
        "print(measure_segments(np.array([[3, 3, 8]], np.int32)).areas.tolist())\n"
        "assert not {'numba', 'llvmlite'} & sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[2, 1]\n"


def test_where_no_folder_can_be_written_a_kernel_is_compiled_in_its_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jit, "_cache_folder", lambda source: None)
    monkeypatch.setattr(
        overlap,
        "_count_pixels",
        jit.Kernel(
            overlap._count_pixels.function, overlap._count_pixels.parameters, returns="bool"
        ),
    )
    found = count_overlap(np.array([[1, 1, 2]]), np.array([[5, 6, 6]]))
    assert (found.gt_ids.tolist(), found.pixels.tolist()) == ([1, 1, 2], [1, 1, 1])


def test_machine_code_that_is_not_whole_is_compiled_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernel = jit.Kernel(_measure_runs.function, _measure_runs.parameters, returns="int64")
    monkeypatch.setattr(jit, "_cache_folder", lambda source: tmp_path)
    arguments = np.ones((2, 3), np.int32), np.zeros(6, np.int64), np.zeros(2, np.int64)
    assert kernel(*arguments, np.zeros((2, 4), np.int32)) == 1
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-7])
    assert jit._read_sealed(kept) is None
    kernel = jit.Kernel(_measure_runs.function, _measure_runs.parameters, returns="int64")
    assert kernel(*arguments[:2], np.zeros(2, np.int64), np.zeros((2, 4), np.int32)) == 1
    assert jit._read_sealed(kept) is not None


def test_another_source_compiler_or_processor_has_machine_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function = overlap._count_pixels.function
    here = jit._cache_file(function)
    assert here is not None
    monkeypatch.setattr(jit, "_processor", lambda: b"another")
    jit._surroundings.cache_clear()
    there = jit._cache_file(function)
    assert there is not None
    jit._surroundings.cache_clear()
    assert there.name != here.name
    assert there.parent == here.parent


def test_object_files_of_another_kind_are_loaded_by_llvm_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jit, "_cache_folder", lambda source: tmp_path)
    monkeypatch.setattr(jit, "lay_out", lambda content, symbol: None)
    kernel = jit.Kernel(_measure_runs.function, _measure_runs.parameters, returns="int64")
    rooms = np.zeros(6, np.int64), np.zeros(2, np.int64), np.zeros((2, 4), np.int32)
    assert kernel(np.ones((2, 3), np.int32), *rooms) == 1
    assert not list(tmp_path.iterdir())
