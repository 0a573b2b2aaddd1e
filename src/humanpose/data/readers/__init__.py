"""Readers of data sets in their original files; each gives a list of Samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from humanpose.data.readers.coco import read_coco
from humanpose.data.readers.lspet import read_lspet
from humanpose.errors import InputError
from humanpose.types import Sample

READERS: dict[str, Callable[[Path], list[Sample]]] = {"coco": read_coco, "lspet": read_lspet}


def read(name: str, path: Path) -> list[Sample]:
    """All samples of data set `name` lying at `path`.

    Raises:
        InputError: on an unknown name or a path without the set's files.
    """
    if name not in READERS:
        raise InputError(f"unknown data set {name!r}; there are: {', '.join(sorted(READERS))}")
    return READERS[name](path)
