"""Where frames go. `VideoSink` lives in `sinks.video`, which alone imports PyAV.

A sink is a context manager with `write(frame)`. Leaving it normally completes its file; leaving it
by an error leaves nothing under the file's name.
"""

from humanpose.media.sinks.kinds import SINKS, SUFFIXES, open_sinks
from humanpose.media.sinks.pictures import PictureSink, save_heat_maps
from humanpose.media.sinks.records import RecordSink

__all__ = [
    "SINKS",
    "SUFFIXES",
    "PictureSink",
    "RecordSink",
    "open_sinks",
    "save_heat_maps",
]
