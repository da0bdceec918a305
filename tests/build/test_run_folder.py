from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seamless_pr.build.configs import config_from_dict, load_config
from seamless_pr.build.run_folder import claim_run_folder, run_folder
from tests.support.kills import is_killed, listing
from tests.support.small_config import smallest

CONFIG = config_from_dict(smallest(), "test")


def test_a_new_folder_gets_the_resolved_config_and_may_be_claimed_again(tmp_path: Path) -> None:
    claim_run_folder(tmp_path / "deep/run", CONFIG)
    claim_run_folder(tmp_path / "deep/run", CONFIG)
    assert load_config(tmp_path / "deep/run/config.yaml") == CONFIG


def test_the_folder_of_another_run_is_refused_with_the_differences_and_the_fix(
    tmp_path: Path,
) -> None:
    claim_run_folder(tmp_path, CONFIG)
    other = replace(CONFIG, optimizer=replace(CONFIG.optimizer, lr=0.5))
    with pytest.raises(ValueError) as error:
        claim_run_folder(tmp_path, other)
    assert "optimizer.lr: 0.01 in the folder, 0.5 now" in str(error.value)
    assert "choose another output folder" in str(error.value)
    assert load_config(tmp_path / "config.yaml") == CONFIG


def test_the_number_of_loading_processes_may_change_within_a_run(tmp_path: Path) -> None:
    claim_run_folder(tmp_path, CONFIG)
    fewer = replace(CONFIG, data=replace(CONFIG.data, num_workers=0))
    assert fewer != CONFIG
    claim_run_folder(tmp_path, fewer)
    assert load_config(tmp_path / "config.yaml") == fewer


def test_a_run_may_go_on_with_more_workers(tmp_path: Path) -> None:
    claim_run_folder(tmp_path, CONFIG)
    more = replace(CONFIG, cluster=replace(CONFIG.cluster, num_workers=8, max_failures=100))
    claim_run_folder(tmp_path, more)
    assert load_config(tmp_path / "config.yaml") == more


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"is not empty and holds no config\.yaml"):
        claim_run_folder(tmp_path, CONFIG)


def test_two_trainings_into_one_folder_are_told_apart(tmp_path: Path) -> None:
    with run_folder(tmp_path / "run", CONFIG):
        with pytest.raises(ValueError, match=rf"is training into {tmp_path}/run right now; wait"):
            with run_folder(tmp_path / "run", CONFIG):
                pytest.fail("two at once")
    with run_folder(tmp_path / "run", CONFIG):
        assert load_config(tmp_path / "run/config.yaml") == CONFIG


def test_no_lock_is_put_into_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"is not empty and holds no config\.yaml"):
        with run_folder(tmp_path, CONFIG):
            pytest.fail("not ours")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_kill_while_a_folder_is_claimed_does_not_spoil_it(tmp_path: Path) -> None:
    def claim() -> None:
        with run_folder(tmp_path, CONFIG):
            pass

    operation = 0
    while is_killed(claim, tmp_path, operation):
        claim()
        assert listing(tmp_path) == [".lock", "config.yaml"], operation
        for path in tmp_path.iterdir():
            path.unlink()
        operation += 1
    assert operation > 3


def test_a_run_whose_annotations_were_changed_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text("{}")
    train = replace(CONFIG.data.train, json=str(path))
    config = replace(CONFIG, data=replace(CONFIG.data, train=train))
    claim_run_folder(tmp_path / "run", config)
    claim_run_folder(tmp_path / "run", config)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"other content of .*train.json, which was changed since"):
        claim_run_folder(tmp_path / "run", config)
    path.write_text("{}")
    claim_run_folder(tmp_path / "run", config)
    path.write_text("[]")
    accepting = replace(config, training=replace(config.training, accept_changed_data=True))
    claim_run_folder(tmp_path / "run", accepting)
    claim_run_folder(tmp_path / "run", config)
