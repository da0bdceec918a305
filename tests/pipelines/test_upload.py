"""What goes to a cluster from a clone."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import pytest

from seamless_pr.pipelines import upload
from seamless_pr.pipelines.upload import ROOT, check_upload, runtime_environment, upload_sizes

FILES = (
    "a.py",
    "data/x.png",
    "sub/data/y.py",
    "w.pth",
    "keep.pth",
    ".venv/z.py",
    "sub/__pycache__/b.pyc",
    "runs/one/log.jsonl",
    "runs/README",
    "docs/deep/er/page.md",
    "docs/page.txt",
    "sub/own/a.log",
    "sub/own/b.txt",
    "a.log",
    "with space/#odd.txt",
    ".git/config",
)
GITIGNORE = (
    "# a comment\n/data/\n\n*.pth\n!keep.pth\nruns/*\n!runs/README\ndocs/**/*.md\n\\#odd.txt\n"
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1234")
    (tmp_path / ".gitignore").write_text(GITIGNORE)
    # What one file brings back the other one may still leave out.
    (tmp_path / ".rayignore").write_text("w*.pth\n!a.log\n")
    (tmp_path / "sub/own/.gitignore").write_text("*.log\n")
    return tmp_path


def test_the_upload_leaves_out_what_the_ignore_files_name(clone: Path) -> None:
    sizes = upload_sizes(clone)
    assert sizes.keys() == {
        ".gitignore",
        ".rayignore",
        "a.log",
        "a.py",
        "docs/page.txt",
        "keep.pth",
        "runs/README",
        "sub/data/y.py",
        "sub/own/.gitignore",
        "sub/own/b.txt",
    }
    assert sizes["a.py"] == 4


@pytest.mark.parametrize("tree", ["made up", "this clone"])
def test_ray_itself_would_ship_the_same_files(
    clone: Path, monkeypatch: pytest.MonkeyPatch, tree: str
) -> None:
    from ray._private.runtime_env import packaging

    root = clone if tree == "made up" else ROOT
    found: list[Path] = []
    never = packaging._get_excludes(root, [".git", ".venv", "venv", "__pycache__"])
    packaging._dir_travel(
        root, [never], found.append, include_gitignore=True, logger=logging.getLogger("quiet")
    )
    files = {str(path.relative_to(root)) for path in found if path.is_file()}
    assert upload_sizes(root).keys() == files


def test_this_clone_is_small_enough_and_brings_the_code() -> None:
    assert runtime_environment() == {"working_dir": str(ROOT)}
    sizes = upload_sizes(ROOT)
    assert {"pipelines/train.py", "seamless_pr/build/runs.py", "setup.py"} <= sizes.keys()
    assert not any(name.startswith(("tests/", ".git", ".venv/")) for name in sizes if "/" in name)


def test_an_installed_package_needs_no_upload(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(upload, "ROOT", tmp_path)
    assert runtime_environment() is None


def test_too_large_an_upload_is_refused_and_names_the_cause() -> None:
    check_upload({"a": 100 * 2**20})
    with pytest.raises(ValueError, match=r"101 MiB .* takes 100; largest: b \(61 MiB\), a"):
        check_upload({"a": 40 * 2**20, "b": 61 * 2**20})


def test_the_command_tells_the_size_of_the_folder_it_is_called_in(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone)
    assert upload.main() == 0
    assert capsys.readouterr().out == "10 files, 0.0 MiB go to the cluster\n"
    monkeypatch.setattr(upload, "UPLOAD_LIMIT", 10)
    assert upload.main() == 1
    assert capsys.readouterr().err.startswith("error: the working directory holds")


def test_what_links_lead_to_outside_is_not_shipped_unnoticed(
    clone: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "secret.txt").write_text("12345678")
    # Links that the ignore files name, inner ones and those to nothing change nothing.
    (clone / "data/all").symlink_to(elsewhere)
    (clone / "data/back").symlink_to(clone)
    (clone / "nothing").symlink_to(clone / "missing")
    (clone / "inner.py").symlink_to(clone / "a.py")
    sizes = upload_sizes(clone)
    assert sizes.keys() >= {"a.py", "inner.py"}
    assert sizes["inner.py"] == 4
    assert not any("secret" in name or name == "nothing" for name in sizes)
    (clone / "sub/key").symlink_to(elsewhere / "secret.txt")
    (clone / "sub/more").symlink_to(elsewhere)
    (clone / "sub/circle").symlink_to(clone)
    with pytest.raises(ValueError, match=r"out of the working directory, in a circle or") as error:
        upload_sizes(clone)
    for name in ("sub/circle -> ", "sub/key -> ", "sub/more/secret.txt -> ", "(3 in all)"):
        assert name in str(error.value)


def test_links_that_multiply_are_refused_and_not_followed(clone: Path) -> None:
    folders = [clone / f"many/{number}" for number in range(40)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "file").write_text("1")
    (clone / "many/alone").symlink_to(folders[3])
    assert upload_sizes(clone)["many/alone/file"] == 1
    for folder, target in pairwise(folders):
        for name in "ab":
            (folder / name).symlink_to(target)
    with pytest.raises(ValueError, match="to further links"):
        upload_sizes(clone)
