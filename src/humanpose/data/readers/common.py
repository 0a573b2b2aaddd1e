"""Help for readers: foreign files in a child process, safe picture names, plausible numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from humanpose import sandbox
from humanpose.errors import FormatError, printable, require
from humanpose.geometry import box_of_joints
from humanpose.skeleton import Skeleton
from humanpose.types import F32

# Sets without boxes: the tight joint box and a tenth of its longer side around it.
BOX_MARGIN = 0.1
# COCO's ratio of a person's outline to its box.
AREA_SHARE = 0.53
# MPII's own factor of the head box's diagonal (evalMPII, SC_BIAS).
HEAD_SHARE = 0.6

SPLIT_WORDS = {"train": "train", "val": "validation", "test": "test"}
_FARTHEST = 1e5  # pixels; no picture of any set is a tenth of it


def parse(parser: Callable[[str], sandbox.Arrays], file: Path, *needs: str) -> sandbox.Arrays:
    """Run `parser(str(file))` in a child process with 2 GB and 8 s of a processor.

    Per MB beyond 2 it may have 200 MB and 5 s more: MPII's release, 12 MB of compressed structs,
    takes 1.3 GB and 13 s. Raises as `sandbox.parse`, and MissingExtraError if one of the modules
    `needs` of the data extra is not installed.
    """
    for module in needs:
        require(module, "data")
    size = file.stat().st_size if file.is_file() else 0
    beyond = min(max(0.0, size / 1e6 - 2), 100)
    memory = (2 << 30) + int(beyond * 2e8)
    return sandbox.parse(parser, file, memory=memory, timeout=8 + 5 * beyond)


def split_of(file: Path) -> str | None:
    """Return the split that a file's name contains: train, val or test."""
    return next((split for word, split in SPLIT_WORDS.items() if word in file.stem), None)


@lru_cache(4096)
def picture_path(folder: Path, name: str, file: Path) -> Path:
    """Return `folder` / `name`; FormatError naming `file` if it is empty or leads out of it."""
    parts = PureWindowsPath(name)  # knows both kinds of slashes, and drives
    outside = parts.anchor or ".." in parts.parts or PurePosixPath(name).is_absolute()
    if outside or not parts.name or "\0" in name:
        raise FormatError(f"{file}: {printable(name)!r} is not the name of a picture in the set")
    return folder / name


def pictures_beside(file: Path) -> Path:
    """Return the folder `images` beside `file` or beside its folder; it may be missing."""
    above = file.parent.parent / "images"
    beside = file.parent / "images"
    return above if above.is_dir() and not beside.is_dir() else beside


def plausible(
    values: NDArray[Any], file: Path, what: str, *, first: int = 0
) -> NDArray[np.float64]:
    """Return coordinates or sizes of any shape as float64, counted from 0; NaN is allowed.

    `file` counts pixels from `first` (MATLAB's from 1); it and `what` one of them is are for the
    message. Raises FormatError if one is infinite or no picture is so large.
    """
    with np.errstate(invalid="ignore"):  # a damaged NaN may be of the signalling kind
        values = np.asarray(values, np.float64) - first
    if (np.abs(values) > _FARTHEST).any():
        raise FormatError(f"{file}: {what} lies beyond {_FARTHEST:,.0f} pixels")
    return values


def head_size_of_joints(joints: F32, skeleton: Skeleton) -> float:
    """Return MPII's head size without its head box: 0.75 x the distance neck - head top, pixels.

    MPII put both joints 0.4 of the box's diagonal from its centre and takes 0.6 of the diagonal,
    so there it is the set's own figure; where both were marked by hand (LSP) it is not comparable
    with a published one. NaN where a joint is not annotated or both are one.
    """
    neck = "upper_neck" if "upper_neck" in skeleton.joints else "neck"
    span = joints[skeleton.index("head_top")] - joints[skeleton.index(neck)]
    return HEAD_SHARE / 0.8 * float(np.hypot(*span)) or float("nan")


def joint_box(joints: F32) -> tuple[F32, float]:
    """Return the box (4,) of joints (J, 2) in sets that have no boxes, and its area."""
    box = box_of_joints(joints, margin=BOX_MARGIN)
    return box, AREA_SHARE * float(box[2] * box[3])
