"""Readers of data sets in their original files; each gives a list of Samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from humanpose.data.readers.coco import read_coco
from humanpose.data.readers.flic import read_flic
from humanpose.data.readers.hdf5_2018 import read_hdf5_2018
from humanpose.data.readers.lsp import read_lsp
from humanpose.data.readers.lspet import read_lspet
from humanpose.data.readers.mpii import read_mpii
from humanpose.data.readers.yolo import read_yolo
from humanpose.errors import InputError
from humanpose.types import Sample


def _read_pack(path: Path) -> list[Sample]:
    from humanpose.data.pack import read_pack

    return read_pack(path)


READERS: dict[str, Callable[..., list[Sample]]] = {
    "coco": read_coco,
    "flic": read_flic,
    "hdf5_2018": read_hdf5_2018,
    "lsp": read_lsp,
    "lspet": read_lspet,
    "mpii": read_mpii,
    "pack": _read_pack,
    "yolo": read_yolo,
}
_WITH_COMPAT = ("flic", "lsp")


def read(name: str, path: Path, *, compat: str = "") -> list[Sample]:
    """All samples of data set `name` lying at `path`: a folder as distributed, one of its files, or
    a pack that holds some of it.

    Args:
        name: key of READERS.
        path: of the set.
        compat: how an old system read the set: "cpm" for flic, "readme" for lsp.

    Raises:
        InputError: on an unknown name or a path without the set's files.
    """
    # Not above: the children that parse foreign files import this package, and no pack.
    from humanpose.data.pack import is_pack

    if name not in READERS:
        raise InputError(f"unknown data set {name!r}; there are: {', '.join(sorted(READERS))}")
    if name != "pack" and is_pack(path):
        return [sample for sample in _read_pack(path) if sample.origin[0] == name]
    if not compat:
        return READERS[name](path)
    if name not in _WITH_COMPAT:
        raise InputError(f"data {name}: it is read in one way only, there is no {compat!r}")
    return READERS[name](path, compat=compat)
