"""Machine code out of a compiler's object file, kept and loaded again without the compiler.

The object file is laid out once as it will lie in memory. What then is left to do in a later
process is to add the addresses, which a process learns only there: a few microseconds, where
loading by LLVM takes 0.1 s and 40 MB.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import struct
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

# ELF, "System V ABI" and its supplement for x86-64.
ELF64_LITTLE = b"\x7fELF\x02\x01"
X86_64 = 62
SYMBOLS, RELOCATIONS, NO_CONTENT = 2, 4, 8
UNWIND_TABLE = 0x70000001  # for exceptions, which do not pass through kernels
WRITABLE, IN_MEMORY = 1, 2
ABSOLUTE_64 = 1
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
READ_AND_RUN = 1 | 4  # of mprotect


@dataclass(frozen=True)
class Relocation:
    """A place in the code that gets an address: that of a function by name, or of the code itself.

    Attributes:
        place: offset of eight bytes in the code.
        function: of the C library; None: the start of the code.
        offset: is added to the address.
    """

    place: int
    function: str | None
    offset: int


@dataclass(frozen=True)
class MachineCode:
    """One function, ready to be placed anywhere in memory.

    Attributes:
        code: as it lies in memory, but for addresses.
        entry: offset of the function.
        relocations: the addresses.
    """

    code: bytes
    entry: int
    relocations: tuple[Relocation, ...]

    def to_bytes(self) -> bytes:
        """A line of JSON, then the code."""
        head = {"entry": self.entry, "relocations": [asdict(entry) for entry in self.relocations]}
        return json.dumps(head).encode() + b"\n" + self.code

    @classmethod
    def from_bytes(cls, content: bytes) -> MachineCode:
        head, _, code = content.partition(b"\n")
        values = json.loads(head)
        relocations = tuple(Relocation(**entry) for entry in values["relocations"])
        return cls(code, values["entry"], relocations)

    def load(self) -> int | None:
        """The address of the function, for as long as the process lives; None if refused."""
        memory = mmap.mmap(-1, len(self.code))
        memory.write(self.code)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        library = _c_library()
        for entry in self.relocations:
            address = start
            if entry.function is not None:
                function = getattr(library, entry.function)
                address = ctypes.cast(function, ctypes.c_void_p).value or 0
            struct.pack_into("<Q", memory, entry.place, address + entry.offset)
        size = ctypes.c_size_t(len(self.code))
        if library.mprotect(ctypes.c_void_p(start), size, READ_AND_RUN):
            return None
        _LOADED.append(memory)
        return start + self.entry


_LOADED: list[mmap.mmap] = []


@cache
def _c_library() -> Any:
    return ctypes.CDLL(None)


def lay_out(content: bytes, symbol: str) -> MachineCode | None:
    """Lays out an object file.

    Args:
        content: ELF object file.
        symbol: name of the function.

    Returns:
        None where it is of another kind than compilers of this processor write for plain loops:
        another processor, data that is written to, addresses in another form.
    """
    if not content.startswith(ELF64_LITTLE) or struct.unpack_from("<H", content, 18)[0] != X86_64:
        return None
    (table,) = struct.unpack_from("<Q", content, 40)
    count = struct.unpack_from("<H", content, 60)[0]
    sections = [SECTION.unpack_from(content, table + SECTION.size * i) for i in range(count)]
    code, starts = bytearray(), {}
    for index, (_, kind, flags, _, offset, size, _, _, align, _) in enumerate(sections):
        if not flags & IN_MEMORY or not size or kind == UNWIND_TABLE:
            continue
        if flags & WRITABLE or kind == NO_CONTENT:
            return None
        code += b"\0" * (-len(code) % max(align, 1))
        starts[index] = len(code)
        code += content[offset : offset + size]
    symbols = _symbols(content, sections)
    entries = [starts[index] + value for name, index, value in symbols if name == symbol]
    relocations = []
    for _, kind, _, _, offset, size, _, target, _, _ in sections:
        if kind != RELOCATIONS or target not in starts:
            continue
        for place, info, addend in RELOCATION.iter_unpack(content[offset : offset + size]):
            name, index, value = symbols[info >> 32]
            is_known = index in starts or (index == 0 and hasattr(_c_library(), name))
            if info & 0xFFFFFFFF != ABSOLUTE_64 or not is_known:
                return None
            inside = index in starts
            base = starts[index] + value if inside else 0
            relocations.append(
                Relocation(starts[target] + place, None if inside else name, base + addend)
            )
    if len(entries) != 1:
        return None
    return MachineCode(bytes(code), entries[0], tuple(relocations))


def _symbols(content: bytes, sections: list[tuple[int, ...]]) -> list[tuple[str, int, int]]:
    """Name, section and offset in it, of every symbol."""
    found = []
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind != SYMBOLS:
            continue
        names = content[sections[link][4] :]
        for name, _, _, index, value, _ in SYMBOL.iter_unpack(content[offset : offset + size]):
            text = names[name : names.index(b"\0", name)].decode()
            found.append((text, index, value))
    return found
