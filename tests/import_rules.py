"""Reads the imports of a source tree without running it, and finds those that break the rules."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

LIBRARY = "seamless_pr"

# From the ground up; a room may import itself and every lower row, never a neighbour of its row.
ROWS: tuple[tuple[str, ...], ...] = (
    ("structures", "files", "input_files", "progress"),
    ("ops", "parallel"),
    ("id_maps", "layers"),
    ("datasets", "models", "drawing"),
    ("training", "inference", "metrics", "weights", "street_scenes"),
    ("evaluation", "serving"),
    ("config",),
    ("build",),
    ("integrations",),
    ("pipelines",),
)
LEVELS = {room: level for level, row in enumerate(ROWS) for room in row}

# Only here, not even inside a function elsewhere: distribution belongs to the stages.
RAY_ROOM = "pipelines"
# Never: these rest on the library.
FORBIDDEN = {"pipelines", "tools", "tests"}

# Only inside the function that needs them: nobody has to install them.
OPTIONAL = {
    "inplace_abn",
    "detectron2",
    "panopticapi",
    "vernier",
    "hotcoco",
    "torchmetrics",
    "transformers",
    "supervision",
    "fiftyone",
    "fastapi",
    "starlette",
    "rasterio",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pytest",
}


@dataclass(frozen=True)
class Import:
    """One imported module or name.

    Attributes:
        importer: dotted module that holds the statement.
        target: dotted module, with the imported name appended for `from module import name`.
        line: where.
        at_import_time: True unless the statement stands in a function.
        is_relative: written with leading dots.
    """

    importer: str
    target: str
    line: int
    at_import_time: bool
    is_relative: bool = False

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def read_imports(root: Path, package: str = LIBRARY) -> list[Import]:
    """All imports of the Python files under `root / package`, in the order of their paths."""
    found: list[Import] = []
    for path in sorted((root / package).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        found += _imports_of(path, module.removesuffix(".__init__"))
    return found


def _imports_of(path: Path, module: str) -> list[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    deferred = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets, level = [alias.name for alias in node.names], 0
        elif isinstance(node, ast.ImportFrom):
            targets = [f"{node.module or ''}.{alias.name}".lstrip(".") for alias in node.names]
            level = node.level
        else:
            continue
        now = id(node) not in deferred
        found += [Import(module, target, node.lineno, now, level > 0) for target in targets]
    return found


def room_of(module: str) -> str:
    """`seamless_pr.ops.boxes` -> `ops`; names that the top package offers, and itself -> `top`."""
    parts = module.split(".")
    if parts[0] != LIBRARY:
        raise ValueError(f"{module} is not a module of {LIBRARY}")
    if len(parts) == 1 or parts[1] not in LEVELS:
        return "top"
    return parts[1]


def unknown_rooms(root: Path) -> list[str]:
    """Files and folders of the library that no rule speaks about."""
    known = {*LEVELS, "__init__", "py", "__pycache__"}
    names = [path.stem for path in (root / LIBRARY).iterdir()]
    return sorted(name for name in names if name not in known)


def wrong_directions(imports: list[Import]) -> list[str]:
    """Imports between rooms that the house does not allow (upward, or between neighbours)."""
    wrong = []
    for found in imports:
        if found.target.split(".")[0] != LIBRARY or found.target == f"{LIBRARY}.__version__":
            continue
        room, target = room_of(found.importer), room_of(found.target)
        if room in (target, "top"):
            continue
        if target == "top" or LEVELS[target] >= LEVELS[room]:
            wrong.append(str(found))
    return wrong


def forbidden_imports(imports: list[Import]) -> list[str]:
    """Imports of what the library must not know, and of optional packages at import time."""
    return [
        str(found)
        for found in imports
        if found.target.split(".")[0] in FORBIDDEN
        or (found.target.split(".")[0] == "ray" and room_of(found.importer) != RAY_ROOM)
        or (found.target.split(".")[0] in OPTIONAL and found.at_import_time)
    ]


def relative_imports(imports: list[Import]) -> list[str]:
    """Imports with leading dots; the house writes full names."""
    return [str(found) for found in imports if found.is_relative]


def imports_of_tools(imports: list[Import]) -> list[str]:
    """Imports of `tools`: scripts for people, which nothing may rest on."""
    return [str(found) for found in imports if found.target.split(".")[0] == "tools"]


def import_cycle(imports: list[Import], modules: set[str]) -> list[str]:
    """One cycle of modules that import each other, first module repeated at the end; empty if none.

    Args:
        imports: deferred ones count as well: a cycle that only shows at run time is one.
        modules: all modules of the tree; tells `from module import name` from a submodule.
    """
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for found in imports:
        target = found.target if found.target in modules else found.target.rpartition(".")[0]
        # `from package import submodule` also names the package, whose __init__ is empty.
        if target in modules and target != found.importer and target != LIBRARY:
            graph[found.importer].add(target)
    return _first_cycle(graph)


def _first_cycle(graph: dict[str, set[str]]) -> list[str]:
    finished: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in finished:
            return []
        for target in sorted(graph[module]):
            if cycle := visit(target, [*trail, module]):
                return cycle
        finished.add(module)
        return []

    for start in sorted(graph):
        if cycle := visit(start, []):
            return cycle
    return []


def modules_of(root: Path, package: str = LIBRARY) -> set[str]:
    """Dotted names of all Python files under `root / package`."""
    paths = (path.relative_to(root).with_suffix("") for path in (root / package).rglob("*.py"))
    return {".".join(path.parts).removesuffix(".__init__") for path in paths}


def filled_inits(root: Path) -> list[str]:
    """`__init__` files with content, other than the top one."""
    top = root / LIBRARY / "__init__.py"
    inits = sorted((root / LIBRARY).rglob("__init__.py"))
    return [str(path.relative_to(root)) for path in inits if path != top and path.read_text()]
