"""Where frames come from. `VideoSource` lives in `sources.video`, which alone imports PyAV."""

from humanpose.media.sources.pictures import Item, expand

__all__ = ["Item", "expand"]
