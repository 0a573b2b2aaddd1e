"""MPII Human Pose, in any of the files it is passed around in.

Coordinates in all of them count from 1. `scale` is the person's height in units of 200 px.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from humanpose.data.parsers.mpii import JOINTS, parse_h5, parse_mat, parse_truth
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
from humanpose.types import F32, F64, Sample

_RELEASE = ("mpii_human_pose_v1_u12_1.mat", "mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat")
_VALIDATION = ("annotations_valid.mat", "detections.mat", "Tompson_valid/detections.mat")


def read_mpii(path: Path) -> list[Sample]:
    """Return the samples of one of MPII's files, or of the first kind of them in a folder.

    In this order: HRNet's `annot/*.json` (with `gt_valid.mat` where it lies beside them),
    `mpii_human_pose_v1_u12_1.mat`, the exact validation part (`annotations_valid.mat`,
    `detections.mat` of the CPM release), eval-mpii-pose's `annot/*.h5` or `valid.h5`. The order of
    the file's rows is kept. Pictures are looked for in `images/`; they need not be there.

    `origin` counts as RELEASE does (annolist / annorect, from 1), in the json files by row.

    Raises:
        InputError: if there is no such file.
        FormatError: if it is damaged or an entry is not a person, naming file and entry.
        MissingExtraError: without SciPy or h5py, where the file needs them.
    """
    return [sample for file in _files(path) for sample in _read_file(file)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    for kind in (
        [f"annot/{part}.json" for part in ("train", "valid", "test")],
        ["annot/trainval.json"],
        *([name] for name in (*_RELEASE, *_VALIDATION)),
        [f"annot/{part}.h5" for part in ("train", "valid", "test")],
        ["valid.h5"],
    ):
        found = [path / name for name in kind if (path / name).is_file()]
        if found:
            return found
    raise InputError(
        f"{path}: no annot/train.json, mpii_human_pose_v1_u12_1.mat, annotations_valid.mat or "
        "valid.h5 in it; is this MPII?"
    )


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
    return _samples(table, file)


def _samples(table: Arrays, file: Path) -> list[Sample]:
    pictures = pictures_beside(file)
    joints = plausible(table["joints"], file, "a joint", first=1).astype(np.float32)
    centre = plausible(table["centre"], file, "a centre", first=1).astype(np.float32)
    scale = plausible(table["scale"], file, "a scale")
    head = HEAD_SHARE * plausible(table["head"], file, "a head box")
    boxes = _boxes(joints, centre, scale)
    samples = []
    for i in range(len(joints)):
        size = float(head[i])
        samples.append(
            Sample(
                picture=picture_path(pictures, str(table["name"][i]), file),
                joints=joints[i],
                visible=table["visible"][i],
                box=boxes[i],
                area=AREA_SHARE * float(boxes[i, 2] * boxes[i, 3]),
                split=str(table["split"][i]),
                origin=("mpii", f"{table['image'][i]}/{table['person'][i]}"),
                skeleton=MPII16,
                head_size=head_size_of_joints(joints[i], MPII16) if np.isnan(size) else size,
                centre=None if np.isnan(centre[i]).any() else centre[i],
                scale=float(scale[i]),
            )
        )
    return samples


def _boxes(joints: F32, centre: F32, scale: F64) -> F32:
    """Return boxes (N, 4) by the joints; by centre and scale for a test person, who has none."""
    side = 200 * scale[:, None]
    squares = np.hstack([centre - side / 2, side, side]).astype(np.float32)
    few = np.isfinite(joints).all(-1).sum(1) < 2
    by_joints = box_of_joints(joints, margin=BOX_MARGIN)
    return np.where((few & np.isfinite(squares).all(1))[:, None], squares, by_joints)


def _json_table(file: Path) -> Arrays:
    """Return the table of `parsers.mpii`, from a json file of HRNet's layout."""
    content = load_json(file)
    if not isinstance(content, list) or not content:
        raise FormatError(f"{file}: not a list of persons")
    split = split_of(file) or "train"
    rows = []
    for i, entry in enumerate(content):
        try:
            rows.append(_row(entry))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"{file}: entry {i} is not a person ({error})") from error
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    truth = file.with_name(f"gt_{file.stem}.mat")
    if truth.is_file():
        exact = parse(parse_truth, truth, "scipy")
        if len(exact["joints"]) != len(rows):
            raise FormatError(f"{truth}: {len(exact['joints'])} persons, not {file}'s {len(rows)}")
        for name in ("joints", "head"):
            table[name] = plausible(exact[name], truth, "a joint or head box")
    annotated = np.isfinite(table["joints"]).all(-1)
    table["visible"] = np.where(annotated, 2, 0).astype(np.uint8)
    table["split"] = table["image"] = np.full(len(rows), split)
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
