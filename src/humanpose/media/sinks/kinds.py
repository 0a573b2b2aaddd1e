"""The kinds of records by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from humanpose.errors import InputError
from humanpose.media.sinks.openpose import OpenPoseSink
from humanpose.media.sinks.records import CocoSink, CsvSink, JsonlSink, JsonSink, RecordSink
from humanpose.media.sinks.trc import TrcSink
from humanpose.results import Record
from humanpose.skeleton import Skeleton

SINKS: dict[str, type[RecordSink]] = {
    "jsonl": JsonlSink,
    "csv": CsvSink,
    "json": JsonSink,
    "coco": CocoSink,
    "openpose": OpenPoseSink,
    "trc": TrcSink,
}
SUFFIXES = {name: f".{name}" for name in SINKS} | {"coco": ".coco.json"}


def open_sinks(
    names: Iterable[str], output: Path, header: Record, skeleton: Skeleton, force: bool = False
) -> list[RecordSink]:
    """Record sinks, not yet entered, for the files OUTPUT.jsonl, OUTPUT.csv and so on.

    Args:
        names: keys of `SINKS`.
        output: path whose suffix is replaced, such as the output folder / `InputItem.output`.
        header: as `results.header` makes it.
        skeleton: of the people in every frame.
        force: replace existing files.

    Raises:
        InputError: a name is not known.
    """
    names = list(names)
    for name in names:
        if name not in SINKS:
            raise InputError(f"no record format {name!r}; there are {', '.join(SINKS)}")
    return [
        SINKS[name](output.with_suffix(SUFFIXES[name]), header, skeleton, force) for name in names
    ]
