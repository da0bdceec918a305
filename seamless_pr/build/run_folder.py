"""The folder of one run: who owns it, and whether it may be continued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from seamless_pr.build.configs import load_config
from seamless_pr.config.load import config_differences, save_config
from seamless_pr.config.schema import ClusterConfig, Config
from seamless_pr.datasets.manifest import file_sha256
from seamless_pr.files import is_unused, locked, write_json
from seamless_pr.input_files import read_json

CONFIG_NAME, LOCK_NAME = "config.yaml", ".lock"
# Checksums of the JSONs of the run: their names alone do not tell that they were changed.
DATA_NAME = "data.json"

_REMEDY = (
    "choose another output folder, put the earlier files back, or go on with the changed ones by "
    "training.accept_changed_data=true"
)

# These change neither weights nor scores, so a run may be continued with others.
_FREE_KEYS = (
    "data.num_workers",
    "training.log_interval_steps",
    "training.checkpoint_interval_steps",
    "training.accept_changed_data",
    *(f"cluster.{field.name}" for field in fields(ClusterConfig)),
)


@contextmanager
def run_folder(folder: str | Path, config: Config) -> Iterator[None]:
    """Claims the folder and keeps other trainings out of it while the block runs.

    Raises:
        ValueError: as `claim_run_folder`, or another process trains into the folder.
    """
    folder = Path(folder)
    if folder.exists() and not is_unused(folder, LOCK_NAME) and not (folder / CONFIG_NAME).exists():
        raise _foreign(folder)  # No lock file for somebody else's folder.
    with locked(folder / LOCK_NAME, f"training into {folder}"):
        claim_run_folder(folder, config)
        yield


def claim_run_folder(folder: str | Path, config: Config) -> None:
    """Makes the folder that of this config: a new one, or one with the same config.

    Args:
        folder: created when missing; the resolved config is saved in it.
        config: of the run that is about to start or to go on.

    Raises:
        ValueError: the folder belongs to a run with another config or with data that were changed
            since, or holds other files. The message names the differences and the fix.
    """
    folder = Path(folder)
    path = folder / CONFIG_NAME
    if path.is_file():
        _check_same(path, config)
    elif not is_unused(folder, LOCK_NAME):
        raise _foreign(folder)
    data = _checksums(config)
    if not config.training.accept_changed_data:
        _check_same_data(folder / DATA_NAME, data)
    save_config(config, path)
    if data:
        write_json(folder / DATA_NAME, data)


def _foreign(folder: Path) -> ValueError:
    return ValueError(
        f"output folder {folder} is not empty and holds no {CONFIG_NAME} of a run; "
        "choose another output folder"
    )


def _check_same(path: Path, config: Config) -> None:
    differences = config_differences(load_config(path), config)
    lines = [
        f"  {key}: {old!r} in the folder, {new!r} now"
        for key, (old, new) in differences.items()
        if key not in _FREE_KEYS
    ]
    if lines:
        raise ValueError(
            f"output folder {path.parent} belongs to a run with another config:\n"
            + "\n".join(lines)
            + "\nchoose another output folder, or set these values back to go on with that run"
        )


def _checksums(config: Config) -> dict[str, str]:
    """Path -> checksum of the annotations; missing ones are told by those who read them."""
    paths = {part.json for part in (*config.data.train_parts, config.data.val)}
    return {path: file_sha256(Path(path)) for path in sorted(paths) if Path(path).is_file()}


def _check_same_data(path: Path, data: dict[str, str]) -> None:
    if not path.is_file():
        return
    found = read_json(path)
    found = found if isinstance(found, dict) else {}
    changed = [name for name, checksum in data.items() if found.get(name, checksum) != checksum]
    if changed:
        raise ValueError(
            f"output folder {path.parent} belongs to a run on other content of "
            f"{', '.join(changed)}, which was changed since; {_REMEDY}"
        )
