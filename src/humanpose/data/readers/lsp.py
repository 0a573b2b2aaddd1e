"""Leeds Sports Pose: `joints.mat` (3 x 14 x 2000) and `images/im0001.jpg` ...

Source: Johnson & Everingham, BMVC 2010.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from humanpose.data.readers import labelme
from humanpose.data.readers.common import (
    HEAD_SHARE,
    head_size_of_joints,
    joint_box,
    parse,
    pictures_beside,
    plausible,
)
from humanpose.data.readers.lspet import load_joints
from humanpose.errors import FormatError, InputError
from humanpose.skeleton import LSP14
from humanpose.types import F32, Sample

_TRAINING = 1000
_HEAD_FOLDERS = ("heads", "Annotations")


def read_lsp(path: Path, *, compat: str = "") -> list[Sample]:
    """Samples of the set in folder `path` (or of its `joints.mat`): 1,000 to train, the rest test.

    The third row is 1 where a joint is hidden, whatever the set's README says; its place is given
    all the same. `head_size` comes from LabelMe head boxes lying in `heads/` or `Annotations/`
    (im0001.xml ..., 0.6 of the diagonal), else from neck and head top.

    Args:
        path: folder, or the .mat file.
        compat: "readme" takes the row as visibility, as the README calls it.

    Raises:
        InputError: if the file is not there or `compat` has another name.
        FormatError: if a file is damaged or the table of another shape.
        MissingExtraError: without SciPy, or without defusedxml where there are head boxes.
    """
    if compat not in ("", "readme"):
        raise InputError(f"lsp: compat is 'readme', not {compat!r}")
    mat = path / "joints.mat" if path.is_dir() else path
    table = parse(load_joints, mat, "scipy")["joints"]
    if table.ndim != 3 or table.shape[:2] != (3, 14):
        raise FormatError(f"{mat}: joints are {table.shape}, not 3 x 14 x N")
    heads: dict[str, F32] = {}
    for folder in (mat.parent / name for name in _HEAD_FOLDERS):
        if folder.is_dir():
            heads |= labelme.head_boxes(folder)
    pictures = pictures_beside(mat)
    samples = []
    for i, rows in enumerate(np.moveaxis(table, 2, 0), start=1):
        places = np.where(np.isfinite(rows[:2]).all(0), rows[:2], np.nan).T
        joints = plausible(places, mat, "a joint", first=1).astype(np.float32)
        known = np.isfinite(joints).all(1)
        seen = (rows[2] == 1) == (compat == "readme")
        box, area = joint_box(joints)
        head = heads.get(f"im{i:04d}")
        samples.append(
            Sample(
                picture=pictures / f"im{i:04d}.jpg",
                joints=joints,
                visible=np.where(known, np.where(seen, 2, 1), 0).astype(np.uint8),
                box=box,
                area=area,
                split="train" if i <= _TRAINING else "test",
                origin=("lsp", f"{i:04d}"),
                skeleton=LSP14,
                head_size=head_size_of_joints(joints, LSP14)
                if head is None
                else HEAD_SHARE * float(np.hypot(head[2], head[3])),
            )
        )
    return samples
