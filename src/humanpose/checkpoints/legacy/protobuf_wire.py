"""Protocol Buffers' wire format, read defensively and without a schema or a protobuf package.

A message is a row of fields, each a key (number and kind) and a value. A value is given as a
slice of the bytes that are there: a length that points beyond them is an error, and nothing is
set aside for it. Errors do not know the file: a reader wraps its work in `naming(path)`.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from humanpose.errors import FormatError, LimitError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_DEPTH = 32

_WIDTH = {FIXED64: 8, FIXED32: 4}
_MAX_NUMBER = (1 << 29) - 1
_MAX_VARINT_BYTES = 10


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: as the .proto file numbers it, 1 to 2^29 - 1.
        kind: VARINT, FIXED64, BYTES or FIXED32.
        value: an integer in [0, 2^64) where `kind` is VARINT, otherwise the bytes themselves.
    """

    number: int
    kind: int
    value: int | memoryview


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Put the file's name before the message of every FormatError and LimitError inside."""
    try:
        yield
    except (FormatError, LimitError) as error:
        raise type(error)(f"{path}: {error}") from error


def fields(view: memoryview, depth: int = 0) -> Iterator[Field]:
    """The fields of the message that fills `view`, in the file's order.

    Args:
        view: bytes of the message.
        depth: how many messages stand around this one; readers of a message that can hold
            itself must count.

    Raises:
        FormatError: the bytes are no message; the fields before the fault have been given.
        LimitError: nested deeper than MAX_DEPTH.
    """
    if depth > MAX_DEPTH:
        raise LimitError(f"messages are nested more than {MAX_DEPTH} deep")
    at, end = 0, len(view)
    while at < end:
        key, at = varint(view, at)
        number, kind = key >> 3, key & 7
        if not 0 < number <= _MAX_NUMBER:
            raise FormatError(f"damaged: {number} is not a field number")
        if kind == VARINT:
            value, at = varint(view, at)
            yield Field(number, kind, value)
            continue
        if kind == BYTES:
            size, at = varint(view, at)
        elif kind in _WIDTH:
            size = _WIDTH[kind]
        else:  # 3 and 4 are groups, out of use since 2008; 6 and 7 have no meaning
            raise FormatError(f"damaged: field {number} is of the unknown kind {kind}")
        if size > end - at:
            raise FormatError(f"cut short: field {number} wants {size:,} bytes of {end - at:,}")
        yield Field(number, kind, view[at : at + size])
        at += size


def varint(view: memoryview, at: int) -> tuple[int, int]:
    """The integer of [0, 2^64) at byte `at`, and the byte after it.

    Raises:
        FormatError: it does not end, or has more than 64 bits.
    """
    if at < len(view) and (first := view[at]) < 0x80:  # most are short, and this is the inner loop
        return first, at + 1
    value = 0
    for i, byte in enumerate(view[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if value >> 64:
                raise FormatError("damaged: an integer of more than 64 bits")
            return value, at + i + 1
    if len(view) - at < _MAX_VARINT_BYTES:
        raise FormatError("cut short in the middle of an integer")
    raise FormatError("damaged: an integer of more than 10 bytes")


def signed(value: int) -> int:
    """`value` of [0, 2^64) read as int32 or int64, which the wire keeps in two's complement."""
    return value - (1 << 64) if value >> 63 else value


def whole(field: Field) -> int:
    """The integer of a VARINT field, in [0, 2^64); FormatError if it is another kind."""
    if isinstance(field.value, int):
        return field.value
    raise FormatError(f"damaged: field {field.number} is not an integer")


def fixed(field: Field) -> int:
    """The unsigned integer of a FIXED32 or FIXED64 field; FormatError if it is another kind."""
    if field.kind in _WIDTH and isinstance(field.value, memoryview):
        return int.from_bytes(field.value, "little")
    raise FormatError(f"damaged: field {field.number} is not a number of fixed width")


def content(field: Field) -> memoryview:
    """The bytes of a BYTES field (message, text, bytes); FormatError if it is another kind."""
    if field.kind == BYTES and isinstance(field.value, memoryview):
        return field.value
    raise FormatError(f"damaged: field {field.number} is not a message or a text")


def text(field: Field, limit: int = 1000) -> str:
    """The text of a BYTES field.

    Raises:
        FormatError: another kind, or not UTF-8.
        LimitError: more than `limit` bytes.
    """
    view = content(field)
    if len(view) > limit:
        raise LimitError(f"a name of {len(view):,} bytes (limit {limit:,})")
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"damaged: the text in field {field.number} is not UTF-8") from error


def integers(field: Field) -> Iterator[int]:
    """Integers of [0, 2^64) of a repeated field: one of it, or many where it is packed.

    Packed integers can be 40 times larger in Python than in the file: count as you go.
    """
    if isinstance(field.value, int):
        yield field.value
        return
    view, at = content(field), 0
    while at < len(view):
        value, at = varint(view, at)
        yield value


def scalars(field: Field, width: int) -> memoryview:
    """Little-endian bytes of a repeated float (width 4) or double (width 8), packed or not.

    Add them to a bytearray and give that to `numpy.frombuffer`.
    """
    if isinstance(field.value, memoryview):
        packed = field.kind == BYTES and len(field.value) % width == 0
        if packed or _WIDTH.get(field.kind) == width:
            return field.value
    raise FormatError(f"damaged: field {field.number} does not hold {width}-byte numbers")
