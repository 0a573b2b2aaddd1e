"""Files of pictures and videos in folders and patterns; pictures read as the frames of a video."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from humanpose.errors import FormatError, InputError
from humanpose.files import input_error
from humanpose.images import IMAGE_SUFFIXES, is_picture, load_image
from humanpose.media.sources.source import Source
from humanpose.types import Frame

# HEIC is not read, but found, so that the user gets the loader's clear message.
_PICTURES = IMAGE_SUFFIXES | {".heic", ".heif"}
_VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts"}
_VIDEOS |= {".m2ts", ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".vob"}
_NUMBER = re.compile(r"%0?(\d*)d")  # as in printf
_RATE = 25.0


class PictureSequence(Source):
    """Pictures at a constant rate; one that is missing or unreadable leaves a gap in `index`."""

    def __init__(self, text: str, name: str, rate: float | None = None) -> None:
        """Read the first picture of FOLDER/%05d.jpg, of a folder or of a pattern.

        Args:
            text: the pattern or folder.
            name: short name.
            rate: frames per second; None = 25.

        Raises:
            InputError: there is no picture, or `rate` is not above 0.
            FormatError: none can be read.
        """
        self.rate = _RATE if rate is None else rate
        if not self.rate > 0:
            raise InputError(f"a rate of {self.rate:g} frames per second is not above 0")
        self.name, self.problems = name, []
        files = sequence_files(text)
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


def is_numbered(text: str) -> bool:
    """Return whether `text` is a pattern of numbered pictures, such as FOLDER/%05d.jpg."""
    return bool(_NUMBER.search(Path(text).name)) and not os.path.lexists(text)


def sequence_files(source: str) -> list[tuple[int, Path]]:
    """Return (index, file) of the pictures of a numbered pattern, a folder or a glob pattern.

    Indices count from the lowest number, so that a missing number leaves a gap; files without
    numbers are counted in natural order.

    Raises:
        InputError: there is no picture.
    """
    if not is_numbered(source):
        files = (file for _, file in files_of(source, None) if file_kind(file) == "picture")
        pictures = list(enumerate(files))
        if not pictures:
            raise InputError(f"{source} holds no picture")
        return pictures
    path = Path(source)
    before, width, after = _NUMBER.split(path.name, maxsplit=1)
    digits = rf"(\d{{{width or 1},}})"
    name = re.compile(re.escape(before) + digits + re.escape(after))
    try:
        matches = [(name.fullmatch(entry), entry) for entry in os.listdir(path.parent)]
    except OSError as error:
        raise input_error(path.parent, error) from error
    found = sorted((int(match[1]), path.parent / entry) for match, entry in matches if match)
    if not found:
        raise InputError(f"{source} matches no file")
    return [(number - found[0][0], file) for number, file in found]


def files_of(source: str, skipped: str | None) -> list[tuple[str, Path]]:
    """Return (folder that output paths are relative to, file) of all files that `source` names.

    Args:
        source: file, folder or glob pattern.
        skipped: absolute path of a folder to leave out.
    """
    if not source or "\0" in source:
        raise InputError(f"{source!r} is not the name of a file, folder or pattern")
    path = Path(source)
    if path.is_dir():
        files = [(str(path), file) for file in _walk(path, skipped) if file_kind(file)]
        if not files:
            raise InputError(f"{source} holds no picture and no video")
        return files
    if os.path.lexists(path):  # before globbing: "photo[1].jpg" may well be a name
        return [(str(path.parent), path)]
    if not glob.has_magic(source):
        raise InputError(f"{source} does not exist")
    parts = Path(source).parent.parts
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    matches = (Path(match) for match in glob.glob(source, recursive=True))
    matched = sorted((m for m in matches if m.is_file() and file_kind(m)), key=_natural)
    if not matched:
        raise InputError(f"{source} matches no picture and no video")
    return [(str(fixed), match) for match in matched]


def _walk(folder: Path, skipped: str | None) -> Iterator[Path]:
    """Yield the files under `folder` in natural order; links to folders are not followed."""

    def fail(error: OSError) -> None:
        raise input_error(error.filename or folder, error) from error

    for top, folders, files in os.walk(folder, onerror=fail):
        shown = (name for name in sorted(folders, key=_natural) if not name.startswith("."))
        folders[:] = [name for name in shown if os.path.abspath(f"{top}/{name}") != skipped]
        for name in sorted(files, key=_natural):
            if not name.startswith("."):
                yield Path(top, name)


def _natural(name: str | Path) -> tuple[list[str | int], str]:
    """Return a sort key that puts frame9 before frame10."""
    # The split alternates text and digits, so that like is compared with like.
    parts = re.split(r"([0-9]+)", str(name).casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(name)


def file_kind(path: Path) -> str:
    """Return "picture", "video" or "" for a file, by its suffix or else by its header."""
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return "picture"
    if suffix in _VIDEOS:
        return "video"
    return "picture" if path.is_file() and is_picture(path) else ""
