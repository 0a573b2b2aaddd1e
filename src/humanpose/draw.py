"""Draw people on pictures: joints, boxes, heat maps and sheets of them; always new arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from humanpose.geometry import Crop, compose
from humanpose.skeleton import Skeleton
from humanpose.types import F32, U8, Frame, Person, check_options, option

Colour = tuple[int, int, int]

# Blue and orange differ for every common colour blindness. The dark outline shows on bright ground.
SIDE_COLOURS: dict[str, Colour] = {
    "left": (70, 180, 255),
    "right": (255, 150, 40),
    "middle": (120, 235, 110),
}
_OUTLINE: Colour = (20, 20, 20)
_BOX: Colour = (240, 240, 240)
_SHEET: Colour = (32, 32, 32)
_SHIFT = 4  # OpenCV draws at 1/16 pixel
_FONT = cv2.FONT_HERSHEY_SIMPLEX

VIEWS = {
    "boxes": "joints, limbs, boxes with number and score",
    "skeleton": "joints and limbs",
    "heatmaps": "the heat map of every joint, in a grid",
    "stages": "all joints' heat maps of every stage of the network, then the joints",
    "side-by-side": "the picture as it is beside the one with boxes",
}
WITH_MAPS = ("heatmaps", "stages")


def draw_people(
    image: U8, people: Iterable[Person], *, min_score: float = 0.3, boxes: bool = True
) -> U8:
    """Draw limbs, joints and boxes of `people`: blue left, orange right, green middle.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        people: joints in pixels of `image`, anywhere in or around it.
        min_score: joints below it are not drawn, nor the limbs that end in one.
        boxes: also draw boxes, with the track number (#3) and the person's score.
    """
    canvas = np.array(image, np.uint8, order="C")
    people = tuple(people)
    for person in people if boxes else ():
        if np.isfinite(person.box).all():
            _draw_box(canvas, person)
    for person in people:  # over all boxes, so that no frame crosses a limb
        _draw_joints(canvas, person, min_score)
    return canvas


def _draw_joints(canvas: U8, person: Person, min_score: float) -> None:
    joints = np.asarray(person.joints, np.float64)
    shown = np.isfinite(joints).all(1) & (person.scores >= min_score)
    points = _fixed_point(np.where(shown[:, None], joints, 0), canvas)
    limbs = [limb for limb in person.skeleton.limbs if shown[limb[0]] and shown[limb[1]]]
    width = _line_width(canvas, joints[shown])
    # All outlines first: a limb's outline must not cut through its neighbour's colour.
    for edge in (max(1, round(width / 2)), 0):
        for limb in limbs:
            colour = _OUTLINE if edge else SIDE_COLOURS[_limb_side(person.skeleton, limb)]
            start, end = (points[i] for i in limb)
            cv2.line(canvas, start, end, colour, width + 2 * edge, cv2.LINE_AA, _SHIFT)
        for i in np.flatnonzero(shown):
            colour = _OUTLINE if edge else SIDE_COLOURS[person.skeleton.side(int(i))]
            radius = round((0.9 * width + edge) * (1 << _SHIFT))
            cv2.circle(canvas, points[i], radius, colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _fixed_point(points: NDArray[np.float64], canvas: U8) -> list[tuple[int, int]]:
    """Round points (N, 2) to 1/16 pixel, within the range of OpenCV's integers."""
    reach = 4 * max(canvas.shape) + 1000
    fixed = np.rint(np.clip(points, -reach, reach) * (1 << _SHIFT)).astype(int)
    return [(int(x), int(y)) for x, y in fixed]


def _line_width(canvas: U8, joints: NDArray[np.float64]) -> int:
    """Return a width for limbs, pixels, from the size of the person and of the picture."""
    most = 1 + min(canvas.shape[:2]) / 100
    size = float(np.ptp(joints, axis=0).max()) if len(joints) else 0.0
    return round(float(np.clip(size / 90, min(2.0, most), most)))


def _limb_side(skeleton: Skeleton, limb: tuple[int, int]) -> str:
    """Return the side of both ends; one in the middle does not count (neck - left shoulder)."""
    sides = {skeleton.side(joint) for joint in limb} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def _draw_box(canvas: U8, person: Person) -> None:
    box: F32 = np.asarray(person.box, np.float64)
    low, high = _fixed_point(np.stack([box[:2], box[:2] + box[2:]]), canvas)
    for colour, width in ((_OUTLINE, 3), (_BOX, 1)):
        cv2.rectangle(canvas, low, high, colour, width, cv2.LINE_AA, _SHIFT)
    track = "" if person.track is None else f"#{person.track}  "
    _draw_label(canvas, f"{track}{person.score:.2f}", (low[0] >> _SHIFT, low[1] >> _SHIFT))


def _draw_label(canvas: U8, text: str, corner: tuple[int, int]) -> None:
    """Write `text` above `corner`, or as near to it as the picture allows."""
    height, width = canvas.shape[:2]
    scale = _text_scale(canvas)
    (text_width, text_height), below = cv2.getTextSize(text, _FONT, scale, 1)
    x = int(np.clip(corner[0], 0, max(width - text_width - 4, 0)))
    y = int(np.clip(corner[1], text_height + below + 2, max(height, text_height + below + 2)))
    cv2.rectangle(canvas, (x, y - text_height - below - 2), (x + text_width + 4, y), _OUTLINE, -1)
    cv2.putText(canvas, text, (x + 2, y - below), _FONT, scale, _BOX, 1, cv2.LINE_AA)


def draw_heat(
    image: U8, people: Iterable[Person], *, joint: int | None = None, stage: int = -1
) -> U8:
    """Draw heat maps of `people` over a dimmed grey `image`: at each pixel the highest.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        people: with `maps` and `cells`; others add nothing.
        joint: row of `maps` to show; None = all joints together.
        stage: of a network with several; -1 = the last.
    """
    size = (image.shape[1], image.shape[0])
    heat = np.zeros(image.shape[:2], np.float32)
    for person in people:
        if person.maps is None or person.cells is None:
            continue
        # A map of a network in training may hold NaN.
        shown = np.nan_to_num(np.asarray(person.maps[stage], np.float32), posinf=1, neginf=0)
        one = shown.max(0) if joint is None else shown[joint]
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        heat = np.maximum(heat, cv2.warpAffine(one, person.cells.matrix, size, flags=flags))
    heat = np.clip(heat, 0, 1)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * 0.5
    cover = np.minimum(1, 1.5 * heat)[..., None]
    return np.asarray(grey * (1 - cover) + colours * cover, np.uint8)


def contact_sheet(images: Sequence[U8], columns: int, cell: tuple[int, int]) -> U8:
    """Put pictures side by side, each scaled to fit its cell and centred on dark grey.

    Args:
        images: (H, W, 3) uint8 RGB each, of any sizes.
        columns: cells per row, at least 1.
        cell: (width, height) of a cell, pixels.

    Returns:
        (rows * height, columns * width, 3); one empty row if there are no pictures.
    """
    width, height = cell
    rows = max(1, -(-len(images) // columns))
    sheet = np.full((rows * height, columns * width, 3), _SHEET, np.uint8)
    for i, image in enumerate(images):
        scale = min(width / image.shape[1], height / image.shape[0])
        sides = zip(image.shape[1::-1], cell, strict=True)
        size = tuple(max(1, min(round(n * scale), most)) for n, most in sides)
        kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, size, interpolation=kind)
        top = i // columns * height + (height - size[1]) // 2
        left = i % columns * width + (width - size[0]) // 2
        sheet[top : top + size[1], left : left + size[0]] = small
    return sheet


@dataclass(frozen=True, slots=True)
class DrawStyle:
    """Drawing options; raises an InputError naming a field whose value is not allowed."""

    view: str = option(
        "boxes",
        "How results are drawn: boxes, skeleton, heatmaps, stages or side-by-side.",
        metavar="NAME",
        choices=tuple(VIEWS),
    )
    min_score: float = option(
        0.3, "Draw joints at or above this score; results keep all.", min=0, max=1
    )
    legend: bool = option(False, "Draw which colour is which side of the body.")

    def __post_init__(self) -> None:
        check_options(self)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) that `draw` makes of a picture of that size."""
        return (2 * width, height) if self.view == "side-by-side" else (width, height)

    def draw(self, frame: Frame) -> U8:
        """Draw a new picture (H, W, 3) RGB; the views in WITH_MAPS need people with `maps`."""
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
    """Draw small pictures with names on a sheet of the size of `image`."""
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
        _draw_text(sheet, name, corner, _BOX, scale)
    missing = ((0, height - sheet.shape[0]), (0, width - sheet.shape[1]), (0, 0))
    return np.pad(sheet, missing, mode="edge")


def _shrunk(image: U8, people: Sequence[Person], cell: tuple[int, int]) -> tuple[U8, list[Person]]:
    """Scale `image`, and where the maps of `people` lie, to fit into `cell` (width, height)."""
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
    """Write the colour of each side of the body, the person's own, in the lower left corner."""
    scale = _text_scale(canvas)
    step = cv2.getTextSize("left", _FONT, scale, 1)[0][1] + 6
    for i, (side, colour) in enumerate(SIDE_COLOURS.items()):
        _draw_text(canvas, side, (6, canvas.shape[0] - (3 - i) * step - 4), colour, scale)


def _text_scale(image: U8) -> float:
    return max(0.35, float(min(image.shape[:2])) / 1400)


def _draw_text(
    canvas: U8, text: str, corner: tuple[int, int], colour: tuple[int, ...], scale: float
) -> None:
    """Write `text` with a dark edge, its upper left at `corner`."""
    height = cv2.getTextSize("left", _FONT, scale, 1)[0][1]
    place = (corner[0], corner[1] + height)
    for ink, width in ((_OUTLINE, 3), (colour, 1)):
        cv2.putText(canvas, text, place, _FONT, scale, ink, width, cv2.LINE_AA)
