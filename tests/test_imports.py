"""The directions of imports, read from the source; each rule also meets a tree that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import import_rules as rules

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def library() -> list[rules.Import]:
    imports = rules.read_imports(ROOT)
    assert len(imports) > 20, "the library was not found, so no rule would be checked"
    return imports


def write_tree(root: Path, files: dict[str, str]) -> list[rules.Import]:
    """Writes `path under seamless_pr -> source` and reads its imports."""
    for name, source in files.items():
        path = root / rules.LIBRARY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return rules.read_imports(root)


def test_every_room_of_the_library_has_a_rule():
    assert rules.unknown_rooms(ROOT) == []


def test_a_room_without_a_rule_is_found(tmp_path: Path):
    write_tree(tmp_path, {"ops/boxes.py": "", "utils/misc.py": ""})
    assert rules.unknown_rooms(tmp_path) == ["utils"]


def test_library_imports_run_downward_and_never_between_siblings(library: list[rules.Import]):
    assert rules.wrong_directions(library) == []


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("structures/target.py", "from seamless_pr.ops.boxes import box_iou"),
        ("ops/boxes.py", "import seamless_pr.layers.abn"),
        ("layers/abn.py", "from seamless_pr.models import fpn"),
        ("datasets/loader.py", "from seamless_pr.metrics.quality import count"),
        ("training/trainer.py", "from seamless_pr.inference.predictor import Predictor"),
        ("models/necks/fpn.py", "from seamless_pr.config.schema import Config"),
        ("config/load.py", "from seamless_pr.build.runs import build_model"),
        ("metrics/quality.py", "def later():\n    from seamless_pr import build"),
        ("evaluation/files.py", "from seamless_pr.build.runs import build_trainer"),
        ("build/runs.py", "from seamless_pr.integrations import transformers"),
        ("build/runs.py", "from seamless_pr.pipelines.train import main"),
        ("training/predictor.py", "from seamless_pr import load_predictor"),
        ("drawing/panoptic.py", "from seamless_pr.datasets.images import read_image"),
    ],
)
def test_an_import_upward_or_to_a_sibling_is_found(tmp_path: Path, importer: str, source: str):
    wrong = rules.wrong_directions(write_tree(tmp_path, {importer: source}))
    assert len(wrong) == 1
    assert Path(importer).stem in wrong[0]


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("models/necks/fpn.py", "from seamless_pr.layers.abn import ABN"),
        ("models/necks/fpn.py", "from seamless_pr.models import rpn"),
        ("training/trainer.py", "from seamless_pr.structures.settings import RPNSettings"),
        ("build.py", "from seamless_pr.models.necks.fpn import FPN"),
        ("__init__.py", "from seamless_pr.build.predictor import load_predictor"),
        ("training/checkpoint.py", "from seamless_pr import __version__"),
    ],
)
def test_imports_downward_are_allowed(tmp_path: Path, importer: str, source: str):
    assert rules.wrong_directions(write_tree(tmp_path, {importer: source})) == []


def test_library_knows_no_ray_and_needs_no_optional_package(library: list[rules.Import]):
    assert rules.forbidden_imports(library) == []


@pytest.mark.parametrize(
    "source",
    [
        "import ray",
        "def spread():\n    from ray.data import from_items",
        "from pipelines import predict",
        "import inplace_abn",
        "try:\n    from panopticapi import evaluation\nexcept ImportError:\n    evaluation = None",
    ],
)
def test_ray_and_optional_packages_are_found(tmp_path: Path, source: str):
    assert len(rules.forbidden_imports(write_tree(tmp_path, {"ops/boxes.py": source}))) == 1


def test_an_optional_package_inside_a_function_is_allowed(tmp_path: Path):
    source = "def build():\n    from inplace_abn import InPlaceABN\n    return InPlaceABN"
    assert rules.forbidden_imports(write_tree(tmp_path, {"layers/abn.py": source})) == []


def test_library_has_no_import_cycle(library: list[rules.Import]):
    assert rules.import_cycle(library, rules.modules_of(ROOT)) == []


def test_a_cycle_over_three_modules_is_found(tmp_path: Path):
    imports = write_tree(
        tmp_path,
        {
            "ops/a.py": "from seamless_pr.ops.b import f",
            "ops/b.py": "def f():\n    from seamless_pr.ops import c",
            "ops/c.py": "import seamless_pr.ops.a",
            "ops/d.py": "from seamless_pr.ops.a import g",
        },
    )
    cycle = rules.import_cycle(imports, rules.modules_of(tmp_path))
    assert cycle == [f"seamless_pr.ops.{name}" for name in "abca"]


def test_imports_are_written_with_full_names(library: list[rules.Import]):
    assert rules.relative_imports(library) == []


def test_a_relative_import_is_found(tmp_path: Path):
    imports = write_tree(tmp_path, {"ops/a.py": "from .b import f\nfrom . import c\nimport math"})
    assert len(rules.relative_imports(imports)) == 2


def test_init_files_are_empty_but_the_top_one():
    assert rules.filled_inits(ROOT) == []


def test_a_filled_init_is_found(tmp_path: Path):
    write_tree(
        tmp_path, {"__init__.py": "x = 1", "ops/__init__.py": "y = 1", "datasets/__init__.py": ""}
    )
    assert rules.filled_inits(tmp_path) == ["seamless_pr/ops/__init__.py"]


def test_no_pipeline_rests_on_tools():
    assert rules.imports_of_tools(rules.read_imports(ROOT, "pipelines")) == []


def test_an_import_of_tools_is_found(tmp_path: Path):
    imports = write_tree(
        tmp_path, {"ops/a.py": "from tools.measure import results_table\nimport toolsmith"}
    )
    assert len(rules.imports_of_tools(imports)) == 1
