"""Readers of data sets in their original files: each returns a list of Samples.

A new data set is one module here and one line in READERS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from humanpose.data.pack import Pack, is_pack
from humanpose.data.readers.coco import read_coco
from humanpose.data.readers.flic import read_flic
from humanpose.data.readers.hdf5_2018 import read_hdf5_2018
from humanpose.data.readers.lsp import read_lsp, read_lspet
from humanpose.data.readers.mpii import read_mpii
from humanpose.data.readers.yolo import read_yolo
from humanpose.errors import InputError
from humanpose.types import Sample

READERS: dict[str, Callable[[Path], list[Sample]]] = {
    "coco": read_coco,
    "flic": read_flic,
    "hdf5_2018": read_hdf5_2018,
    "lsp": read_lsp,
    "lspet": read_lspet,
    "mpii": read_mpii,
    "pack": lambda path: list(Pack(path)),
    "yolo": read_yolo,
}
# How an old system read a set: (data set, compat) -> reader.
_COMPAT = {
    ("flic", "cpm"): partial(read_flic, cpm=True),
    ("lsp", "readme"): partial(read_lsp, readme=True),
}


def read(name: str, path: Path, *, compat: str = "") -> list[Sample]:
    """Return all samples of the data set `name`, a key of READERS.

    `path` is a folder as distributed, one of its files, or a pack that holds some of the set;
    `compat` how an old system read the set: "cpm" for flic, "readme" for lsp.

    Raises InputError: an unknown name, or a path without the set's files.
    """
    if name not in READERS:
        raise InputError(f"unknown data set {name!r}; there are: {', '.join(sorted(READERS))}")
    if name != "pack" and is_pack(path):
        return [sample for sample in Pack(path) if sample.origin[0] == name]
    reader = _COMPAT.get((name, compat)) if compat else READERS[name]
    if reader:
        return reader(path)
    known = " or ".join(repr(way) for of, way in _COMPAT if of == name)
    rule = f"compat is {known}" if known else "it is read in one way only"
    raise InputError(f"data {name}: {rule}, not {compat!r}")
