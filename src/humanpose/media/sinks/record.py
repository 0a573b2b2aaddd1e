"""The result record of a run: JSON lines while it runs, the other record formats at its end."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np

from humanpose import results
from humanpose.errors import InputError, OutputError
from humanpose.files import (
    atomic_write,
    make_parent,
    output_error,
    part_path,
    prepare_output,
    publish,
    sync,
)
from humanpose.results import Record, to_line
from humanpose.skeleton import BODY25, Skeleton, convert, convert_scores
from humanpose.types import Frame, Person

_END = "_keypoints.json"
_EMPTY = (
    *(f"{part}_keypoints_2d" for part in ("face", "hand_left", "hand_right")),
    *(f"{part}_keypoints_3d" for part in ("pose", "face", "hand_left", "hand_right")),
)
_TRC_KEYS = "DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame"


class RecordSink:
    """Writes NAME.jsonl.part frame by frame and makes the wanted formats from it when closed.

    After a kill or an error the part file stays, readable up to its last line, for `humanpose
    convert`. Otherwise it becomes NAME.jsonl, or is removed if that is not wanted.
    """

    def __init__(
        self,
        output: Path,
        header: Record,
        formats: Iterable[str],
        *,
        problems: Sequence[str] = (),
        force: bool = False,
    ) -> None:
        """Set up; nothing is written before `with`.

        Args:
            output: path whose suffix is replaced by those of the formats.
            header: from `results.header`.
            formats: names out of `RECORDS`.
            problems: lines for the footer; more may be added until the sink is closed.
            force: replace existing files.
        """
        self._output, self._header = output, header
        self._problems, self._force = problems, force
        self._formats = list(formats)
        self._path = output.with_suffix(".jsonl")
        self._part = part_path(self._path)
        self._frames = self._people = 0

    def __enter__(self) -> Self:
        self._paths = {
            name: prepare_record(name, self._output, force=self._force) for name in self._formats
        }
        make_parent(self._part)
        try:
            self._file = open(self._part, "wb")
            self._synced = time.monotonic()
            self._put(self._header)
        except OSError as error:
            raise output_error(self._path, error) from error
        return self

    def write(self, frame: Frame) -> None:
        """Append `frame`. Raises OutputError if that fails."""
        try:
            self._put(frame.to_dict())
        except OSError as error:
            raise output_error(self._path, error) from error
        self._frames += 1
        self._people += len(frame.people)

    def _put(self, record: Record) -> None:
        self._file.write(to_line(record))
        self._file.flush()  # survives a kill of the process; the sync, one of the machine
        if time.monotonic() - self._synced >= 1:
            sync(self._file)
            self._synced = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._complete()
        except OSError as failure:
            raise output_error(self._path, failure) from failure
        finally:
            with suppress(OSError):  # what could not be flushed was reported by `write`
                self._file.close()
            if not self._frames:
                self._part.unlink(missing_ok=True)

    def _complete(self) -> None:
        counts = {"frames": self._frames, "people": self._people}
        self._put({"complete": True, **counts, "problems": list(self._problems)})
        sync(self._file)
        self._file.close()
        for name in self._formats:
            if name in FORMATS:
                FORMATS[name].write(self._part, self._paths[name])
        if "jsonl" in self._formats:
            publish(self._part, self._path)
        else:
            self._part.unlink()


def write_csv(record: Path, path: Path) -> None:
    """Write a row per person and frame."""
    head, frames = results.read_records(record)
    with atomic_write(path) as file:
        # File names that are not UTF-8 get back the bytes that they have on disk.
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(results.csv_header(results.skeleton_of(head)))
        for frame in frames:
            rows.writerows(results.csv_rows(frame))
        text.detach()


def write_json(record: Path, path: Path) -> None:
    """Write COCO's shape: info, categories, images and annotations in one object."""
    head, frames = results.read_records(record)

    def annotations() -> Iterator[Record]:
        count = 0
        for frame, image_id in _with_ids(frames):
            found = results.coco_annotations(frame, count + 1, image_id)
            count += len(found)
            yield from found

    with atomic_write(path) as file:
        info = {key: head.get(key) for key in ("format", "models", "smoothing", "source")}
        file.write(b'{"info":' + json.dumps(info, allow_nan=False).encode())
        categories = json.dumps(results.coco_categories(results.skeleton_of(head)))
        file.write(b',\n"categories":' + categories.encode() + b',\n"images":')
        _write_list(file, (results.coco_image(*pair) for pair in _with_ids(frames)))
        file.write(b',\n"annotations":')
        _write_list(file, annotations())
        file.write(b"}\n")


def write_coco(record: Path, path: Path) -> None:
    """Write COCO's list of results: 17 joints in COCO's order."""
    head, frames = results.read_records(record)
    skeleton = results.skeleton_of(head)
    with atomic_write(path) as file:
        people = (results.coco_results(*pair, skeleton) for pair in _with_ids(frames))
        _write_list(file, itertools.chain.from_iterable(people))
        file.write(b"\n")


def _with_ids(frames: Iterable[Record]) -> Iterator[tuple[Record, int]]:
    ids = results.ImageIds()
    for frame in frames:
        yield frame, ids.next(frame["name"])


def _write_list(file: IO[bytes], items: Iterable[Record]) -> None:
    file.write(b"[")
    for number, item in enumerate(items):
        text = json.dumps(item, allow_nan=False, separators=(",", ":"))
        file.write(f"{',' if number else ''}\n{text}".encode())
    file.write(b"]")


def write_openpose(record: Path, path: Path) -> None:
    """Write a folder of NAME_000000000012_keypoints.json or PICTURE_keypoints.json (BODY_25).

    It grows as NAME.part; a folder that was there before is replaced at the end.
    """
    head, frames = results.read_records(record)
    skeleton, part = results.skeleton_of(head), part_path(path)
    try:
        _remove_openpose(part)
        part.mkdir(parents=True)
        for frame in frames:
            name = Path(frame["name"].partition("#")[0])
            number = f"_{frame['index']:012d}" if "#" in frame["name"] else ""
            file = part / name.parent / f"{name.stem}{number}{_END}"
            if file.exists():  # photo.jpg and photo.png
                file = file.with_name(f"{name.name}{number}{_END}")
            found = results.people_of(frame, skeleton)
            people = [_openpose_person(person, skeleton) for person in found]
            for hand in frame.get("hands", ()):  # HAND21 is in OpenPose's order
                flat = [value for row in hand["joints"] for value in row or [0.0] * 3]
                people[hand["owner"]][f"hand_{hand['side']}_keypoints_2d"] = flat
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"version": 1.3, "people": people}, allow_nan=False))
        _remove_openpose(path)
        os.replace(part, path)
    except OSError as error:
        raise output_error(path, error) from error


def _openpose_person(person: Person, skeleton: Skeleton) -> dict[str, Any]:
    joints = convert(person.joints, skeleton, BODY25, derive=True)
    scores = convert_scores(person.scores, skeleton, BODY25)
    hips = scores[[BODY25.index("left_hip"), BODY25.index("right_hip")]].min()
    scores[BODY25.index("pelvis")] = max(hips, scores[BODY25.index("pelvis")])
    rows = np.column_stack([joints, scores]).astype(np.float64)
    rows[~np.isfinite(rows).all(1)] = 0  # the format's mark of a missing joint
    return {
        "person_id": [-1 if person.track is None else person.track],
        "pose_keypoints_2d": np.round(rows, 4).ravel().tolist(),
        **{key: [] for key in _EMPTY},
    }


def _remove_openpose(folder: Path) -> None:
    """Remove the files of `write_openpose` and then the folder, if nothing else is in it."""
    if folder.is_dir():
        for path in sorted(folder.rglob(f"*{_END}*"), reverse=True):
            path.unlink()
        for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            path.rmdir()
        folder.rmdir()


def write_trc(record: Path, path: Path) -> None:
    """Write motion capture's table (track-row-column) of the person with the most frames.

    Of untracked people it is the first of each frame. X is right and Y up from the lower left
    pixel, Z = 0, in pixels; a missing joint has empty cells.
    """
    head, frames = results.read_records(record)
    joints = results.skeleton_of(head).joints
    tracks: Counter[int | None] = Counter()
    times: list[float] = []  # of the first and the last frame
    count = 0
    for frame in frames:
        times[1:] = [frame["time"]]
        tracks.update(_tracked(frame).keys())
        count += 1
    seconds = times[-1] - times[0] if times else 0
    rate = f"{(count - 1) / seconds if seconds > 0 else 0:010.4f}"
    axes = (f"{axis}{i}" for i in range(1, len(joints) + 1) for axis in "XYZ")
    lines = (
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "\t".join([*_TRC_KEYS.split(), "OrigNumFrames"]),
        "\t".join([rate, rate, f"{count:09d}", str(len(joints)), "px", rate, "1", f"{count:09d}"]),
        "\t".join(["Frame#", "Time", "\t\t\t".join(joints), "", ""]),
        "\t".join(["", "", *axes]),
        "",
    )
    shown = max(tracks, key=lambda track: tracks[track], default=None)
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        for frame in frames:
            row = _tracked(frame).get(shown, [None] * len(joints))
            height = frame["height"]
            cells = "\t".join(
                f"{joint[0]:.2f}\t{height - 1 - joint[1]:.2f}\t0.00" if joint else "\t\t"
                for joint in row
            )
            file.write(f"{frame['index'] + 1}\t{frame['time']:.6f}\t{cells}\n".encode())


def _tracked(frame: Record) -> dict[int | None, list[list[float] | None]]:
    """Return the joints of each track; of untracked people the first one's, under None."""
    people = enumerate(frame["people"])
    return {
        person.get("track"): person["joints"]
        for place, person in people
        if place == 0 or person.get("track") is not None
    }


class Format(NamedTuple):
    """A record format: suffix of its file, and the function that writes it from a record."""

    suffix: str
    write: Callable[[Path, Path], None]


FORMATS = {
    "csv": Format(".csv", write_csv),
    "json": Format(".json", write_json),
    "coco": Format(".coco.json", write_coco),
    "openpose": Format(".openpose", write_openpose),
    "trc": Format(".trc", write_trc),
}
RECORDS = ("jsonl", *FORMATS)


def record_path(name: str, output: Path) -> Path:
    """Return `output` with the suffix of record format `name`. Raises InputError if unknown."""
    if name not in RECORDS:
        raise InputError(f"no record format {name!r}; there are {', '.join(RECORDS)}")
    return output.with_suffix(FORMATS[name].suffix if name in FORMATS else ".jsonl")


def prepare_record(name: str, output: Path, *, force: bool) -> Path:
    """Return `record_path` after a check that it can be written; its folder is made.

    Raises:
        InputError: no such format.
        OutputError: it exists and `force` is off, or its folder cannot be made.
    """
    path = record_path(name, output)
    if name != "openpose":
        prepare_output(path, force=force)
    elif os.path.lexists(path):
        if not force:
            raise OutputError(f"{path} exists; add --force to replace it")
        if not path.is_dir() or any(p.is_file() and _END not in p.name for p in path.rglob("*")):
            raise OutputError(f"{path} holds other files too; choose another folder")
    return path
