"""What the repository promises about itself: configs, commands and links in texts, package data."""

from __future__ import annotations

import ast
import fnmatch
import re
from pathlib import Path

import pytest

from seamless_pr.config.load import load_config

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
RUN_CONFIGS = [path for path in CONFIGS if "clusters" not in path.parts]
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TEXT_SUFFIXES = {".py", ".md", ".sh", ".yaml", ".yml", ".toml", ".cfg", ".txt", ".csv", ".html", ""}

# Folders of one person's machine; Ray's own default folders are part of its documentation.
MACHINE_PATH = re.compile(
    r"(?<![\w.$}~-])/(?:home/(?!ray\b)|root/|Users/|work/|mnt/|tmp/(?!ray\b))"
)
COMMAND = re.compile(r"(?:python|bash) ((?:pipelines|tools)/[\w./-]+|-m [\w.]+)([^\n|`]*)")
FILE = re.compile(
    r"(?<![\w./-])((?:pipelines|tools|configs|checkpoints|docs|tests)/[\w./-]*\w\.\w+)"
)
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def config_header_faults(text: str) -> list[str]:
    """What the comment at the top of a run's config lacks."""
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    wanted = {"command": "pipelines/train.py", "machines and hours": "Machines:"}
    return [name for name, sign in wanted.items() if sign not in header]


def missing_links(text: str, folder: Path) -> list[str]:
    """Relative links and pictures of a Markdown text that lead nowhere."""
    return [link for link in LINK.findall(text) if not (folder / link).exists()]


def missing_files(text: str, root: Path) -> list[str]:
    """Files of the repository that a text names and that do not exist."""
    return [name for name in FILE.findall(text) if not (root / name).exists()]


def command_faults(text: str, root: Path) -> list[str]:
    """Commands whose script is missing, or which use an option that no pipeline or tool defines."""
    faults = []
    for target, arguments in COMMAND.findall(text.replace("\\\n", " ")):
        name = target.removeprefix("-m ").replace(".", "/") + ".py" if target[0] == "-" else target
        script = root / name
        if not script.exists():
            if not target.startswith("-m ") or target.startswith("-m seamless_pr"):
                faults.append(f"{target}: no such script")
            continue
        source = "".join(p.read_text() for p in [script, *sorted(script.parent.glob("*.py"))])
        options = re.findall(r"(?<=\s)--[a-z][a-z-]*", arguments) if script.suffix == ".py" else []
        faults += [f"{target}: no option {option}" for option in options if option not in source]
    return faults


def unpackaged_files(root: Path, patterns: list[str]) -> list[str]:
    """Data files inside the package that no pattern of `package_data` takes along."""
    package = root / "seamless_pr"
    names = [str(p.relative_to(package)) for p in sorted(package.rglob("*")) if p.is_file()]
    data = [n for n in names if not n.endswith((".py", ".pyc")) and "__pycache__" not in n]
    return [n for n in data if not any(fnmatch.fnmatch(n, pattern) for pattern in patterns)]


def package_data_patterns() -> list[str]:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    (found,) = [keyword.value for keyword in keywords if keyword.arg == "package_data"]
    return ast.literal_eval(found)["seamless_pr"]


def text_files() -> list[Path]:
    folders = ["seamless_pr", "pipelines", "tools", "tests", "configs", "docs", ".ci"]
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    paths += [path for path in sorted(ROOT.iterdir()) if path.suffix in TEXT_SUFFIXES]
    return [
        path
        for path in paths
        if path.is_file() and path.suffix in TEXT_SUFFIXES and "__pycache__" not in path.parts
    ]


def test_the_configs_are_found():
    assert len(RUN_CONFIGS) >= 10


@pytest.mark.parametrize("path", RUN_CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_config_loads_and_says_how_to_run_it(path: Path):
    config = load_config(path)
    assert config.training.steps > 0
    text = path.read_text(encoding="utf-8")
    assert config_header_faults(text) == []
    assert str(path.relative_to(ROOT)) in text, "the command in the header names another config"


def test_a_config_without_a_header_is_found():
    assert config_header_faults("training:\n  steps: 1\n") == ["command", "machines and hours"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_files_and_commands_of_each_text_exist(path: Path):
    text = path.read_text(encoding="utf-8")
    assert missing_links(text, path.parent) == []
    assert missing_files(text, ROOT) == []
    assert command_faults(text, ROOT) == []


def test_a_dead_link_a_missing_file_and_a_wrong_option_are_found(tmp_path: Path):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/train.py").write_text('add_argument("--config")')
    text = """See [this](docs/none.md) and [that](https://example.org/x.md), `configs/none.yaml`.

        python pipelines/train.py --config a.yaml \\
            --turbo
        python pipelines/none.py
        python -m seamless_pr.none
    """
    assert missing_links(text, tmp_path) == ["docs/none.md"]
    assert missing_files(text, tmp_path) == [
        "docs/none.md",
        "configs/none.yaml",
        "pipelines/none.py",
    ]
    assert command_faults(text, tmp_path) == [
        "pipelines/train.py: no option --turbo",
        "pipelines/none.py: no such script",
        "-m seamless_pr.none: no such script",
    ]


def test_every_data_file_of_the_package_is_installed_with_it():
    assert len(list((ROOT / "seamless_pr/data/labels").glob("*.csv"))) >= 3
    assert unpackaged_files(ROOT, package_data_patterns()) == []


def test_a_data_file_that_setup_forgets_is_found(tmp_path: Path):
    (tmp_path / "seamless_pr/data").mkdir(parents=True)
    (tmp_path / "seamless_pr/data/table.csv").write_text("")
    (tmp_path / "seamless_pr/data/loader.py").write_text("")
    assert unpackaged_files(tmp_path, ["data/labels/*.csv"]) == ["data/table.csv"]


def test_no_text_names_a_path_of_somebodys_machine():
    files = text_files()
    assert len(files) > 30
    named = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert named == []


@pytest.mark.parametrize("folder", ["home", "root", "Users", "tmp"])
def test_a_machine_path_is_found(folder: str):
    assert MACHINE_PATH.search(f"weights: /{folder}/ann/weights.pth")
    assert MACHINE_PATH.search(f'open("/{folder}/x")')
    assert not MACHINE_PATH.search(f"https://example.org/{folder}/x and runs/{folder}/x")
