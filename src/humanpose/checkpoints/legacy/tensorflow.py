"""TensorFlow checkpoints and frozen graphs, without TensorFlow; nothing in them is executed.

A checkpoint is a table of names (`NAME.index`, in LevelDB's format) beside the values
(`NAME.data-00000-of-0000N`); the older kind keeps both in one table. A frozen graph is a
protobuf message whose Const nodes hold the values.

Source: tensorflow/core/lib/io/table_format.txt, tensorflow/core/protobuf/tensor_bundle.proto,
saved_tensor_slice.proto, tensorflow/core/framework/{graph,node_def,tensor}.proto.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.checkpoints.legacy import leveldb_table, protobuf_wire
from humanpose.errors import FormatError, InputError, LimitError
from humanpose.files import file_size, read_limited

Array = np.ndarray[Any, Any]

_INDEX_BYTES = 64 << 20
_FILE_BYTES = 2 << 30
_MAX_DIMS = 8
_MAX_SHARDS = 1000
# DataType of types.proto; what is not here (texts, flags) is left out.
_DTYPES = {1: "f4", 2: "f8", 3: "i4", 9: "i8", 19: "f2"}


@dataclass(slots=True)
class _Entry:
    """BundleEntryProto: where a tensor lies in its shard."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    sliced: bool = False


def read_tf_checkpoint(path: Path) -> dict[str, Array]:
    """Variables by their TensorFlow names, in TensorFlow's layouts and types.

    Args:
        path: NAME, NAME.index or a NAME.data file of the present format, or the one file of the
            format before TensorFlow 0.12. Numbers only: texts and flags are left out.

    Raises:
        InputError: if a file is not there.
        LimitError: if it asks for more than the limits above.
        FormatError: if it is damaged (checksums are compared) or something else.
    """
    stem = Path(str(path).split(".data-")[0].removesuffix(".index"))
    index = stem.with_name(f"{stem.name}.index")
    if index.exists():
        with protobuf_wire.naming(index):
            header, entries = _bundle(read_limited(index, _INDEX_BYTES))
        return _read_shards(stem, header, entries)
    if not stem.is_file():
        raise InputError(f"{index} does not exist; a checkpoint is NAME.index and NAME.data files")
    with protobuf_wire.naming(stem):
        return _first_format(read_limited(stem, _FILE_BYTES))


def read_tf_graph(path: Path) -> dict[str, Array]:
    """Values of the constants of a frozen graph (.pb) by node name.

    Raises:
        InputError: if the file is not there.
        LimitError: if it, or what it asks for, is larger than the limits above.
        FormatError: if it is damaged, or holds no constants.
    """
    with protobuf_wire.naming(path):
        content = read_limited(path, _FILE_BYTES)
        found: dict[str, Array] = {}
        spare = [max(4 * len(content), 1 << 20)]  # bytes that repeated values may grow to
        for part in protobuf_wire.fields(memoryview(content)):
            if part.number == 1:
                _add_constant(protobuf_wire.content(part), found, spare)
        if not found:
            raise FormatError("holds no constants; is it a frozen graph?")
        return found


# ------------------------------------------------------------------------------- present format


def _bundle(content: bytes) -> tuple[tuple[int, str], dict[str, _Entry]]:
    """(shards, byte order) and the entries of an index file."""
    header: tuple[int, str] | None = None
    entries: dict[str, _Entry] = {}
    for key, value in leveldb_table.items(content):
        if key == b"":
            header = _header(memoryview(value))
            continue
        try:
            name = key.decode()
        except UnicodeDecodeError:
            continue  # a slice of a partitioned variable, refused below under its own name
        if header is None or name in entries:
            raise FormatError(f"damaged: no header, or {name[:60]!r} twice")
        entries[name] = _entry(memoryview(value))
    if header is None:
        raise FormatError("holds no header of a TensorFlow checkpoint")
    return header, entries


def _header(view: memoryview) -> tuple[int, str]:
    shards, order = 0, "<"
    for part in protobuf_wire.fields(view):
        if part.number == 1:
            shards = protobuf_wire.whole(part)
        elif part.number == 2:
            order = ">" if protobuf_wire.whole(part) else "<"
    if not 0 < shards <= _MAX_SHARDS:
        raise FormatError(f"damaged: {shards} shards")
    return shards, order


def _entry(view: memoryview) -> _Entry:
    entry = _Entry()
    for part in protobuf_wire.fields(view):
        match part.number:
            case 1:
                entry.dtype = protobuf_wire.whole(part)
            case 2:
                entry.shape = _shape(protobuf_wire.content(part))
            case 3:
                entry.shard = protobuf_wire.whole(part)
            case 4:
                entry.offset = protobuf_wire.whole(part)
            case 5:
                entry.size = protobuf_wire.whole(part)
            case 6:
                entry.crc = protobuf_wire.fixed(part)
            case 7:
                entry.sliced = True
    return entry


def _shape(view: memoryview) -> tuple[int, ...]:
    """TensorShapeProto; a size of -1 (unknown) or a shape of unknown rank is refused."""
    sizes = []
    for part in protobuf_wire.fields(view):
        if part.number == 2:
            size = 0
            for inner in protobuf_wire.fields(protobuf_wire.content(part)):
                if inner.number == 1:
                    size = protobuf_wire.signed(protobuf_wire.whole(inner))
            sizes.append(size)
        elif part.number == 3 and protobuf_wire.whole(part):
            raise FormatError("holds a tensor of unknown shape")
        if len(sizes) > _MAX_DIMS or (sizes and not 0 <= sizes[-1] < 1 << 40):
            raise FormatError(f"damaged: a tensor of shape {tuple(sizes)}")
    return tuple(sizes)


def _read_shards(
    stem: Path, header: tuple[int, str], entries: dict[str, _Entry]
) -> dict[str, Array]:
    shards, order = header
    paths = [stem.with_name(f"{stem.name}.data-{i:05}-of-{shards:05}") for i in range(shards)]
    by_shard: dict[int, list[str]] = {}
    for name, entry in entries.items():
        if entry.dtype in _DTYPES:
            by_shard.setdefault(entry.shard, []).append(name)
    found: dict[str, Array] = {}
    for shard, names in sorted(by_shard.items()):
        if shard >= shards:
            raise FormatError(f"{stem}.index: damaged: shard {shard} of {shards}")
        length, claimed = file_size(paths[shard]), 0
        if length > _FILE_BYTES:
            raise LimitError(f"{paths[shard]} has {length:,} bytes (limit {_FILE_BYTES:,})")
        with open(paths[shard], "rb") as file, protobuf_wire.naming(paths[shard]):
            for name in names:
                entry = entries[name]
                claimed += _checked(name, entry, length)
                if claimed > length:
                    raise FormatError(f"{name[:60]!r} lies where another tensor lies")
                file.seek(entry.offset)
                raw = file.read(entry.size)
                if leveldb_table.masked_crc32c(raw) != entry.crc:
                    raise FormatError(f"{name[:60]!r} is damaged (its checksum differs)")
                kind = np.dtype(f"{order}{_DTYPES[entry.dtype]}")
                found[name] = np.frombuffer(raw, kind).reshape(entry.shape)
    return {name: found[name] for name in entries if name in found}


def _checked(name: str, entry: _Entry, length: int) -> int:
    """Bytes of `entry`, which lies inside a shard of `length` bytes."""
    if entry.sliced:
        raise FormatError(
            f"{name[:60]!r} is a partitioned variable; save the network unpartitioned"
        )
    if entry.size != math.prod(entry.shape) * np.dtype(_DTYPES[entry.dtype]).itemsize:
        raise FormatError(f"{name[:60]!r}: {entry.size:,} bytes for the shape {entry.shape}")
    if entry.offset + entry.size > length:
        raise FormatError(f"{name[:60]!r} lies beyond the file's {length:,} bytes; cut short")
    return entry.size


# --------------------------------------------------------------------------- the format before


def _first_format(content: bytes) -> dict[str, Array]:
    """A table of SavedTensorSlices: under "" names, types and shapes, then the values of each."""
    known: dict[str, _Values] = {}
    found: dict[str, Array] = {}
    spare = [max(4 * len(content), 1 << 20)]
    for key, value in leveldb_table.items(content):
        for part in protobuf_wire.fields(memoryview(value)):
            if key == b"" and part.number == 1:
                known = dict(_described(protobuf_wire.content(part)))
            elif key != b"" and part.number == 2:
                name, view = _slice(protobuf_wire.content(part))
                if name in found or name not in known:
                    raise FormatError(f"damaged: {name[:60]!r} twice, or not in the list of names")
                array = _tensor(name, view, spare, known[name])
                if array is not None:
                    found[name] = array
    if not found:
        raise FormatError("holds no tensors of a TensorFlow checkpoint")
    return found


def _described(view: memoryview) -> Iterator[tuple[str, _Values]]:
    """SavedTensorSliceMeta: type and shape by name, the values still missing."""
    for part in protobuf_wire.fields(view):
        if part.number == 1:
            name, values = "", _Values()
            for inner in protobuf_wire.fields(protobuf_wire.content(part)):
                if inner.number == 1:
                    name = protobuf_wire.text(inner)
                elif inner.number == 2:
                    values.shape = _shape(protobuf_wire.content(inner))
                elif inner.number == 3:
                    values.dtype = protobuf_wire.whole(inner)
            yield name, values


def _slice(view: memoryview) -> tuple[str, memoryview]:
    """Name and TensorProto of a SavedSlice, which must be the whole tensor."""
    name, tensor = "", memoryview(b"")
    for part in protobuf_wire.fields(view):
        if part.number == 1:
            name = protobuf_wire.text(part)
        elif part.number == 2 and _is_part(protobuf_wire.content(part)):
            raise FormatError(
                f"{name[:60]!r} is a partitioned variable; save the network unpartitioned"
            )
        elif part.number == 3:
            tensor = protobuf_wire.content(part)
    return name, tensor


def _is_part(view: memoryview) -> bool:
    """Whether a TensorSliceProto is less than the whole: an extent with a start or a length."""
    return any(
        len(protobuf_wire.content(part)) > 0
        for part in protobuf_wire.fields(view)
        if part.number == 1
    )


# ------------------------------------------------------------------------------------- graphs


def _add_constant(view: memoryview, found: dict[str, Array], spare: list[int]) -> None:
    """One NodeDef; constants only."""
    name, op, value = "", "", None
    for part in protobuf_wire.fields(view):
        if part.number == 1:
            name = protobuf_wire.text(part)
        elif part.number == 2:
            op = protobuf_wire.text(part)
        elif part.number == 5:  # an entry of the map `attr`
            key, attr = "", memoryview(b"")
            for inner in protobuf_wire.fields(protobuf_wire.content(part)):
                if inner.number == 1:
                    key = protobuf_wire.text(inner)
                elif inner.number == 2:
                    attr = protobuf_wire.content(inner)
            if key == "value":
                value = attr
    if op != "Const" or value is None:
        return
    for part in protobuf_wire.fields(value):
        if part.number == 8:
            array = _tensor(name, protobuf_wire.content(part), spare)
            if name in found:
                raise FormatError(f"damaged: two nodes are called {name[:60]!r}")
            if array is not None:
                found[name] = array


@dataclass(slots=True)
class _Values:
    """TensorProto: the values as bytes, or one by one in a list of their type."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    content: memoryview = field(default_factory=lambda: memoryview(b""))
    listed: bytearray = field(default_factory=bytearray)


def _half(part: protobuf_wire.Field) -> Iterator[bytes]:
    return (int(v & 0xFFFF).to_bytes(2, "little") for v in protobuf_wire.integers(part))


def _int32(part: protobuf_wire.Field) -> Iterator[bytes]:
    return ((v & 0xFFFFFFFF).to_bytes(4, "little") for v in protobuf_wire.integers(part))


def _int64(part: protobuf_wire.Field) -> Iterator[bytes]:
    return (v.to_bytes(8, "little") for v in protobuf_wire.integers(part))


# Field of TensorProto that lists the values -> DataType it belongs to, and its bytes.
_LISTS: dict[int, tuple[int, Callable[[protobuf_wire.Field], Iterator[bytes]]]] = {
    5: (1, lambda part: iter((bytes(protobuf_wire.scalars(part, 4)),))),
    6: (2, lambda part: iter((bytes(protobuf_wire.scalars(part, 8)),))),
    7: (3, _int32),
    10: (9, _int64),
    13: (19, _half),
}


def _tensor(
    name: str, view: memoryview, spare: list[int], described: _Values | None = None
) -> Array | None:
    """The array of a TensorProto, or None if it does not hold numbers of a known type.

    Args:
        name: for messages.
        view: the message; type and shape are in it, or `described`.
        spare: bytes that repeated values may still take, in a list of one; counted down.
        described: a type and a shape.
    """
    values = described or _Values()
    for part in protobuf_wire.fields(view):
        if part.number == 1:
            values.dtype = protobuf_wire.whole(part)
        elif part.number == 2:
            values.shape = _shape(protobuf_wire.content(part))
        elif part.number == 4:
            values.content = protobuf_wire.content(part)
        elif part.number in _LISTS and _LISTS[part.number][0] == values.dtype:
            for piece in _LISTS[part.number][1](part):
                values.listed += piece
    if values.dtype not in _DTYPES:
        return None
    kind, count = np.dtype(f"<{_DTYPES[values.dtype]}"), math.prod(values.shape)
    if len(values.content):
        if len(values.content) != count * kind.itemsize:
            raise FormatError(
                f"{name[:60]!r}: {len(values.content):,} bytes for shape {values.shape}"
            )
        return np.frombuffer(values.content, kind).reshape(values.shape)
    listed = np.frombuffer(bytes(values.listed), kind)
    if len(listed) == count:
        return listed.reshape(values.shape)
    # Fewer values than elements: the last one stands for the rest (none: zeros).
    spare[0] -= count * kind.itemsize
    if len(listed) > count or spare[0] < 0:
        raise FormatError(f"{name[:60]!r}: {len(listed):,} values for shape {values.shape}")
    array = np.full(count, listed[-1] if len(listed) else 0, kind)
    array[: len(listed)] = listed
    return array.reshape(values.shape)
