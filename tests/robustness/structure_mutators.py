"""Damage that keeps to the grammar of a format and breaks what readers take for granted.

Each file of these is well formed in its parts: rows of chunks, trees of values, tables of contents.
What they say about each other is wrong, or said in a way that few programs write.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from tests.robustness.mutators import HOSTILE, PNG_SIGNATURE, png_chunk, png_chunks

Chunks = list[tuple[bytes, bytes]]


def restructure_png(data: bytes, random: Random) -> bytes:
    """Interlacing, animations, transparency, many IDATs, false lengths, a file behind the end."""
    chunks = png_chunks(data)
    kind = random.randrange(8)
    if kind == 0:
        chunks = [(n, _interlaced(c) if n == b"IHDR" else c) for n, c in chunks]
    elif kind == 1:
        frame = struct.pack(">IIIIIHHBB", 0, *_sides(chunks), 0, 0, 1, 10, 0, 0)
        chunks[1:1] = [(b"acTL", struct.pack(">II", random.choice((0, 1, 2**31)), 0))]
        chunks.insert(random.randint(2, len(chunks) - 1), (b"fcTL", frame))
        chunks.insert(len(chunks) - 1, (b"fdAT", struct.pack(">I", 1) + random.randbytes(20)))
    elif kind == 2:
        chunks.insert(random.randint(1, 2), (b"tRNS", bytes(random.choice((0, 1, 2, 6, 256)))))
    elif kind == 3:
        chunks = _in_pieces(chunks, random)
    elif kind == 4:
        extra = random.choice(
            (b"\0Exif", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0")
        )
        chunks.insert(random.randint(1, len(chunks) - 1), (b"eXIf", extra))
    elif kind == 5:
        text = b"a\0\0" + zlib.compress(bytes(random.choice((10, 5_000_000))))
        chunks.insert(random.randint(1, len(chunks) - 1), (random.choice((b"zTXt", b"iCCP")), text))
    file = bytearray(PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks))
    if kind == 6:  # A length that lies, in a chunk whose checksum is right.
        place = len(PNG_SIGNATURE) + 25
        file[place : place + 4] = struct.pack(">I", random.choice((0, 1, 2**31 - 1, 2**32 - 1)))
    elif kind == 7:
        file += random.choice((bytes(file), random.randbytes(40), b"\xff\xd8\xff", bytes(1000)))
    return bytes(file)


def _sides(chunks: Chunks) -> tuple[int, int]:
    return struct.unpack(">II", chunks[0][1][:8])


def _interlaced(header: bytes) -> bytes:
    return header[:12] + bytes([1 - header[12] if header[12] < 2 else 0])


def _in_pieces(chunks: Chunks, random: Random) -> Chunks:
    stream = b"".join(content for name, content in chunks if name == b"IDAT")
    size = random.choice((1, 3, 100))
    pieces = [(b"IDAT", stream[start : start + size]) for start in range(0, len(stream), size)]
    pieces = pieces[:2000]
    for _ in range(random.randint(0, 3)):
        odd = random.choice((b"IDAT", b"tEXt", b"PLTE"))
        pieces.insert(random.randrange(len(pieces) + 1), (odd, b""))
    return [*(c for c in chunks if c[0] not in (b"IDAT", b"IEND")), *pieces, (b"IEND", b"")]


def retype_json(data: bytes, random: Random) -> bytes:
    """One key changed everywhere, subtrees exchanged, keys that stand twice, other encodings."""
    content = json.loads(data)
    kind = random.randrange(7)
    keys = sorted(_keys(content))
    key = random.choice(keys) if keys else ""
    if kind == 0:
        value = random.choice(HOSTILE)
        content = _changed(content, key, lambda _: value)
    elif kind == 1:
        change = random.choice((str, lambda v: [v], lambda v: {"value": v}, lambda _: None, repr))
        content = _changed(content, key, change)
    elif kind == 2:
        content = _changed(content, key, lambda v: v * 2 if isinstance(v, str | list) else v)
    elif kind == 3:
        lists = [c for c in _containers(content) if isinstance(c, list) and c]
        if lists:
            chosen = random.choice(lists)
            chosen[:] = random.choice((chosen * 3, chosen[::-1], [chosen[0]] * len(chosen), []))
    elif kind == 4:
        dicts = [c for c in _containers(content) if isinstance(c, dict) and len(c) > 1]
        if dicts:
            chosen = random.choice(dicts)
            first, other = random.sample(sorted(chosen), 2)
            chosen[first], chosen[other] = chosen[other], chosen[first]
    text = json.dumps(content)
    if kind == 5:
        text = text.replace(
            f'"{key}":', f'"{key}": {json.dumps(random.choice(HOSTILE))}, "{key}":', 1
        )
    elif kind == 6:
        text = random.choice((f"{text},", f"{text}{text}", f"// a\n{text}", text[:-1], f"[{text}]",
                              text.replace(" 1", " 01"), text.replace('"', "'")))  # fmt: skip
    codec = random.choice(("utf-8",) * 6 + ("utf-8-sig", "utf-16", "utf-16-le", "utf-32"))
    return text.encode(codec, errors="surrogatepass")


def _containers(content: Any) -> list[Any]:
    found, queue = [], [content]
    while queue:
        holder = queue.pop()
        if isinstance(holder, list | dict):
            found.append(holder)
            queue.extend(holder if isinstance(holder, list) else holder.values())
    return found


def _keys(content: Any) -> set[str]:
    return {key for holder in _containers(content) if isinstance(holder, dict) for key in holder}


def _changed(content: Any, key: str, change: Callable[[Any], Any]) -> Any:
    if isinstance(content, list):
        return [_changed(entry, key, change) for entry in content]
    if isinstance(content, dict):
        return {
            name: change(value) if name == key else _changed(value, key, change)
            for name, value in content.items()
        }
    return content


_SPELLINGS = (
    "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!float abc", "!!int 1.5", "!!str [1]",
    "!!python/name:os.system", "!!bool maybe", "!!timestamp 1", "!<tag:yaml.org,2002:int> 3",
    "! 5", "&x 5", "*x", "190:20:30", "0b11", "0o17", "0x" + "f" * 400, "9" * 5000, "1e999",
    "-.INF", ".NaN", "1_0.0_1", "2001-12-14t21:59:43.10-05:00", "=", "<<", "? a", "- a",
    "|\n    text\n", ">-\n    folded\n", "[" * 900, "{a: " * 900, "\u2028", "\ufeff", "\x85",
    "\\ud800", '"\\ud800"',
    '"\\x00"', "'it''s'", "@a", "`a", "%a", "a: b: c", "# nothing", "'", "${a}", "${oc.env:HOME}",
)  # fmt: skip


def respell_yaml(data: bytes, random: Random) -> bytes:
    """Tags, anchors, merge keys, numbers of any length, several documents, other encodings."""
    lines = data.decode().splitlines()
    for _ in range(random.randint(1, 2)):
        place = random.randrange(len(lines))
        line, spelling = lines[place], random.choice(_SPELLINGS)
        head, colon, value = line.partition(":")
        indent = line[: len(line) - len(line.lstrip())]
        kind = random.randrange(6)
        if kind <= 2 and colon:
            lines[place] = f"{head}: {spelling}"
        elif kind == 3:
            lines[place] = f"{indent}{spelling}:{value}"
        elif kind == 4:
            lines.insert(
                place, random.choice(("---", "...", "%YAML 1.2", "%TAG ! x", f"{indent}<<: {{}}"))
            )
        else:
            lines[place] = f"{head}: {spelling}{value}" if colon else f"{indent}- {spelling}"
    codec = random.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "utf-32", "latin-1"))
    return "\n".join(lines).encode(codec, errors="replace")


def lie_in_safetensors(data: bytes, random: Random) -> bytes:
    """Types, shapes and places of tensors that contradict each other; lengths of the header."""
    end = 8 + int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8:end]), data[end:]
    names = sorted(name for name in header if name != "__metadata__")
    first, other = header[random.choice(names)], header[random.choice(names)]
    kind = random.randrange(8)
    if kind == 0:
        first["dtype"] = random.choice(("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "Q4"))
    elif kind == 1:
        first["shape"] = random.choice(
            ([], [0], [-1], [2**63], [2**32, 2**32], first["shape"][::-1], [1, *first["shape"]])
        )
    elif kind == 2:
        first["data_offsets"] = other["data_offsets"]
    elif kind == 3:
        begin, stop = first["data_offsets"]
        first["data_offsets"] = random.choice(
            (
                [stop, begin],
                [begin, begin],
                [begin, 2**63],
                [0, len(numbers)],
                [begin + 1, stop + 1],
            )
        )
    elif kind == 4:
        first["dtype"], other["dtype"] = "F16", "F16"
        first["shape"] = [*first["shape"], 2]
    elif kind == 5:
        header[random.choice(("__metadata__", "extra", ""))] = random.choice(HOSTILE)
    text = json.dumps(header).encode()
    if kind == 6:
        name = json.dumps(names[0]).encode()
        text = text.replace(name + b":", name + b": {}, " + name + b":", 1)
    length = len(text)
    if kind == 7:
        length = random.choice((0, 1, length - 1, length + 1, 2**31, 2**63, len(data)))
    return length.to_bytes(8, "little") + text + numbers


def repack_zip(data: bytes, random: Random) -> bytes:
    """Names that climb, stand twice or are links; fields that lie; other archives around."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    place = random.randrange(len(members))
    name, content = members[place]
    kind = random.randrange(6)
    if kind == 0:
        members[place] = (
            random.choice(("../../../escape", "/absolute", "a" * 300, "", name.upper())),
            content,
        )
    elif kind == 1:
        members.insert(random.randint(0, len(members)), (name, random.choice((b"", content[::-1]))))
    packing = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", packing if kind == 2 else zipfile.ZIP_STORED) as archive:
        for index, (member, body) in enumerate(members):
            entry = zipfile.ZipInfo(member or "x")
            entry.external_attr = (0o120777 << 16) if kind == 3 and index == place else 0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of names that stand twice.
                archive.writestr(entry, body, archive.compression)
    file = bytearray(written.getvalue())
    if kind == 4:  # A field of one entry of the table of contents.
        start = -1
        for _ in range(place + 1):
            start = file.index(b"PK\1\2", start + 1)
        field = random.choice((8, 10, 16, 20, 24, 42))
        file[start + field : start + field + 2] = random.choice((b"\1\0", b"\xff\xff", b"\x63\0"))
    elif kind == 5:
        file = bytearray(random.choice((b"junk" * 10 + file, file + b"junk" * 10, file + file)))
    return bytes(file)
