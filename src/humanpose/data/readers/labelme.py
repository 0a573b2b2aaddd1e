"""Head boxes drawn with the LabelMe web tool: one XML file a picture.

Two faults of the 2018 parser are mended: `deleted` is compared as the string it is (there, an
object list gave the box of the file before), and a box spans all points of the polygon, not its
first and third.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from humanpose.data.readers.common import plausible
from humanpose.errors import FormatError, MissingExtraError
from humanpose.files import read_limited
from humanpose.types import F32

_MAX_BYTES = 16 << 20


def head_boxes(folder: Path) -> dict[str, F32]:
    """Box of the head by picture name without suffix, from every .xml in and below `folder`.

    Of several objects that are not deleted the last one counts, those called head before others.
    Boxes are x, y, width, height in pixels of the picture; a picture without any object has none.

    Raises:
        FormatError: if a file is no LabelMe annotation; LimitError if it has over 16 MB.
        MissingExtraError: without defusedxml.
    """
    if importlib.util.find_spec("defusedxml") is None:
        raise MissingExtraError("defusedxml", "data")
    boxes = {}
    for file in sorted(folder.rglob("*.xml")):
        name, box = _read(file)
        if box is not None:
            boxes[name] = box
    return boxes


def _read(file: Path) -> tuple[str, F32 | None]:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root = fromstring(read_limited(file, _MAX_BYTES))
        polygons = [
            ("head" in (entry.findtext("name") or "").lower(), _points(entry))
            for entry in root.iter("object")
            if (entry.findtext("deleted") or "0").strip() != "1"
        ]
    except (ParseError, DefusedXmlException, ValueError, RecursionError) as error:
        raise FormatError(f"{file}: not a LabelMe annotation ({error})") from error
    name = Path((root.findtext("filename") or "").strip()).stem or file.stem
    drawn = [(head, points) for head, points in polygons if len(points)]
    if not drawn:
        return name, None
    drawn.sort(key=lambda item: item[0])  # stable: among equals the last one stays last
    points = plausible(drawn[-1][1], file, "a polygon")
    low, high = points.min(0), points.max(0)
    return name, np.concatenate([low, high - low]).astype(np.float32)


def _points(entry: Any) -> np.ndarray[Any, Any]:
    """(N, 2) points of an object's polygon."""
    points = [[float(point.findtext(axis) or "nan") for axis in "xy"] for point in entry.iter("pt")]
    table = np.array(points, np.float64).reshape(-1, 2)
    if np.isnan(table).any():
        raise ValueError("a point without coordinates")
    return table
