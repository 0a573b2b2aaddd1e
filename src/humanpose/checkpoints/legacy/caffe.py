"""Weights of a `.caffemodel`, read without Caffe.

The file is a NetParameter message: layers in field 100 ("V2", since 2014) or field 2 ("V1").
Each layer carries blobs (weight, bias, ...), each with a shape of its own or with the four
legacy extents num, channels, height and width.

Source: BVLC/caffe, src/caffe/proto/caffe.proto (BSD).
"""

from __future__ import annotations

from itertools import chain
from math import prod
from typing import Any

import numpy as np

from humanpose.checkpoints.legacy import protobuf
from humanpose.errors import FormatError, LimitError
from humanpose.files import read_limited
from humanpose.sandbox import Arrays

_MAX_BYTES = 2_000_000_000
_MAX_BLOBS = 20_000  # ResNet-152 has 1,400
_MAX_AXES = 32  # Caffe's kMaxBlobAxes
_EXTENTS = ("num", "channels", "height", "width")

_MESSAGES = protobuf.messages(
    Net="repeated V1Layer layers = 2; repeated Layer layer = 100",
    V1Layer="optional bytes layer = 1; optional bytes name = 4; repeated Blob blobs = 6",
    Layer="optional bytes name = 1; repeated Blob blobs = 7",
    Blob="""
        optional int32 num = 1; optional int32 channels = 2; optional int32 height = 3;
        optional int32 width = 4; repeated float data = 5; optional Shape shape = 7;
        repeated double double_data = 8
    """,
    Shape="repeated int64 dim = 1",
)


def parse_caffemodel(path: str) -> Arrays:
    """Every blob of a `.caffemodel`, float32, in the file's order; call it in a child process.

    Layer NAME gives `NAME.weight` (convolution: (out, in, height, width)), `NAME.bias` (out,),
    then `NAME.2` ...; a bias of the old shape (1, 1, 1, n) becomes (n,). Layers without blobs
    (data, Split, losses) are left out.

    Raises:
        InputError: the file is missing or cannot be read.
        FormatError: it is damaged, no caffemodel, names a layer twice, or holds no weights.
        LimitError: it is larger than 2 GB, or has too many blobs or axes.
    """
    content = read_limited(path, _MAX_BYTES)
    if content.startswith(b"\x89HDF"):
        raise FormatError(f"{path}: an HDF5 file; only the binary form of .caffemodel can be read")
    net = protobuf.decode(_MESSAGES["Net"], content, path)
    if any(layer.HasField("layer") for layer in net.layers):
        raise FormatError(f"{path}: in Caffe's form of 2013; run Caffe's upgrade_net_proto_binary")
    layers = [layer for layer in chain(net.layers, net.layer) if layer.blobs]
    if sum(len(layer.blobs) for layer in layers) > _MAX_BLOBS:
        raise LimitError(f"{path}: more than {_MAX_BLOBS:,} blobs")
    state: Arrays = {}
    for layer in layers:
        name = protobuf.text(layer.name, path)
        if not name or f"{name}.weight" in state:
            reason = f"two layers are called {name!r}" if name else "a layer has no name"
            raise FormatError(f"{path}: {reason}")
        for i, blob in enumerate(layer.blobs):
            values = _values(blob, f"{path}: layer {name!r}")
            if i == 1 and values.ndim == 4 and values.shape[:3] == (1, 1, 1):
                values = values.reshape(-1)
            state[f"{name}.{('weight', 'bias')[i] if i < 2 else i}"] = values
    if not state:
        raise FormatError(f"{path}: no layer with weights; is it a .caffemodel?")
    return state


def _values(blob: Any, where: str) -> np.ndarray[Any, Any]:
    """A BlobProto as float32 of its shape; errors begin with `where`."""
    if len(blob.shape.dim) > _MAX_AXES:
        raise LimitError(f"{where}: a blob of more than {_MAX_AXES} axes")
    shape = list(blob.shape.dim)
    if any(map(blob.HasField, _EXTENTS)):  # as Caffe: one of the four is enough
        shape = [getattr(blob, extent) for extent in _EXTENTS]
    with np.errstate(over="ignore"):  # a double beyond float32 is infinite, as in Caffe
        values = np.array(blob.double_data or blob.data, np.float32)
    if min(shape, default=1) < 1 or prod(shape) != values.size:
        shown = " x ".join(map(str, shape)) or "()"
        raise FormatError(f"{where}: a blob of shape {shown} with {values.size:,} values")
    return values.reshape(shape)
