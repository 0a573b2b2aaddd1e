"""Where frames go. `VideoSink` lives in `sinks.video`, which alone imports PyAV.

A sink is a context manager with `write(frame)`. Leaving it normally completes its file; leaving it
by an error leaves nothing under the file's name.
"""

from humanpose.media.sinks.pictures import PictureSink
from humanpose.media.sinks.records import (
    SINKS,
    SUFFIXES,
    CocoSink,
    CsvSink,
    JsonlSink,
    JsonSink,
    RecordSink,
    open_sinks,
)

__all__ = [
    "SINKS",
    "SUFFIXES",
    "CocoSink",
    "CsvSink",
    "JsonSink",
    "JsonlSink",
    "PictureSink",
    "RecordSink",
    "open_sinks",
]
