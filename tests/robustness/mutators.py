"""Seeded damage to files: bytes, and the parts of each format with its checksums made right again.

A mutator that only breaks checksums shows nothing but that checksums are checked, so each knows its
format: what it changes mostly passes the outermost reader and reaches what stands behind.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Values that readers stumble over, whatever they expect.
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 256, 2**24 - 1, 2**24, 2**31 - 1, 2**31, 2**32, 2**53,
    2**63 - 1, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"),
    float("inf"), float("-inf"), "", " ", "\0", "7", "nan", "null", "../../../escape", "..",
    "/absolute/escape", "C:\\x", "a/b", ".", "x" * 300, "\ud800", "é", "\u202e", "<!--<script>",
    "=1+1", "%s%n", "${oc.env:HOME}", "__import__('os')", [], {}, [[]], [None], [0, 0], {"a": 1},
    [1, 2, 3, 4], [-5, -5, 0, 0], {"size": [1, 1], "counts": [1]},
)  # fmt: skip


# Instructions of pickles.
OPCODES = b"(.0123FIJKLMNPQRSTUVX]abcdeghijlopqrstu}\x80\x81\x85\x93\x94"


def damage_bytes(data: bytes, random: Random, *, start: int = 0) -> bytes:
    """One to four changes anywhere from `start` on: flips, extremes, cuts, copies, insertions."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        place = random.randint(min(start, len(changed)), len(changed))
        length = random.choice((1, 1, 2, 4, 16, 200))
        kind = random.randrange(7)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            changed[place : place + length] = random.choice((b"\0", b"\xff", b"\x7f")) * length
        elif kind == 2:
            changed[place : place + length] = random.randbytes(length)
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = random.randbytes(length)
        elif kind == 5:
            changed[place:place] = changed[place : place + length]
        elif random.random() < 0.5:
            del changed[place:]
    return bytes(changed)


def damage_png(data: bytes, random: Random) -> bytes:
    """Header, palette, filters and pixels, order and number of chunks; sometimes plain bytes."""
    if random.random() < 0.15:
        return damage_bytes(data, random)
    chunks = png_chunks(data)
    for _ in range(random.randint(1, 2)):
        kind = random.random()
        if kind < 0.3:
            chunks = [(n, _damaged_header(c, random) if n == b"IHDR" else c) for n, c in chunks]
        elif kind < 0.7:
            chunks = _with_other_pixels(chunks, random)
        elif kind < 0.85:
            place = random.randrange(len(chunks))
            name, content = chunks[place]
            chunks[place] = (name, damage_bytes(content, random))
        else:
            _reorder(chunks, random)
    return PNG_SIGNATURE + b"".join(png_chunk(name, content) for name, content in chunks)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents of a sound PNG."""
    chunks, place = [], len(PNG_SIGNATURE)
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += length + 12
    return chunks


def png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _damaged_header(header: bytes, random: Random) -> bytes:
    if len(header) != 13:  # Damaged before.
        return header
    width, height, bits, color, *methods = struct.unpack(">IIBBBBB", header)
    kind = random.randrange(6)
    sides = (0, 1, 2, width + 1, max(width - 1, 0), 2 * width, 5000, 65535, 2**31 - 1, 2**32 - 1)
    if kind == 0:
        width = random.choice(sides)
    elif kind == 1:
        height = random.choice(sides)
    elif kind == 2:
        width, height = height, width
    elif kind == 3:
        bits = random.choice((1, 2, 4, 8, 16, 3, 255))
    elif kind == 4:
        color = random.choice((0, 2, 3, 4, 6, 1, 255))
    else:
        methods[random.randrange(3)] = random.choice((1, 1, 2, 255))
    return struct.pack(">IIBBBBB", width, height, bits, color, *methods)


def _with_other_pixels(
    chunks: list[tuple[bytes, bytes]], random: Random
) -> list[tuple[bytes, bytes]]:
    """Changes what is inside the compressed stream, and parts the stream in another way."""
    try:
        pixels = zlib.decompress(b"".join(content for name, content in chunks if name == b"IDAT"))
    except zlib.error:  # Damaged before.
        return chunks
    if random.random() < 0.6:  # Of the same length, so that it is decoded.
        changed = bytearray(pixels)
        for _ in range(random.randint(1, 6)):
            if changed:
                place = random.randrange(len(changed))
                changed[place] = random.choice((0, 1, 2, 3, 4, 5, 255, random.randrange(256)))
        pixels = bytes(changed)
    else:
        pixels = damage_bytes(pixels, random)
    stream = zlib.compress(pixels, random.choice((0, 1, 9)))
    cut = random.randint(0, len(stream))
    parts = [(b"IDAT", stream[:cut]), (b"IDAT", stream[cut:])]
    before = [chunk for chunk in chunks if chunk[0] not in (b"IDAT", b"IEND")]
    return [*before, *parts, (b"IEND", b"")]


def _reorder(chunks: list[tuple[bytes, bytes]], random: Random) -> None:
    place, other = random.randrange(len(chunks)), random.randrange(len(chunks))
    kind = random.randrange(4)
    if kind == 0:
        chunks[place], chunks[other] = chunks[other], chunks[place]
    elif kind == 1:
        chunks.insert(place, chunks[other])
    elif kind == 2 and len(chunks) > 1:
        del chunks[place]
    else:
        name = random.choice((b"tRNS", b"PLTE", b"gAMA", b"eXIf", b"iCCP", b"zTXt", b"XXXX"))
        chunks.insert(place, (name, random.randbytes(random.choice((0, 1, 6, 768)))))


def damage_json(data: bytes, random: Random, *, share_of_bytes: float = 0.15) -> bytes:
    """Another value, a missing, renamed or doubled entry, nesting; sometimes plain bytes."""
    if random.random() < share_of_bytes:
        return damage_bytes(data, random)
    content = [json.loads(data)]  # In a list, so that the top may be changed as well.
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        damage_value(content, random)
    text = json.dumps(content[0], ensure_ascii=random.random() < 0.5)
    if random.random() < 0.03:
        text = text.replace("[", "[" * random.choice((2, 3000, 100_000)), 1)
    return text.encode(errors="surrogatepass")


def damage_value(content: list[Any], random: Random) -> None:
    """Changes one place of nested lists and dicts."""
    places = list(_places(content))
    holder, key = random.choice(places)
    kind = random.random()
    if kind < 0.55:
        holder[key] = random.choice(HOSTILE)
    elif kind < 0.65 and holder is not content:
        del holder[key]
    elif kind < 0.75:
        other_holder, other_key = random.choice(places)
        holder[key] = other_holder[other_key] if other_holder is not content else 0
        # No cycle: what is taken is copied.
        holder[key] = json.loads(json.dumps(holder[key])) if _is_plain(holder[key]) else 0
    elif kind < 0.85 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind < 0.92 and isinstance(holder, dict):
        holder[random.choice((key.upper(), f" {key}", "", "id", "__proto__"))] = holder.pop(key)
    elif isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] += random.choice((-1, 1, 0.5, 1000))
    else:
        holder[key] = [holder[key]]


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (ValueError, RecursionError):
        return False
    return True


def _places(content: Any) -> list[tuple[Any, Any]]:
    found, queue = [], [content]
    while queue:
        holder = queue.pop()
        keys = range(len(holder)) if isinstance(holder, list) else list(holder)
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], list | dict):
                queue.append(holder[key])
    return found


def damage_text(data: bytes, random: Random, words: tuple[str, ...]) -> bytes:
    """Lines that are doubled, lost, moved, indented or changed; `words` are put in."""
    if random.random() < 0.15:
        return damage_bytes(data, random)
    lines = data.decode().splitlines()
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(lines)) if lines else 0
        kind = random.randrange(7)
        line = lines[place] if lines else ""
        if kind == 0:
            lines.insert(place, line)
        elif kind == 1 and lines:
            del lines[place]
        elif kind == 2 and lines:
            lines[place] = random.choice(("  ", "\t", " ")) + line
        elif kind == 3 and lines:
            lines.insert(random.randrange(len(lines)), lines.pop(place))
        elif kind == 4:
            lines.insert(place, random.choice(words))
        elif lines and ":" in line:
            lines[place] = f"{line.partition(':')[0]}: {random.choice(words)}"
        elif lines:
            lines[place] = random.choice(words)
    ending = random.choice(("\n", "\n", "\r\n", "\0\n"))
    return ending.join(lines).encode(errors="surrogatepass")


def damage_safetensors(data: bytes, random: Random) -> bytes:
    """Names, types, shapes and offsets in the header, what metadata say, and the numbers."""
    end = 8 + int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8:end]), data[end:]
    kind = random.random()
    if kind < 0.1:
        return damage_bytes(data, random)
    if kind < 0.25:
        numbers = damage_bytes(numbers, random)
    elif kind < 0.8 and header.get("__metadata__"):
        metadata = header["__metadata__"]
        name = random.choice(sorted(metadata))
        metadata[name] = damage_json(metadata[name].encode(), random).decode(errors="replace")
    else:
        holder = [header]
        damage_value(holder, random)
        header = holder[0]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + numbers


def damage_zip(data: bytes, random: Random, damage: Callable[[bytes, Random], bytes]) -> bytes:
    """Changes members of an archive, whose checksums are right again; sometimes plain bytes."""
    if random.random() < 0.15:
        return damage_bytes(data, random)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    written = io.BytesIO()
    chosen = random.choice([name for name, _ in members if name.endswith(".pkl")])
    if random.random() < 0.3:
        chosen = random.choice(members)[0]
    compression = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(written, "w", compression) as archive:
        for name, content in members:
            if name == chosen:
                content = damage(content, random)
            if random.random() < 0.02:
                continue
            archive.writestr(name, content)
    return written.getvalue()


def damage_pickle(data: bytes, random: Random) -> bytes:
    """Bytes of the program that a pickle is: its numbers, names and instructions."""
    if len(data) < 3 or random.random() < 0.4:
        return damage_bytes(data, random, start=2)
    changed = bytearray(data)
    for _ in range(random.randint(1, 3)):
        changed[random.randrange(2, len(changed))] = random.choice(OPCODES)
    return bytes(changed)
