"""Pickled CPM weights of timctho's TensorFlow port (.pkl), read without executing anything.

The files are Python 2 dictionaries of numpy arrays. Every opcode is checked before the first one
runs, and the four names that such a file needs stand for classes of this module: no function
that the file names is ever called, not even numpy's.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.errors import FormatError, printable
from humanpose.files import file_size, read_limited
from humanpose.sandbox import Arrays, parse

_LIMIT_BYTES = 512 << 20
_LARGEST_DIMS = 8
_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1")
# What a pickle needs to build dictionaries of arrays. INST, OBJ, NEWOBJ, persistent ids,
# extension codes and out-of-band buffers are not among them.
_OPCODES = """
    PROTO FRAME STOP MARK POP POP_MARK DUP MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS
    EMPTY_DICT DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD
"""


def read_openpose_pickle(path: Path) -> Arrays:
    """Weights by layer: `NAME.weight` (out, in, kh, kw) and `NAME.bias` (out,), float32.

    The file's own keys are NAME, (kh, kw, in, out), and NAME_b. It is read in a child process
    with limits of memory and time.

    Raises:
        InputError: if the file is not there.
        LimitError: if it is larger than 512 MiB, or takes too long.
        FormatError: if it is damaged or asks for anything but arrays; names what it asks for.
    """
    size = file_size(path)
    if size > _LIMIT_BYTES:
        read_limited(path, _LIMIT_BYTES)  # raises the error that says so
    return parse(parse_pickle, path, memory=(768 << 20) + 8 * size)


def parse_pickle(path: str) -> Arrays:
    """What `read_openpose_pickle` runs in its child."""
    content = read_limited(path, _LIMIT_BYTES)
    _check(content)
    try:
        found = _Unpickler(BytesIO(content), encoding="latin1").load()
    except FormatError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its opcodes lead to
        raise FormatError(
            f"not a readable pickle ({type(error).__name__}: {printable(str(error))})"
        ) from error
    if not isinstance(found, dict):
        raise FormatError("holds no dictionary of arrays; not weights of the TensorFlow port")
    named: Arrays = {}
    total = 0
    for key in list(found):
        name = key.decode("latin1") if isinstance(key, bytes) else key
        value = found.pop(key)
        if not isinstance(name, str) or not isinstance(value, _Array):
            raise FormatError(f"entry {str(key)[:40]!r} is not an array")
        array = value.array()
        total += array.nbytes
        if total > len(content):  # the same array under many keys
            raise FormatError("holds more array bytes than the file has")
        target, array = _translated(name, array)
        if target in named:
            raise FormatError(f"holds {target} twice")
        named[target] = array
    return named


def _translated(key: str, array: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    """Our name and layout of one entry."""
    if not key or not key.isprintable() or "/" in key or len(key) > 100:
        raise FormatError(f"{key[:40]!r} is not the name of a layer")
    if key.endswith("_b"):
        if array.ndim != 1:
            raise FormatError(f"{key} is no bias: shape {array.shape}")
        name = f"{key[:-2]}.bias"
    else:
        if array.ndim != 4:
            raise FormatError(f"{key} is no convolution (kh, kw, in, out): shape {array.shape}")
        name, array = f"{key}.weight", array.transpose(3, 2, 0, 1)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
        return name, np.ascontiguousarray(array, np.float32)


# ------------------------------------------------------------------------- opcodes, unexecuted


def globals_of(content: bytes, *, pickles: int = 1) -> Iterator[str]:
    """Every "module.name" that a pickle asks for, as far as it can be read; nothing is run.

    A name put together on the stack is that of the two strings before it; where they are not
    plain strings it is "?". `pickles` is how many follow each other in `content`, at most.
    """
    file = BytesIO(content)
    for _ in range(pickles):
        yield from _globals_of_next(file)


def _globals_of_next(file: BytesIO) -> Iterator[str]:
    words: list[str] = []
    memo: dict[int, str] = {}
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in ("GLOBAL", "INST"):
                yield printable(str(argument).replace(" ", ".", 1))
            elif opcode.name == "STACK_GLOBAL":
                yield printable(".".join(words[-2:])) if len(words) > 1 else "?"
            elif isinstance(argument, str):
                words.append(argument[:200])
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = words[-1] if words else "?"
            elif "PUT" in opcode.name and isinstance(argument, int):
                memo[argument] = words[-1] if words else "?"
            elif "GET" in opcode.name and isinstance(argument, int):
                words.append(memo.get(argument, "?"))
    except Exception:  # damaged from here on
        return


def _check(content: bytes) -> None:
    """Refuse a pickle that holds any other opcode or name; its arguments cost no memory."""
    for name in globals_of(content):
        if name not in _ALLOWED:
            raise FormatError(f"asks for {name}, which is refused; nothing was executed")
    known = frozenset(_OPCODES.split())
    largest, ops = 0, 0
    try:
        for opcode, argument, _ in pickletools.genops(content):
            ops += 1
            if opcode.name not in known:
                asked = "" if argument is None else f" {printable(str(argument), 60)}"
                raise FormatError(
                    f"uses {opcode.name}{asked}, which is refused; nothing was executed"
                )
            if "PUT" in opcode.name and isinstance(argument, int):
                largest = max(largest, argument)
    except FormatError:
        raise
    except Exception as error:  # pickletools raises anything from ValueError to OverflowError
        raise FormatError(f"not a readable pickle ({printable(str(error))})") from error
    # The unpickler's memo is an array as long as its largest index.
    if largest > 2 * ops + 100:
        raise FormatError(f"numbers its memo up to {largest}; damaged or hostile")


# ------------------------------------------------------------------------- what names stand for


class _DType:
    """Stands for numpy.dtype: a letter and a size, and a byte order that arrives as state."""

    def __init__(self, code: Any = None, *_flags: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        self.code = str(code).lstrip("<>|=")
        self.order = str(code)[0] if str(code)[:1] in ("<", ">") else "<"
        if self.code not in _DTYPES:
            raise FormatError(f"holds an array of {str(code)[:40]!r}; only numbers are read")

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise FormatError("holds an array of records or objects; only numbers are read")
        self.order = order


class _Array:
    """Stands for numpy.ndarray: shape, element type and bytes, checked against each other."""

    state: tuple[Any, ...] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise FormatError("holds an array without a readable state")
        self.state = state

    def array(self) -> np.ndarray[Any, Any]:
        """The array, a copy of nothing but the file's bytes."""
        if self.state is None:
            raise FormatError("holds an array without content")
        _, shape, dtype, fortran, raw = self.state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
            raise FormatError("holds an array of objects; only numbers are read")
        whole = isinstance(shape, tuple) and len(shape) <= _LARGEST_DIMS
        if not whole or not all(type(n) is int and 0 <= n <= len(raw) for n in shape):
            raise FormatError(f"holds an array of impossible shape {str(shape)[:60]}")
        kind = np.dtype(f"{dtype.order}{dtype.code}")
        if math.prod(shape) * kind.itemsize != len(raw):
            raise FormatError(f"holds {len(raw)} bytes for an array of shape {shape}")
        return np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_ignored: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    # How Python 3 writes bytes at protocol 2.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise FormatError("asks for a text encoding other than latin1")
    return text.encode("latin1")


_ALLOWED: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "_codecs.encode": _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked not in _ALLOWED:
            raise FormatError(
                f"asks for {printable(asked)}, which is refused; nothing was executed"
            )
        return _ALLOWED[asked]

    def persistent_load(self, pid: Any) -> Any:
        raise FormatError("uses persistent ids, which are refused; nothing was executed")
