"""Where frames come from. Only the modules of the single sources import their codecs."""

from humanpose.media.sources.address import (
    InputItem,
    find_inputs,
    open_source,
    result_name,
    source_kind,
)
from humanpose.media.sources.source import Source, without_password

__all__ = [
    "InputItem",
    "Source",
    "find_inputs",
    "open_source",
    "result_name",
    "source_kind",
    "without_password",
]
