"""Inflates data that is nearly all zeros to the places of its other bytes.

Filtered rows of a label map are such data: 0.2 % of the bytes are not 0. Zeros that are never
written need not be read again either, so the work follows the compressed data, a hundredth of the
rest. Sources: RFC 1950 (zlib), RFC 1951 (deflate).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.jit import helper, kernel

# Denser data is not worth it: one in so many bytes.
BYTES_PER_NONZERO = 16
FEWEST_PLACES = 1024
# So many bytes share an entry of the index by which places are found again.
BLOCK_BITS = 8
LONGEST_CODE = 15
STORED, FIXED, DYNAMIC = range(3)
END_OF_BLOCK = 256
NUM_LITERALS, NUM_DISTANCES = 286, 30
MAX_LENGTH = 258
ADLER = 65521
# In which order a block tells the lengths of the codes that tell lengths.
ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], np.uint8)
# Bits that a match takes at most, and those which are looked at together.
LONGEST_MATCH, WORD = 48, 64


def inflate_nonzero(compressed: bytes, length: int) -> NDArray[np.int64] | None:
    """Inflates zlib data.

    Args:
        compressed: the whole stream.
        length: bytes that it should hold.

    Returns:
        [N + 1] bytes that are not 0, as 256 * place + value in order, and a last with the place
        `length`. None where a plain reader should look: dense, damaged or of another length.
    """
    nonzero = np.empty(max(FEWEST_PLACES, length // BYTES_PER_NONZERO), np.int64)
    size = len(compressed)
    # Whole words, two of which may be looked at where the data ends.
    padded = compressed + bytes(16 + -size % 8)
    count = _inflate(
        np.frombuffer(padded, np.uint8),
        np.frombuffer(padded, np.uint64),
        size,
        length,
        ORDER,
        np.empty((2, 1 << LONGEST_CODE), np.int32),
        np.empty(512, np.int64),
        np.empty(LONGEST_CODE + 1, np.int64),
        nonzero,
        np.zeros((length >> BLOCK_BITS) + 1, np.int64),
    )
    return None if count < 0 else nonzero[: count + 1]


@kernel(
    *("uint8[:]", "uint64[:]", "int64", "int64"),
    *("uint8[:]", "int32[:, :]", "int64[:]", "int64[:]", "int64[:]", "int64[:]"),
    returns="int64",
)
def _inflate(  # type: ignore[no-untyped-def]
    data, words, size, length, order, tables, lengths, next_codes, nonzero, index
):
    """Writes `nonzero`; returns how many there are, or -1: not for us.

    data: [size] and 16 to 23 zeros; words: the same, eight bytes each; tables: [2, 2^15], of
    literals and of distances; lengths: [512] of the codes; next_codes: [16]; index: at most how
    many lie before each block of the result.
    """
    head = (np.int64(data[0]) << 8) | data[1]
    if head % 31 or (data[0] & 15) != 8 or data[0] >> 4 > 7 or data[1] & 32:
        return -1
    literals, distances = tables[0], tables[1]
    bit, place, count, is_last = 16, 0, 0, False
    while not is_last:
        if bit > 8 * size:
            return -1
        word = _peek(words, bit)
        is_last, kind = word & 1 == 1, (word >> 1) & 3
        bit += 3
        if kind == STORED:
            bit, place, count = _copy_stored(data, size, bit, place, length, nonzero, count, index)
            if bit < 0:
                return -1
            continue
        bit, mask, distance_mask = _read_codes(
            words, size, bit, kind, order, literals, distances, lengths, next_codes
        )
        if bit < 0:
            return -1
        ahead, ahead_bit = np.int64(0), bit - WORD
        while True:
            if bit - ahead_bit > WORD - LONGEST_MATCH:
                if bit > 8 * size:
                    return -1
                ahead, ahead_bit = _peek(words, bit), bit
            word = ahead >> (bit - ahead_bit)
            entry = np.int64(literals[word & mask])
            symbol, used = entry >> 4, entry & 15
            if symbol < END_OF_BLOCK:
                if place == length:
                    return -1
                count = _write(place, symbol, nonzero, count, index)
                place += 1
                bit += used
                if count < 0:
                    return -1
                continue
            if symbol == END_OF_BLOCK:
                bit += used
                break
            if symbol >= NUM_LITERALS:
                return -1
            span = MAX_LENGTH
            if symbol < NUM_LITERALS - 1:
                base, extra = _split(symbol - END_OF_BLOCK - 1, 2)
                span = base + 3 + ((word >> used) & ((1 << extra) - 1))
                used += extra
            entry = np.int64(distances[(word >> used) & distance_mask])
            symbol, used = entry >> 4, used + (entry & 15)
            if symbol >= NUM_DISTANCES:
                return -1
            base, extra = _split(symbol, 1)
            distance = base + 1 + ((word >> used) & ((1 << extra) - 1))
            bit += used + extra
            if distance > place or place + span > length:
                return -1
            count = _repeat(place, distance, span, nonzero, count, index)
            place += span
            if count < 0:
                return -1
    byte = (bit + 7) >> 3
    if place != length or byte + 4 != size:
        return -1
    nonzero[count] = length << 8
    told = 0
    for byte in range(size - 4, size):
        told = (told << 8) | data[byte]
    return count if told == _checksum(nonzero, count) else -1


@helper
def _copy_stored(data, size, bit, place, length, nonzero, count, index):  # type: ignore[no-untyped-def]
    """A block of plain bytes; returns the bit, place and count behind it, and -1 for failures."""
    byte = ((bit + 7) >> 3) + 4
    if byte > size:
        return -1, place, count
    stored = np.int64(data[byte - 4]) | (np.int64(data[byte - 3]) << 8)
    inverse = np.int64(data[byte - 2]) | (np.int64(data[byte - 1]) << 8)
    if stored + inverse != 65535 or byte + stored > size or place + stored > length:
        return -1, place, count
    for _ in range(stored):
        count = _write(place, data[byte], nonzero, count, index)
        if count < 0:
            return -1, place, count
        place += 1
        byte += 1
    return 8 * byte, place, count


@helper
def _write(place, value, nonzero, count, index):  # type: ignore[no-untyped-def]
    """One byte; returns the new count, -1 where there is no room for it."""
    _index(place, 1, count, index)
    if value == 0:
        return count
    if count == len(nonzero) - 1:
        return -1
    nonzero[count] = (place << 8) | value
    return count + 1


@helper
def _repeat(place, distance, span, nonzero, count, index):  # type: ignore[no-untyped-def]
    """A span that was there before; returns as `_write`."""
    start, end = (place - distance) << 8, (place - distance + span) << 8
    _index(place, span, count, index)
    source = index[(place - distance) >> BLOCK_BITS]
    while source < count and nonzero[source] < start:
        source += 1
    # What is written here may be read again: a span longer than its distance repeats it.
    while source < count and nonzero[source] < end:
        if count == len(nonzero) - 1:
            return -1
        nonzero[count] = nonzero[source] + (distance << 8)
        count += 1
        source += 1
    return count


@helper
def _peek(words, bit):  # type: ignore[no-untyped-def]
    """The next 64 bits."""
    index, shift = bit >> 6, np.uint64(bit & 63)
    # In two steps, as a shift by 64 does nothing.
    rest = (words[index + 1] << (np.uint64(63) - shift)) << np.uint64(1)
    return np.int64((words[index] >> shift) | rest)


@helper
def _split(code, bits):  # type: ignore[no-untyped-def]
    """Least value of a code of lengths (2 bits) or distances (1), and the bits that follow it."""
    extra = max((code >> bits) - 1, 0)
    if extra > 0:
        code = ((1 << bits) + (code & ((1 << bits) - 1))) << extra
    return code, extra


@helper
def _read_codes(words, size, bit, kind, order, literals, distances, lengths, next_codes):  # type: ignore[no-untyped-def]
    """Fills the tables of a block; returns the bit behind its codes (-1: failure) and two masks."""
    if kind == FIXED:
        lengths[:144], lengths[144:256], lengths[256:280] = 8, 9, 7
        lengths[280:288], lengths[288:320] = 8, 5
        num_literals, num_distances = 288, 32
    elif kind == DYNAMIC:
        word = _peek(words, bit)
        num_literals, num_distances = (word & 31) + 257, ((word >> 5) & 31) + 1
        if num_literals > NUM_LITERALS or num_distances > NUM_DISTANCES:
            return -1, 0, 0
        number = num_literals + num_distances
        bit = _read_lengths(words, size, bit, number, order, literals, lengths, next_codes)
    else:
        return -1, 0, 0
    if bit < 0:
        return -1, 0, 0
    bits = _fill_table(lengths[:num_literals], next_codes, literals)
    distance_bits = _fill_table(
        lengths[num_literals : num_literals + num_distances], next_codes, distances
    )
    if bits < 0 or distance_bits < 0:
        return -1, 0, 0
    return bit, (1 << bits) - 1, (1 << distance_bits) - 1


@helper
def _fill_table(lengths, next_codes, table):  # type: ignore[no-untyped-def]
    """Table from the next bits to 16 * symbol + length of its code; returns how many bits.

    -1 unless every row of bits means something.
    """
    next_codes[:] = 0
    for length in lengths:
        next_codes[length] += 1
    bits = LONGEST_CODE
    while bits > 0 and next_codes[bits] == 0:
        bits -= 1
    code, next_codes[0] = 0, 0
    for length in range(1, bits + 1):
        number, next_codes[length] = next_codes[length], code
        code = (code + number) << 1
    if bits == 0 or code != 2 << bits:
        return -1
    for symbol in range(len(lengths)):
        length = lengths[symbol]
        if length == 0:
            continue
        code = next_codes[length]
        next_codes[length] += 1
        backwards = 0
        for _ in range(length):
            backwards, code = (backwards << 1) | (code & 1), code >> 1
        for place in range(backwards, 1 << bits, 1 << length):
            table[place] = (symbol << 4) | length
    return bits


@helper
def _read_lengths(words, size, bit, number, order, table, lengths, next_codes):  # type: ignore[no-untyped-def]
    """Reads the code lengths of a block, which are coded themselves; returns the bit behind."""
    num_told = ((_peek(words, bit) >> 10) & 15) + 4
    bit += 14
    lengths[: len(order)] = 0
    for place in range(num_told):
        lengths[order[place]] = _peek(words, min(bit, 8 * size)) & 7
        bit += 3
    bits = _fill_table(lengths[: len(order)], next_codes, table)
    if bits < 0:
        return -1
    done = 0
    while done < number:
        if bit > 8 * size:
            return -1
        word = _peek(words, bit)
        entry = np.int64(table[word & ((1 << bits) - 1)])
        symbol, used = entry >> 4, entry & 15
        word >>= used
        value, times, extra = symbol, 1, 0
        if symbol == 16:
            if done == 0:
                return -1
            value, times, extra = lengths[done - 1], 3 + (word & 3), 2
        elif symbol == 17:
            value, times, extra = np.int64(0), 3 + (word & 7), 3
        elif symbol == 18:
            value, times, extra = np.int64(0), 11 + (word & 127), 7
        if done + times > number:
            return -1
        lengths[done : done + times] = value
        done += times
        bit += used + extra
    return bit


@helper
def _index(place, span, count, index):  # type: ignore[no-untyped-def]
    """Notes, before a span is written, where to search later for what lies in it."""
    for block in range((place >> BLOCK_BITS) + 1, ((place + span) >> BLOCK_BITS) + 1):
        index[block] = count


@helper
def _checksum(nonzero, count):  # type: ignore[no-untyped-def]
    """Adler-32: of a row of zeros the second sum grows by the first for each."""
    first, second, place = 1, 0, 0
    for index in range(count + 1):
        here, value = nonzero[index] >> 8, nonzero[index] & 255
        second += first * (here - place)
        if second >> 60:
            second %= ADLER
        first, place = first + value, here
        if first >= ADLER:
            first -= ADLER
    return (second % ADLER << 16) | first
