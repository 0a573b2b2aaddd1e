"""Pictures that are the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from humanpose.errors import FormatError, InputError
from humanpose.images import load_image
from humanpose.media.sources.pictures import sequence_files
from humanpose.media.sources.source import Source, file_name
from humanpose.types import Frame

_RATE = 25.0


class SequenceSource(Source):
    """Pictures at an even rate; one that is missing or cannot be read leaves a gap."""

    def __init__(self, text: str, rate: float | None = None) -> None:
        """Read the first picture of FOLDER/%05d.jpg, of a folder or of a pattern.

        Raises:
            InputError: there is no picture, or `rate` is not above 0.
            FormatError: none can be read.
        """
        self.rate = _RATE if rate is None else rate
        if not self.rate > 0:
            raise InputError(f"a rate of {self.rate:g} frames per second is not above 0")
        self.name = file_name(text)
        self.problems = []
        files = sequence_files(text)
        self.frames = len(files)
        self._bad: list[InputError] = []  # the first one; they may be many
        self._n_bad = 0
        self._pictures = self._read(files)
        first = next(self._pictures, None)
        if first is None:
            raise FormatError(f"{text}: none of {len(files)} pictures can be read ({self._bad[0]})")
        self._first = first
        self.height, self.width = first.image.shape[:2]

    def _read(self, files: list[tuple[int, Path]]) -> Iterator[Frame]:
        for index, path in files:
            try:
                yield Frame(load_image(path), index, index / float(self.rate), path.name)
            except InputError as error:
                self._n_bad += 1
                self._bad = self._bad or [error]

    def __iter__(self) -> Iterator[Frame]:
        """Frames in the order of their numbers, called as their files."""
        frame: Frame | None = self._first
        while frame is not None and not self._stopped:
            yield frame
            frame = next(self._pictures, None)

    def close(self) -> None:
        """Note what could not be read."""
        if self._bad:
            count = f"{self._n_bad} of {self.frames} pictures could not be read"
            self.problems = [f"{self.name}: {count} ({self._bad[0]})"]
