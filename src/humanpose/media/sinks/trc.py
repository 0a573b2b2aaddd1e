"""TRC, the track-row-column file of motion capture: one person's joints over time."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from contextlib import suppress

from humanpose.media.sinks.records import StreamSink
from humanpose.results import Record

_NAMES = "DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame"


class TrcSink(StreamSink):
    """The person whose track has the most frames; of untracked people the first of each frame.

    X is right and Y up from the lower left pixel, Z = 0, all in pixels; a missing joint has empty
    cells. While the file grows it holds the track that came first.
    """

    def _open(self) -> None:
        self._tracks: Counter[str] = Counter()
        self._shown: str | None = None  # the track that the file holds
        self._begin = self._end = 0.0
        self._spool = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
        super()._open()

    def _first(self) -> bytes:
        """Everything above the rows; as long for every number of frames."""
        joints = self.skeleton.joints
        seconds = self._end - self._begin
        rate = f"{(self._frames - 1) / seconds if seconds > 0 else 0:010.4f}"
        count = f"{self._frames:09d}"
        axes = (f"{axis}{i}" for i in range(1, len(joints) + 1) for axis in "XYZ")
        lines = (
            f"PathFileType\t4\t(X/Y/Z)\t{self.path.name}",
            "\t".join([*_NAMES.split(), "OrigNumFrames"]),
            "\t".join([rate, rate, count, str(len(joints)), "px", rate, "1", count]),
            "\t".join(["Frame#", "Time", "\t\t\t".join(joints), "", ""]),
            "\t".join(["", "", *axes]),
            "",
        )
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    def _lines(self, record: Record) -> bytes:
        if not self._frames:
            self._begin = record["time"]
        self._end = record["time"]
        people: dict[str, str] = {}
        for place, person in enumerate(record["people"]):
            track = person.get("track")
            if track is not None or place == 0:
                people[str(track)] = _cells(person["joints"], record["height"])
        self._tracks.update(people.keys())
        self._shown = self._shown or next(iter(people), None)
        start = f"{record['index'] + 1}\t{record['time']:.6f}"
        self._spool.write(json.dumps([start, people]).encode() + b"\n")
        return self._row(start, people)

    def _row(self, start: str, people: dict[str, str]) -> bytes:
        empty = "\t" * (3 * len(self.skeleton.joints) - 1)
        return f"{start}\t{people.get(str(self._shown), empty)}\n".encode()

    def _write(self, record: Record) -> None:
        super()._write(record)
        self._file.seek(0)
        self._file.write(self._first())
        self._file.seek(0, 2)
        self._file.flush()

    def _complete(self) -> None:
        most = max(self._tracks, key=lambda track: self._tracks[track], default=None)
        if most != self._shown:
            self._shown = most
            self._file.seek(len(self._first()))
            self._file.truncate()
            self._spool.seek(0)
            for line in self._spool:
                self._file.write(self._row(*json.loads(line)))
        super()._complete()

    def _close(self) -> None:
        super()._close()
        with suppress(OSError):
            self._spool.close()


def _cells(joints: list[list[float] | None], height: int) -> str:
    """The three cells of every joint."""
    return "\t".join(
        f"{joint[0]:.2f}\t{height - 1 - joint[1]:.2f}\t0.00" if joint else "\t\t"
        for joint in joints
    )
