"""The result record of a run: JSON lines while it runs, the other record formats at its end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from humanpose.files import make_parent, output_error, part_path, publish, sync
from humanpose.media.sinks.formats import FORMATS, prepare_record
from humanpose.results import Record, to_line
from humanpose.types import Frame


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
            formats: names out of `formats.RECORDS`.
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
