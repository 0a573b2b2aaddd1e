"""Structs of MATLAB files, as SciPy gives them, and data sets of HDF5 files, read without trust.

Everything here runs in the child process of `sandbox.parse`. `predictions_of_h5` and
`predictions_of_mat` are parsers of whole files: one array (N, J, 2) under the name it has there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from humanpose.sandbox import Arrays

Array = NDArray[Any]

_NOTHING = np.zeros(0)
_MAX_BYTES = 1 << 28
_NAMES = ("preds", "prediction_all")


def variables(path: str, names: list[str]) -> Arrays:
    """Return the named variables of a .mat file (version 5 to 7) that are in it."""
    from scipy.io import loadmat

    return dict(loadmat(path, variable_names=names))


def stacked(rows: list[dict[str, Any]]) -> Arrays:
    """Return the values of all `rows` by name, as arrays. Raises ValueError if there are none."""
    if not rows:
        raise ValueError("no persons in it")
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


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


def predictions_of_h5(path: str) -> Arrays:
    """`preds` or `prediction_all` of an HDF5 file, or of MATLAB's version 7.3."""
    import h5py

    with h5py.File(path, "r") as file:
        return _people_first({name: hdf5_array(file, name) for name in _NAMES if name in file})


def predictions_of_mat(path: str) -> Arrays:
    """`preds` or `prediction_all` of a .mat file, version 5 to 7."""
    found = variables(path, list(_NAMES))
    return _people_first({name: found[name] for name in _NAMES if name in found})


def _people_first(found: Arrays) -> Arrays:
    """Return the first array of `found` as (N, J, 2), from any order of these axes."""
    if not found:
        raise ValueError(f"no array {' or '.join(_NAMES)} in it")
    name, array = next(iter(found.items()))
    if array.dtype.kind not in "fiu" or array.ndim != 3:
        raise ValueError(f"{name} is no table of numbers with three axes")
    joints = (16,) if name == "preds" else (14, 9)
    # Of several possible orders the first holds: N J 2, 2 J N, J 2 N, N 2 J.
    for axes in ((0, 1, 2), (2, 1, 0), (2, 0, 1), (0, 2, 1)):
        ordered = np.transpose(array, axes)
        if ordered.shape[2] == 2 and ordered.shape[1] in joints:
            return {name: ordered}
    raise ValueError(f"{name} is {array.shape}, not people x joints x 2 in any known order")
