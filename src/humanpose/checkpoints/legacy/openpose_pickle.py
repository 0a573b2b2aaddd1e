"""Pickled CPM weights of timctho's TensorFlow port (.pkl), read without executing anything.

The files are Python 2 dictionaries of numpy arrays. The five names that such a file needs stand
for functions and classes of this module; any other name is refused, and so no function that the
file names is ever called, not even numpy's.
"""

from __future__ import annotations

import math
import pickle
from io import BytesIO
from typing import Any

import numpy as np

from humanpose.errors import FormatError, printable
from humanpose.files import read_limited
from humanpose.sandbox import Arrays

_LIMIT_BYTES = 512 << 20
_MAX_DIMS = 8
_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1")


def parse_openpose_pickle(path: str) -> Arrays:
    """Weights by layer: `NAME.weight` (out, in, kh, kw) and `NAME.bias` (out,), float32.

    The file's own keys are NAME, (kh, kw, in, out), and NAME_b. Call it in a child process.

    Raises:
        InputError: if the file is not there.
        LimitError: if it is larger than 512 MiB.
        FormatError: if it is damaged or asks for anything but arrays; names what it asks for.
    """
    content = read_limited(path, _LIMIT_BYTES)
    try:
        found = _Unpickler(BytesIO(content), encoding="latin1").load()
        if not isinstance(found, dict):
            raise FormatError("holds no dictionary of arrays; not weights of the TensorFlow port")
        named: Arrays = {}
        total = 0
        for key, value in found.items():
            name, array = _translated(key, value)
            if name in named:
                raise FormatError(f"holds {name} twice")
            total += array.nbytes
            if total > len(content):  # the same array under many keys
                raise FormatError("holds more array bytes than the file has")
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite fails later
                named[name] = np.ascontiguousarray(array, np.float32)
        return named
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle raises whatever its opcodes lead to
        reason = f"{type(error).__name__}: {printable(str(error))}"
        raise FormatError(f"{path}: no readable pickle ({reason}); nothing was executed") from error


def _translated(key: Any, value: Any) -> tuple[str, np.ndarray[Any, Any]]:
    """Our name and layout of one entry."""
    key = key.decode("latin1") if isinstance(key, bytes) else key
    if not isinstance(key, str) or not isinstance(value, _Array):
        raise FormatError(f"entry {str(key)[:40]!r} is not an array")
    if not key or not key.isprintable() or "/" in key or len(key) > 100:
        raise FormatError(f"{key[:40]!r} is not the name of a layer")
    array = value.array()
    if key.endswith("_b"):
        if array.ndim != 1:
            raise FormatError(f"{key} is no bias: shape {array.shape}")
        return f"{key[:-2]}.bias", array
    if array.ndim != 4:
        raise FormatError(f"{key} is no convolution (kh, kw, in, out): shape {array.shape}")
    return f"{key}.weight", array.transpose(3, 2, 0, 1)


class _DType:
    """Stands for numpy.dtype: a letter and a size, and a byte order that arrives as state."""

    def __init__(self, code: Any = None, *_flags: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else str(code)
        self.code = code.lstrip("<>|=")
        self.order = code[0] if code[:1] in ("<", ">") else "<"
        if self.code not in _DTYPES:
            raise FormatError(f"holds an array of {code[:40]!r}; only numbers are read")

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise FormatError("holds an array of records or objects; only numbers are read")
        self.order = order


class _Array:
    """Stands for numpy.ndarray: shape, element type and bytes, checked against each other."""

    state: Any = None

    def __init__(self, *_ignored: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray[Any, Any]:
        """The array, a copy of nothing but the file's bytes."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise FormatError("holds an array without content")
        _, shape, dtype, fortran, raw = self.state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
            raise FormatError("holds an array of objects; only numbers are read")
        whole = isinstance(shape, tuple) and len(shape) <= _MAX_DIMS
        if not whole or not all(type(n) is int and 0 <= n <= len(raw) for n in shape):
            raise FormatError(f"holds an array of impossible shape {str(shape)[:60]}")
        kind = np.dtype(f"{dtype.order}{dtype.code}")
        if math.prod(shape) * kind.itemsize != len(raw):
            raise FormatError(f"holds {len(raw)} bytes for an array of shape {shape}")
        return np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    # Python 3 writes bytes so at protocol 2.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise FormatError("asks for a text encoding other than latin1")
    return text.encode("latin1")


_ALLOWED: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "_codecs.encode": _encode,
}


# Python's own unpickler, not C's: its memo is a dictionary, which one large index does not fill.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked not in _ALLOWED:
            raise FormatError(
                f"asks for {printable(asked)}, which is refused; nothing was executed"
            )
        return _ALLOWED[asked]
