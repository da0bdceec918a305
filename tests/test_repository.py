"""What the repository promises about itself: configs, commands and links in texts, package data."""

from __future__ import annotations

import ast
import fnmatch
import io
import re
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import pytest
import yaml

from seamless_pr.build.configs import load_config
from tests.import_rules import FORBIDDEN, OPTIONAL, Import, read_imports

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
FRAGMENT_FOLDERS = {"networks", "datasets", "schedules"}
FRAGMENTS = [path for path in CONFIGS if path.parent.name in FRAGMENT_FOLDERS]
RUN_CONFIGS = [path for path in CONFIGS if path not in FRAGMENTS and "clusters" not in path.parts]
TEXTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TEXT_SUFFIXES = {".py", ".md", ".sh", ".yaml", ".yml", ".toml", ".cfg", ".txt", ".csv", ".html", ""}

# Folders of one person's machine; Ray's own default folders are part of its documentation.
MACHINE_PATH = re.compile(
    r"(?<![\w.$}~-])/(?:home/(?!ray\b)|root/|Users/|work/|mnt/|tmp/(?!ray\b))"
)
COMMAND = re.compile(
    r"(?:python|bash|torchrun(?: --[\w-]+ \w+)*) "
    r"((?:pipelines|tools)/[\w./-]+|-m seamless_pr[\w.]+)([^\n|`]*)"
)
CONSOLE_COMMAND = re.compile(r"\bseamless-pr ([a-z]+)\b")
FILE = re.compile(
    r"(?<![\w./-])((?:pipelines|tools|configs|checkpoints|docs|tests)/[\w./-]*\w\.\w+)"
)
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def config_header_faults(text: str) -> list[str]:
    """What the comment at the top of a run's config lacks."""
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    wanted = {"command": "pipelines/train.py", "machines and hours": "Machines:"}
    expected = header.partition("Expected:")[2]
    is_published = re.search(r"\d\d\.\d", expected) and "checkpoints/" not in expected
    if is_published and "no published number" not in expected:
        wanted["paper of the expected numbers, with table"] = "Table"
    return [name for name, sign in wanted.items() if sign not in header]


def fragment_faults(text: str) -> list[str]:
    """What a part of runs lacks, or has and should not have."""
    faults = [] if text.startswith("# ") else ["a comment at the top"]
    return faults + [f"no {key}" for key in ("base",) if re.search(rf"^{key}:", text, re.M)]


def bases_of(path: Path) -> list[Path]:
    """The files that a config is laid over."""
    names = yaml.safe_load(path.read_text(encoding="utf-8")).get("base", [])
    return [
        (path.parent / name).resolve() for name in (names if isinstance(names, list) else [names])
    ]


def missing_links(text: str, folder: Path) -> list[str]:
    """Relative links and pictures of a Markdown text that lead nowhere."""
    return [link for link in LINK.findall(text) if not (folder / link).exists()]


def missing_files(text: str, root: Path) -> list[str]:
    """Files of the repository that a text names and that do not exist."""
    return [name for name in FILE.findall(text) if not (root / name).exists()]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(script, arguments) of each command of this repository; comment signs of YAML are dropped."""
    joined = re.sub(r"\\\n[ #]*", " ", text)
    joined = CONSOLE_COMMAND.sub(r"python pipelines/\1.py", joined)
    found = []
    for target, arguments in COMMAND.findall(joined):
        module = target.removeprefix("-m ")
        script = target if module == target else module.replace(".", "/") + ".py"
        found.append((script, arguments.partition("#")[0].split()))
    return found


def command_faults(text: str, root: Path) -> list[str]:
    """Commands whose script or sub-command is missing, or whose options --help does not know."""
    faults = []
    for script, arguments in commands(text):
        if not (root / script).exists():
            faults.append(f"{script}: no such script")
            continue
        if not script.endswith(".py"):
            continue
        sub_command = [word for word in arguments[:1] if re.fullmatch(r"[a-z_]+", word)]
        help_text = help_of(root / script, *sub_command)
        if help_text is None:
            faults.append(f"{script}: no sub-command {sub_command[0]}")
            continue
        options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
        faults += [f"{script}: no option {name}" for name in options if name not in help_text]
    return faults


@cache
def help_of(script: Path, *sub_command: str) -> str | None:
    """What `script [sub_command] --help` prints; None if it does not know the sub-command."""
    printed = io.StringIO()
    arguments, sys.argv = sys.argv, [str(script), *sub_command, "--help"]
    try:
        with redirect_stdout(printed), redirect_stderr(io.StringIO()):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return None if end.code else printed.getvalue()
    finally:
        sys.argv = arguments
    raise AssertionError(f"{script} --help ran on instead of ending")


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


def declared_packages(names: tuple[str, ...]) -> set[str]:
    """Import names of what the lists `names` of setup.py require."""
    import_names = {
        "pillow": "PIL",
        "opencv-python-headless": "cv2",
        "pyyaml": "yaml",
        "pytest-xdist": "xdist",
    }
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in names
    ]
    texts = [node.value for values in lists for node in ast.walk(values) if hasattr(node, "value")]
    packages = {re.split(r"[\[<>=]", text)[0] for text in texts if isinstance(text, str)}
    return {import_names.get(package, package.replace("-", "_")) for package in packages}


def undeclared_imports(imports: list[Import], declared: set[str]) -> list[str]:
    """Imports of packages that are neither declared nor optional nor part of Python."""
    known = declared | sys.stdlib_module_names | OPTIONAL | {"seamless_pr", *FORBIDDEN}
    return [str(found) for found in imports if found.target.split(".")[0] not in known]


def text_files() -> list[Path]:
    folders = ["seamless_pr", "pipelines", "tools", "tests", "configs", "docs", ".ci"]
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    # `.git` is a file where git works in a second checkout.
    top = [path for path in sorted(ROOT.iterdir()) if path.name != ".git"]
    paths += [path for path in top if path.suffix in TEXT_SUFFIXES]
    return [
        path
        for path in paths
        if path.is_file() and path.suffix in TEXT_SUFFIXES and "__pycache__" not in path.parts
    ]


def test_the_configs_are_found():
    assert len(RUN_CONFIGS) >= 27
    assert len(FRAGMENTS) >= 20


@pytest.mark.parametrize("path", RUN_CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_config_loads_and_says_how_to_run_it(path: Path):
    config = load_config(path)
    assert config.training.steps > 0
    text = path.read_text(encoding="utf-8")
    assert config_header_faults(text) == []
    assert command_faults(text, ROOT) == []
    assert str(path.relative_to(ROOT)) in text, "the command in the header names another config"


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_fragment_says_what_it_is_and_is_part_of_a_run(path: Path):
    text = path.read_text(encoding="utf-8")
    assert fragment_faults(text) == []
    assert command_faults(text, ROOT) == []
    assert any(path in bases_of(run) for run in RUN_CONFIGS), "no run needs it"


def test_runs_are_laid_over_fragments_and_not_over_each_other():
    others = {path: set(bases_of(path)) - set(FRAGMENTS) for path in RUN_CONFIGS}
    assert {path: found for path, found in others.items() if found} == {}


def test_a_fragment_without_a_comment_or_with_a_base_is_found():
    assert fragment_faults("base: x.yaml\n") == ["a comment at the top", "no base"]


def test_a_config_without_a_header_is_found():
    assert config_header_faults("training:\n  steps: 1\n") == ["command", "machines and hours"]
    text = "# Command:  pipelines/train.py\n# Machines: 1\n# Expected: PQ 50.1 (paper)\n"
    assert config_header_faults(text) == ["paper of the expected numbers, with table"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_files_and_commands_of_each_text_exist(path: Path):
    text = path.read_text(encoding="utf-8")
    assert missing_links(text, path.parent) == []
    assert missing_files(text, ROOT) == []
    assert command_faults(text, ROOT) == []


def test_dead_links_and_missing_files_are_found(tmp_path: Path):
    text = "See [this](docs/none.md), [that](https://example.org/x.md) and `configs/none.yaml`."
    assert missing_links(text, tmp_path) == ["docs/none.md"]
    assert missing_files(text, tmp_path) == ["docs/none.md", "configs/none.yaml"]


def test_commands_that_do_not_exist_are_found(tmp_path: Path):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/train.py").write_text(
        """import argparse
parser = argparse.ArgumentParser()
commands = parser.add_subparsers(required=True)
commands.add_parser("city").add_argument("--root")
parser.parse_args()
"""
    )
    text = """
        torchrun --nproc-per-node 8 pipelines/train.py city --root R \\
        #    --turbo 9   # much faster
        python pipelines/train.py village
        seamless-pr train city --fast
        python pipelines/none.py
        python -m seamless_pr.none
    """
    assert command_faults(text, tmp_path) == [
        "pipelines/train.py: no option --turbo",
        "pipelines/train.py: no sub-command village",
        "pipelines/train.py: no option --fast",
        "pipelines/none.py: no such script",
        "seamless_pr/none.py: no such script",
    ]


@pytest.mark.parametrize("package", ["seamless_pr", "pipelines", "tools"])
def test_what_the_code_imports_is_declared(package: str):
    imports = read_imports(ROOT, package)
    assert imports
    lists = ("REQUIRED", "BENCH") if package == "tools" else ("REQUIRED",)
    assert undeclared_imports(imports, declared_packages(lists)) == []


def test_what_the_tests_import_is_declared():
    declared = declared_packages(("REQUIRED", "TEST", "LINT", "SERVE"))
    assert undeclared_imports(read_imports(ROOT, "tests"), declared) == []


def test_an_undeclared_import_is_found():
    imports = [Import("tools.a", target, 1, True) for target in ("cv2.dnn", "pandas", "json")]
    assert undeclared_imports(imports, declared_packages(("REQUIRED",))) == [
        "tools.a:1 imports pandas"
    ]


def test_every_data_file_of_the_package_is_installed_with_it():
    assert len(list((ROOT / "seamless_pr/datasets/labels").glob("*.csv"))) >= 3
    assert unpackaged_files(ROOT, package_data_patterns()) == []


def test_a_data_file_that_setup_forgets_is_found(tmp_path: Path):
    (tmp_path / "seamless_pr/datasets").mkdir(parents=True)
    (tmp_path / "seamless_pr/datasets/table.csv").write_text("")
    (tmp_path / "seamless_pr/datasets/loader.py").write_text("")
    assert unpackaged_files(tmp_path, ["datasets/labels/*.csv"]) == ["datasets/table.csv"]


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
