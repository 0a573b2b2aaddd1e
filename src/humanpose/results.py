"""Write and read the result record, and convert its frames to COCO's and CSV's values.

A record is JSON lines: a header, one line per frame, a footer. Joints are [x, y, score], 0-based
picture pixels; a missing joint is null. docs/formats.md describes every key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from humanpose.errors import FormatError, LimitError
from humanpose.files import file_size, input_error
from humanpose.geometry import box_of_joints
from humanpose.images import IMAGE_SUFFIXES
from humanpose.skeleton import COCO17, SKELETONS, Skeleton, convert, convert_scores
from humanpose.types import Person, rounded

FORMAT = "humanpose/2"
_FORMER = "humanpose/1"  # without footer, pairs and options

Record = dict[str, Any]

_MAX_LINE = 1 << 26  # 64 MiB: a thousand people fit into 1 MiB
_MAX_FOOTER = 1 << 20
_GAP = (0, 0, 0)  # COCO's missing joint
_FRAME_KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "index": int,
    "time": (int, float),
    "width": int,
    "height": int,
    "people": list,
}
_BOX_COLUMNS = ("box_x", "box_y", "box_w", "box_h")
_PERSON_COLUMNS = ("name", "index", "time", "person", "track", "score", *_BOX_COLUMNS)


def header(
    skeleton: Skeleton,
    models: Sequence[Record],
    source: str,
    smoothing: Record | str | None = None,
    options: Record | None = None,
) -> Record:
    """Return the first line of a record.

    Args:
        skeleton: meaning of every person's joints.
        models: {name, sha256, runtime, precision, input, licence} of each network used.
        source: what was read, as the user named it.
        smoothing: method and its settings, None if nothing was smoothed.
        options: how the networks were run.
    """
    return {
        "format": FORMAT,
        "skeleton": {k: v for k, v in skeleton.to_dict().items() if k != "sigmas"},
        "models": list(models),
        "options": options or {},
        "smoothing": smoothing,
        "source": source,
    }


def to_line(record: Record) -> bytes:
    """Return one line of a record with its newline. Raises ValueError on NaN."""
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class RecordFrames:
    """The frames of a record file; each iteration reads and checks them from the first one.

    Attributes:
        path: the file.
        footer: the last line of a complete record; {} if the record is partial.
        complete: false if the writer was killed; always true of "humanpose/1", which has no footer.
    """

    def __init__(self, path: Path, head: Record) -> None:
        """Read the footer of `path`, whose header is `head`."""
        self.path = path
        self._n_joints = len(skeleton_of(head).joints)
        self.footer = _footer(path)
        self.complete = bool(self.footer) or head["format"] == _FORMER

    def __iter__(self) -> Iterator[Record]:
        """Yield the record of each frame. Raises FormatError, which names the line."""
        for number, record in _lines(self.path):
            if number == 1:
                continue
            if record.get("complete"):
                return
            wrong = _wrong(record, self._n_joints)
            if wrong:
                raise FormatError(f"{self.path}, line {number}: {wrong}")
            yield record


def read_records(path: str | Path) -> tuple[Record, RecordFrames]:
    """Return the header of the record file `path` and its frames, which are read as they are used.

    A torn last line (the writer was killed) is left out.

    Raises:
        InputError: no such file.
        FormatError: not a record.
        LimitError: a line of more than 64 MiB.
    """
    path = Path(path)
    _, head = next(_lines(path), (0, {}))
    if head.get("format") not in (FORMAT, _FORMER):
        raise FormatError(f"{path} is not a result record: its first line is no {FORMAT} header")
    try:
        return head, RecordFrames(path, head)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}, line 1: the skeleton is incomplete") from error


def _lines(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield (1-based number, JSON object) of each line; a torn last one is dropped."""
    file_size(path)
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise input_error(path, error) from error
    with file:
        number = 0
        while line := file.readline(_MAX_LINE + 1):
            number += 1
            if len(line) > _MAX_LINE:
                raise LimitError(f"{path}, line {number}: longer than {_MAX_LINE:,} bytes")
            try:
                value = json.loads(line, parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return
                raise FormatError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(value, dict):
                raise FormatError(f"{path}, line {number}: not a JSON object")
            yield number, value


def _footer(path: Path) -> Record:
    """Return the last line of `path` if it is a footer, else {}."""
    with open(path, "rb") as file:
        file.seek(max(file.seek(0, 2) - _MAX_FOOTER, 0))
        last = file.read().rstrip().rpartition(b"\n")[2]
    with suppress(ValueError, RecursionError):
        value = json.loads(last)
        if isinstance(value, dict) and value.get("complete") is True:
            return value
    return {}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _wrong(record: Record, n_joints: int) -> str:
    """Return the error in a frame's record; "" if it is valid."""
    for key, kind in _FRAME_KINDS.items():
        if not isinstance(record.get(key), kind):
            return f"{key!r} is missing or of the wrong kind"
    for person in record["people"]:
        if not isinstance(person, dict) or not isinstance(person.get("joints"), list):
            return "a person has no joints"
        if len(person["joints"]) != n_joints:
            return f"a person has {len(person['joints'])} joints instead of {n_joints}"
        if not all(joint is None or _is_row(joint, 3) for joint in person["joints"]):
            return "a joint is neither null nor [x, y, score]"
        if not (person.get("box") is None or _is_row(person["box"], 4)):
            return "a box is neither null nor [x, y, width, height]"
        if not _is_row([person.get("score")], 1):
            return "a person has no score"
    return ""


def _is_row(value: object, length: int) -> bool:
    try:
        return isinstance(value, list) and len(value) == length and math.isfinite(sum(value))
    except (TypeError, OverflowError):  # a text, a list, an integer beyond floats
        return False


def skeleton_of(head: Record) -> Skeleton:
    """Return the skeleton that a header describes; a known one has its pairs and sigmas."""
    value = head["skeleton"]
    known = SKELETONS.get(value["name"])
    joints = tuple(str(name) for name in value["joints"])
    if known and known.joints == joints:
        return known
    pairs = [  # "humanpose/1" does not hold them
        (i, joints.index("right_" + name[5:]))
        for i, name in enumerate(joints)
        if name.startswith("left_") and "right_" + name[5:] in joints
    ]
    return Skeleton.from_dict({"pairs": pairs, **value})


def people_of(record: Record, skeleton: Skeleton) -> tuple[Person, ...]:
    """Return the people of a frame's record: the inverse of `Frame.to_dict` but for rounding."""
    gap = [math.nan, math.nan, 0.0]
    people = []
    for person in record["people"]:
        rows = np.array([joint or gap for joint in person["joints"]], np.float32).reshape(-1, 3)
        raw = person.get("raw")
        found = Person(
            joints=rows[:, :2],
            scores=rows[:, 2],
            box=np.array(person.get("box") or [math.nan] * 4, np.float32),
            score=float(person["score"]),
            track=person.get("track"),
            skeleton=skeleton,
            raw=None if raw is None else np.array([xy or gap[:2] for xy in raw], np.float32),
        )
        people.append(found)
    return tuple(people)


class ImageIds:
    """Gives every picture its COCO image_id; none comes twice.

    It is the integer that the name consists of (000000000139.jpg -> 139); else, or where that is
    taken, a running number from 1.
    """

    def __init__(self) -> None:
        self._named: set[int] = set()
        self._running = 0

    def next(self, name: str) -> int:
        """Return the id of the next picture, called `name`."""
        path = Path(name)
        # 18 digits are the most that 64-bit integers hold for sure.
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem.isascii() and len(path.stem) <= 18:
            number = int(path.stem) if path.stem.isdigit() else 0
            if number > self._running and number not in self._named:
                self._named.add(number)
                return number
        self._running += 1
        while self._running in self._named:
            self._running += 1
        return self._running


def coco_categories(skeleton: Skeleton) -> list[Record]:
    """Return COCO's category of a person; its skeleton counts joints from 1."""
    limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]
    return [{"id": 1, "name": "person", "keypoints": list(skeleton.joints), "skeleton": limbs}]


def coco_image(record: Record, image_id: int) -> Record:
    """Return COCO's entry of a frame under "images"."""
    return {
        "id": image_id,
        "file_name": record["name"],
        "width": record["width"],
        "height": record["height"],
        "frame_index": record["index"],
        "time": record["time"],
    }


def coco_annotations(record: Record, first_id: int, image_id: int) -> list[Record]:
    """Return COCO's entries of a frame's people under "annotations", ids from `first_id`.

    A missing joint is 0, 0, 0 as COCO defines it; `keypoint_scores` holds the scores.
    """
    found = []
    for number, person in enumerate(record["people"], first_id):
        joints = person["joints"]
        box = _coco_box(person)
        found.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": 1,
                "bbox": box,
                "area": round(box[2] * box[3], 2),
                "score": person["score"],
                "track_id": person.get("track"),
                "num_keypoints": sum(joint is not None for joint in joints),
                "keypoints": [v for joint in joints for v in ([*joint[:2], 2] if joint else _GAP)],
                "keypoint_scores": [joint[2] if joint else 0.0 for joint in joints],
            }
        )
    return found


def _coco_box(person: Record) -> list[float]:
    """Return the person's box, else the joints', else zeros: COCO requires one."""
    box: list[float] | None = person.get("box")
    if box:
        return box
    known = np.array([joint[:2] for joint in person["joints"] if joint], np.float32)
    return rounded(box_of_joints(known.reshape(-1, 2))[None])[0] or [0.0] * 4


def coco_results(record: Record, image_id: int, skeleton: Skeleton) -> list[Record]:
    """Return a frame's people for COCO's scorer: 17 joints in COCO's order, x, y, score."""
    results = []
    for found, person in zip(record["people"], people_of(record, skeleton), strict=True):
        joints = rounded(convert(person.joints, skeleton, COCO17))
        scores = convert_scores(person.scores, skeleton, COCO17)
        rows = zip(joints, scores, strict=True)
        flat = [v for xy, score in rows for v in ([*xy, round(float(score), 4)] if xy else _GAP)]
        result = {"image_id": image_id, "category_id": 1, "keypoints": flat}
        results.append(result | {"score": found["score"], "bbox": _coco_box(found)})
    return results


def csv_header(skeleton: Skeleton) -> list[str]:
    """Return the column names: the person's, then three per joint."""
    parts = ("x", "y", "score")
    return [*_PERSON_COLUMNS, *(f"{joint}_{part}" for joint in skeleton.joints for part in parts)]


def csv_rows(record: Record) -> list[list[Any]]:
    """Return a row per person of a frame; cells are empty for what is missing."""
    return [
        [
            record["name"],
            record["index"],
            record["time"],
            number,
            "" if person.get("track") is None else person["track"],
            person["score"],
            *(person.get("box") or [""] * 4),
            *(value for joint in person["joints"] for value in joint or ("", "", "")),
        ]
        for number, person in enumerate(record["people"])
    ]
