"""An annotated picture, and pictures of its heat maps."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from humanpose.draw import DrawStyle, draw_heat
from humanpose.errors import OutputError
from humanpose.files import prepare_output
from humanpose.images import save_image
from humanpose.types import U8, Frame


class PictureSink:
    """Draws the people of one frame into a JPEG, PNG or WebP file."""

    def __init__(
        self, path: str | Path, *, look: DrawStyle = DrawStyle(), force: bool = False
    ) -> None:
        """Set up; nothing is written before `with`.

        Args:
            path: the file; its suffix says the format.
            look: how frames are drawn.
            force: replace an existing file.
        """
        self.path = Path(path)
        self._look, self._force = look, force
        self._drawn: U8 | None = None

    def __enter__(self) -> Self:
        prepare_output(self.path, force=self._force)
        return self

    def write(self, frame: Frame) -> None:
        """Draw `frame`; of several frames the last one stays."""
        self._drawn = self._look.draw(frame)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._drawn is not None:
            save_image(self.path, self._drawn)


def save_heat_maps(folder: Path, frame: Frame, *, force: bool = False) -> None:
    """Write a picture of heat maps for each joint, and one for each stage with all joints.

    Args:
        folder: for joint_00_nose.jpg ..., stage_1.jpg ...; made if need be.
        frame: its people carry `maps`; if there are none, nothing is written.
        force: write into a folder that is already there.

    Raises:
        OutputError: the folder exists and `force` is off, or a file cannot be written.
    """
    maps = [person.maps for person in frame.people if person.maps is not None]
    if not maps:
        return
    if folder.exists() and not force:
        raise OutputError(f"{folder} exists; add --force to write into it")
    for i, name in enumerate(frame.people[0].skeleton.joints):
        heat = draw_heat(frame.image, frame.people, joint=i)
        save_image(folder / f"joint_{i:02}_{name}.jpg", heat)
    for stage in range(len(maps[0])):
        heat = draw_heat(frame.image, frame.people, stage=stage)
        save_image(folder / f"stage_{stage + 1}.jpg", heat)
