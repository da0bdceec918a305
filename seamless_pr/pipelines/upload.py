"""What goes to a cluster with a run: this clone, without what the ignore files name.

    python -m seamless_pr.pipelines.upload

says how large the upload of `ray job submit --working-dir .` would be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamless_pr.input_files import read_text

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

ROOT = Path(__file__).resolve().parents[2]
# What the job server takes; Ray itself only says "413" beyond it.
UPLOAD_LIMIT = 100 * 2**20
IGNORE_FILES = (".gitignore", ".rayignore")
NEVER_SHIPPED = (".git", ".venv", "venv", "__pycache__")


def runtime_environment() -> dict[str, Any] | None:
    """What brings this clone to a cluster; None for an installed package.

    Raises:
        ValueError: the clone is larger than what Ray takes.
    """
    if not (ROOT / "setup.py").is_file():
        return None
    check_upload(upload_sizes(ROOT))
    return {"working_dir": str(ROOT)}


def upload_sizes(root: Path) -> dict[str, int]:
    """Relative path -> bytes of each file that Ray ships from a working directory.

    As Ray does it, each of the ignore files is asked by itself, those of sub-folders too: what one
    of them names is left out, whatever another one says. Ray ships what links lead to.

    Raises:
        ValueError: links by which Ray would ship files of elsewhere, or one folder endlessly.
    """
    from pathspec import GitIgnoreSpec  # Only runs that ship code to a cluster need it.

    sizes: dict[str, int] = {}
    astray: list[str] = []
    _add_sizes(root, root, [(root, GitIgnoreSpec.from_lines(NEVER_SHIPPED))], sizes, astray)
    if astray:
        raise ValueError(
            f"Ray would ship what links lead to, out of the working directory, in a circle or to "
            f"further links: "
            f"{', '.join(astray[:3])} ({len(astray)} in all); put copies in their place, or name "
            "them in .rayignore"
        )
    return sizes


def _add_sizes(
    folder: Path,
    root: Path,
    specs: list[tuple[Path, GitIgnoreSpec]],
    sizes: dict[str, int],
    astray: list[str],
) -> None:
    from pathspec import GitIgnoreSpec

    for name in IGNORE_FILES:
        if (folder / name).is_file():
            lines = read_text(folder / name).splitlines()
            specs = [*specs, (folder, GitIgnoreSpec.from_lines(lines))]

    def is_left_out(path: Path) -> bool:
        # Without a closing slash, as Ray asks: `data/` leaves out what is in the folder, so that
        # `!data/kept` brings a part of it back.
        return any(spec.match_file(path.relative_to(at)) for at, spec in specs)

    real_root = Path(os.path.realpath(root))
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        place = Path(os.path.realpath(path))
        if is_left_out(path) or not place.exists():  # Links to nothing are not shipped.
            continue
        is_linked_folder = entry.is_symlink() and entry.is_dir()
        real_folder = Path(os.path.realpath(folder))
        # Links behind links multiply: thirty folders of two each would be shipped a billion times.
        is_behind_link = is_linked_folder and real_folder != real_root / folder.relative_to(root)
        if is_behind_link or (entry.is_symlink() and real_folder.is_relative_to(place)):
            if not is_left_out(path / "anything"):
                astray.append(f"{path.relative_to(root)} -> {place}")
        elif entry.is_dir():
            _add_sizes(path, root, specs, sizes, astray)
        elif not place.is_relative_to(real_root):
            astray.append(f"{path.relative_to(root)} -> {place}")
        else:
            sizes[str(path.relative_to(root))] = entry.stat().st_size


def check_upload(sizes: Mapping[str, int]) -> None:
    """Refuses an upload that the job server would refuse.

    Raises:
        ValueError: names the total and the largest files.
    """
    total = sum(sizes.values())
    if total <= UPLOAD_LIMIT:
        return
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:3]
    names = ", ".join(f"{name} ({sizes[name] / 2**20:.0f} MiB)" for name in largest)
    raise ValueError(
        f"the working directory holds {total / 2**20:.0f} MiB for the cluster, and Ray's job "
        f"server takes {UPLOAD_LIMIT / 2**20:.0f}; largest: {names}; move them out of the clone or "
        "name them in .rayignore"
    )


def main() -> int:
    """Prints the size of the upload; 1 if it is too large."""
    try:
        sizes = upload_sizes(Path.cwd())
        check_upload(sizes)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(sizes)} files, {sum(sizes.values()) / 2**20:.1f} MiB go to the cluster")
    return 0


if __name__ == "__main__":
    sys.exit(main())
