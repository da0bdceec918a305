from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seamless_pr.training.run_log import RunLog, read_log


def test_numbers_reach_the_file_and_tensorboard_under_their_names(tmp_path: Path) -> None:
    log = RunLog(tmp_path, num_steps=10, first_step=0)
    log.write("train", 3, {"total": 2.5, "losses": {"mask": 1.5}, "note": "straße"})
    log.draw(3, {"street": torch.zeros(3, 8, 9, dtype=torch.uint8)})
    log.close()
    (record,) = read_log(tmp_path / "log.jsonl")
    assert record == {
        "kind": "train",
        "step": 3,
        "total": 2.5,
        "losses": {"mask": 1.5},
        "note": "straße",
    }
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == {"train/total", "train/losses/mask"}
    (scalar,) = board.Scalars("train/losses/mask")
    assert (scalar.step, scalar.value) == (3, 1.5)
    (picture,) = board.Images("validation/street")
    assert (picture.height, picture.width) == (8, 9)


def test_a_resumed_log_drops_the_steps_that_are_done_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path, num_steps=10, first_step=0)
    for step in range(1, 6):
        log.write("train", step, {"total": float(step)})
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # The power failed here.
    RunLog(tmp_path, num_steps=10, first_step=3).close()
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]


def test_progress_tells_the_step_the_numbers_and_the_time_left(tmp_path: Path, capsys) -> None:
    log = RunLog(tmp_path, num_steps=1000, first_step=0)
    log.show_progress(10, {"loss": 1.23456, "images/s": 8.0}, seconds_per_step=4.0)
    log.close()
    line = capsys.readouterr().out
    assert "step   10/1000  loss 1.235  images/s 8  left 1:06:00" in line


@pytest.mark.parametrize(
    "content, steps",
    [
        (b"", []),
        (b'{"step": 1}\n{"st', [1]),
        ('{"step": 1, "a": "\u2028"}\n{"step": 2, "b": "ß'.encode()[:-1], [1]),
        (b'{"step": 1}\n{}\n7\n{"step": null}\n{"step": 2.0}\n{"step": true}\n{"step": 3}', [1, 3]),
        (b"[" * 100_000 + b'\n{"step": 2}', [2]),
    ],
)
def test_a_log_that_was_cut_short_or_damaged_is_read_without_what_is_no_record(
    tmp_path: Path, content: bytes, steps: list[int]
) -> None:
    (tmp_path / "log.jsonl").write_bytes(content)
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == steps
