"""Data sets inside a foreign HDF5 file, checked before they are read.

Everything here runs in the child process of `untrusted.parse`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_BYTES = 1 << 28


def array(group: Any, name: str, kinds: str = "fiu") -> NDArray[Any]:
    """Data set `name` of an open h5py file or group.

    Args:
        group: where it lies itself: links to elsewhere are not followed.
        name: of the data set.
        kinds: NumPy kinds that are taken; no references, no objects.

    Raises:
        ValueError: if it is missing, or anything but a plain table of reasonable size.
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
