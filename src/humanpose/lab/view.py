"""Options of `humanpose data show`, apart from what draws: no other verb waits for its imports."""

from __future__ import annotations

from dataclasses import dataclass

from humanpose.errors import InputError
from humanpose.types import option


@dataclass(frozen=True, slots=True)
class View:
    """Selection of samples, and rotation of their crops: an options class."""

    data_set: str = option("", "Take this data set of a pack only.")
    joints: str = option("0..", "Annotated joints of a person: 10.., 4..13.", metavar="MIN..MAX")
    split: str = option("", "Take train, validation or test only.")
    count: int = option(60, "Draw at most this many, evenly spread; 0 = all.", min=0)
    flip: bool = option(False, "Mirror the crops, after rotation.", flags=("--flip",))
    rotate: float = option(0.0, "Rotate the crops counter-clockwise.", metavar="DEGREES")

    def __post_init__(self) -> None:
        self.limits()

    def limits(self) -> tuple[int, int]:
        """Return the least and the most of `joints`. Raises InputError if it is no range."""
        low, dots, high = self.joints.partition("..")
        try:
            return int(low or 0), int(high or 1000) if dots else int(low or 0)
        except ValueError as error:
            raise InputError(f"--joints {self.joints}: write it as 10.., ..4 or 4..13") from error
