"""The values that all rooms share: Frame, Person, Sample, Score; fields of options classes.

Pixels: x then y, 0-based, pixel centres at whole numbers. Boxes: x, y, width, height.
A missing joint is NaN with score 0. Pictures are RGB uint8 (H, W, 3). Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from humanpose.errors import InputError
from humanpose.skeleton import COCO17, Skeleton

if TYPE_CHECKING:
    from humanpose.geometry import Crop

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]


def option(default: Any, text: str, **limits: Any) -> Any:
    """Make a field of an options class.

    Args:
        default: its value where none is given.
        text: help.
        limits: min, max, choices (held by `check_limits`); metavar, flags, hidden (command line).
    """
    return field(default=default, metadata={"help": text, **limits})


def check_options(options: Any) -> None:
    """Raise an InputError if a field of `options`, a dataclass, is outside its limits."""
    for each in fields(options):
        check_limits(each.name, getattr(options, each.name), each.metadata)


def check_limits(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raise an InputError if the `value` of the field `name` is outside `limits`: see `option`."""
    choices = limits.get("choices", (value,))
    if value not in choices:
        known = ", ".join(choice for choice in choices if choice)
        raise InputError(f"{name} {value!r} is not one of {known}")
    for word, sign in (("least", 1), ("most", -1)):
        limit = limits.get("min" if sign > 0 else "max")
        if value is not None and limit is not None and not sign * value >= sign * limit:
            raise InputError(f"{name} must be at {word} {limit}, not {value}")


def _brief(value: object) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)


class ShapeRepr:
    """`repr` with array shapes in place of array contents."""

    __slots__ = ()

    def __repr__(self) -> str:
        names = self.__dataclass_fields__  # type: ignore[attr-defined]
        inside = ", ".join(f"{name}={_brief(getattr(self, name))}" for name in names)
        return f"{type(self).__name__}({inside})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Person(ShapeRepr):
    """One person in one picture.

    Attributes:
        joints: (J, 2) float32 picture pixels, x then y; NaN = missing.
        scores: (J,) float32 in [0, 1]; 0 = missing.
        box: (4,) float32 x, y, width, height, picture pixels, tight around the person.
        score: of the person as a whole, in [0, 1].
        track: identity over time, None in single pictures.
        skeleton: meaning of the J rows.
        raw: (J, 2) joints before smoothing, None if nothing was smoothed.
        maps: (S, J, h, w) float16 heat maps of every stage, last stage last, without background;
            None unless they were asked for.
        cells: where `maps` lie: picture pixel -> heat-map cell, size (w, h).
    """

    joints: F32
    scores: F32
    box: F32
    score: float
    track: int | None = None
    skeleton: Skeleton = COCO17
    raw: F32 | None = None
    maps: NDArray[np.float16] | None = None
    cells: Crop | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the person's entry in the result record (docs/formats.md)."""
        scores = [round(float(score), 4) for score in np.nan_to_num(self.scores)]
        record: dict[str, Any] = {
            "box": rounded(self.box[None])[0],
            "score": round(float(np.nan_to_num(self.score)), 4),
            "track": None if self.track is None else int(self.track),
            "joints": [
                xy and [*xy, score] for xy, score in zip(rounded(self.joints), scores, strict=True)
            ],
        }
        if self.raw is not None:
            record["raw"] = rounded(self.raw)
        return record


def rounded(rows: F32) -> list[list[float] | None]:
    """Round rows (N, K) to 2 decimals; None for a row that is not finite."""
    # Through float64: rounding in float32 prints as 12.340000152587891.
    values = np.round(np.asarray(rows, np.float64), 2) + 0.0  # no "-0.0"
    finite = np.isfinite(values).all(1).tolist()
    return [row if known else None for row, known in zip(values.tolist(), finite, strict=True)]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Hand(ShapeRepr):
    """One hand of a person.

    Attributes:
        person: the hand itself: 21 joints, its box and scores.
        owner: row of whose hand it is in the frame's people.
        side: "left" or "right", the owner's own.
    """

    person: Person
    owner: int
    side: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Frame(ShapeRepr):
    """One picture of a source and the people found in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        index: 0-based number within its source.
        time: seconds since the start of the source, from the container; 0 for a picture.
        name: file name, or the source's name and frame number.
        people: found people, most certain first.
        hands: of these people, if a hand network was given.
        captured: `time.monotonic()` when a live source took it, None of what lies in a file.
    """

    image: U8
    index: int = 0
    time: float = 0.0
    name: str = ""
    people: tuple[Person, ...] = ()
    hands: tuple[Hand, ...] = ()
    captured: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the line of the result record: pixels to 2 decimals, scores to 4, times to 6."""
        height, width = self.image.shape[:2]
        record: dict[str, Any] = {
            "name": self.name,
            "index": int(self.index),
            "time": round(float(self.time), 6),
            "width": int(width),
            "height": int(height),
            "people": [person.to_dict() for person in self.people],
        }
        if self.hands:
            record["hands"] = [
                {"owner": hand.owner, "side": hand.side, **hand.person.to_dict()}
                for hand in self.hands
            ]
        return record


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sample(ShapeRepr):
    """One annotated person of a data set.

    Attributes:
        picture: path of the picture.
        joints: (J, 2) float32 picture pixels; NaN = not annotated.
        visible: (J,) uint8: 0 not annotated, 1 annotated but hidden, 2 visible.
        box: (4,) float32 x, y, width, height, tight, picture pixels.
        area: square pixels that OKS divides by.
        split: "train", "validation" or "test".
        origin: (data set, identifier of the person in it).
        skeleton: meaning of the J rows.
        head_size: pixels, by the set's own rule (MPII: 0.6 of the head box's diagonal), else from
            neck and head top (docs/data.md); NaN where it has neither.
        centre: (2,) float32 where the set says the person's middle is, picture pixels.
        scale: height of the person / 200 px, as MPII gives it; NaN where the set does not.
    """

    picture: Path
    joints: F32
    visible: U8
    box: F32
    area: float
    split: str
    origin: tuple[str, str]
    skeleton: Skeleton
    head_size: float = float("nan")
    centre: F32 | None = None
    scale: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Score(ShapeRepr):
    """A figure with the rule that made it.

    Attributes:
        rule: full name with threshold and normaliser, e.g. "PCK@0.2 torso".
        value: the pooled figure; NaN if nothing was counted.
        per_joint: (J,) the same per joint, NaN where a joint was never annotated.
        count: (J,) annotated joints that were scored.
        joints: J names.
    """

    rule: str
    value: float
    per_joint: F64 = field(default_factory=lambda: np.zeros(0))
    count: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    joints: tuple[str, ...] = ()
