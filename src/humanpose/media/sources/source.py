"""The base class of all sources of moving pictures, and pictures read as the frames of a video."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from humanpose.errors import FormatError, InputError
from humanpose.images import load_image
from humanpose.types import Frame

_SCHEMES = ("rtsp://", "rtsps://", "http://", "https://")
_RATE = 25.0


class Source:
    """The frames of a video, camera or picture sequence; a context manager, to be read once.

    Attributes:
        name: short name; frames are called name#index, or as their own file is.
        width: pixels of the first frame, upright.
        height: pixels of the first frame, upright.
        rate: frames per second, as far as known.
        frames: number of frames to come, None if unknown.
        live: frames come in real time; one that is not taken before the next is lost.
        state: what a live source waits for, "" while frames come.
        problems: one line for each thing that went wrong; complete after `close`.
    """

    name: str
    width: int
    height: int
    rate: Fraction | float
    frames: int | None = None
    live: bool = False
    state: str = ""
    problems: list[str]
    _frames: Iterator[Frame]
    _stopped = False
    _unreadable = 0  # pictures that could not be read
    _first_error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames in their order; lost ones leave gaps in `index`."""
        for frame in self._frames:
            yield frame
            if self._stopped:
                return

    def _begin(self, frames: Iterator[Frame]) -> bool:
        """Read the first of `frames` and take its size; False if there is none."""
        first = next(frames, None)
        if first is None:
            return False
        self.height, self.width = first.image.shape[:2]
        self._frames = itertools.chain([first], frames)
        return True

    def stop(self) -> None:
        """End the iteration after the frame at hand; may be called from any thread."""
        self._stopped = True

    def close(self) -> None:
        """Release the source and note unreadable pictures; frames handed out stay valid."""
        if self._first_error:
            count = f"{self._unreadable} of {self.frames} pictures could not be read"
            self.problems.append(f"{self.name}: {count} ({self._first_error})")
            self._first_error = None

    def _skip(self, error: Exception) -> None:
        """Count a picture that cannot be read; the first error is reported by `close`."""
        self._unreadable += 1
        self._first_error = self._first_error or error


class PictureSequence(Source):
    """Pictures at a constant rate; one that is missing or unreadable leaves a gap in `index`."""

    def __init__(
        self, text: str, files: list[tuple[int, Path]], name: str, rate: float | None = None
    ) -> None:
        """Read the first picture.

        Args:
            text: the pattern or folder that names the pictures.
            files: (index, file) of each.
            name: short name.
            rate: frames per second; None = 25.

        Raises:
            InputError: `rate` is not above 0.
            FormatError: no picture can be read.
        """
        self.rate = _RATE if rate is None else rate
        if not self.rate > 0:
            raise InputError(f"a rate of {self.rate:g} frames per second is not above 0")
        self.name, self.problems = name, []
        self.frames = len(files)
        if not self._begin(self._read(files)):
            reason = self._first_error
            raise FormatError(f"{text}: none of {len(files)} pictures can be read ({reason})")

    def _read(self, files: list[tuple[int, Path]]) -> Iterator[Frame]:
        for index, path in files:
            try:
                yield Frame(load_image(path), index, index / float(self.rate), path.name)
            except InputError as error:
                self._skip(error)


def is_address(text: str) -> bool:
    """Return whether `text` is a network address."""
    return text.lower().startswith(_SCHEMES)


def without_password(text: str) -> str:
    """Return `text` for messages and records: an address loses its user, password and query."""
    if not is_address(text):
        return text
    parts = urlsplit(text)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
