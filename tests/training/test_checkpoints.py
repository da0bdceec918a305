from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seamless_pr.files import WriteError
from seamless_pr.training.checkpoints import (
    CheckpointFolder,
    load_checkpoint,
    load_weights,
    save_weights,
)
from tests.support.disks import size_limit
from tests.support.kills import listing
from tests.weights.test_tensor_files import compressed


def test_weights_and_metadata_come_back_as_they_were(tmp_path: Path) -> None:
    weights = {
        "a": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "b": torch.tensor(3),
    }
    metadata = {"config": {"x": [1, 2.5, None]}, "label_space": {"name": "straße"}}
    save_weights(tmp_path / "w.safetensors", weights, metadata)
    loaded, loaded_metadata = load_weights(tmp_path / "w.safetensors")
    assert loaded_metadata == metadata
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(loaded[name], tensor)


def test_equal_weights_and_metadata_give_equal_bytes(tmp_path: Path) -> None:
    metadata = {name: {"value": name} for name in ["the", "quick", "brown", "fox", "jumps"]}
    files = []
    for number in range(6):
        # Neither the order that they are given in nor that of the library's table matters.
        names = sorted(metadata, reverse=number % 2 == 0)
        save_weights(
            tmp_path / f"{number}.safetensors",
            {name: torch.full((3,), len(name)) for name in names},
            {name: metadata[name] for name in names},
        )
        files.append((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(set(files)) == 1
    assert load_weights(tmp_path / "0.safetensors")[1] == metadata


@pytest.mark.parametrize("size", [0, 4, 60, 900])
def test_a_truncated_weights_file_is_named_with_the_fix(tmp_path: Path, size: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(1000)}, {"step": 3})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=r"w\.safetensors is not a complete safetensors file .* copy it again"
    ):
        load_weights(path)


def test_weights_with_nan_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"good": torch.zeros(3), "bad": torch.tensor([0.0, float("nan")])}, {})
    with pytest.raises(
        ValueError, match=r"w\.safetensors holds NaN or infinity in 1 of 2 tensors \(bad\)"
    ):
        load_weights(path)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors does not exist"):
        load_weights(tmp_path / "nothing.safetensors")


def test_a_truncated_state_file_is_named_with_the_fix(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path).save(
        3, {"a": torch.zeros(9)}, {}, {"m": torch.zeros(999)}, False
    )
    state = folder / "state.pt"
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(
        ValueError, match=r"state\.pt cannot be read .* remove the folder .*step_00000003"
    ):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda state: torch.save(5, state), "holds no state, but a int"),
        (lambda state: compressed(state, {"m": torch.zeros(5_000_000)}), "would unpack to 20 MB"),
    ],
)
def test_a_state_that_is_none_or_fills_the_memory_is_named_with_the_fix(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = CheckpointFolder(tmp_path).save(3, {"a": torch.zeros(9)}, {}, {"m": 5}, False)
    damage(folder / "state.pt")
    with pytest.raises(ValueError, match=rf"state\.pt.* {message}.* remove the folder"):
        load_checkpoint(folder)


def test_torch_says_nothing_of_its_own_about_a_strange_state(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = CheckpointFolder(tmp_path).save(3, {"a": torch.zeros(9)}, {}, {"m": 5}, False)
    state = folder / "state.pt"
    torch.save({"m": 5}, state, _use_new_zipfile_serialization=False)
    # A protocol that there is not yet.
    state.write_bytes(state.read_bytes().replace(b"\x80\x02", b"\x80\x06", 1))
    assert load_checkpoint(folder)[1] == {"m": 5}
    assert not recwarn.list


def test_a_save_that_fails_leaves_the_older_checkpoint_and_no_rubbish(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    checkpoints.save(1, {"a": torch.zeros(3)}, {}, {"step": 1}, True)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(AttributeError):
        checkpoints.save(2, {"a": torch.ones(3)}, {}, {"step": lambda: 2}, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert checkpoints.latest() == tmp_path / "step_00000001"
    assert load_weights(tmp_path / "best.safetensors")[0]["a"].sum() == 0


@pytest.mark.parametrize("weights, momenta, file", [(9000, 9, "weights"), (9, 9000, "state")])
def test_a_disk_that_is_full_at_either_file_is_named_and_the_older_checkpoint_stays(
    tmp_path: Path, weights: int, momenta: int, file: str
) -> None:
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    arguments = ({"a": torch.zeros(weights)}, {}, {"m": torch.zeros(momenta)}, True)
    checkpoints.save(1, *arguments)
    before = listing(tmp_path)
    with (
        size_limit(8000),
        pytest.raises(
            WriteError,
            match=rf"cannot write .*/checkpoints/.step_00000002.*/{file}\..*: File too large",
        ),
    ):
        checkpoints.save(2, *arguments)
    assert listing(tmp_path) == before
    checkpoints.save(2, *arguments)
    assert len(listing(tmp_path)) == len(before)


def test_only_the_newest_checkpoints_are_kept_and_best_stays(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, num_kept=2)
    for step in (5, 10, 15):
        checkpoints.save(step, {"a": torch.full((3,), step)}, {}, {"step": step}, is_best=step == 5)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.safetensors", "last.safetensors", "step_00000010", "step_00000015"]
    assert load_weights(tmp_path / "best.safetensors")[0]["a"][0] == 5
    assert load_weights(tmp_path / "last.safetensors")[0]["a"][0] == 15
    assert checkpoints.latest() == tmp_path / "step_00000015"


def test_a_folder_that_was_never_written_has_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").latest() is None


def test_weights_are_as_readable_as_any_other_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    save_weights(tmp_path / "weights.safetensors", {"a": torch.ones(1)}, {})
    mode = (tmp_path / "weights.safetensors").stat().st_mode
    assert mode == (tmp_path / "plain").stat().st_mode


def test_a_run_that_went_back_replaces_the_later_checkpoints(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    for step in (2, 4, 3):
        folder = checkpoints.save(step, {"a": torch.zeros(3)}, {}, {"step": step}, False)
    assert checkpoints.latest() == folder == tmp_path / "step_00000003"
    assert load_checkpoint(folder)[1]["step"] == 3
    assert load_weights(tmp_path / "last.safetensors")[1]["step"] == 3
