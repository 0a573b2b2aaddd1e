"""Structs of MATLAB files as SciPy gives them, read without trust in their shape.

Everything here runs in the child process of `untrusted.parse`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_NOTHING = np.zeros(0)


def variables(path: str, names: list[str]) -> dict[str, Array]:
    """The named variables of a .mat file (version 5 to 7) that are in it."""
    from scipy.io import loadmat

    return dict(loadmat(path, variable_names=names))


def records(value: Array) -> Array:
    """(N,) records of a struct array of any shape; (0,) for what is not a struct."""
    return value.ravel() if value.dtype.names else _NOTHING


def column(structs: Array, name: str) -> list[Array]:
    """Field `name` of every record (N,); empty arrays where the struct has no such field."""
    if structs.dtype.names is None or name not in structs.dtype.names:
        return [_NOTHING] * len(structs)
    return [np.asarray(value) for value in structs[name]]


def field(struct: Array, name: str) -> Array:
    """Field `name` of the first record; an empty array if there is none."""
    return column(struct, name)[0] if len(struct) else _NOTHING


def number(value: Array, missing: float = np.nan) -> float:
    """The first element as a number, also when it is a digit in a string; else `missing`."""
    if value.size == 0 or value.dtype.kind not in "fiubU":
        return missing
    try:
        return float(value.flat[0])
    except ValueError:  # a string that is not a number
        return missing


def numbers(structs: Array, name: str) -> NDArray[np.float64]:
    """(N,) field `name` of every record as a number, NaN where it is missing."""
    return np.array([number(value) for value in column(structs, name)], np.float64)


def text(value: Array) -> str:
    """A string; "" for what is none."""
    return str(value.flat[0]) if value.size and value.dtype.kind == "U" else ""
