"""Leeds Sports Pose Extended: `joints.mat` (14 x 3 x N) and `images/im00001.jpg` ...

Source: Johnson & Everingham, CVPR 2011; the third row is 1 where a joint was annotated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from humanpose.data.readers.common import head_size_of_joints, joint_box, parse, plausible
from humanpose.errors import FormatError, InputError
from humanpose.sandbox import Arrays
from humanpose.skeleton import LSP14
from humanpose.types import Sample

# This project's split: by number, so that anyone can draw it again.
_VALIDATION = range(8501, 9001)


def load_joints(path: str) -> Arrays:
    """The table `joints` of a `joints.mat`, float64; runs in a child process."""
    from scipy.io import loadmat

    return {"joints": np.asarray(loadmat(path, variable_names=["joints"])["joints"], np.float64)}


def read_lspet(path: Path) -> list[Sample]:
    """Samples of the set in folder `path` (or of its `joints.mat`).

    Images 8501-9000 are its validation part here. Joints come back 0-based,
    unannotated ones NaN. A picture without any joint is left out.

    Raises:
        InputError: if `joints.mat` or `images/` is not there.
        FormatError: if `joints.mat` is damaged or of another shape.
        MissingExtraError: if SciPy, which reads it, is not installed.
    """
    mat = path / "joints.mat" if path.is_dir() else path
    pictures = mat.parent / "images"
    if not pictures.is_dir():
        raise InputError(f"{mat.parent}: no folder images/ in it; is this LSPET?")
    table = parse(load_joints, mat, "scipy")["joints"]
    if table.ndim != 3 or table.shape[:2] != (14, 3):
        raise FormatError(f"{mat}: joints are {table.shape}, not 14 x 3 x N")
    samples = []
    for i, rows in enumerate(np.moveaxis(table, 2, 0), start=1):
        annotated = (rows[:, 2] == 1) & np.isfinite(rows[:, :2]).all(1)
        places = np.where(annotated[:, None], rows[:, :2], np.nan)
        joints = plausible(places, mat, "a joint", first=1).astype(np.float32)
        if not annotated.any():
            continue
        box, area = joint_box(joints)
        samples.append(
            Sample(
                picture=pictures / f"im{i:05d}.jpg",
                joints=joints,
                visible=np.where(annotated, 2, 0).astype(np.uint8),
                box=box,
                area=area,
                split="validation" if i in _VALIDATION else "train",
                origin=("lspet", f"{i:05d}"),
                skeleton=LSP14,
                head_size=head_size_of_joints(joints, LSP14),
            )
        )
    return samples
