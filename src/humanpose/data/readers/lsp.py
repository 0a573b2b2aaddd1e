"""Leeds Sports Pose (LSP) and its extension (LSPET): `joints.mat` and `images/`.

Sources: Johnson & Everingham, BMVC 2010 (3 x 14 x 2000, `im0001.jpg`; the third row is 1 where a
joint is hidden, whatever the README says) and CVPR 2011 (14 x 3 x N, `im00001.jpg`; the third row
is 1 where a joint was annotated). Coordinates count from 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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

    Args:
        path: folder, or its `joints.mat`.
        readme: take the third row as visibility, as the set's README calls it.

    Raises:
        InputError: the file is not there.
        FormatError: a file is damaged or the table of another shape.
        MissingExtraError: without SciPy, or without defusedxml where there are head boxes.
    """
    mat, table = _table(path, "3 x 14 x N")
    heads: dict[str, F32] = {}
    for folder in (mat.parent / name for name in _HEAD_FOLDERS):
        if folder.is_dir():
            heads |= head_boxes(folder)
    pictures = pictures_beside(mat)
    samples = []
    for i, rows in enumerate(np.moveaxis(table, 2, 0), start=1):
        visible = np.where((rows[2] == 1) == readme, 2, 1)
        split = "train" if i <= _TRAINING else "test"
        head = heads.get(f"im{i:04d}")
        size = float("nan") if head is None else HEAD_SHARE * float(np.hypot(head[2], head[3]))
        picture = pictures / f"im{i:04d}.jpg"
        samples.append(_sample(mat, picture, rows[:2].T, visible, split, ("lsp", f"{i:04d}"), size))
    return samples


def read_lspet(path: Path) -> list[Sample]:
    """Return the samples of LSPET that have a joint; images 8501-9000 are its validation part here.

    Args:
        path: folder, or its `joints.mat`.

    Raises:
        InputError: `joints.mat` or `images/` is not there.
        FormatError: `joints.mat` is damaged or of another shape.
        MissingExtraError: SciPy is not installed.
    """
    mat = path / "joints.mat" if path.is_dir() else path
    pictures = mat.parent / "images"
    if not pictures.is_dir():
        raise InputError(f"{mat.parent}: no folder images/ in it; is this LSPET?")
    mat, table = _table(path, "14 x 3 x N")
    samples = []
    for i, rows in enumerate(np.moveaxis(table, 2, 0), start=1):
        places = np.where(rows[:, 2:] == 1, rows[:, :2], np.nan)
        split = "validation" if i in _VALIDATION else "train"
        picture = pictures / f"im{i:05d}.jpg"
        sample = _sample(mat, picture, places, np.full(14, 2), split, ("lspet", f"{i:05d}"))
        if sample.visible.any():
            samples.append(sample)
    return samples


def _table(path: Path, shape: str) -> tuple[Path, np.ndarray[Any, Any]]:
    """Return the file and its table `joints`, which must be of `shape`."""
    mat = path / "joints.mat" if path.is_dir() else path
    table = parse(_load_joints, mat, "scipy")["joints"]
    if table.ndim != 3 or " x ".join(map(str, table.shape[:2])) != shape.removesuffix(" x N"):
        raise FormatError(f"{mat}: joints are {table.shape}, not {shape}")
    return mat, table


def _load_joints(path: str) -> Arrays:
    """Return the table `joints` of a `joints.mat`, float64; runs in a child process."""
    from scipy.io import loadmat

    return {"joints": np.asarray(loadmat(path, variable_names=["joints"])["joints"], np.float64)}


def _sample(
    mat: Path,
    picture: Path,
    places: np.ndarray[Any, Any],
    visible: np.ndarray[Any, Any],
    split: str,
    origin: tuple[str, str],
    head_size: float = float("nan"),
) -> Sample:
    """Return a person whose joints lie at `places` (14, 2), counted from 1; NaN = not annotated."""
    places = np.where(np.isfinite(places).all(1, keepdims=True), places, np.nan)
    joints = plausible(places, mat, "a joint", first=1).astype(np.float32)
    box, area = joint_box(joints)
    return Sample(
        picture=picture,
        joints=joints,
        visible=np.where(np.isnan(joints).any(1), 0, visible).astype(np.uint8),
        box=box,
        area=area,
        split=split,
        origin=origin,
        skeleton=LSP14,
        head_size=head_size_of_joints(joints, LSP14) if np.isnan(head_size) else head_size,
    )


def head_boxes(folder: Path) -> dict[str, F32]:
    """Return head boxes drawn with the LabelMe web tool: every .xml in and below `folder`.

    Two faults of the 2018 parser are mended: `deleted` is compared as the string it is (there, an
    object list gave the box of the file before), and a box spans all points of the polygon, not
    its first and third. Of several objects that are not deleted the last one counts, those called
    head before others.

    Returns:
        x, y, width, height in pixels by the picture's name without suffix; none for a picture
        without any object.

    Raises:
        FormatError: a file is no LabelMe annotation; LimitError if it has over 16 MB.
        MissingExtraError: without defusedxml.
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
            ("head" in (entry.findtext("name") or "").lower(), _points(entry))
            for entry in root.iter("object")
            if (entry.findtext("deleted") or "0").strip() != "1"
        ]
    except (ParseError, DefusedXmlException, ValueError, RecursionError) as error:
        raise FormatError(f"{file}: not a LabelMe annotation ({error})") from error
    name = Path((root.findtext("filename") or "").strip()).stem or file.stem
    drawn = [(head, points) for head, points in polygons if len(points)]
    if not drawn:
        return name, None
    drawn.sort(key=lambda item: item[0])  # stable: among equals the last one stays last
    points = plausible(drawn[-1][1], file, "a polygon")
    low, high = points.min(0), points.max(0)
    return name, np.concatenate([low, high - low]).astype(np.float32)


def _points(entry: Any) -> np.ndarray[Any, Any]:
    """Return the points (N, 2) of an object's polygon."""
    points = [[float(point.findtext(axis) or "nan") for axis in "xy"] for point in entry.iter("pt")]
    table = np.array(points, np.float64).reshape(-1, 2)
    if np.isnan(table).any():
        raise ValueError("a point without coordinates")
    return table
