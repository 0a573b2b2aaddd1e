"""Data sets named on the command line or in a recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from humanpose.data.pack import Pack, is_pack
from humanpose.data.readers.coco import load_json
from humanpose.errors import FormatError, InputError
from humanpose.types import Sample

T = TypeVar("T")
Marks = dict[str, list[list[float]]]


def resolved(path: str) -> Path:
    """Return `path` with ~ and variables filled in. Raises InputError if one is not set."""
    filled = os.path.expandvars(os.path.expanduser(path))
    if "$" in filled:
        raise InputError(f"{path}: set that environment variable, or give the whole path")
    return Path(filled)


def data_path(entry: str) -> tuple[str, Path]:
    """Return (name, path) of "NAME=PATH", of "NAME" in $HUMANPOSE_DATA, or of a pack's file.

    Raises InputError: the path is missing, or the variable is not set where it is needed.
    """
    name, equals, path = entry.partition("=")
    if not equals:
        if is_pack(Path(entry)):
            return "pack", Path(entry)
        root = os.environ.get("HUMANPOSE_DATA")
        if not root:
            raise InputError(f"data {name}: write {name}=PATH, or set HUMANPOSE_DATA")
        path = str(Path(root) / name)
    found = resolved(path)
    if not found.exists():
        raise InputError(f"data {name}: {found} does not exist")
    return name, found


def each_set(entry: str) -> list[str]:
    """Return `entry`, or NAME=PATH of every data set in the pack that it names."""
    name, path = data_path(entry)
    if name != "pack":
        return [entry]
    return [f"{each}={path}" for each in sorted({s.origin[0] for s in Pack(path)})]


def evenly(items: Sequence[T], most: int | None) -> list[T]:
    """Return at most `most` of `items`, evenly spread, in their order; None = all."""
    most = len(items) if most is None else min(most, len(items))
    return [items[i * len(items) // most] for i in range(most)]


def part_of(samples: Sequence[Sample], split: str, name: str) -> list[Sample]:
    """Return the samples of a split, or of "all". Raises InputError if set `name` has none."""
    part = [sample for sample in samples if split in ("all", sample.split)]
    if not part:
        there = ", ".join(sorted({sample.split for sample in samples})) or "none"
        raise InputError(f"data {name}: no samples in its {split!r} part; it has {there}")
    return part


def read_marks(entry: str | None) -> Marks:
    """Return boxes found by another detector, by "<data set>/<file name>"; {} for None.

    Raises InputError, FormatError: the file is missing or is not such a table.
    """
    if entry is None:
        return {}
    marks = load_json(path := resolved(entry))
    if not isinstance(marks, dict) or not all(
        isinstance(box, list) and len(box) >= 4 for boxes in marks.values() for box in boxes
    ):
        raise FormatError(f"{path}: not a table of boxes by picture")
    return marks
