"""Changes the code a little, one place at a time, and says which changes no test notices.

examples:
  # 40 changes of the metrics, the tests of each changed file
  python tools/measure/mutants.py seamless_pr/metrics --count 40

  # other changes of other rooms, slow tests too
  python tools/measure/mutants.py seamless_pr/models/fusion seamless_pr/models/instances \\
      --count 60 --seed 1 --slow

Every change is made in a copy of the package. It is run against the tests that mirror the changed
file and, if they pass, against those that import it. A change that survives is no proof of a
missing test: some change nothing that could be seen. Each is for somebody to look at.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "seamless_pr"
SECONDS_BESIDE_TESTS = 20
UNNOTICED = ("passed", "no tests")

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {
    "min": "max",
    "max": "min",
    "amin": "amax",
    "amax": "amin",
    "argmin": "argmax",
    "argmax": "argmin",
    "floor": "ceil",
    "ceil": "floor",
    "zeros": "ones",
    "ones": "zeros",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
}
# Calls that may be left out: the value goes on without them.
DROPPED = ("detach", "clamp", "abs", "flip", "float", "sigmoid", "round", "flatten")


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        path: of the file, below the repository.
        line: of the change.
        before, after: the changed expression.
        source: the whole changed file.
    """

    path: Path
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before}  ->  {self.after}"


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Other forms of one node of the syntax tree."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield _with(node, "ops", [COMPARISONS[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield _with(node, "op", ARITHMETIC[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        yield _with(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    if isinstance(node, ast.Constant):
        yield from (ast.Constant(value) for value in _other_values(node.value))
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield _with(node, "attr", NAMES[node.attr])
    if isinstance(node, ast.Name) and node.id in NAMES:
        yield _with(node, "id", NAMES[node.id])
    if isinstance(node, ast.Call) and getattr(node.func, "attr", None) in DROPPED:
        yield node.func.value
    if isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse


def _other_values(value: object) -> list[object]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    return [value * 2] if isinstance(value, float) else []


def _with(node: ast.AST, field: str, value: object) -> ast.AST:
    changed = deepcopy(node)
    setattr(changed, field, value)
    return changed


def mutants_of(path: Path, source: str) -> list[Mutant]:
    """All changes of one file; annotations and defaults of records stay as they are."""
    tree = ast.parse(source)
    found = []
    for parent, field, index, node in list(_places(tree)):
        for changed in changes(node):
            before, after = ast.unparse(node), ast.unparse(changed)
            _put(parent, field, index, ast.copy_location(changed, node))
            text = ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, field, index, node)
            line = getattr(node, "lineno", 0)
            found.append(Mutant(path, line, _short(before), _short(after), text))
    return found


def _places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every expression below a node with where it hangs; no annotations, no texts."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "names"):
            continue
        entries = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in entries:
            if isinstance(child, ast.AST):
                yield node, field, index, child
                yield from _places(child)


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _short(text: str, limit: int = 70) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def tests_of(path: Path) -> list[list[str]]:
    """The test files of a file of the package: its mirror, then all others that import it.

    Two lists, since the mirror alone is quick and notices most changes; empty ones are left out. A
    file that no test imports has the tests of the files of the package that import it.

    Args:
        path: below the repository, such as seamless_pr/ops/boxes.py.
    """
    inner = path.relative_to(PACKAGE)
    mirror = ROOT / "tests" / inner.with_name(f"test_{inner.name}")
    own = [mirror] if mirror.is_file() else []
    others = [test for test in _importing(path, "tests", "test_*.py") if test != mirror]
    if not own and not others:
        users = _importing(path, PACKAGE, "*.py")
        found = chain.from_iterable(tests_of(user.relative_to(ROOT)) for user in users)
        return [sorted(set(chain.from_iterable(found)))] if users else []
    return [[str(test.relative_to(ROOT)) for test in tests] for tests in (own, others) if tests]


def _importing(path: Path, folder: str, names: str) -> list[Path]:
    """The files of a folder that import a file of the package."""
    module = ".".join(path.with_suffix("").parts)
    parent, _, name = module.rpartition(".")
    pattern = rf"\b{re.escape(module)}\b|from {re.escape(parent)} import .*\b{name}\b"
    return [
        file
        for file in sorted((ROOT / folder).rglob(names))
        if re.search(pattern, file.read_text(encoding="utf-8"))
    ]


def copy_tree(target: Path) -> None:
    """The package itself is copied, everything beside it is linked."""
    for entry in ROOT.iterdir():
        if entry.name == PACKAGE:
            shutil.copytree(entry, target / PACKAGE)
        elif not entry.name.startswith("."):
            (target / entry.name).symlink_to(entry)


def run_tests(
    tree: Path, tests: Sequence[str], *, slow: bool, seconds: int | None
) -> tuple[str, float]:
    """Passed, failed, no tests or too long; and the seconds of processor time.

    The limit is one of processor time too, since other work on the machine is no endless loop.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    command += [] if slow else ["-m", "not slow"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    limit = [] if seconds is None else ["prlimit", f"--cpu={seconds}"]
    process = subprocess.Popen(
        [*limit, *command, *tests],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = code = os.waitstatus_to_exitcode(status)
    outcomes = {
        0: "passed",
        5: "no tests",
        -signal.SIGXCPU: "too long",
        -signal.SIGKILL: "too long",
    }
    return outcomes.get(code, "failed"), usage.ru_utime + usage.ru_stime


def survivors(mutants: Sequence[Mutant], *, slow: bool, say: Callable[[str], None]) -> list[Mutant]:
    """Runs the tests of each change; those that pass are given back."""
    left: list[Mutant] = []
    limits: dict[tuple[str, ...], int] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        for mutant in mutants:
            original = (ROOT / mutant.path).read_text(encoding="utf-8")
            result = "no tests"
            for tests in map(tuple, tests_of(mutant.path)):
                if tests not in limits:
                    limits[tests] = _limit(tree, tests, slow=slow)
                (tree / mutant.path).write_text(mutant.source, encoding="utf-8")
                outcome, _ = run_tests(tree, tests, slow=slow, seconds=limits[tests])
                (tree / mutant.path).write_text(original, encoding="utf-8")
                if outcome != "no tests":
                    result = outcome
                if outcome not in UNNOTICED:
                    break
            say(f"{result:8s} {mutant}")
            if result in UNNOTICED:
                left.append(mutant)
    return left


def _limit(tree: Path, tests: Sequence[str], *, slow: bool) -> int:
    """Seconds of processor time after which tests count as caught in an endless loop.

    Raises:
        RuntimeError: they fail without any change.
    """
    outcome, seconds = run_tests(tree, tests, slow=slow, seconds=None)
    if outcome == "failed":
        raise RuntimeError(f"{', '.join(tests)} fail without any change")
    return round(3 * seconds) + SECONDS_BESIDE_TESTS


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, help="files and folders of the package")
    parser.add_argument("--count", type=int, default=40, help="changes (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")
    parser.add_argument("--slow", action="store_true", help="tests that are marked slow too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    files: list[Path] = []
    for path in options.paths:
        whole = ROOT / path
        files += sorted(whole.rglob("*.py")) if whole.is_dir() else [whole]
    found = [
        mutant
        for file in files
        for mutant in mutants_of(file.relative_to(ROOT), file.read_text(encoding="utf-8"))
    ]
    chosen = random.Random(options.seed).sample(found, min(options.count, len(found)))
    chosen.sort(key=lambda mutant: (mutant.path, mutant.line))
    left = survivors(chosen, slow=options.slow, say=lambda line: print(line, flush=True))
    print(f"\n{len(left)} of {len(chosen)} changes (of {len(found)} possible) survive:")
    for mutant in left:
        print(f"  {mutant}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
