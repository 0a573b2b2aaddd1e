"""OpenPose's output: a folder with a JSON file per frame, 25 joints (BODY_25)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from humanpose.errors import OutputError
from humanpose.files import output_error, part_path
from humanpose.media.sinks.records import RecordSink
from humanpose.results import Record, people_of
from humanpose.skeleton import Skeleton, convert, convert_scores
from humanpose.types import Person

# https://cmu-perceptual-computing-lab.github.io/openpose, "Output": the mid-hip is our pelvis.
BODY25 = Skeleton(
    "body25",
    (
        "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
        "left_elbow", "left_wrist", "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip",
        "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe",
        "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
    ),
    limbs=(),
    pairs=(),
)  # fmt: skip
_END = "_keypoints.json"
_EMPTY = (
    *(f"{part}_keypoints_2d" for part in ("face", "hand_left", "hand_right")),
    *(f"{part}_keypoints_3d" for part in ("pose", "face", "hand_left", "hand_right")),
)


class OpenPoseSink(RecordSink):
    """A folder of NAME_000000000012_keypoints.json, or PICTURE_keypoints.json.

    It grows as NAME.part; every file in it appears whole.
    """

    def __enter__(self) -> Self:
        if os.path.lexists(self.path) and not self._force:
            raise OutputError(f"{self.path} exists; add --force to replace it")
        self._part = part_path(self.path)
        self._frames = 0
        try:
            if os.path.lexists(self.path) and _others(self.path):
                raise OutputError(f"{self.path} holds other files too; choose another folder")
            _clear(self._part)
            self._open()
        except OSError as error:
            raise output_error(self.path, error) from error
        return self

    def _open(self) -> None:
        self._part.mkdir(parents=True)

    def _write(self, record: Record) -> None:
        name = Path(record["name"].partition("#")[0])
        number = f"_{record['index']:012d}" if "#" in record["name"] else ""
        path = self._part / name.parent / f"{name.stem}{number}{_END}"
        if path.exists():  # photo.jpg and photo.png
            path = path.with_name(f"{name.name}{number}{_END}")
        people = [self._person(person) for person in people_of(record, self.skeleton)]
        for hand in record.get("hands", ()):  # HAND21 is in OpenPose's order
            rows = [[0.0] * 3 if row is None else row for row in hand["joints"]]
            flat = [value for row in rows for value in row]
            people[hand["owner"]][f"hand_{hand['side']}_keypoints_2d"] = flat
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"version": 1.3, "people": people}, allow_nan=False)
        part = part_path(path)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)  # who watches the folder never sees half a file
        self._frames += 1

    def _person(self, person: Person) -> dict[str, Any]:
        joints = convert(person.joints, self.skeleton, BODY25, derive=True)
        scores = convert_scores(person.scores, self.skeleton, BODY25)
        hips = scores[[BODY25.index("left_hip"), BODY25.index("right_hip")]].min()
        scores[BODY25.index("pelvis")] = max(hips, scores[BODY25.index("pelvis")])
        rows = np.column_stack([joints, scores]).astype(np.float64)
        rows[~np.isfinite(rows).all(1)] = 0  # the format's own way to say "missing"
        return {
            "person_id": [-1 if person.track is None else person.track],
            "pose_keypoints_2d": np.round(rows, 4).ravel().tolist(),
            **{key: [] for key in _EMPTY},
        }

    def _complete(self) -> None:
        _clear(self.path)
        os.replace(self._part, self.path)

    def _close(self) -> None:
        if not self._frames:
            _clear(self._part)


def _others(folder: Path) -> bool:
    """Whether something lies there that is not ours to replace."""
    if not folder.is_dir():
        return True
    return any(p.is_file() and _END not in p.name for p in folder.rglob("*"))


def _clear(folder: Path) -> None:
    """Remove our files and then, if nothing else is there, the folder."""
    if folder.is_dir():
        for path in sorted(folder.rglob(f"*{_END}*"), reverse=True):
            path.unlink()
        for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            path.rmdir()
        folder.rmdir()
