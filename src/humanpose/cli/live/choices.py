"""What the window's selectors offer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from humanpose.cli.settings import Settings
from humanpose.draw import VIEWS
from humanpose.infer.catalog import installed
from humanpose.infer.options import PRECISIONS
from humanpose.infer.runtime import read_spec
from humanpose.media.sources import source_kind, without_password

FILE, OTHER = "\0file", "\0other"  # not values, but ways to name one
_SIZES = (128, 192, 256, 320, 384)
_SMOOTHING = ("kalman", "one-euro", "none")

Item = tuple[Any, str]  # value and text


def choices(key: str, settings: Settings) -> tuple[list[Item], int]:
    """(what `key` may be set to, the place of what it is set to)."""
    value = getattr(settings, key)
    items: list[Item] = []
    if key == "source":
        items = [(name, f"Camera {name}") for name in _cameras()]
    elif key == "model":
        items = [(name, name) for name in _models()]
    elif key == "size":
        items = [(None, "its own"), *((size, f"{size} px") for size in _SIZES)]
    elif key == "precision":
        items = [(name, name) for name in PRECISIONS]
    elif key == "view":
        items = [(name, name) for name in VIEWS]
    elif key == "smooth":
        items = [(name, name) for name in _SMOOTHING]
    if value not in [item for item, _ in items]:
        items.append((value, f"{value} px" if key == "size" else _short(value)))
    chosen = [item for item, _ in items].index(value)
    if key in ("source", "model"):
        items.append((FILE, "File ..."))
    if key == "source":
        items.append((OTHER, "Address ..."))
    return items, chosen


def _short(text: str) -> str:
    """Of an address all but the password, of a file the name without its folder."""
    if source_kind(text) == "camera":
        return f"Camera {text}"
    return without_password(text) if source_kind(text) in ("stream", "topic") else Path(text).name


def _cameras() -> list[str]:
    """Numbers of the cameras there are; 0 at least, to say how one is called."""
    found = Path("/dev").glob("video[0-9]*")
    return sorted((path.name[5:] for path in found), key=lambda name: (len(name), name)) or ["0"]


@cache
def _models() -> tuple[str, ...]:
    return tuple(name for name, path in installed().items() if read_spec(path).task == "pose")
