"""LevelDB's table format, in which TensorFlow keeps the names of a checkpoint.

A table is a row of blocks, each followed by a byte for its compression and a checksum, and a
footer that says where the block of block addresses lies. Entries of a block share the start of
their key with the entry before.

Source: tensorflow/core/lib/io/table_format.txt.
"""

from __future__ import annotations

from collections.abc import Iterator

import cramjam
import google_crc32c

from humanpose.errors import FormatError, LimitError

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
    at = len(content) - _FOOTER
    for _ in range(2):  # offset and size of a block of statistics
        _, at = _varint(content, at)
    left = len(content)  # blocks do not overlap, so together they are no longer than the file
    count = 0
    for _, address in _entries(_block(content, content, at)):
        left -= _varint(address, _varint(address, 0)[1])[0] + _TRAILER
        if left < 0:
            raise FormatError("damaged: blocks of the table overlap")
        for entry in _entries(_block(content, address)):
            count += 1
            if count > _MOST_ENTRIES:
                raise LimitError(f"holds more than {_MOST_ENTRIES:,} entries")
            yield entry


def _block(content: bytes, address: bytes, at: int = 0) -> bytes:
    """The unpacked block whose offset and size stand at byte `at` of `address`."""
    offset, at = _varint(address, at)
    size, _ = _varint(address, at)
    end = offset + size
    if end + _TRAILER > len(content) - _FOOTER:
        raise FormatError("cut short: a block of the table lies beyond its end")
    stored = int.from_bytes(content[end + 1 : end + _TRAILER], "little")
    if masked_crc32c(content[offset : end + 1]) != stored:
        raise FormatError("damaged (the checksum of a block of names differs)")
    match content[end]:
        case 0:
            return content[offset:end]
        case 1:
            return unsnappy(content[offset:end])
        case kind:
            raise FormatError(f"damaged: compression {kind} is not known")


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise FormatError("damaged: a block without its last number")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise FormatError("damaged: a block of more restarts than bytes")
    key, at = b"", 0
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        size, at = _varint(block, at)
        if shared > len(key) or shared + fresh > _LONGEST_KEY or fresh + size > end - at:
            raise FormatError("damaged: an entry of the table does not fit its block")
        key = key[:shared] + block[at : at + fresh]
        at += fresh + size
        yield key, block[at - size : at]


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The integer of [0, 2^70) at byte `at`, 7 bits a byte, and the byte after it."""
    value = 0
    for i, byte in enumerate(content[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise FormatError("damaged: an integer without end")


def unsnappy(packed: bytes) -> bytes:
    """Decompress `packed`, snappy's raw format.

    Raises:
        FormatError: damaged.
        LimitError: more than 1 GiB, or than so few bytes can hold.
    """
    size, _ = _varint(packed, 0)
    if size > min(_LARGEST_UNPACKED, 32 * len(packed)):  # three bytes give 64 at most
        raise LimitError(f"a block of {len(packed):,} bytes unpacks to {size:,}; hostile")
    try:
        return bytes(cramjam.snappy.decompress_raw(packed))
    except cramjam.DecompressionError as error:
        raise FormatError(f"damaged: a packed block of the table ({error})") from error


def masked_crc32c(data: bytes) -> int:
    """CRC-32C of `data` as TensorFlow stores it, so that a checksum of checksums stays one."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
