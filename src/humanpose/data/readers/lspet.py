"""Leeds Sports Pose Extended: `joints.mat` (14 x 3 x N) and `images/im00001.jpg` ...

Source: Johnson & Everingham, CVPR 2011; the third row is 1 where a joint was annotated.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from humanpose import untrusted
from humanpose.errors import FormatError, InputError, MissingExtraError
from humanpose.geometry import box_of_joints
from humanpose.skeleton import LSP14
from humanpose.types import Sample

# This project's split: by number, so that anyone can draw it again.
_VALIDATION = range(8501, 9001)
# The set has no boxes: ours is the tight joint box and a tenth of its longer side around it.
BOX_MARGIN = 0.1


def _load_mat(path: str) -> untrusted.Arrays:
    from scipy.io import loadmat

    joints = np.asarray(loadmat(path, variable_names=["joints"])["joints"], np.float64)
    return {"joints": joints}


def read_lspet(folder: Path) -> list[Sample]:
    """Samples of the set in `folder`; images 8501-9000 are its validation part here.

    Joints come back 0-based, unannotated ones NaN. A picture without any joint is left out.

    Raises:
        InputError: if `joints.mat` or `images/` is not there.
        FormatError: if `joints.mat` is damaged or of another shape.
        MissingExtraError: if SciPy, which reads it, is not installed.
    """
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtraError("scipy", "data")
    pictures = folder / "images"
    if not pictures.is_dir():
        raise InputError(f"{folder}: no folder images/ in it; is this LSPET?")
    mat = folder / "joints.mat"
    table = untrusted.parse(_load_mat, mat)["joints"]
    if table.ndim != 3 or table.shape[:2] != (14, 3):
        raise FormatError(f"{mat}: joints are {table.shape}, not 14 x 3 x N")
    samples = []
    for i, rows in enumerate(np.moveaxis(table, 2, 0), start=1):
        annotated = rows[:, 2] == 1
        # MATLAB counts pixels from 1.
        joints = np.where(annotated[:, None], rows[:, :2] - 1, np.nan).astype(np.float32)
        if not annotated.any():
            continue
        box = box_of_joints(joints, margin=BOX_MARGIN)
        samples.append(
            Sample(
                picture=pictures / f"im{i:05d}.jpg",
                joints=joints,
                visible=np.where(annotated, 2, 0).astype(np.uint8),
                box=box,
                # COCO's ratio of a person's outline to its box.
                area=0.53 * float(box[2] * box[3]),
                split="validation" if i in _VALIDATION else "train",
                origin=("lspet", f"{i:05d}"),
                skeleton=LSP14,
            )
        )
    return samples
