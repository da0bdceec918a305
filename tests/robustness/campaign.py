"""All kinds of damaged input, and how often each is tried with the tests and at full size."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import torch

from tests.robustness.json_kinds import Jsons
from tests.robustness.label_kinds import LabelPictures
from tests.robustness.map_kinds import IdPngs, Photographs
from tests.robustness.run_kinds import RunFolders
from tests.robustness.sandbox import Sandbox, Tally, Verdict, run_cases
from tests.robustness.text_kinds import Configs, Descriptions, Lists, Overrides
from tests.robustness.weight_kinds import InitialWeights, Pickles, Safetensors

SHARED_MEMORY = Path("/dev/shm")


class Kind(Protocol):
    """One kind of input: the constructor makes sound files, `case` damages and uses one."""

    name: str

    def __init__(self, sandbox: Sandbox) -> None: ...

    def case(self, random: Random) -> Verdict: ...


@dataclass(frozen=True)
class Part:
    """A kind with its numbers of cases.

    Attributes:
        kind: class of the kind.
        num_quick: in every run of the tests.
        num_full: in the campaign.
    """

    kind: Callable[[Sandbox], Kind]
    num_quick: int
    num_full: int

    @property
    def name(self) -> str:
        return str(self.kind.name)  # type: ignore[attr-defined]


PARTS = (
    Part(IdPngs, 150, 10_000),
    Part(LabelPictures, 80, 1_000),
    Part(Photographs, 30, 700),
    Part(Jsons, 60, 1_000),
    Part(Configs, 20, 250),
    Part(Overrides, 20, 250),
    Part(Descriptions, 60, 300),
    Part(Lists, 20, 150),
    Part(Safetensors, 15, 240),
    Part(Pickles, 300, 2_000),
    Part(InitialWeights, 10, 100),
    Part(RunFolders, 15, 250),
)


@contextmanager
def working_folder() -> Iterator[Path]:
    """A folder in memory, where the system has one: the campaign writes many small files."""
    place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="robustness_", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def clean_process() -> Iterator[Executor]:
    """A process that has imported the library and done nothing else.

    Cases run in forks of it: what this process holds in memory, they would inherit, and it would
    count as theirs.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _begin) as process:
        yield process


def _begin() -> None:
    torch.set_num_threads(1)
    # The workers of stages too are forks, as when a user starts them, whatever started this one.
    multiprocessing.set_start_method("fork", force=True)


def run_part(part: Part, folder: Path, num_cases: int, seed: int) -> Tally:
    """Cases `seed`, `seed + 1`, ... of one kind.

    Args:
        part: the kind.
        folder: where to work; must not exist.
        num_cases, seed: which cases.
    """
    sandbox = Sandbox(folder)
    kind = part.kind(sandbox)
    sandbox.keep()
    tally = Tally()
    seeds = range(seed, seed + num_cases)
    for number, verdict in run_cases(kind.case, seeds, part.name, sandbox.restore):
        tally.add(number, verdict)
    return tally
