"""Arrays of predictions in HDF5 and MATLAB files, brought to one order of axes.

The functions run in the child process of `sandbox.parse`. Each gives one array (N, J, 2) under
the name it has in the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from humanpose.data.parsers.tables import hdf5_array, variables
from humanpose.sandbox import Arrays

_NAMES = ("preds", "prediction_all")


def parse_h5(path: str) -> Arrays:
    """`preds` or `prediction_all` of an HDF5 file, or of MATLAB's version 7.3."""
    import h5py

    with h5py.File(path, "r") as file:
        found = {name: hdf5_array(file, name) for name in _NAMES if name in file}
    return _only(found)


def parse_mat(path: str) -> Arrays:
    """`preds` or `prediction_all` of a .mat file, version 5 to 7."""
    found = variables(path, list(_NAMES))
    return _only({name: found[name] for name in _NAMES if name in found})


def _only(found: Arrays) -> Arrays:
    if not found:
        raise ValueError(f"no array {' or '.join(_NAMES)} in it")
    name, array = next(iter(found.items()))
    if array.dtype.kind not in "fiu" or array.ndim != 3:
        raise ValueError(f"{name} is no table of numbers with three axes")
    ordered = people_first(array, (16,) if name == "preds" else (14, 9))
    if ordered is None:
        raise ValueError(f"{name} is {array.shape}, not people x joints x 2 in any known order")
    return {name: ordered}


def people_first(array: NDArray[Any], joints: tuple[int, ...]) -> NDArray[Any] | None:
    """Return (N, J, 2) from any order of these axes, J one of `joints`; None if it has none.

    Of several possible orders the first holds: N J 2, 2 J N, J 2 N, N 2 J.
    """
    for people, joint, xy in ((0, 1, 2), (2, 1, 0), (2, 0, 1), (0, 2, 1)):
        if array.shape[xy] == 2 and array.shape[joint] in joints:
            return np.transpose(array, (people, joint, xy))
    return None
