"""Weights files of other programs, honest and otherwise."""

from __future__ import annotations

import io
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seamless_pr.weights.tensor_files import (
    PassedOver,
    plain_tensors,
    read_pickled,
    read_tensors,
)
from tests.support.memory import forget_peak, memory_status

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


def compressed(path: Path, content: object) -> None:
    """As torch.save, in an archive that somebody packed again."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as plain:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in plain.infolist():
                packed.writestr(entry.filename, plain.read(entry.filename))


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_are_read_in_either_form(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save(
        {"model": WEIGHTS, "epoch": 3, "best": np.float64(0.5)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    found = read_tensors(path)
    assert found.keys() == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        assert torch.equal(found[name], tensor)
    assert read_pickled(path)["epoch"] == 3


def test_torch_says_nothing_of_its_own_about_a_strange_file(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "a.pth"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    # A protocol that there is not yet.
    path.write_bytes(path.read_bytes().replace(b"\x80\x02", b"\x80\x06", 1))
    assert read_tensors(path).keys() == WEIGHTS.keys()
    assert not recwarn.list


class History:
    """As mmengine's history of a loss: with arrays, and functions of its class among its values."""

    def __init__(self) -> None:
        self.log, self.statistics = np.arange(3.0), {"min": History.smallest}

    def smallest(self) -> float:
        return float(self.log.min())


@pytest.mark.parametrize("program", ["mmengine.logging.history_buffer", "elsewhere"])
def test_histories_of_mmengine_are_passed_over_and_those_of_others_refused(
    tmp_path: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "epoch_1.pth"
    module = types.ModuleType(program)
    module.History = History
    content = {"state_dict": WEIGHTS, "message_hub": {"loss": History()}, "meta": {"epoch": 1}}
    with monkeypatch.context() as patch:
        packages = program.split(".")
        for depth in range(len(packages)):
            patch.setitem(sys.modules, ".".join(packages[: depth + 1]), module)
        patch.setattr(History, "__module__", program)
        patch.setattr(History.smallest, "__module__", program)
        torch.save(content, path)
    if program == "elsewhere":
        with pytest.raises(ValueError, match=r"epoch_1\.pth cannot be read as weights"):
            read_tensors(path)
        return
    assert read_tensors(path).keys() == WEIGHTS.keys()
    found = read_pickled(path)
    assert isinstance(found["message_hub"]["loss"], PassedOver)
    assert found["meta"] == {"epoch": 1}


def test_an_archive_that_was_packed_again_is_read_as_long_as_it_is_no_bomb(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    compressed(tmp_path / "a.pth", {"a": torch.rand(50_000, generator=generator)})
    assert read_tensors(tmp_path / "a.pth")["a"].shape == (50_000,)
    compressed(tmp_path / "bomb.pth", {"a": torch.zeros(5_000_000)})
    assert (tmp_path / "bomb.pth").stat().st_size < 30_000
    with pytest.raises(ValueError, match=r"bomb\.pth would unpack to 20 MB, more than 8 times"):
        read_tensors(tmp_path / "bomb.pth")


def test_a_tensor_that_repeats_its_numbers_is_refused(tmp_path: Path) -> None:
    torch.save({"good": torch.zeros(3), "huge": torch.zeros(1).expand(10**12)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: the tensors huge are larger than the numbers"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("a", torch.eye(3).to_sparse(), "1 entries, of which a hold something else"),
        ("a", torch.zeros(3, dtype=torch.complex64), "of which a hold something else"),
        ("a", torch.zeros(3).to(torch.float8_e4m3fn), "of which a hold something else"),
        (7, torch.zeros(3), "of which 7 hold something else"),
        ("n" * 10**6, 5, "of which n{200}\\.\\.\\. hold something else"),
        ("a", torch.tensor([1.0, float("nan")]), r"holds NaN or infinity in 1 of 1 tensors \(a\)"),
    ],
)
def test_what_no_parameter_can_take_is_refused(
    tmp_path: Path, name: object, value: object, message: str
) -> None:
    torch.save({name: value}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=rf"a\.pth .*{message}"):
        read_tensors(tmp_path / "a.pth")


def test_weights_with_nan_are_refused_in_a_safetensors_file_too(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([float("inf")])}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors holds NaN or infinity"):
        read_tensors(tmp_path / "a.safetensors")


def claims_more(data: bytes) -> bytes:
    """The older form of torch.save, with a storage that says it has 2 ** 30 numbers."""
    # Number of elements, then None for "no view", as BININT1 10 and BININT.
    assert data.count(b"K\nN") == 1
    return data.replace(b"K\nN", b"J\x00\x00\x00\x40N")


def test_an_old_file_that_claims_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(10)}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "claims.pth").write_bytes(claims_more(buffer.getvalue()))
    forget_peak()
    before = memory_status("VmHWM")
    with pytest.raises(ValueError, match=r"claims\.pth cannot be read as weights"):
        read_tensors(tmp_path / "claims.pth")
    assert memory_status("VmHWM") - before < 1e9


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for zipped in (True, False):
        torch.save({"a": Evil()}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"a\.pth cannot be read as weights"):
            read_tensors(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".tar"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", bytes(1000), b"not weights"])
def test_other_files_are_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix} (cannot|is not)"):
        read_tensors(path)


def test_one_array_under_any_number_of_names_is_refused(tmp_path: Path) -> None:
    numbers = torch.ones(1000)
    tied = {f"layer{index}": numbers for index in range(16)}
    assert plain_tensors(tied, "tied.pth").keys() == tied.keys()
    torch.save({f"layer{index}": numbers for index in range(17)}, tmp_path / "many.pth")
    with pytest.raises(ValueError, match=r"many\.pth gives the same numbers to many of its 17"):
        read_tensors(tmp_path / "many.pth")
