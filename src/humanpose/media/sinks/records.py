"""The result record as a file: JSON lines, CSV, and COCO's two shapes. Constant memory."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from humanpose.files import atomic_write, output_error, part_path, prepare_output, sync
from humanpose.results import (
    ImageIds,
    Record,
    coco_annotations,
    coco_categories,
    coco_image,
    coco_results,
    csv_header,
    csv_rows,
    frame_record,
    to_line,
)
from humanpose.skeleton import Skeleton
from humanpose.types import Frame


class RecordSink(ABC):
    """Writes frames to one file; see the package's docstring for how it begins and ends."""

    def __init__(
        self,
        path: str | Path,
        header: Record,
        skeleton: Skeleton,
        force: bool = False,
    ) -> None:
        """Nothing is touched before `with`.

        Args:
            path: the file.
            header: as `results.header` makes it.
            skeleton: of the people in every frame.
            force: replace an existing file.
        """
        self.path = Path(path)
        self.header = header
        self.skeleton = skeleton
        self._force = force

    def __enter__(self) -> Self:
        prepare_output(self.path, force=self._force)
        try:
            self._open()
        except OSError as error:
            raise output_error(self.path, error) from error
        return self

    def write(self, frame: Frame) -> None:
        """Append `frame`. Raises OutputError if that fails."""
        try:
            self._write(frame_record(frame))
        except OSError as error:
            raise output_error(self.path, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._complete()
        except OSError as failure:
            raise output_error(self.path, failure) from failure
        finally:
            self._close()

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _write(self, record: Record) -> None: ...

    @abstractmethod
    def _complete(self) -> None:
        """Bring everything written under the final name."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of what is open, completed or not."""


class StreamSink(RecordSink):
    """Grows as NAME.part, readable up to its last line at any moment; renamed at the end."""

    _file: IO[bytes]

    def _open(self) -> None:
        self._part = part_path(self.path)
        self._frames = 0
        self._file = open(self._part, "wb")  # noqa: SIM115 - `_close` closes it
        self._synced = time.monotonic()
        self._put(self._first())

    def _write(self, record: Record) -> None:
        self._put(self._lines(record))
        self._frames += 1

    def _put(self, lines: bytes) -> None:
        self._file.write(lines)
        self._file.flush()  # safe from a kill of the process; the sync, from one of the machine
        if time.monotonic() - self._synced >= 1:
            sync(self._file)
            self._synced = time.monotonic()

    def _complete(self) -> None:
        sync(self._file)
        self._file.close()
        os.replace(self._part, self.path)

    def _close(self) -> None:
        with suppress(OSError):  # what could not be flushed was reported by `write`
            self._file.close()
        if not self._frames:
            self._part.unlink(missing_ok=True)

    @abstractmethod
    def _first(self) -> bytes: ...

    @abstractmethod
    def _lines(self, record: Record) -> bytes: ...


class JsonlSink(StreamSink):
    """The record itself: a header line, then a line per frame."""

    def _first(self) -> bytes:
        return to_line(self.header)

    def _lines(self, record: Record) -> bytes:
        return to_line(record)


class CsvSink(StreamSink):
    """A row per person and frame."""

    def _first(self) -> bytes:
        return _csv([csv_header(self.skeleton)])

    def _lines(self, record: Record) -> bytes:
        return _csv(csv_rows(record))


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # File names that are not UTF-8 come back as the bytes they are on disk.
    return text.getvalue().encode("utf-8", "surrogateescape")


class _Spooled(RecordSink):
    """Collects list items in nameless files, from which the final file is put together."""

    lists: tuple[str, ...]

    def _open(self) -> None:
        self._ids = ImageIds()
        self._counts = dict.fromkeys(self.lists, 0)
        self._spools: dict[str, IO[bytes]] = {}
        for name in self.lists:
            self._spools[name] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115

    def _add(self, name: str, items: Iterable[Record]) -> None:
        for item in items:
            text = json.dumps(item, allow_nan=False, separators=(",", ":"))
            comma = "," if self._counts[name] else ""
            self._spools[name].write(f"{comma}\n{text}".encode())
            self._counts[name] += 1

    def _pour(self, name: str, file: IO[bytes]) -> None:
        """The list `name` as JSON."""
        self._spools[name].seek(0)
        file.write(b"[")
        shutil.copyfileobj(self._spools[name], file)
        file.write(b"]")

    def _close(self) -> None:
        for spool in self._spools.values():
            with suppress(OSError):
                spool.close()


class JsonSink(_Spooled):
    """COCO's shape: info, categories, images and annotations in one object."""

    lists = ("images", "annotations")

    def _write(self, record: Record) -> None:
        image_id = self._ids.next(record["name"])
        first_id = self._counts["annotations"] + 1
        self._add("images", [coco_image(record, image_id)])
        self._add("annotations", coco_annotations(record, first_id, image_id))

    def _complete(self) -> None:
        info = {key: self.header[key] for key in ("format", "models", "smoothing", "source")}
        with atomic_write(self.path) as file:
            file.write(b'{"info":' + json.dumps(info, allow_nan=False).encode())
            categories = json.dumps(coco_categories(self.skeleton))
            file.write(b',\n"categories":' + categories.encode())
            for name in self.lists:
                file.write(f',\n"{name}":'.encode())
                self._pour(name, file)
            file.write(b"}\n")


class CocoSink(_Spooled):
    """COCO's results list: 17 joints in COCO's order."""

    lists = ("results",)

    def _write(self, record: Record) -> None:
        image_id = self._ids.next(record["name"])
        self._add("results", coco_results(record, image_id, self.skeleton))

    def _complete(self) -> None:
        with atomic_write(self.path) as file:
            self._pour("results", file)
            file.write(b"\n")
