"""Read predictions; match them to the persons of a data set; find those that COCO ignores."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from humanpose.data.parsers.tables import predictions_of_h5, predictions_of_mat
from humanpose.data.readers.coco import has_joints, image_split, load_json
from humanpose.data.readers.common import parse, plausible
from humanpose.errors import FormatError, InputError
from humanpose.geometry import box_of_joints, iou
from humanpose.results import read_records, skeleton_of
from humanpose.skeleton import COCO17, I64, SKELETONS, Skeleton, convert, joint_map
from humanpose.types import F32, Sample

SUFFIXES = (".h5", ".hdf5", ".mat", ".json", ".jsonl")

_HDF5_MARK = b"\x89HDF\r\n\x1a\n"
_MIN_IOU = 0.5
_MAX_PEOPLE = 10_000_000
# Skeletons of the arrays that other toolkits write, by name and number of joints.
_ARRAYS = {("preds", 16): "mpii16", ("prediction_all", 14): "lsp14", ("prediction_all", 9): "flic9"}


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The people of a predictions file.

    Attributes:
        name: of the file.
        joints: (N, J, 2) picture pixels, 0-based; NaN = missing.
        scores: (N,) of each person; 1 where the file has none.
        skeleton: meaning of the J rows.
        pictures: N names of picture files, or their numbers as text; None: the file names no
            pictures, the row is the person's row in the data set.
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
    """The prediction of each person of a data set.

    Attributes:
        joints: (N, J, 2) in the data set's skeleton; NaN for a person without a prediction.
        scores: (N,); 0 for a person without a prediction.
        known: (J,) bool: joints that the predictions can have at all.
        matched: number of persons with a prediction.
        rule: how they were matched.
        joint_scores: (N, J), NaN where there is none; None: the candidate gives none.
    """

    joints: F32
    scores: F32
    known: np.ndarray
    matched: int
    rule: str
    joint_scores: F32 | None = None


def read_predictions(path: Path) -> Predictions:
    """Read a predictions file; the content says which kind it is.

    HDF5 or .mat: `preds` (N x 16 x 2 or 2 x 16 x N, MPII order), CPM's `prediction_all`
    (14 x 2 x N in LSP order, 9 x 2 x N FLIC), 1-based, rows as in the data set; (0, 0) and NaN are
    missing. JSON: COCO's list of results, or our own json (COCO's shape). JSON lines: our record.

    Raises:
        InputError: the file does not exist or is of no known kind.
        FormatError, LimitError: it is damaged or not of its kind.
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


# float64 does not overflow before `read_predictions` has checked the numbers.
_float64 = partial(np.array, dtype=np.float64)


def _from_arrays(path: Path) -> Predictions:
    with open(path, "rb") as file:
        head = file.read(520)
    # MATLAB's files of version 7.3 are HDF5 behind 512 bytes of their own.
    hdf5 = head.startswith(_HDF5_MARK) or head[512:] == _HDF5_MARK
    parser, needed = (predictions_of_h5, "h5py") if hdf5 else (predictions_of_mat, "scipy")
    ((name, rows),) = parse(parser, path, needed).items()
    skeleton = SKELETONS[_ARRAYS[name, rows.shape[1]]]
    rows = np.array(rows, np.float64)
    missing = ~np.isfinite(rows).all(-1) | (rows == 0).all(-1)
    joints = np.where(missing[..., None], np.nan, rows - 1)
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
    table = _float64([entry["keypoints"] for entry in entries]).reshape(len(entries), n, 3)
    gone = ~np.isfinite(table).all(-1) | (table[..., :2] == 0).all(-1)
    gap = [math.nan] * 4
    return Predictions(
        name,
        np.where(gone[..., None], np.nan, table[..., :2]),
        _float64([entry.get("score", 1) for entry in entries]),
        skeleton,
        tuple(
            pictures[entry["image_id"]] if pictures else str(int(entry["image_id"]))
            for entry in entries
        ),
        numbered=not pictures,
        boxes=_float64([entry.get("bbox") or gap for entry in entries]).reshape(len(entries), 4),
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
        _float64(rows).reshape(-1, len(skeleton.joints), 2),
        _float64([p["score"] for _, p in people]),
        skeleton,
        tuple(name for name, _ in people),
        boxes=_float64([p.get("box") or gap for _, p in people]).reshape(-1, 4),
        annotations=() if None in marks else tuple(map(str, marks)),
    )


def match(found: Predictions, samples: Sequence[Sample], whole: Sequence[Sample]) -> Matched:
    """Match predictions to the persons in `samples`; a person without one is a miss.

    By row, where the file names no pictures: of `samples`, or of the `whole` set that they are
    part of. By annotation, where every prediction names one. Else by IoU of the boxes >= 0.5 in the
    same picture, the greatest first, one to one.

    Raises InputError: the number of rows fits neither; no picture is known to both.
    """
    if found.pictures is None:
        rows, rule = _by_row(found, samples, whole), "matched by row"
    elif found.annotations:
        place = {name: i for i, name in reversed(list(enumerate(found.annotations)))}
        rows = np.array([place.get(sample.origin[1], -1) for sample in samples], np.int64)
        rule = "matched by annotation"
    else:
        rows, rule = _by_iou(found, samples), f"matched by IoU >= {_MIN_IOU:g}, one to one"
    skeleton = samples[0].skeleton
    # Row -1 stands for no prediction.
    missing = np.full((1, *found.joints.shape[1:]), np.nan, np.float32)
    joints = convert(np.concatenate([found.joints, missing])[rows], found.skeleton, skeleton)
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


def join_pictures(
    found: Predictions, samples: Sequence[Sample], more: Sequence[str] = ()
) -> list[tuple[str, I64, I64]]:
    """Return (file name, rows of `found`, rows of `samples`) of each picture of the data set.

    The one place that decides which predictions belong to which picture: by file name without
    folders, or, where the predictions are `numbered`, by the number that the name consists of.
    The pictures are ordered by that number and name; `more` are pictures without a sample.

    Raises InputError if none of the predictions' pictures is among them.
    """

    def number(name: str) -> str:
        stem = PurePath(name).stem
        return stem.lstrip("0") or "0" if stem.isascii() and stem.isdigit() else ""

    theirs, ours = defaultdict(list), defaultdict(list)
    for i, name in enumerate(found.pictures or ()):
        theirs[name if found.numbered else PurePath(name).name].append(i)
    for i, sample in enumerate(samples):
        ours[sample.picture.name].append(i)
    names = sorted({*ours, *more}, key=lambda name: (number(name).zfill(20), name))
    keys = [number(name) if found.numbered else name for name in names]
    if theirs and not theirs.keys() & set(keys):
        hint = " (COCO's results go by the number in a picture's name)" if found.numbered else ""
        raise InputError(f"{found.name}: none of its pictures is in the data set{hint}")
    return [
        (name, np.array(theirs.get(key, []), np.int64), np.array(ours.get(name, []), np.int64))
        for name, key in zip(names, keys, strict=True)
    ]


def _by_iou(found: Predictions, samples: Sequence[Sample]) -> I64:
    rows = np.full(len(samples), -1, np.int64)
    if not len(found.joints):
        return rows
    boxes = boxes_of(found)
    for _, theirs, ours in join_pictures(found, samples):
        if not len(theirs):
            continue
        truth = np.stack([samples[i].box for i in ours])
        overlaps = np.nan_to_num(iou(boxes[theirs], truth))
        for _ in range(min(overlaps.shape)):
            a, b = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            if overlaps[a, b] < _MIN_IOU:
                break
            rows[ours[b]] = theirs[a]
            overlaps[a, :] = overlaps[:, b] = -1
    return rows


def boxes_of(found: Predictions) -> F32:
    """Return the (N, 4) box of each prediction; of its joints where the file gives none."""
    if found.boxes is None:
        return box_of_joints(found.joints)
    given = found.boxes.copy()
    missing = np.isnan(given).any(1)
    given[missing] = box_of_joints(found.joints[missing])
    return given


@dataclass(frozen=True, slots=True, eq=False)
class IgnoredPerson:
    """An annotated person whom COCO's scorer ignores: a crowd, or one without joints.

    Attributes:
        box: (4,) picture pixels.
        area: square pixels.
        crowd: whether it stands for many people.
    """

    box: F32
    area: float
    crowd: bool


def ignored_people(contents: Mapping[Path, Any], split: str) -> dict[str, list[IgnoredPerson]]:
    """Return the people of COCO files that the reader leaves out, by file name of the picture.

    Args:
        contents: file -> its parsed JSON.
        split: of the pictures ("all" for any); each one is a key, also without such people.

    Raises FormatError if a file is not COCO keypoints.
    """
    found: dict[str, list[IgnoredPerson]] = {}
    for file, content in contents.items():
        try:
            names = {
                image["id"]: PurePath(str(image["file_name"])).name
                for image in content["images"]
                if split in ("all", image_split(file, image))
            }
            found |= {name: [] for name in names.values()}
            for person in content["annotations"]:
                crowd = bool(person.get("iscrowd"))
                if person["image_id"] in names and (crowd or not has_joints(person)):
                    box = np.asarray(person["bbox"], np.float32).reshape(4)
                    area = float(person.get("area", box[2] * box[3]))
                    found[names[person["image_id"]]].append(IgnoredPerson(box, area, crowd))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"{file}: not a COCO keypoints file ({error})") from error
    return found
