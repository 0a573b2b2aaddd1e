"""The machine's peak, by large matrix products and convolutions that a back-end runs as networks.

Such a chain is an ONNX file like any other of this package: the same back-end loads it with the
same settings as the networks that are measured against it. The file is put together here, because
the package `onnx` is not among what inference needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from humanpose.infer import runtime
from humanpose.infer.options import InferenceOptions
from humanpose.skeleton import COCO17
from humanpose.spec import METADATA_KEY, ModelSpec

_SIDE, _DEPTH = 32, 2
# Kernel -> channels: products of 1024 x 1024 matrices; convolutions, at which some back-ends are
# better. A run is short, so that of several one is not disturbed.
CHAINS = {1: 1024, 7: 128}
_LONG_ENOUGH = 0.4  # seconds of each
_FLOAT, _UINT8, _INT8 = 1, 2, 3  # ONNX's TensorProto.DataType
_TYPES = {"float32": _FLOAT, "uint8": _UINT8, "int8": _INT8}


def peak(folder: Path, settings: InferenceOptions, *, int8: bool) -> float:
    """Multiply-accumulates a second of the faster of the chains, run with `settings`.

    Args:
        folder: for the chains' files.
        settings: as of the network that is compared.
        int8: quantise the chains.

    Raises:
        HumanPoseError: if the back-end cannot run it.
    """
    crop = np.random.default_rng(0).integers(0, 256, (1, _SIDE, _SIDE, 3), np.uint8)
    rates = []
    for kernel in CHAINS:
        path = folder / f"peak_{kernel}.onnx"
        path.write_bytes(chain(kernel, int8=int8))
        loaded, _ = runtime.load(path, settings)
        rates.append(multiplies(kernel) / _fastest(partial(loaded.run, crop)))
    return max(rates)


def multiplies(kernel: int) -> int:
    """Multiply-accumulates of the chain with that kernel."""
    width = CHAINS[kernel]
    return _SIDE**2 * width * (3 + width * kernel**2 * _DEPTH)


def torch_peak(precision: str) -> float:
    """Multiply-accumulates a second of such products by torch, which reads no ONNX."""
    import torch

    width = CHAINS[1]
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    weights = torch.randn(width, width, dtype=kind) / width**0.5
    with torch.inference_mode():
        return width**3 / _fastest(lambda: weights @ weights)


def _fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest run."""
    run()
    fastest, until = np.inf, time.perf_counter() + _LONG_ENOUGH
    while (start := time.perf_counter()) < until:
        run()
        fastest = min(fastest, time.perf_counter() - start)
    return float(fastest)


def chain(kernel: int, *, int8: bool) -> bytes:
    """An ONNX file: RGB uint8 (N, 32, 32, 3) -> convolutions with a kernel of CHAINS -> maps."""
    rng = np.random.default_rng(0)
    width = CHAINS[kernel]
    wide = rng.standard_normal((width, width, kernel, kernel)).astype(np.float32)
    wide /= kernel * width**0.5
    first = rng.standard_normal((width, 3, 1, 1)).astype(np.float32) / 100
    step = float(np.abs(wide).max()) / 127
    nodes = [
        _node("Cast", ["image"], "floats", _attribute("to", _FLOAT)),
        _node("Transpose", ["floats"], "planes", _attribute("perm", [0, 3, 1, 2])),
        _node("Conv", ["planes", "first"], "x0"),
    ]
    tensors = [_tensor("first", first)]
    if int8:
        tensors += [
            _tensor("small", np.round(wide / step).astype(np.int8)),
            _tensor("weight_scale", np.float32(step)),
            _tensor("weight_zero", np.int8(0)),
            _tensor("scale", np.float32(1 / 32)),
            _tensor("zero", np.uint8(128)),
        ]
    else:
        tensors.append(_tensor("wide", wide))
    for i in range(_DEPTH):
        x, wanted = f"x{i}", "wide"
        if int8:
            nodes += [
                _node("QuantizeLinear", [x, "scale", "zero"], f"q{i}"),
                _node("DequantizeLinear", [f"q{i}", "scale", "zero"], f"d{i}"),
                _node("DequantizeLinear", ["small", "weight_scale", "weight_zero"], f"w{i}"),
            ]
            x, wanted = f"d{i}", f"w{i}"
        pads = _attribute("pads", [kernel // 2] * 4)
        nodes.append(_node("Conv", [x, wanted], f"x{i + 1}", pads))
    nodes.append(_node("GlobalAveragePool", [f"x{_DEPTH}"], "maps"))
    graph = b"".join(
        [_field(1, node) for node in nodes]
        + [_field(2, b"peak")]
        + [_field(5, tensor) for tensor in tensors]
        + [_field(11, _value("image", _UINT8, ("N", _SIDE, _SIDE, 3)))]
        + [_field(12, _value("maps", _FLOAT, ("N", width, 1, 1)))]
    )
    spec = ModelSpec(
        "peak", "pose", "chain", {}, COCO17, (_SIDE, _SIDE),
        precision="int8" if int8 else "float32",
    )  # fmt: skip
    metadata = _field(1, METADATA_KEY.encode()) + _field(2, spec.to_json().encode())
    return b"".join(
        (_field(1, 8), _field(7, graph), _field(8, _field(2, 18)), _field(14, metadata))
    )


# What follows writes protocol buffers, by the field numbers of onnx.proto.


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return _field(1, name.encode()) + _field(3, value) + _field(20, 2)
    return _field(1, name.encode()) + b"".join(_field(8, v) for v in value) + _field(20, 7)


def _node(kind: str, inputs: list[str], output: str, *attributes: bytes) -> bytes:
    return b"".join(
        [_field(1, name.encode()) for name in inputs]
        + [_field(2, output.encode()), _field(4, kind.encode())]
        + [_field(5, attribute) for attribute in attributes]
    )


def _tensor(name: str, array: np.ndarray | np.generic) -> bytes:
    array = np.asarray(array)
    return b"".join(
        [_field(1, side) for side in array.shape]
        + [_field(2, _TYPES[array.dtype.name])]
        + [_field(8, name.encode()), _field(9, array.tobytes())]
    )


def _value(name: str, kind: int, shape: tuple[int | str, ...]) -> bytes:
    sides = (
        _field(1, _field(2, side.encode()) if isinstance(side, str) else _field(1, side))
        for side in shape
    )
    tensor = _field(1, kind) + _field(2, b"".join(sides))
    return _field(1, name.encode()) + _field(2, _field(1, tensor))
