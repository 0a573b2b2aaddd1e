"""What a user names on the command line -> the files meant, and where their results go."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from humanpose.errors import InputError
from humanpose.files import input_error
from humanpose.images import IMAGE_SUFFIXES, SAVE_SUFFIXES, is_picture
from humanpose.media.sources.source import NUMBER, file_name, kind_of

# HEIC is not read, but found, so that the loader's clear line reaches the user.
_PICTURES = IMAGE_SUFFIXES | {".heic", ".heif"}
_VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts"}
_VIDEOS |= {".m2ts", ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".vob"}
# Of the 255 bytes that a file name may have; the rest is for ".openpose.json.1234abcd.part".
_MAX_NAME_BYTES = 220


@dataclass(frozen=True, slots=True)
class Item:
    """One picture, or one thing that moves, to work on.

    Attributes:
        path: the file, as the user named it; of what is no file a name for it.
        kind: "picture", or "video" for all that `open_source` opens.
        output: relative path of its result; it ends in .jpg, .jpeg, .png, .webp or, for a video,
            .mp4. No two items share one, nor share one after `with_suffix`, not even where upper
            and lower case are the same.
        source: what `open_source` takes.
    """

    path: Path
    kind: str
    output: Path
    source: str


def expand(
    sources: Sequence[str], *, exclude: Path | None = None, as_video: bool = False
) -> list[Item]:
    """The pictures and videos that `sources` name, in their order, each file once.

    Args:
        sources: files, folders (searched to the bottom, hidden files left out), glob patterns
            (** included), and what else `open_source` knows. In folders and patterns, files that
            are neither picture nor video are passed over; a file that is named is always taken.
        exclude: folder to leave out, such as the one that results go to.
        as_video: the pictures of a folder or pattern are one video.

    Raises:
        InputError: a source does not exist, or holds no picture and no video.
    """
    seen: set[str] = set()
    found: list[tuple[str, Item]] = []
    skipped = None if exclude is None else os.path.abspath(exclude)
    for source in sources:
        several = as_video and (glob.has_magic(source) or os.path.isdir(source))
        if kind_of(source) or (several and not os.path.isfile(source)):
            if kind_of(source) in ("", "sequence"):
                sequence_files(source)
            name = file_name(source)
            path = Path(source) if os.path.lexists(source) else Path(name)
            found.append((name, Item(path, "video", _output(Path(name), "video"), source)))
            continue
        for top, path in _files_of(source, skipped):
            place = os.path.abspath(path)
            if place not in seen:
                seen.add(place)
                kind = _kind(path) or "video"
                item = Item(path, kind, _output(path.relative_to(top), kind), str(path))
                found.append((top, item))
    return _without_clashes(found)


def sequence_files(source: str) -> list[tuple[int, Path]]:
    """(index, picture) of the video that a numbered pattern, a folder or a glob pattern means.

    Numbers count from the first that there is, so that a missing one leaves a gap; without them
    the natural order counts.

    Raises:
        InputError: there is no picture.
    """
    if kind_of(source) != "sequence":
        files = (file for _, file in _files_of(source, None))
        pictures = list(enumerate(file for file in files if _kind(file) == "picture"))
        if not pictures:
            raise InputError(f"{source} holds no picture")
        return pictures
    path = Path(source)
    before, width, after = NUMBER.split(path.name, maxsplit=1)
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


def _files_of(source: str, skipped: str | None) -> list[tuple[str, Path]]:
    """(folder that the output path is relative to, file) of everything that `source` names."""
    if not source or "\0" in source:
        raise InputError(f"{source!r} is not the name of a file, folder or pattern")
    path = Path(source)
    if path.is_dir():
        files = [(str(path), file) for file in _walk(path, skipped) if _kind(file)]
        if not files:
            raise InputError(f"{source} holds no picture and no video")
        return files
    if os.path.lexists(path):  # before globbing: "photo[1].jpg" may well be a name
        return [(str(path.parent), path)]
    if not glob.has_magic(source):
        raise InputError(f"{source} does not exist")
    fixed = Path(*_before_magic(Path(source).parent.parts))
    matches = (Path(match) for match in glob.glob(source, recursive=True))
    matched = sorted((m for m in matches if m.is_file() and _kind(m)), key=_natural)
    if not matched:
        raise InputError(f"{source} matches no picture and no video")
    return [(str(fixed), match) for match in matched]


def _before_magic(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part


def _walk(folder: Path, skipped: str | None) -> Iterator[Path]:
    """Files under `folder` in natural order; links to folders are not followed."""

    def fail(error: OSError) -> None:
        raise input_error(error.filename or folder, error) from error

    for top, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [
            name
            for name in sorted(folders, key=_natural)
            if not name.startswith(".") and os.path.abspath(os.path.join(top, name)) != skipped
        ]
        for name in sorted(files, key=_natural):
            if not name.startswith("."):
                yield Path(top, name)


def _natural(name: str | Path) -> tuple[list[str | int], str]:
    """Sort key under which frame9 comes before frame10."""
    # The split alternates text and digits, so that like is compared with like.
    parts = re.split(r"([0-9]+)", str(name).casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(name)


def _kind(path: Path) -> str:
    """What `path` is by its suffix, else by its header: "picture", "video" or ""."""
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return "picture"
    if suffix in _VIDEOS:
        return "video"
    return "picture" if path.is_file() and is_picture(path) else ""


def _output(relative: Path, kind: str) -> Path:
    """`relative` with a suffix that can be written, short enough to get further ones."""
    kept = SAVE_SUFFIXES if kind == "picture" else (".mp4",)
    name = relative.name
    suffix = relative.suffix if relative.suffix.lower() in kept else ""
    stem = name[: len(name) - len(suffix)]
    suffix = suffix or (".jpg" if kind == "picture" else ".mp4")
    while len(os.fsencode(stem + suffix)) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return relative.with_name(stem + suffix)


def _without_clashes(found: list[tuple[str, Item]]) -> list[Item]:
    """Items with outputs made different: by their source's folder, then by -2, -3 and so on."""
    tops: dict[str, set[str]] = defaultdict(set)
    for top, item in found:
        tops[_key(item.output)].add(top)
    crowded = any(len(sharing) > 1 for sharing in tops.values())
    taken: set[str] = set()
    items = []
    for top, item in found:
        output = (
            Path(os.path.basename(os.path.abspath(top)), item.output) if crowded else item.output
        )
        number, free = 1, output
        while _key(free) in taken:
            number += 1
            free = output.with_name(f"{output.stem}-{number}{output.suffix}")
        taken.add(_key(free))
        items.append(replace(item, output=free))
    return items


def _key(output: Path) -> str:
    """Equal for outputs that some file system, or `with_suffix`, takes for the same."""
    return unicodedata.normalize("NFC", str(output.with_suffix(""))).casefold()
