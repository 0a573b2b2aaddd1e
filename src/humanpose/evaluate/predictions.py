"""Files of predictions, ours and the field's, and whose person each prediction is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from humanpose.data.parsers.predictions import parse_h5, parse_mat
from humanpose.data.readers.coco import load_json
from humanpose.data.readers.common import parse, plausible
from humanpose.errors import FormatError, InputError
from humanpose.geometry import box_of_joints, iou
from humanpose.results import read_records, skeleton_of
from humanpose.skeleton import (
    COCO17,
    FLIC9,
    I64,
    LSP14,
    MPII16,
    SKELETONS,
    Skeleton,
    convert,
    joint_map,
)
from humanpose.types import F32, Sample

SUFFIXES = (".h5", ".hdf5", ".mat", ".json", ".jsonl")

_HDF5_MARK = b"\x89HDF\r\n\x1a\n"
_LEAST_IOU = 0.5
_MAX_PEOPLE = 10_000_000
# What the arrays of the field's toolkits hold, by name and number of joints.
_ARRAYS = {("preds", 16): MPII16, ("prediction_all", 14): LSP14, ("prediction_all", 9): FLIC9}


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """People that somebody predicted.

    Attributes:
        name: of the file.
        joints: (N, J, 2) picture pixels, 0-based; NaN = missing.
        scores: (N,) certainty of each person; 1 where the file has none.
        skeleton: meaning of the J rows.
        pictures: N names of picture files, or their numbers as text; None: nobody says which
            picture, the row is the person's row in the data set.
        numbered: whether `pictures` are numbers (COCO's image_id).
        boxes: (N, 4) picture pixels, NaN where there is none.
        annotations: N identifiers within the data set; empty if they are not given.
    """

    name: str
    joints: F32
    scores: F32
    skeleton: Skeleton
    pictures: tuple[str, ...] | None = None
    numbered: bool = False
    boxes: F32 | None = None
    annotations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Predictions put beside the persons of a data set.

    Attributes:
        joints: (N, J, 2) of each person, in the data set's skeleton; NaN for an unmatched one.
        scores: (N,); 0 for an unmatched one.
        known: (J,) bool: joints that the predictions can have at all.
        matched: number of persons that a prediction belongs to.
        rule: how it was told.
        certainty: (N, J) score of each joint, NaN where there is none; None: nobody says.
    """

    joints: F32
    scores: F32
    known: np.ndarray
    matched: int
    rule: str
    certainty: F32 | None = None


def read_predictions(path: Path) -> Predictions:
    """The people in `path`: what it is, is told by its content.

    HDF5 or .mat: `preds` (N x 16 x 2 or 2 x 16 x N, MPII order), CPM's `prediction_all`
    (14 x 2 x N in LSP order, 9 x 2 x N FLIC), 1-based, rows as in the data set; (0, 0) and NaN are
    missing. JSON: COCO's list of results, or our own json (COCO's shape). JSON lines: our record.

    Raises:
        InputError: the file is not there or of no known kind.
        FormatError, LimitError: it is damaged or not what it should be.
        MissingExtraError: without h5py or SciPy, where the file needs them.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: predictions come as {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    kind = {".jsonl": _from_records, ".json": _from_json}.get(path.suffix.lower(), _from_arrays)
    found = kind(path)
    if not np.isfinite(found.scores).all():
        raise FormatError(f"{path}: a score is not a number")
    return replace(
        found,
        joints=plausible(found.joints, path, "a joint").astype(np.float32),
        scores=found.scores.astype(np.float32),
        boxes=None if found.boxes is None else plausible(found.boxes, path, "a box").astype("f4"),
    )


def _wide(values: Any) -> Any:
    """Double precision until the numbers are checked: a wild one must not overflow."""
    return np.array(values, np.float64)


def _from_arrays(path: Path) -> Predictions:
    with open(path, "rb") as file:
        head = file.read(520)
    # MATLAB's files of version 7.3 are HDF5 behind 512 bytes of their own.
    if head.startswith(_HDF5_MARK) or head[512:] == _HDF5_MARK:
        found = parse(parse_h5, path, "h5py")
    else:
        found = parse(parse_mat, path, "scipy")
    ((name, rows),) = found.items()
    skeleton = _ARRAYS[name, rows.shape[1]]
    rows = _wide(rows)
    missing = ~np.isfinite(rows).all(-1) | (rows == 0).all(-1)
    joints = _wide(np.where(missing[..., None], np.nan, rows - 1))
    return Predictions(path.name, joints, np.ones(len(rows), np.float32), skeleton)


def _from_json(path: Path) -> Predictions:
    content = load_json(path)
    try:
        if isinstance(content, list):
            return _coco_people(path.name, content, COCO17, {})
        names = tuple(str(name) for name in content["categories"][0]["keypoints"])
        skeleton = next((s for s in SKELETONS.values() if s.joints == names), None)
        head = {"name": skeleton.name if skeleton else "own", "joints": names, "limbs": []}
        pictures = {image["id"]: str(image["file_name"]) for image in content["images"]}
        skeleton = skeleton_of({"skeleton": head})
        return _coco_people(path.name, content["annotations"], skeleton, pictures)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise FormatError(
            f"{path}: neither COCO's list of results nor this project's json ({reason})"
        ) from error


def _coco_people(
    name: str, entries: list[dict[str, Any]], skeleton: Skeleton, pictures: dict[Any, str]
) -> Predictions:
    n = len(skeleton.joints)
    table = _wide([entry["keypoints"] for entry in entries]).reshape(len(entries), n, 3)
    gone = ~np.isfinite(table).all(-1) | (table[..., :2] == 0).all(-1)
    gap = [math.nan] * 4
    return Predictions(
        name,
        _wide(np.where(gone[..., None], np.nan, table[..., :2])),
        _wide([entry.get("score", 1) for entry in entries]),
        skeleton,
        tuple(
            pictures[entry["image_id"]] if pictures else str(int(entry["image_id"]))
            for entry in entries
        ),
        numbered=not pictures,
        boxes=_wide([entry.get("bbox") or gap for entry in entries]).reshape(len(entries), 4),
    )


def _from_records(path: Path) -> Predictions:
    head, frames = read_records(path)
    people = []
    for frame in frames:
        people += [(frame["name"], person) for person in frame["people"]]
        if len(people) > _MAX_PEOPLE:
            raise FormatError(f"{path}: more than {_MAX_PEOPLE:,} people")
    skeleton = skeleton_of(head)
    gap = [math.nan] * 4
    rows = [joint[:2] if joint else gap[:2] for _, p in people for joint in p["joints"]]
    marks = [p.get("annotation") for _, p in people]
    return Predictions(
        path.name if frames.complete else f"{path.name} (partial record)",
        _wide(rows).reshape(-1, len(skeleton.joints), 2),
        _wide([p["score"] for _, p in people]),
        skeleton,
        tuple(name for name, _ in people),
        boxes=_wide([p.get("box") or gap for _, p in people]).reshape(-1, 4),
        annotations=() if None in marks else tuple(map(str, marks)),
    )


def match(found: Predictions, samples: Sequence[Sample], whole: Sequence[Sample]) -> Matched:
    """The prediction of each person in `samples`; one without is a miss.

    By row, where the file names no pictures: of `samples`, or of the `whole` set that they are
    part of. By annotation, where every prediction names one. Else by IoU of the boxes >= 0.5 in the
    same picture, the greatest first, one to one.

    Raises:
        InputError: the number of rows fits neither; no picture is known to both.
    """
    if found.pictures is None:
        rows, rule = _by_row(found, samples, whole), "matched by row"
    elif found.annotations:
        place = {name: i for i, name in reversed(list(enumerate(found.annotations)))}
        rows = np.array([place.get(sample.origin[1], -1) for sample in samples], np.int64)
        rule = "matched by annotation"
    else:
        rows, rule = _by_iou(found, samples), f"matched by IoU >= {_LEAST_IOU:g}, one to one"
    skeleton = samples[0].skeleton
    # Row -1 is nobody.
    nobody = np.full((1, *found.joints.shape[1:]), np.nan, np.float32)
    joints = convert(np.concatenate([found.joints, nobody])[rows], found.skeleton, skeleton)
    scores = np.append(found.scores, np.float32(0))[rows]
    known = joint_map(found.skeleton, skeleton) >= 0
    return Matched(joints, scores, known, int((rows >= 0).sum()), rule)


def _by_row(found: Predictions, samples: Sequence[Sample], whole: Sequence[Sample]) -> I64:
    n = len(found.joints)
    if n == len(samples):
        return np.arange(n)
    if n == len(whole):
        place = {id(sample): i for i, sample in enumerate(whole)}
        return np.array([place[id(sample)] for sample in samples], np.int64)
    whole_too = f" (or {len(whole)}, all of the set)" if len(whole) != len(samples) else ""
    raise InputError(
        f"{found.name} has {n} rows, but {len(samples)} persons are to be scored{whole_too}; "
        "a file that names no pictures must have a row for each of them, in the set's order"
    )


def places_of(
    found: Predictions, samples: Sequence[Sample], more: Sequence[str] = ()
) -> list[tuple[str, I64, I64]]:
    """(file name, rows of `found`, rows of `samples`) of each of the data set's pictures.

    Pictures are told by file name, or by the number in it where the predictions are `numbered`.
    They come in the order of their names; `more` are names of pictures without a sample.

    Raises:
        InputError: if none of the predictions' pictures is among them.
    """
    theirs, ours = defaultdict(list), defaultdict(list)
    for i, name in enumerate(found.pictures or ()):
        theirs[name if found.numbered else PurePath(name).name].append(i)
    for i, sample in enumerate(samples):
        ours[sample.picture.name].append(i)
    names = sorted({*ours, *more}, key=lambda name: (_number(name).zfill(20), name))
    keys = [_number(name) if found.numbered else name for name in names]
    if theirs and not theirs.keys() & set(keys):
        hint = " (COCO's results go by the number in a picture's name)" if found.numbered else ""
        raise InputError(f"{found.name}: none of its pictures is in the data set{hint}")
    return [
        (name, np.array(theirs.get(key, []), np.int64), np.array(ours.get(name, []), np.int64))
        for name, key in zip(names, keys, strict=True)
    ]


def _number(name: str) -> str:
    """The whole number that a file name consists of, as text; "" if it is none."""
    stem = PurePath(name).stem
    return stem.lstrip("0") or "0" if stem.isascii() and stem.isdigit() else ""


def _by_iou(found: Predictions, samples: Sequence[Sample]) -> I64:
    rows = np.full(len(samples), -1, np.int64)
    if not len(found.joints):
        return rows
    boxes = boxes_of(found)
    for _, theirs, ours in places_of(found, samples):
        if not len(theirs):
            continue
        truth = np.stack([samples[i].box for i in ours])
        overlaps = np.nan_to_num(iou(boxes[theirs], truth))
        for _ in range(min(overlaps.shape)):
            a, b = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            if overlaps[a, b] < _LEAST_IOU:
                break
            rows[ours[b]] = theirs[a]
            overlaps[a, :] = overlaps[:, b] = -1
    return rows


def boxes_of(found: Predictions) -> F32:
    """(N, 4) box of each prediction, of its joints where the file gives none."""
    given = np.full((len(found.joints), 4), np.nan, np.float32)
    if found.boxes is not None:
        given = found.boxes.copy()
    missing = np.isnan(given).any(1)
    given[missing] = box_of_joints(found.joints[missing])
    return given


def in_skeleton(found: Predictions, skeleton: Skeleton) -> Predictions:
    """`found` with the joints of `skeleton`, NaN where the file does not know them."""
    return replace(found, joints=convert(found.joints, found.skeleton, skeleton), skeleton=skeleton)
