"""How a stage ends: its exit code, its last line, and what becomes of its processes."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from seamless_pr.pipelines.stage import ExitCode, Stage, finite
from tests.support.processes import PROC, descendants, wait_until

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--number", type=int)
    parser.add_argument("words", nargs="*")


def stage(run) -> Stage:
    return Stage(doc="Does it.\n\nexamples:\n  do it", add_options=add_options, run=run)


def raising(error: BaseException) -> Stage:
    def run(_: argparse.Namespace) -> None:
        raise error

    return stage(run)


@pytest.mark.parametrize("returned, code", [(None, 0), (ExitCode.SOME_FAILED, 3), (1, 1)])
def test_the_exit_code_is_what_the_work_returns(returned: int | None, code: int) -> None:
    assert stage(lambda _: returned).main([]) == code


@pytest.mark.parametrize(
    "error",
    [
        OSError("no disk"),
        ValueError("bad key"),
        FloatingPointError("loss is nan"),
        MemoryError("too large"),
        ImportError("no package"),
    ],
)
def test_mistakes_and_the_machines_limits_are_an_error_line_and_code_1(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(error).main([]) == 1
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
    ],
)
def test_want_of_memory_is_an_error_line_and_another_runtime_error_a_fault_of_the_program(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(RuntimeError(f"{text}\nC++ stack")).main([]) == 1
    assert capsys.readouterr().err == f"error: not enough memory ({text})\n"
    with pytest.raises(RuntimeError, match="shapes"):
        raising(RuntimeError("shapes do not fit")).main([])


def test_an_error_of_any_length_is_a_line_with_its_beginning_and_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = f"a.yaml: 'lr' must be a number; got {'9' * 100_000}; correct it"
    assert raising(ValueError(f"{words}\n  b.png is empty")).main([]) == 1
    first, second, _ = capsys.readouterr().err.split("\n")
    assert first.startswith("error: a.yaml: 'lr' must be a number; got 999")
    assert first.endswith("999; correct it")
    assert len(first) < 2100
    assert second == "  b.png is empty"


def test_a_name_in_an_error_gives_a_terminal_no_orders(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert raising(ValueError("a\x1b[2J\r\x9b\u202eb.png\tgröße")).main([]) == ExitCode.FAILED
    assert capsys.readouterr().err == "error: a\\x1b[2J\\x0d\\x9b\\u202eb.png\tgröße\n"


@pytest.mark.parametrize("text", ["nan", "-inf", "1e999", "much"])
def test_a_number_of_the_command_line_is_finite(text: str) -> None:
    assert finite("-1e3") == -1000
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be a number; got {text}"):
        finite(text)


def test_an_error_without_words_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(MemoryError()).main([]) == 1
    assert capsys.readouterr().err == "error: MemoryError\n"


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        raising(KeyError("x")).main([])


def test_wrong_arguments_are_code_2_and_words_may_stand_between_options() -> None:
    seen: list[argparse.Namespace] = []
    assert stage(seen.append).main(["a", "--number", "3", "b"]) == 0
    assert (seen[0].number, seen[0].words) == (3, ["a", "b"])
    with pytest.raises(SystemExit) as caught:
        stage(seen.append).main(["--number", "many"])
    assert caught.value.code == ExitCode.WRONG_ARGUMENTS


def test_ctrl_c_and_sigterm_are_a_line_each_and_their_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def kill_with(number: int) -> Stage:
        return stage(lambda _: signal.raise_signal(number))

    before = signal.getsignal(signal.SIGTERM)
    assert kill_with(signal.SIGINT).main([]) == 130
    assert kill_with(signal.SIGTERM).main([]) == 143
    assert capsys.readouterr().err.splitlines() == [
        "stopped by Ctrl-C; the same command goes on from here",
        "stopped by SIGTERM; the same command goes on from here",
    ]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stage_runs_in_a_thread_that_may_not_set_signals() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(stage(lambda _: 3).main([])))
    thread.start()
    thread.join()
    assert codes == [3]


def test_help_ends_with_the_exit_codes_of_all_stages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        stage(lambda _: None).main(["--help"], prog="do")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: do ")
    assert shown.endswith(
        "examples:\n  do it\n\n"
        "exit codes: 0 done; 1 not done, or faults were found: the message says which; "
        "2 wrong arguments;\n"
        "3 done, but some images failed; 130 stopped by Ctrl-C; 143 stopped by SIGTERM.\n"
    )


# A stage over four slow items in two processes; it says where it stands by a file for each.
SLOW = """
import pathlib, sys, time
from functools import partial
from seamless_pr.parallel import map_in_processes
from seamless_pr.pipelines.stage import Stage

def work(folder, number):
    (folder / str(number)).touch()
    time.sleep(60)

def run(options):
    work_there = partial(work, pathlib.Path(options.folder))
    list(map_in_processes(work_there, range(8), num_workers=2, title="slow"))

stage = Stage("Slow.", lambda parser: parser.add_argument("folder"), run)
if __name__ == "__main__":
    sys.exit(stage.main())
"""


@pytest.mark.parametrize(
    "number, whole_group, code, line",
    [
        (signal.SIGINT, True, 130, "stopped by Ctrl-C; the same command goes on from here"),
        (signal.SIGTERM, False, 143, "stopped by SIGTERM; the same command goes on from here"),
        (signal.SIGTERM, True, 143, "stopped by SIGTERM; the same command goes on from here"),
        (signal.SIGKILL, False, -9, None),
    ],
    ids=["ctrl-c", "sigterm", "sigterm to the group", "sigkill"],
)
def test_processes_end_with_the_stage_that_started_them(
    number: int, whole_group: bool, code: int, line: str | None, tmp_path: Path
) -> None:
    (tmp_path / "marks").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "marks")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: len(list((tmp_path / "marks").iterdir())) == 2, SECONDS, "two workers")
    workers = descendants(process.pid)
    assert len(workers) >= 2
    (os.killpg if whole_group else os.kill)(process.pid, number)
    error = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == code
    assert error.splitlines() == ([line] if line else [])
    wait_until(lambda: not any((PROC / str(pid)).exists() for pid in workers), 10, "the end")
