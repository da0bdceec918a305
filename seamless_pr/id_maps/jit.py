"""Compilation of the few loops over pixels that neither NumPy nor PyTorch does in one pass.

numba compiles a kernel once for a machine, and its machine code is kept beside the source. Later
processes need no compiler: importing it costs more time and memory than scoring a small data set
does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numpy as np

from seamless_pr.files import write_whole
from seamless_pr.id_maps.machine_code import MachineCode, lay_out

CTYPES = {"int64": ctypes.c_int64, "bool": ctypes.c_int8, "none": ctypes.c_void_p}
Function = TypeVar("Function", bound=Callable[..., Any])
_HELPERS: set[Callable[..., Any]] = set()
_LOCK = threading.Lock()
SEAL_BYTES = 8


def helper(function: Function) -> Function:
    """Marks a function that kernels of the same module call; compiled as a part of them."""
    _HELPERS.add(function)
    return function


@dataclass
class Kernel:
    """A compiled function on NumPy arrays; releases the interpreter lock while it runs.

    Attributes:
        function: the Python source.
        parameters: dtype and number of dimensions of each argument; 0: a scalar int64.
        returns: name of the result's type, a key of `CTYPES`.
    """

    function: Callable[..., Any]
    parameters: tuple[tuple[np.dtype[Any], int], ...]
    returns: str
    _native: Callable[..., int] | None = field(default=None, init=False)

    def __call__(self, *arguments: Any) -> Any:
        """Runs it; arrays must have exactly the declared dtypes and be contiguous."""
        values: list[Any] = []
        for (dtype, ndim), argument in zip(self.parameters, arguments, strict=True):
            if not ndim:
                values.append(int(argument))
                continue
            if argument.dtype != dtype or argument.ndim != ndim or not argument.flags.c_contiguous:
                raise TypeError(
                    f"{self.function.__name__} takes a contiguous {dtype} array of {ndim} "
                    f"dimensions; got {argument.dtype} {argument.shape}"
                )
            # The parts in which numba passes an array; the first two are its owners, if any.
            address = argument.__array_interface__["data"][0]
            values += [None, None, argument.size, argument.itemsize, address]
            values += [*argument.shape, *argument.strides]
        result: Any = CTYPES[self.returns]()
        error = ctypes.c_void_p()
        native = self._native or self._load()
        if native(ctypes.byref(result), ctypes.byref(error), *values):
            raise RuntimeError(f"{self.function.__name__} failed")
        return result.value

    def dispatcher(self, **options: Any) -> Any:
        """Compiled by numba for its declared types, ready to be called through numba.

        Args:
            options: of `numba.njit`, such as boundscheck.
        """
        import numba

        kinds = []
        for dtype, ndim in self.parameters:
            kind = numba.from_dtype(dtype)
            kinds.append(numba.types.Array(kind, ndim, "C") if ndim else kind)
        dispatcher = numba.njit(**options)(_with_helpers(self.function, options))
        dispatcher.compile(tuple(kinds))
        return dispatcher

    def _load(self) -> Callable[..., int]:
        path = _cache_file(self.function)
        with _LOCK:
            kept = None if path is None else _read_sealed(path)
            address = None if kept is None else MachineCode.from_bytes(kept).load()
            if address is None:
                symbol, compiled = self._compile()
                code = lay_out(compiled, symbol)
                address = None if code is None else code.load()
                if address is None:
                    address = _load_by_llvm(symbol, compiled)
                elif path is not None and code is not None:
                    content = code.to_bytes()
                    seal = importlib.util.source_hash(content)
                    write_whole(path, seal + content, sync=False)
            self._native = self._prototype()(address)
        return self._native

    def _compile(self) -> tuple[str, bytes]:
        """Name and object file of the function alone, without numba's ways to call it."""
        dispatcher = self.dispatcher(
            nogil=True,
            boundscheck=False,
            error_model="numpy",
            _nrt=False,
            no_cpython_wrapper=True,
            no_cfunc_wrapper=True,
        )
        (compiled,) = dispatcher.overloads.values()
        code = compiled.library._get_compiled_object()
        return compiled.fndesc.llvm_func_name, bytes(code)

    def _prototype(self) -> Any:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        kinds: list[Any] = [pointer, pointer]  # where the result and an error go
        for _, ndim in self.parameters:
            if ndim:
                kinds += [pointer, pointer, number, number, pointer, *[number] * (2 * ndim)]
            else:
                kinds.append(number)
        return ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)


def kernel(*parameters: str, returns: str = "none") -> Callable[[Callable[..., Any]], Kernel]:
    """Declares a kernel.

    Args:
        parameters: type of each argument, such as "uint32[:, :]", "int64[:]" or "int64".
        returns: "int64", "bool" or "none".
    """
    parsed = tuple(
        (np.dtype(parameter.partition("[")[0]), parameter.count(":")) for parameter in parameters
    )
    return lambda function: Kernel(function, parsed, returns)


def _with_helpers(function: Callable[..., Any], options: dict[str, Any]) -> FunctionType:
    """The function with numba's form of the helpers that it calls."""
    import numba

    assert isinstance(function, FunctionType)
    names = dict(function.__globals__)
    for name in function.__code__.co_names:
        value = names.get(name)
        if isinstance(value, FunctionType) and value in _HELPERS:
            names[name] = numba.njit(**options)(_with_helpers(value, options))
    return FunctionType(function.__code__, names, function.__name__)


def _cache_file(function: Callable[..., Any]) -> Path | None:
    """Where the machine code is kept; None where no folder can be written.

    The name tells apart whatever changes the code: sources, compiler, and processor.
    """
    source = Path(function.__code__.co_filename)
    folder = _cache_folder(source)
    if folder is None or not source.is_file():
        return None
    key = importlib.util.source_hash(source.read_bytes() + _surroundings())
    return folder / f"{source.stem}.{function.__name__}.{key.hex()}.kernel"


@cache
def _surroundings() -> bytes:
    """What decides besides the source of a kernel: this module, the compiler, the processor."""
    parts = [Path(__file__).read_bytes(), _processor()]
    for package in ("numba", "llvmlite"):
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            parts.append(Path(found.origin).with_name("_version.py").read_bytes())
    return b"\0".join(parts)


def _processor() -> bytes:
    """Kind and abilities of the first processor."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_bytes().partition(b"\n\n")
    except OSError:
        return b""
    changing = (b"cpu MHz", b"bogomips")
    return b"\n".join(line for line in first.splitlines() if not line.startswith(changing))


def _read_sealed(path: Path) -> bytes | None:
    """What was kept; None if there is nothing or if it is not whole."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    seal, code = content[:SEAL_BYTES], content[SEAL_BYTES:]
    return code if importlib.util.source_hash(code) == seal else None


@cache
def _cache_folder(source: Path) -> Path | None:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (source.parent / "__pycache__", home / "seamless_pr"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return None


@cache
def _engine() -> Any:
    """What LLVM loads machine code into; kept for as long as the process lives."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _load_by_llvm(symbol: str, code: bytes) -> int:
    """For processors whose object files `lay_out` does not know: compiled in each process."""
    import llvmlite.binding as llvm

    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = int(engine.get_function_address(symbol))
    if not address:
        raise RuntimeError(f"the machine code of {symbol} cannot be loaded; remove __pycache__")
    return address
