"""TensorFlow checkpoints and frozen graphs, without TensorFlow; nothing in them is executed.

A checkpoint is a table of names (`NAME.index`, in LevelDB's format) beside the values
(`NAME.data-00000-of-0000N`); the older kind keeps both in one table. A frozen graph is a
protobuf message whose Const nodes hold the values.

Source: tensorflow/core/lib/io/table_format.txt, tensorflow/core/protobuf/tensor_bundle.proto,
saved_tensor_slice.proto, tensorflow/core/framework/{graph,node_def,tensor}.proto.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.checkpoints.legacy import leveldb_table, protobuf
from humanpose.errors import FormatError, InputError, LimitError
from humanpose.files import file_size, read_limited
from humanpose.sandbox import Arrays

_INDEX_BYTES = 64 << 20
_FILE_BYTES = (2 << 30) - 1  # of a protobuf message, at most
_MAX_DIMS = 8
_MAX_SHARDS = 1000
_PARTITIONED = "is a partitioned variable; save the network unpartitioned"
# DataType of types.proto -> numpy's, field of a TensorProto that lists such values.
# What is not here (texts, flags) is left out.
_DTYPES = {
    1: ("f4", "float_val"),
    2: ("f8", "double_val"),
    3: ("i4", "int_val"),
    9: ("i8", "int64_val"),
    19: ("f2", "half_val"),
}

_MESSAGES = protobuf.messages(
    Dim="optional int64 size = 1",
    Shape="repeated Dim dim = 2; optional bool unknown_rank = 3",
    Tensor="""
        optional int32 dtype = 1; optional Shape tensor_shape = 2; optional bytes content = 4;
        repeated float float_val = 5; repeated double double_val = 6; repeated int32 int_val = 7;
        repeated int64 int64_val = 10; repeated int32 half_val = 13
    """,
    # A checkpoint's header and entries.
    Header="optional int32 num_shards = 1; optional int32 endianness = 2",
    Entry="""
        optional int32 dtype = 1; optional Shape shape = 2; optional int32 shard_id = 3;
        optional int64 offset = 4; optional int64 size = 5; optional fixed32 crc32c = 6;
        repeated bytes slices = 7
    """,
    # The format before TensorFlow 0.12.
    SavedTensorSlices="optional Meta meta = 1; optional Saved data = 2",
    Meta="repeated SavedMeta tensor = 1",
    SavedMeta="optional bytes name = 1; optional Shape shape = 2; optional int32 type = 3",
    Saved="optional bytes name = 1; optional Slice slice = 2; optional Tensor data = 3",
    Slice="repeated bytes extent = 1",
    # Graphs.
    Graph="repeated Node node = 1",
    Node="optional bytes name = 1; optional bytes op = 2; repeated Attribute attr = 5",
    Attribute="optional bytes key = 1; optional Value value = 2",
    Value="optional Tensor tensor = 8",
)


def parse_tf_checkpoint(path: str) -> Arrays:
    """Variables by TensorFlow's names, in its layouts and types; call it in a child process.

    Args:
        path: what `checkpoint_file` gives. Numbers only: texts and flags are left out.

    Raises:
        InputError: if a file is not there.
        LimitError: if it asks for more than the limits above.
        FormatError: if it is damaged (checksums are compared) or something else.
    """
    index = path.endswith(".index")
    content = read_limited(path, _INDEX_BYTES if index else _FILE_BYTES)
    try:
        items = dict(leveldb_table.items(content))
    except (FormatError, LimitError) as error:
        raise type(error)(f"{path}: {error}") from error
    if index:
        return _read_shards(Path(path), items)
    return _first_format(path, items, room=max(4 * len(content), 1 << 20))


def checkpoint_file(path: Path) -> tuple[Path, int]:
    """The file that holds a checkpoint's names, and the bytes of all of its files.

    Args:
        path: NAME, NAME.index or a NAME.data file of the present format, or the one file of the
            format before TensorFlow 0.12.
    """
    stem = Path(str(path).split(".data-")[0].removesuffix(".index"))
    index = stem.with_name(f"{stem.name}.index")
    if not index.exists():
        if not stem.is_file():
            raise InputError(
                f"{index} does not exist; a checkpoint is NAME.index and NAME.data files"
            )
        return stem, file_size(stem)
    shards = (part for part in stem.parent.iterdir() if part.name.startswith(f"{stem.name}.data-"))
    return index, sum(part.stat().st_size for part in shards) + file_size(index)


def parse_tf_graph(path: str) -> Arrays:
    """Values of the constants of a frozen graph (.pb) by node name; call it in a child process.

    Raises:
        InputError: if the file is not there.
        LimitError: if it, or what it asks for, is larger than the limits above.
        FormatError: if it is damaged, or holds no constants.
    """
    content = read_limited(path, _FILE_BYTES)
    room = max(4 * len(content), 1 << 20)
    found: Arrays = {}
    for node in protobuf.decode(_MESSAGES["Graph"], content, path).node:
        name = protobuf.text(node.name, path)
        for attribute in node.attr:
            if node.op != b"Const" or attribute.key != b"value":
                continue
            if name in found:
                raise FormatError(f"{path}: damaged: two nodes are called {name[:60]!r}")
            tensor = attribute.value.tensor
            where = f"{path}: {name[:60]!r}"
            if tensor.dtype in _DTYPES:
                shape = _shape(tensor.tensor_shape, where)
                found[name] = _array(tensor, tensor.dtype, shape, room, where)
    if not found:
        raise FormatError(f"{path}: holds no constants; is it a frozen graph?")
    return found


# ------------------------------------------------------------------------------- present format


def _read_shards(index: Path, items: dict[bytes, bytes]) -> Arrays:
    """Tensors of the shards beside `index`, whose table holds `items`."""
    if b"" not in items:
        raise FormatError(f"{index}: holds no header of a TensorFlow checkpoint")
    header = protobuf.decode(_MESSAGES["Header"], items.pop(b""), index)
    order, shards = ">" if header.endianness else "<", header.num_shards
    if not 0 < shards <= _MAX_SHARDS:
        raise FormatError(f"{index}: damaged: {shards} shards")
    by_shard: dict[int, dict[str, Any]] = {}
    names = []
    for key, value in items.items():
        entry = protobuf.decode(_MESSAGES["Entry"], value, index)
        try:
            name = key.decode()
        except UnicodeDecodeError:
            continue  # a slice of a partitioned variable, refused below under its own name
        if entry.dtype in _DTYPES:
            names.append(name)
            by_shard.setdefault(entry.shard_id, {})[name] = entry
    found: Arrays = {}
    for shard, entries in sorted(by_shard.items()):
        if not 0 <= shard < shards:
            raise FormatError(f"{index}: damaged: shard {shard} of {shards}")
        path = index.with_name(f"{index.stem}.data-{shard:05}-of-{shards:05}")
        length, claimed = file_size(path), 0
        if length > _FILE_BYTES:
            raise LimitError(f"{path} has {length:,} bytes (limit {_FILE_BYTES:,})")
        with open(path, "rb") as file:
            for name, entry in entries.items():
                where = f"{path}: {name[:60]!r}"
                kind = np.dtype(f"{order}{_DTYPES[entry.dtype][0]}")
                shape = _checked(entry, kind, length, where)
                claimed += entry.size
                if claimed > length:
                    raise FormatError(f"{where} lies where another tensor lies")
                file.seek(entry.offset)
                raw = file.read(entry.size)
                if leveldb_table.masked_crc32c(raw) != entry.crc32c:
                    raise FormatError(f"{where} is damaged (its checksum differs)")
                found[name] = np.frombuffer(raw, kind).reshape(shape)
    return {name: found[name] for name in names}


def _checked(entry: Any, kind: np.dtype[Any], length: int, where: str) -> tuple[int, ...]:
    """The shape of an entry that lies inside a shard of `length` bytes and fits its size."""
    if entry.slices:
        raise FormatError(f"{where} {_PARTITIONED}")
    shape = _shape(entry.shape, where)
    if entry.size != math.prod(shape) * kind.itemsize:
        raise FormatError(f"{where}: {entry.size:,} bytes for the shape {shape}")
    if entry.offset < 0 or entry.offset + entry.size > length:
        raise FormatError(f"{where} lies beyond the file's {length:,} bytes; cut short")
    return shape


# --------------------------------------------------------------------------- the format before


def _first_format(path: str, items: dict[bytes, bytes], room: int) -> Arrays:
    """Tensors of SavedTensorSlices: under "" types and shapes by name, then each's values."""
    known: dict[str, Any] = {}
    found: Arrays = {}
    for key, value in items.items():
        saved = protobuf.decode(_MESSAGES["SavedTensorSlices"], value, path)
        if key == b"":
            known = {protobuf.text(entry.name, path): entry for entry in saved.meta.tensor}
            continue
        if not saved.HasField("data"):
            continue
        name = protobuf.text(saved.data.name, path)
        where = f"{path}: {name[:60]!r}"
        if any(saved.data.slice.extent):  # with a start or a length
            raise FormatError(f"{where} {_PARTITIONED}")
        if name in found or name not in known:
            raise FormatError(f"{where}: damaged: twice, or not in the list of names")
        entry = known[name]
        if entry.type in _DTYPES:
            shape = _shape(entry.shape, where)
            found[name] = _array(saved.data.data, entry.type, shape, room, where)
    if not found:
        raise FormatError(f"{path}: holds no tensors of a TensorFlow checkpoint")
    return found


# ------------------------------------------------------------------------------------- tensors


def _shape(message: Any, where: str) -> tuple[int, ...]:
    """TensorShapeProto; a size of -1 (unknown) or a shape of unknown rank is refused."""
    if message.unknown_rank:
        raise FormatError(f"{where}: a tensor of unknown shape")
    sizes = tuple(dim.size for dim in message.dim[: _MAX_DIMS + 1])
    if len(sizes) > _MAX_DIMS or not all(0 <= size < 1 << 40 for size in sizes):
        raise FormatError(f"{where}: damaged: a tensor of shape {sizes}")
    return sizes


def _array(
    tensor: Any, dtype: int, shape: tuple[int, ...], room: int, where: str
) -> np.ndarray[Any, Any]:
    """The array of a TensorProto, whose values are bytes or a list.

    Fewer values than elements: the last one stands for the rest (none: zeros), up to `room` bytes.
    """
    code, field = _DTYPES[dtype]
    kind, count = np.dtype(f"<{code}"), math.prod(shape)
    if tensor.content:
        if len(tensor.content) != count * kind.itemsize:
            raise FormatError(f"{where}: {len(tensor.content):,} bytes for shape {shape}")
        return np.frombuffer(tensor.content, kind).reshape(shape)
    listed = np.array(getattr(tensor, field), kind if code != "f2" else np.int64)
    if code == "f2":
        listed = listed.astype(np.uint16).view(kind)
    if len(listed) > count or (len(listed) < count and count * kind.itemsize > room):
        raise FormatError(f"{where}: {len(listed):,} values for shape {shape}")
    array = np.full(count, listed[-1] if len(listed) else 0, kind)
    array[: len(listed)] = listed
    return array.reshape(shape)
