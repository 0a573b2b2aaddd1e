"""Ways to look at a frame and the people found in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from humanpose.draw import SIDE_COLOURS, contact_sheet, draw_heat, draw_people
from humanpose.errors import InputError
from humanpose.geometry import compose
from humanpose.types import U8, Crop, Frame, Person

VIEWS = {
    "boxes": "joints, limbs, boxes with number and score",
    "skeleton": "joints and limbs",
    "heatmaps": "the heat map of every joint, in a grid",
    "stages": "all joints' heat maps of every stage of the network, then the joints",
    "side-by-side": "the picture as it is beside the one with boxes",
}
WITH_MAPS = ("heatmaps", "stages")
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DARK, _LIGHT = (20, 20, 20), (240, 240, 240)


@dataclass(frozen=True, slots=True)
class DrawStyle:
    """How frames are drawn.

    Attributes:
        view: a key of VIEWS.
        min_score: joints below it are not drawn.
        legend: say in the corner which colour is which side of the body.
    """

    view: str = "boxes"
    min_score: float = 0.3
    legend: bool = False

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise InputError(f"view {self.view!r}: choose from {', '.join(VIEWS)}")

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of what `draw` makes of a picture of that size."""
        return (2 * width, height) if self.view == "side-by-side" else (width, height)

    def draw(self, frame: Frame) -> U8:
        """A new picture (H, W, 3) RGB; the views in WITH_MAPS need people with `maps`."""
        image, people = frame.image, frame.people
        if self.view in WITH_MAPS:
            return _sheet(image, people, self.view, self.min_score)
        boxes = self.view != "skeleton"
        drawn = draw_people(image, people, min_score=self.min_score, boxes=boxes)
        if frame.hands:
            hands = [hand.person for hand in frame.hands]
            drawn = draw_people(drawn, hands, min_score=self.min_score, boxes=False)
        if self.legend and people:
            _draw_legend(drawn)
        return np.hstack([image, drawn]) if self.view == "side-by-side" else drawn


def _sheet(image: U8, people: Sequence[Person], view: str, min_score: float) -> U8:
    """Small pictures with names on a sheet of the picture's own size."""
    skeleton = next((person.skeleton for person in people), None)
    stages = next((len(person.maps) for person in people if person.maps is not None), 0)
    names = [f"stage {i + 1}" for i in range(stages)]
    if skeleton is not None and view == "heatmaps":
        names = list(skeleton.joints)
    count = len(names) + (view == "stages" or not names)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    height, width = image.shape[:2]
    cell = (max(1, width // columns), max(1, height // rows))
    small, fewer = _shrunk(image, people, cell)
    which = "joint" if view == "heatmaps" else "stage"
    cells = [(name, draw_heat(small, fewer, **{which: i})) for i, name in enumerate(names)]
    if len(cells) < count:
        cells.append(("", draw_people(image, people, min_score=min_score, boxes=False)))
    sheet = contact_sheet([small for _, small in cells], columns, cell)
    longest = max(cv2.getTextSize(name, _FONT, 1, 1)[0][0] for name, _ in cells)
    scale = min(_text_scale(image), (cell[0] - 8) / max(longest, 1))
    for i, (name, _) in enumerate(cells):
        corner = (i % columns * cell[0] + 4, i // columns * cell[1] + 4)
        _draw_text(sheet, name, corner, _LIGHT, scale)
    missing = ((0, height - sheet.shape[0]), (0, width - sheet.shape[1]), (0, 0))
    return np.pad(sheet, missing, mode="edge")


def _shrunk(image: U8, people: Sequence[Person], cell: tuple[int, int]) -> tuple[U8, list[Person]]:
    """`image` as it fits into `cell` (width, height), and `people` with maps that lie over that."""
    height, width = image.shape[:2]
    scale = min(cell[0] / width, cell[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    x, y = width / size[0], height / size[1]
    back = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])
    return small, [
        replace(person, cells=Crop(compose(person.cells.matrix, back), person.cells.size))
        for person in people
        if person.cells is not None
    ]


def _draw_legend(canvas: U8) -> None:
    """One line a side of the body in the lower left corner; the sides are the person's own."""
    scale = _text_scale(canvas)
    step = cv2.getTextSize("left", _FONT, scale, 1)[0][1] + 6
    for i, (side, colour) in enumerate(SIDE_COLOURS.items()):
        _draw_text(canvas, side, (6, canvas.shape[0] - (3 - i) * step - 4), colour, scale)


def _text_scale(image: U8) -> float:
    return max(0.35, float(min(image.shape[:2])) / 1400)


def _draw_text(
    canvas: U8, text: str, corner: tuple[int, int], colour: tuple[int, ...], scale: float
) -> None:
    """`text` with a dark edge, its upper left at `corner`."""
    height = cv2.getTextSize("left", _FONT, scale, 1)[0][1]
    place = (corner[0], corner[1] + height)
    for ink, width in ((_DARK, 3), (colour, 1)):
        cv2.putText(canvas, text, place, _FONT, scale, ink, width, cv2.LINE_AA)
