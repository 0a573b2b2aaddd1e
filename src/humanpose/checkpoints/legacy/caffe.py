"""Weights of a `.caffemodel`, read without Caffe and without protobuf.

The file is a NetParameter message: layers in field 100 ("V2", since 2014) or field 2 ("V1").
Each layer carries blobs (weight, bias, ...), each with a shape of its own or with the four
legacy extents num, channels, height and width.

Source: BVLC/caffe, src/caffe/proto/caffe.proto (BSD); field numbers below are from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.checkpoints.legacy import protobuf_wire
from humanpose.errors import FormatError, LimitError
from humanpose.files import read_limited

Array = np.ndarray[Any, Any]

_MAX_BYTES = 2_000_000_000
_MAX_BLOBS = 20_000  # ResNet-152 has 1,400; each costs more memory than the few bytes it can have
_MAX_AXES = 32  # Caffe's kMaxBlobAxes

# NetParameter's field of the layers -> the fields of name and blobs inside one.
_LAYER = {2: (4, 6), 100: (1, 7)}
_V0 = 1  # inside a V1 layer: the form of 2013
_LEGACY = (1, 2, 3, 4)  # num, channels, height, width
_DATA, _SHAPE, _DOUBLE = 5, 7, 8


def read_caffemodel(path: str | Path) -> dict[str, Array]:
    """Every blob of a `.caffemodel`, float32, in the file's order.

    Layer NAME gives `NAME.weight` (convolution: (out, in, height, width)), `NAME.bias` (out,),
    then `NAME.2` ...; a bias of the old shape (1, 1, 1, n) becomes (n,). Layers without blobs
    (data, Split, losses) are left out.

    Raises:
        InputError: the file is missing or cannot be read.
        FormatError: it is damaged, no caffemodel, names a layer twice, or holds no weights.
        LimitError: it is larger than 2 GB, or has too many blobs or axes.
    """
    data = read_limited(path, _MAX_BYTES)
    with protobuf_wire.naming(path):
        if data.startswith(b"\x89HDF"):
            raise FormatError("an HDF5 file; only the binary form of .caffemodel can be read")
        return _net(memoryview(data))


def _net(view: memoryview) -> dict[str, Array]:
    state: dict[str, Array] = {}
    names: set[str] = set()
    for field in protobuf_wire.fields(view):
        if field.number not in _LAYER:
            continue
        name, blobs = _layer(field, room=_MAX_BLOBS - len(state))
        if not blobs:
            continue
        if name in names:
            raise FormatError(f"two layers with weights are called {name!r}")
        names.add(name)
        for i, values in enumerate(blobs):
            state[f"{name}.{('weight', 'bias')[i] if i < 2 else i}"] = values
    if not state:
        raise FormatError("no layer with weights; is it a .caffemodel?")
    return state


def _layer(layer: protobuf_wire.Field, room: int) -> tuple[str, list[Array]]:
    """Name and blobs of a layer, at most `room` of them."""
    name_number, blob_number = _LAYER[layer.number]
    name, found = "", []
    for field in protobuf_wire.fields(protobuf_wire.content(layer), 1):
        if field.number == name_number:
            name = protobuf_wire.text(field)
        elif field.number == blob_number:
            found.append(protobuf_wire.content(field))
            if len(found) > room:
                raise LimitError(f"more than {_MAX_BLOBS:,} blobs")
        elif field.number == _V0 and layer.number == 2:
            raise FormatError("in Caffe's form of 2013; run Caffe's upgrade_net_proto_binary")
    if found and not name:
        raise FormatError("a layer with weights has no name")
    blobs = []
    for i, view in enumerate(found):
        with protobuf_wire.naming(f"layer {name!r}"):
            values = _blob(view)
        if i == 1 and values.ndim == 4 and values.shape[:3] == (1, 1, 1):
            values = values.reshape(-1)
        blobs.append(values)
    return name, blobs


def _blob(view: memoryview) -> Array:
    """A BlobProto as float32 of its shape."""
    floats, doubles = bytearray(), bytearray()
    legacy: dict[int, int] = {}
    shape: list[int] = []
    for field in protobuf_wire.fields(view, 2):
        if field.number == _DATA:
            floats += protobuf_wire.scalars(field, 4)
        elif field.number == _DOUBLE:
            doubles += protobuf_wire.scalars(field, 8)
        elif field.number == _SHAPE:
            shape += _axes(field, room=_MAX_AXES - len(shape))
        elif field.number in _LEGACY:
            legacy[field.number] = protobuf_wire.signed(protobuf_wire.whole(field))
    if legacy:  # as Caffe: one of the four is enough, the others are then 0
        shape = [legacy.get(number, 0) for number in _LEGACY]
    values = np.frombuffer(doubles, "<f8") if doubles else np.frombuffer(floats, "<f4")
    # In Python's own integers, which do not overflow.
    if min(shape, default=1) < 1 or prod(shape) != values.size:
        raise FormatError(f"a blob of shape {_shown(shape)} with {values.size:,} values")
    with np.errstate(over="ignore"):  # a double beyond float32 is infinite, as in Caffe
        return values.astype(np.float32, copy=False).reshape(shape)


def _axes(field: protobuf_wire.Field, room: int) -> list[int]:
    """Extents of a BlobShape, at most `room` of them."""
    axes: list[int] = []
    for value in _dims(protobuf_wire.content(field)):
        if len(axes) == room:
            raise LimitError(f"a blob of more than {_MAX_AXES} axes")
        axes.append(protobuf_wire.signed(value))
    return axes


def _dims(shape: memoryview) -> Iterator[int]:
    for field in protobuf_wire.fields(shape, 3):
        if field.number == 1:
            yield from protobuf_wire.integers(field)


def _shown(shape: list[int]) -> str:
    return " x ".join(map(str, shape[:8])) + (" x ..." if len(shape) > 8 else "") or "()"
