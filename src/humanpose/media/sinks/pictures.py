"""An annotated picture."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from humanpose.draw import draw_people
from humanpose.files import prepare_output
from humanpose.images import save_image
from humanpose.types import U8, Frame


class PictureSink:
    """Draws the people of one frame into a JPEG, PNG or WebP file."""

    def __init__(
        self,
        path: str | Path,
        *,
        min_score: float = 0.3,
        boxes: bool = True,
        force: bool = False,
    ) -> None:
        """Nothing is touched before `with`.

        Args:
            path: the file; its suffix says the format.
            min_score: joints below it are not drawn.
            boxes: also draw boxes.
            force: replace an existing file.
        """
        self.path = Path(path)
        self._min_score, self._boxes, self._force = min_score, boxes, force
        self._drawn: U8 | None = None

    def __enter__(self) -> Self:
        prepare_output(self.path, force=self._force)
        return self

    def write(self, frame: Frame) -> None:
        """Draw `frame`; of several frames the last one stays."""
        self._drawn = draw_people(
            frame.image, frame.people, min_score=self._min_score, boxes=self._boxes
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._drawn is not None:
            save_image(self.path, self._drawn)
