"""LevelDB's table format, in which TensorFlow keeps the names of a checkpoint.

A table is a row of blocks, each followed by a byte for its compression and a checksum, and a
footer that says where the block of block addresses lies. Entries of a block share the start of
their key with the entry before.

Source: tensorflow/core/lib/io/table_format.txt; google/snappy format_description.txt.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from humanpose.checkpoints.legacy.protobuf_wire import varint
from humanpose.errors import FormatError, LimitError

U32 = NDArray[np.uint32]

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5  # compression byte and checksum
_LONGEST_KEY = 4096
_MOST_ENTRIES = 200_000
_LARGEST_UNPACKED = 1 << 30


def items(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a table, in the file's order.

    Raises:
        FormatError: damaged (checksums are compared), or no such table.
        LimitError: more entries, or larger ones, than any checkpoint has.
    """
    if len(content) < _FOOTER or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise FormatError("no TensorFlow checkpoint (its last bytes are not a table's)")
    view = memoryview(content)
    footer = view[len(view) - _FOOTER :]
    _, at = _handle(footer, 0)
    index, _ = _handle(footer, at)
    left = len(content)  # blocks do not overlap, so together they are no longer than the file
    count = 0
    for _, value in _entries(_block(view, index)):
        handle, _ = _handle(memoryview(value), 0)
        left -= handle[1] + _TRAILER
        if left < 0:
            raise FormatError("damaged: blocks of the table overlap")
        for entry in _entries(_block(view, handle)):
            count += 1
            if count > _MOST_ENTRIES:
                raise LimitError(f"holds more than {_MOST_ENTRIES:,} entries")
            yield entry


def _handle(view: memoryview, at: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and the byte after it."""
    offset, at = varint(view, at)
    size, at = varint(view, at)
    return (offset, size), at


def _block(view: memoryview, handle: tuple[int, int]) -> memoryview:
    offset, size = handle
    if offset + size + _TRAILER > len(view) - _FOOTER:
        raise FormatError("cut short: a block of the table lies beyond its end")
    body = view[offset : offset + size]
    kind = view[offset + size]
    stored = int.from_bytes(view[offset + size + 1 : offset + size + _TRAILER], "little")
    if masked_crc32c(view[offset : offset + size + 1]) != stored:
        raise FormatError("damaged (the checksum of a block of names differs)")
    if kind == 0:
        return body
    if kind == 1:
        return memoryview(unsnappy(body))
    raise FormatError(f"damaged: compression {kind} is not known")


def _entries(block: memoryview) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise FormatError("damaged: a block without its last number")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise FormatError("damaged: a block of more restarts than bytes")
    key, at, view = b"", 0, block[:end]
    while at < end:
        shared, at = varint(view, at)
        fresh, at = varint(view, at)
        size, at = varint(view, at)
        if shared > len(key) or shared + fresh > _LONGEST_KEY or fresh + size > end - at:
            raise FormatError("damaged: an entry of the table does not fit its block")
        key = key[:shared] + bytes(view[at : at + fresh])
        yield key, bytes(view[at + fresh : at + fresh + size])
        at += fresh + size


# -------------------------------------------------------------------------------------- snappy


def unsnappy(view: memoryview) -> bytearray:
    """What `view` holds in snappy's raw format; memory grows with what is decoded, no faster.

    Raises:
        FormatError: damaged.
        LimitError: more than 1 GiB.
    """
    wanted, at = varint(view, 0)
    if wanted > _LARGEST_UNPACKED:
        raise LimitError(f"a block unpacks to {wanted:,} bytes (limit {_LARGEST_UNPACKED:,})")
    out = bytearray()
    while at < len(view):
        tag = view[at]
        at += 1
        if tag & 3 == 0:  # a literal
            size = tag >> 2
            if size >= 60:
                extra = size - 59
                size = int.from_bytes(_take(view, at, extra), "little")
                at += extra
            out += _take(view, at, size + 1)
            at += size + 1
        else:  # a copy of what was decoded
            extra = (1, 2, 4)[(tag & 3) - 1]
            back = int.from_bytes(_take(view, at, extra), "little")
            at += extra
            size = 1 + (tag >> 2)
            if tag & 3 == 1:
                back |= (tag >> 5) << 8
                size = 4 + (tag >> 2 & 7)
            if not 0 < back <= len(out):
                raise FormatError("damaged: a copy from before the block")
            start = len(out) - back
            piece = out[start : start + size]
            # A copy may run into what it writes: then it repeats.
            out += (piece * (size // len(piece) + 1))[:size]
        if len(out) > wanted:
            raise FormatError("damaged: a block unpacks to more than it says")
    if len(out) != wanted:
        raise FormatError("damaged: a block unpacks to less than it says")
    return out


def _take(view: memoryview, at: int, size: int) -> memoryview:
    if size > len(view) - at:
        raise FormatError("cut short in a packed block")
    return view[at : at + size]


# -------------------------------------------------------------------------------------- crc32c

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
_LANES = 1 << 14
_PARALLEL_FROM = 1 << 16  # bytes; below, a plain loop is quicker


def _table() -> U32:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE = _table()
_WORDS: list[int] = _TABLE.tolist()


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (RFC 3720, appendix B.4) of `data`.

    Long data is cut into lanes that numpy takes through the table side by side; their results
    are joined by the matrix that appends zeros.
    """
    crc, start = 0xFFFFFFFF, 0
    if len(data) >= _PARALLEL_FROM:
        length = len(data) // _LANES
        start = length * _LANES
        columns = np.ascontiguousarray(
            np.frombuffer(data, np.uint8, count=start).reshape(_LANES, length).T
        )
        lanes = np.zeros(_LANES, np.uint32)
        lanes[0] = crc
        for column in columns:
            lanes = _TABLE[(lanes ^ column) & 0xFF] ^ (lanes >> 8)
        shift = _zeros(length)
        while len(lanes) > 1:
            lanes = _times(shift, lanes[::2]) ^ lanes[1::2]
            shift = _times(shift, shift)
        crc = int(lanes[0])
    for byte in bytes(data[start:]):
        crc = _WORDS[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | memoryview) -> int:
    """crc32c as TensorFlow stores it, so that a checksum of checksums stays one."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _times(matrix: U32, vectors: U32) -> U32:
    """Product over GF(2): `matrix[i]` is the image of bit i."""
    out = np.zeros_like(vectors)
    for i in range(32):
        out ^= np.where(vectors >> np.uint32(i) & 1, matrix[i], np.uint32(0))
    return out


def _zeros(count: int) -> U32:
    """The matrix that takes a crc past `count` zero bytes."""
    step = np.uint32(1) << np.arange(32, dtype=np.uint32)
    step = (_TABLE[step & 0xFF] ^ (step >> 8)).astype(np.uint32)
    out = np.uint32(1) << np.arange(32, dtype=np.uint32)
    while count:
        if count & 1:
            out = _times(step, out)
        step = _times(step, step)
        count >>= 1
    return out.astype(np.uint32)
