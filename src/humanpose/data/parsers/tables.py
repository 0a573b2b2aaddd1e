"""Structs of MATLAB files, as SciPy gives them, and data sets of HDF5 files, read without trust.

Everything here runs in the child process of `sandbox.parse`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_NOTHING = np.zeros(0)
_MAX_BYTES = 1 << 28


def variables(path: str, names: list[str]) -> dict[str, Array]:
    """Return the named variables of a .mat file (version 5 to 7) that are in it."""
    from scipy.io import loadmat

    return dict(loadmat(path, variable_names=names))


def records(value: Array) -> Array:
    """Return the records (N,) of a struct array of any shape; (0,) for what is not a struct."""
    return value.ravel() if value.dtype.names else _NOTHING


def column(structs: Array, name: str) -> list[Array]:
    """Return field `name` of every record (N,); empty arrays where the struct has no such field."""
    if structs.dtype.names is None or name not in structs.dtype.names:
        return [_NOTHING] * len(structs)
    return [np.asarray(value) for value in structs[name]]


def field(struct: Array, name: str) -> Array:
    """Return field `name` of the first record; an empty array if there is none."""
    return column(struct, name)[0] if len(struct) else _NOTHING


def number(value: Array, missing: float = np.nan) -> float:
    """Return the first element as a number, also when it is a digit in a string; else `missing`."""
    if value.size == 0 or value.dtype.kind not in "fiubU":
        return missing
    try:
        return float(value.flat[0])
    except ValueError:  # a string that is not a number
        return missing


def numbers(structs: Array, name: str) -> NDArray[np.float64]:
    """Return field `name` of every record as a number (N,), NaN where it is missing."""
    return np.array([number(value) for value in column(structs, name)], np.float64)


def text(value: Array) -> str:
    """Return a string; "" for what is none."""
    return str(value.flat[0]) if value.size and value.dtype.kind == "U" else ""


def hdf5_array(group: Any, name: str, kinds: str = "fiu") -> Array:
    """Return data set `name` of an open h5py file or group, of one of the NumPy `kinds`.

    Links to elsewhere are not followed. Raises ValueError if it is missing, or anything but a
    plain table of reasonable size.
    """
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"no data set {name} in it")
    found = group[name]
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in kinds:
        raise ValueError(f"{name} is not a plain table")
    if found.is_virtual or found.external:
        raise ValueError(f"{name} lies in another file")
    if found.nbytes > _MAX_BYTES:
        raise ValueError(f"{name} would take {found.nbytes >> 20} MB")
    return np.asarray(found[()])
