from __future__ import annotations

import ctypes
from dataclasses import replace

import llvmlite.binding as llvm
import pytest

from seamless_pr.id_maps.machine_code import MachineCode, lay_out

# Calls the C library, reads a table of constants, and calls a function of its own.
PROGRAM = """
@table = private unnamed_addr constant [4 x i64] [i64 7, i64 11, i64 13, i64 17]
declare i64 @labs(i64)
define internal i64 @twice(i64 %x) noinline { %y = add i64 %x, %x
  ret i64 %y }
define i64 @run(i64 %x) {
  %place = getelementptr [4 x i64], ptr @table, i64 0, i64 %x
  %value = load i64, ptr %place
  %negative = sub i64 0, %value
  %positive = call i64 @labs(i64 %negative)
  %result = call i64 @twice(i64 %positive)
  ret i64 %result }
"""
WRITES = """
@state = global i64 3
define i64 @run(i64 %x) { %y = load i64, ptr @state
  store i64 %x, ptr @state
  ret i64 %y }
"""


def _object_file(program: str, code_model: str = "large") -> bytes:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        codemodel=code_model, reloc="static", opt=0
    )
    return bytes(machine.emit_object(llvm.parse_assembly(program)))


def _run(code: MachineCode, value: int) -> int:
    address = code.load()
    assert address is not None
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(value)


@pytest.fixture
def code() -> MachineCode:
    code = lay_out(_object_file(PROGRAM), "run")
    if code is None:
        pytest.skip("another processor than x86-64: LLVM loads there")
    return code


def test_code_with_constants_and_calls_runs_wherever_it_is_placed(code: MachineCode) -> None:
    assert {entry.function for entry in code.relocations} == {None, "labs"}
    for number, value in enumerate((7, 11, 13, 17)):
        assert _run(code, number) == 2 * value


def test_what_was_kept_is_the_same_code(code: MachineCode) -> None:
    kept = MachineCode.from_bytes(code.to_bytes())
    assert kept == code
    assert _run(replace(kept, code=kept.code), 2) == 26


@pytest.mark.parametrize(
    "content, symbol",
    [
        (_object_file(WRITES), "run"),
        (_object_file(PROGRAM, "small"), "run"),
        (_object_file(PROGRAM), "another"),
        (_object_file(PROGRAM.replace("labs", "no_such_function")), "run"),
        (b"MZ" + bytes(100), "run"),
    ],
)
def test_object_files_of_another_kind_are_left_to_llvm(content: bytes, symbol: str) -> None:
    assert lay_out(content, symbol) is None
