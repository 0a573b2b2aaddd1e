"""Leeds Sports Pose (LSP) and its extension (LSPET): `joints.mat` and `images/`.

Sources: Johnson & Everingham, BMVC 2010 (3 x 14 x 2000, `im0001.jpg`; the third row is 1 where a
joint is hidden, whatever the README says) and CVPR 2011 (14 x 3 x N, `im00001.jpg`; the third row
is 1 where a joint was annotated). Coordinates count from 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from humanpose.data.parsers.tables import Array, variables
from humanpose.data.readers.common import (
    HEAD_SHARE,
    head_size_of_joints,
    joint_box,
    parse,
    pictures_beside,
    plausible,
)
from humanpose.errors import FormatError, InputError, require
from humanpose.files import read_limited
from humanpose.sandbox import Arrays
from humanpose.skeleton import LSP14
from humanpose.types import F32, Sample

_TRAINING = 1000  # of LSP
# This project's split of LSPET: by number, so that anyone can draw it again.
_VALIDATION = range(8501, 9001)
_HEAD_FOLDERS = ("heads", "Annotations")
_MAX_XML_BYTES = 16 << 20


def read_lsp(path: Path, *, readme: bool = False) -> list[Sample]:
    """Return the samples of LSP: 1,000 to train, the rest test.

    The place of a hidden joint is given all the same. `head_size` comes from LabelMe head boxes in
    `heads/` or `Annotations/` (im0001.xml ..., 0.6 of the diagonal), else from neck and head top.
    `path` is the folder, or its `joints.mat`; `readme` takes the third row as visibility, as the
    set's README calls it.

    Raises InputError: the file is not there; FormatError: a file is damaged or the table of another
    shape; MissingExtraError: without defusedxml where there are head boxes.
    """
    mat, table = _table(path, (3, 14))
    heads: dict[str, F32] = {}
    for folder in (mat.parent / name for name in _HEAD_FOLDERS):
        if folder.is_dir():
            heads |= head_boxes(folder)
    places, flags = np.moveaxis(table[:2], 2, 0).swapaxes(1, 2), table[2].T
    visible = np.where((flags == 1) == readme, 2, 1)
    parts = ["train" if i < _TRAINING else "test" for i in range(len(places))]
    return _samples(mat, "lsp", places, visible, parts, heads)


def read_lspet(path: Path) -> list[Sample]:
    """Return the samples of LSPET that have a joint; images 8501-9000 are its validation part here.

    `path` is the folder, or its `joints.mat`. Raises as `read_lsp`, and InputError without images/.
    """
    pictures = (path if path.is_dir() else path.parent) / "images"
    if not pictures.is_dir():
        raise InputError(f"{pictures.parent}: no folder images/ in it; is this LSPET?")
    mat, table = _table(path, (14, 3))
    rows = np.moveaxis(table, 2, 0)
    places = np.where(rows[..., 2:] == 1, rows[..., :2], np.nan)
    parts = ["validation" if i + 1 in _VALIDATION else "train" for i in range(len(rows))]
    samples = _samples(mat, "lspet", places, np.full((14,), 2), parts, {})
    return [sample for sample in samples if sample.visible.any()]


def _table(path: Path, shape: tuple[int, int]) -> tuple[Path, Array]:
    """Return the file and its table `joints`, which must be of `shape` and persons."""
    mat = path / "joints.mat" if path.is_dir() else path
    table = parse(_load_joints, mat, "scipy")["joints"]
    if table.ndim != 3 or table.shape[:2] != shape:
        raise FormatError(f"{mat}: joints are {table.shape}, not {shape[0]} x {shape[1]} x N")
    return mat, table


def _load_joints(path: str) -> Arrays:
    """Return the table `joints` of a `joints.mat`, float64; runs in a child process."""
    return {"joints": np.asarray(variables(path, ["joints"])["joints"], np.float64)}


def _samples(
    mat: Path, name: str, places: Array, visible: Array, splits: list[str], heads: dict[str, F32]
) -> list[Sample]:
    """Return persons whose joints lie at `places` (N, 14, 2), counted from 1; NaN = none."""
    places = np.where(np.isfinite(places).all(-1, keepdims=True), places, np.nan)
    joints = plausible(places, mat, "a joint", first=1).astype(np.float32)
    visible = np.where(np.isnan(joints).any(-1), 0, visible).astype(np.uint8)
    pictures = pictures_beside(mat)
    samples = []
    for i, split in enumerate(splits):
        box, area = joint_box(joints[i])
        number = f"{i + 1:05}" if name == "lspet" else f"{i + 1:04}"
        head_size = head_size_of_joints(joints[i], LSP14)
        if (head := heads.get(f"im{number}")) is not None:
            head_size = HEAD_SHARE * float(np.hypot(head[2], head[3]))
        samples.append(
            Sample(
                picture=pictures / f"im{number}.jpg",
                joints=joints[i],
                visible=visible[i],
                box=box,
                area=area,
                split=split,
                origin=(name, number),
                skeleton=LSP14,
                head_size=head_size,
            )
        )
    return samples


def head_boxes(folder: Path) -> dict[str, F32]:
    """Return head boxes drawn with the LabelMe web tool: every .xml in and below `folder`.

    x, y, width, height, pixels, by the picture's name without suffix. A box spans all points of
    the polygon (the 2018 parser took its first and third). Of several objects that are not deleted
    the last one counts, those called head before others.

    Raises FormatError, LimitError: a file is no LabelMe annotation, or has over 16 MB.
    """
    require("defusedxml", "data")
    found = (_head_box(file) for file in sorted(folder.rglob("*.xml")))
    return {name: box for name, box in found if box is not None}


def _head_box(file: Path) -> tuple[str, F32 | None]:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root = fromstring(read_limited(file, _MAX_XML_BYTES))
        polygons = [
            (
                "head" in (entry.findtext("name") or "").lower(),
                [[float(pt.findtext(axis) or "nan") for axis in "xy"] for pt in entry.iter("pt")],
            )
            for entry in root.iter("object")
            if (entry.findtext("deleted") or "0").strip() != "1"
        ]
    except (ParseError, DefusedXmlException, ValueError, RecursionError) as error:
        raise FormatError(f"{file}: not a LabelMe annotation ({error})") from error
    name = Path((root.findtext("filename") or "").strip()).stem or file.stem
    # Sorting is stable: among equals the last one stays last.
    drawn = sorted((polygon for polygon in polygons if polygon[1]), key=lambda item: item[0])
    if not drawn:
        return name, None
    points = plausible(np.array(drawn[-1][1]), file, "a polygon")
    if np.isnan(points).any():
        raise FormatError(f"{file}: not a LabelMe annotation (a point without coordinates)")
    return name, np.hstack([points.min(0), np.ptp(points, axis=0)]).astype(np.float32)
