"""MPII Human Pose, in any of the files it is passed around in.

Coordinates in all of them count from 1. `scale` is the person's height in units of 200 px.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from humanpose.data.parsers.mpii import JOINTS, parse_h5, parse_mat, parse_truth
from humanpose.data.parsers.tables import stacked
from humanpose.data.readers.coco import load_json
from humanpose.data.readers.common import (
    AREA_SHARE,
    BOX_MARGIN,
    HEAD_SHARE,
    head_size_of_joints,
    parse,
    picture_path,
    pictures_beside,
    plausible,
    split_of,
)
from humanpose.errors import FormatError, InputError
from humanpose.geometry import box_of_joints
from humanpose.sandbox import Arrays
from humanpose.skeleton import MPII16
from humanpose.types import Sample

# Files of a folder; the first kind that is there is read.
_KINDS = (
    ["annot/train.json", "annot/valid.json", "annot/test.json"],
    ["annot/trainval.json"],
    ["mpii_human_pose_v1_u12_1.mat"],
    ["mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat"],
    ["annotations_valid.mat"],
    ["detections.mat"],
    ["Tompson_valid/detections.mat"],
    ["annot/train.h5", "annot/valid.h5", "annot/test.h5"],
    ["valid.h5"],
)


def read_mpii(path: Path) -> list[Sample]:
    """Return the samples of one of MPII's files, or of the first kind of them in a folder.

    These are HRNet's `annot/*.json` (with `gt_valid.mat` where it lies beside them), the release,
    the CPM release's validation part and eval-mpii-pose's `*.h5`. The order of the file's rows is
    kept. Pictures are looked for in `images/`; they need not be there. `origin` counts as RELEASE
    does (annolist / annorect, from 1), in the json files by row.

    Raises InputError: there is no such file; FormatError: it is damaged or an entry is not a
    person, naming file and entry.
    """
    files = [path]
    if path.is_dir():
        kinds = ([path / name for name in kind if (path / name).is_file()] for kind in _KINDS)
        files = next(filter(None, kinds), [])
    if not files:
        names = ", ".join(kind[0] for kind in _KINDS)
        raise InputError(f"{path}: none of {names} in it; is this MPII?")
    return [sample for file in files for sample in _read_file(file)]


def _read_file(file: Path) -> list[Sample]:
    if file.suffix == ".json":
        table = _json_table(file)
    elif file.suffix == ".h5":
        table = parse(parse_h5, file, "h5py")
        table["split"] = np.full(len(table["joints"]), split_of(file) or "train")
    elif file.suffix == ".mat":
        table = parse(parse_mat, file, "scipy", "h5py")
    else:
        raise InputError(f"{file}: MPII comes as .json, .mat or .h5")
    pictures = pictures_beside(file)
    joints = plausible(table["joints"], file, "a joint", first=1).astype(np.float32)
    centre = plausible(table["centre"], file, "a centre", first=1).astype(np.float32)
    scale = plausible(table["scale"], file, "a scale")
    head = HEAD_SHARE * plausible(table["head"], file, "a head box")
    # Boxes by the joints; by centre and scale for a test person, who has none.
    boxes = box_of_joints(joints, margin=BOX_MARGIN)
    side = 200 * scale[:, None]
    squares = np.hstack([centre - side / 2, side, side]).astype(np.float32)
    few = np.isfinite(joints).all(-1).sum(1) < 2
    for i in np.flatnonzero(np.isnan(head)):
        head[i] = head_size_of_joints(joints[i], MPII16)
    boxes = np.where((few & np.isfinite(squares).all(1))[:, None], squares, boxes)
    return [
        Sample(
            picture=picture_path(pictures, str(table["name"][i]), file),
            joints=joints[i],
            visible=table["visible"][i],
            box=boxes[i],
            area=AREA_SHARE * float(boxes[i, 2] * boxes[i, 3]),
            split=str(table["split"][i]),
            origin=("mpii", f"{table['image'][i]}/{table['person'][i]}"),
            skeleton=MPII16,
            head_size=float(head[i]),
            centre=None if np.isnan(centre[i]).any() else centre[i],
            scale=float(scale[i]),
        )
        for i in range(len(joints))
    ]


def _json_table(file: Path) -> Arrays:
    """Return the table of `parsers.mpii`, from a json file of HRNet's layout."""
    content = load_json(file)
    if not isinstance(content, list) or not content:
        raise FormatError(f"{file}: not a list of persons")
    rows = []
    for i, entry in enumerate(content):
        try:
            rows.append(_row(entry))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"{file}: entry {i} is not a person ({error})") from error
    table = stacked(rows)
    truth = file.with_name(f"gt_{file.stem}.mat")
    if truth.is_file():
        exact = parse(parse_truth, truth, "scipy")
        if len(exact["joints"]) != len(rows):
            raise FormatError(f"{truth}: {len(exact['joints'])} persons, not {file}'s {len(rows)}")
        for name in ("joints", "head"):
            table[name] = plausible(exact[name], truth, "a joint or head box")
    annotated = np.isfinite(table["joints"]).all(-1)
    table["visible"] = np.where(annotated, 2, 0).astype(np.uint8)
    table["split"] = table["image"] = np.full(len(rows), split_of(file) or "train")
    table["person"] = np.arange(len(rows))
    return table


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    """Return one person. HRNet writes -1 for an unknown centre; test.json has no joints."""
    joints = np.asarray(entry.get("joints", np.zeros((JOINTS, 2))), np.float64).reshape(JOINTS, 2)
    annotated = np.asarray(entry.get("joints_vis", np.zeros(JOINTS)), bool).reshape(JOINTS)
    centre = np.asarray(entry["center"], np.float64).reshape(2)
    scale = float(entry["scale"])
    head = np.asarray(entry.get("headbox", np.full((2, 2), np.nan)), np.float64).reshape(2, 2)
    return {
        "name": str(entry["image"]),
        "joints": np.where(annotated[:, None], joints, np.nan),
        "head": float(np.linalg.norm(head[1] - head[0])),
        "scale": scale if scale > 0 else np.nan,
        "centre": centre if centre[0] != -1 else np.full(2, np.nan),
    }
