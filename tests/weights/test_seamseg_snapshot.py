"""Files of the released code."""

from __future__ import annotations

from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch

from seamless_pr.weights.seamseg_snapshot import (
    MODULES,
    Snapshot,
    find_snapshot,
    read_classes,
    read_snapshot,
    write_snapshot,
)

WEIGHTS = {"body.fpn.x.weight": torch.arange(3.0), "rpn_head.y": torch.ones(2)}


def snapshot_content() -> dict:
    """A snapshot as the training script writes it."""
    state = {module: {} for module in MODULES}
    state["body"] = {"fpn.x.weight": torch.arange(3.0)}
    meters = {"loss_meter": {"count": torch.tensor(3)}, "optimizer": {"state": {}}}
    meta = {"epoch": 84, "last_score": np.float64(0.37), "best_score": 0.38, "global_step": 192000}
    return {"config": "[body]", "state_dict": {**state, **meters}, "training_meta": meta}


@pytest.mark.parametrize("zipped", [True, False])
def test_snapshots_of_old_and_new_torch_are_read(tmp_path: Path, zipped: bool):
    path = tmp_path / "model_best.pth.tar"
    torch.save(snapshot_content(), path, _use_new_zipfile_serialization=zipped)
    snapshot = read_snapshot(path)
    assert snapshot.config == "[body]"
    assert list(snapshot.weights) == ["body.fpn.x.weight"]
    assert torch.equal(snapshot.weights["body.fpn.x.weight"], torch.arange(3.0))


def test_a_written_snapshot_reads_back(tmp_path: Path):
    write_snapshot(tmp_path / "a.tar", Snapshot(WEIGHTS, "[rpn]"))
    read = read_snapshot(tmp_path / "a.tar")
    assert read.config == "[rpn]"
    torch.testing.assert_close(read.weights, WEIGHTS, rtol=0, atol=0)


def test_a_weight_of_an_unknown_part_cannot_be_written(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'mask_head\.x' belongs to none of body"):
        write_snapshot(tmp_path / "a.tar", Snapshot({"mask_head.x": torch.ones(1)}, ""))


def test_config_ini_beside_the_snapshot_stands_in(tmp_path: Path):
    write_snapshot(tmp_path / "a.tar", Snapshot(WEIGHTS, ""))
    assert read_snapshot(tmp_path / "a.tar").config == ""
    (tmp_path / "config.ini").write_text("[fpn]")
    assert read_snapshot(tmp_path / "a.tar").config == "[fpn]"


def test_a_config_ini_in_another_encoding_is_named(tmp_path: Path):
    write_snapshot(tmp_path / "a.tar", Snapshot(WEIGHTS, ""))
    (tmp_path / "config.ini").write_bytes("; größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.ini is no text in UTF-8"):
        read_snapshot(tmp_path / "a.tar")


@pytest.mark.parametrize(
    "body, message",
    [
        (5, "is no seamseg snapshot"),
        ({"x": 5}, "names and tensors; got 1 entries, of which body.x hold something else"),
        ({"x": torch.zeros(1).expand(10**9)}, "tensors body.x are larger than the numbers"),
    ],
)
def test_parts_that_are_no_weights_are_named(tmp_path: Path, body: object, message: str):
    parts = {module: {} for module in MODULES} | {"body": body}
    torch.save({"state_dict": parts}, tmp_path / "a.tar")
    with pytest.raises(ValueError, match=rf"a\.tar.* {message}"):
        read_snapshot(tmp_path / "a.tar")


def test_a_file_that_could_run_code_is_refused(tmp_path: Path):
    path = tmp_path / "evil.tar"
    torch.save({"state_dict": Path("x")}, path)
    with pytest.raises(ValueError, match=r"evil\.tar cannot be read as weights"):
        read_snapshot(path)


def test_other_files_are_named(tmp_path: Path):
    path = tmp_path / "other.tar"
    torch.save({"state_dict": {"body": {}, "conv1.weight": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match=r"other\.tar is no seamseg snapshot.*got body, conv1"):
        read_snapshot(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"other\.tar cannot be read"):
        read_snapshot(path)


def test_a_folder_means_its_only_tar_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no snapshot at"):
        find_snapshot(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="unpack the released archive"):
        find_snapshot(tmp_path)
    (tmp_path / "a.tar").touch()
    assert find_snapshot(tmp_path) == find_snapshot(tmp_path / "a.tar") == tmp_path / "a.tar"
    (tmp_path / "b.tar").touch()
    with pytest.raises(ValueError, match=r"several snapshots .*a\.tar, b\.tar"):
        find_snapshot(tmp_path)


def test_classes_come_from_metadata(tmp_path: Path):
    path = tmp_path / "metadata.bin"
    meta = {
        "num_stuff": 1,
        "num_thing": 1,
        "categories": ["road", "car"],
        "palette": [[1, 2, 3], [4, 5, 6]],
        "original_ids": [7, 26],
    }
    path.write_bytes(msgpack.packb({"images": [], "meta": meta}))
    classes = read_classes(path)
    assert classes.names == ("road", "car")
    assert classes.colors == ((1, 2, 3), (4, 5, 6))
    assert (classes.original_ids, classes.num_stuff) == ((7, 26), 1)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xc1", msgpack.packb({"images": []}), msgpack.packb(3),
        msgpack.packb({"meta": {"num_stuff": float("inf"), "categories": [], "palette": [],
                                "original_ids": []}}),
    ],
)  # fmt: skip
def test_files_that_are_no_metadata_are_named(tmp_path: Path, content: bytes):
    path = tmp_path / "metadata.bin"
    with pytest.raises(FileNotFoundError, match=r"metadata\.bin does not exist"):
        read_classes(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"metadata\.bin is not the metadata"):
        read_classes(path)
