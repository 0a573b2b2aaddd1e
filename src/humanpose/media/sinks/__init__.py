"""Sinks of frames. `VideoSink` lives in `sinks.video`, which alone imports PyAV.

A sink is a context manager with `write(frame)`. Leaving it normally completes its file; leaving it
by an error leaves nothing under the file's name.
"""

from humanpose.media.sinks.formats import FORMATS, RECORDS, prepare_record, record_path
from humanpose.media.sinks.pictures import PictureSink, save_heat_maps
from humanpose.media.sinks.record import RecordSink

__all__ = [
    "FORMATS",
    "RECORDS",
    "PictureSink",
    "RecordSink",
    "prepare_record",
    "record_path",
    "save_heat_maps",
]
