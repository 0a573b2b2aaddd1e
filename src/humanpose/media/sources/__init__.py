"""Where frames come from. Only the modules of the single sources import their codecs."""

from humanpose.media.sources.pictures import Item, expand
from humanpose.media.sources.source import Source, open_source

__all__ = ["Item", "Source", "expand", "open_source"]
