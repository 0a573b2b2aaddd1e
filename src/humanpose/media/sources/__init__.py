"""Find and open sources of frames by the text that names them, and name their results.

Only the modules of the single sources import their codecs.
"""

from __future__ import annotations

import glob
import itertools
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
from humanpose.media.sources.source import PictureSequence, Source, is_address, without_password

# HEIC is not read, but found, so that the user gets the loader's clear message.
_PICTURES = IMAGE_SUFFIXES | {".heic", ".heif"}
_VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts"}
_VIDEOS |= {".m2ts", ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".vob"}
_NUMBER = re.compile(r"%0?(\d*)d")  # as in printf
# Of the 255 bytes that a file name may have; the rest is for ".openpose.json.1234abcd.part".
_MAX_NAME_BYTES = 220


@dataclass(frozen=True, slots=True)
class InputItem:
    """One picture, or one video, camera, stream, sequence or recording, to work on.

    Attributes:
        path: the file, as the user named it; of a source that is no file, a name.
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


def find_inputs(
    sources: Sequence[str], *, exclude: Path | None = None, as_video: bool = False
) -> list[InputItem]:
    """Return the pictures and videos that `sources` name, in their order, each file once.

    Args:
        sources: files, folders (searched recursively, without hidden files), glob patterns
            (** included), and what else `open_source` knows. In folders and patterns, files that
            are neither picture nor video are skipped; a named file is always taken.
        exclude: folder to skip, such as the one for results.
        as_video: the pictures of a folder or pattern are one video.

    Raises:
        InputError: a source does not exist, or holds no picture and no video.
    """
    seen: set[str] = set()
    found: list[tuple[str, InputItem]] = []
    skipped = None if exclude is None else os.path.abspath(exclude)
    for source in sources:
        several = as_video and (glob.has_magic(source) or os.path.isdir(source))
        if source_kind(source) or (several and not os.path.isfile(source)):
            if source_kind(source) in ("", "sequence"):
                _sequence_files(source)
            name = result_name(source)
            path = Path(source) if os.path.lexists(source) else Path(name)
            found.append((name, InputItem(path, "video", _output(Path(name), "video"), source)))
            continue
        for top, path in _files_of(source, skipped):
            place = os.path.abspath(path)
            if place not in seen:
                seen.add(place)
                kind = _file_kind(path) or "video"
                item = InputItem(path, kind, _output(path.relative_to(top), kind), str(path))
                found.append((top, item))
    return _without_clashes(found)


def source_kind(text: str) -> str:
    """Return what kind of source `text` names.

    Returns:
        "camera" (a number or a device), "stream" (a network address), "topic" (ros:/NAME), "bag" (a
        ROS recording), "sequence" (pictures numbered by %d) or "" (a file, a folder, a pattern).
    """
    if re.fullmatch(r"\d{1,3}|/dev/(video\d+|v4l/.+)", text):
        return "camera"
    if text.startswith("ros:"):
        return "topic"
    if is_address(text):
        return "stream"
    path = Path(text)
    if path.suffix.lower() in (".bag", ".db3", ".mcap") and path.is_file():
        return "bag"
    if (path / "metadata.yaml").is_file() and any(
        file.name.endswith((".db3", ".mcap", ".zstd")) for file in path.iterdir()
    ):
        return "bag"
    return "sequence" if _is_numbered(text) else ""


def result_name(text: str) -> str:
    """Name the results of a source that is no file: camera-0, host-path, topic, folder."""
    kind = source_kind(text)
    if kind == "camera":
        text = f"camera-{text.removeprefix('/dev/')}"
    elif kind == "stream":
        text = without_password(text).partition("://")[2]
    elif kind == "topic":
        text = text.removeprefix("ros:")
    else:
        while glob.has_magic(text) or source_kind(text) == "sequence":
            text = os.path.dirname(text)
        return Path(os.path.abspath(text)).name
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or kind


def open_source(
    text: str | Path,
    *,
    rate: float | None = None,
    topic: str | None = None,
    retries: int | None = None,
) -> Source:
    """Open the source that `text` names and read its first frame.

    Args:
        text: a video file; a camera by number (0) or device (/dev/video0); rtsp://, rtsps://,
            http:// or https://; ros:/TOPIC; a ROS 1 or 2 recording; pictures as FOLDER/%05d.jpg,
            a folder or a pattern.
        rate: frames per second of pictures, 25 if not given.
        topic: of a recording; may be omitted where only one topic has pictures.
        retries: attempts to reopen a lost live source; None = no limit.

    Raises:
        InputError, FormatError, LimitError: nothing can be read from it.
        MissingExtraError: a recording, and rosbags is not installed.
    """
    text = str(text)
    kind = source_kind(text)
    if kind in ("camera", "stream", "topic"):
        from humanpose.media.sources.camera import open_camera

        return open_camera(text, kind, result_name(text), retries)
    if kind == "bag":
        from humanpose.media.sources.bag import BagSource

        return BagSource(text, topic)
    if kind == "sequence" or not os.path.isfile(text):
        return PictureSequence(text, _sequence_files(text), result_name(text), rate)
    from humanpose.media.sources.video import VideoSource

    return VideoSource(text)


def _is_numbered(text: str) -> bool:
    """Return whether `text` is a pattern of numbered pictures, such as FOLDER/%05d.jpg."""
    return bool(_NUMBER.search(Path(text).name)) and not os.path.lexists(text)


def _sequence_files(source: str) -> list[tuple[int, Path]]:
    """Return (index, file) of the pictures of a numbered pattern, a folder or a glob pattern.

    Indices count from the lowest number, so that a missing number leaves a gap; files without
    numbers are counted in natural order.

    Raises:
        InputError: there is no picture.
    """
    if not _is_numbered(source):
        files = (file for _, file in _files_of(source, None) if _file_kind(file) == "picture")
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


def _files_of(source: str, skipped: str | None) -> list[tuple[str, Path]]:
    """Return (folder that output paths are relative to, file) of all files that `source` names.

    Args:
        source: file, folder or glob pattern.
        skipped: absolute path of a folder to leave out.
    """
    if not source or "\0" in source:
        raise InputError(f"{source!r} is not the name of a file, folder or pattern")
    path = Path(source)
    if path.is_dir():
        files = [(str(path), file) for file in _walk(path, skipped) if _file_kind(file)]
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
    matched = sorted((m for m in matches if m.is_file() and _file_kind(m)), key=_natural)
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


def _file_kind(path: Path) -> str:
    """Return "picture", "video" or "" for a file, by its suffix or else by its header."""
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return "picture"
    if suffix in _VIDEOS:
        return "video"
    return "picture" if path.is_file() and is_picture(path) else ""


def _output(relative: Path, kind: str) -> Path:
    """Return `relative` with a suffix that can be written, short enough for longer suffixes."""
    kept = SAVE_SUFFIXES if kind == "picture" else (".mp4",)
    suffix = relative.suffix if relative.suffix.lower() in kept else ""
    stem = relative.name.removesuffix(suffix)
    suffix = suffix or (".jpg" if kind == "picture" else ".mp4")
    while len(os.fsencode(stem + suffix)) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return relative.with_name(stem + suffix)


def _without_clashes(found: list[tuple[str, InputItem]]) -> list[InputItem]:
    """Make outputs unique: by the folder of their source, then by -2, -3 and so on."""
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
    """Return a key that is equal for outputs that collide on some file system or by suffix."""
    return unicodedata.normalize("NFC", str(output.with_suffix(""))).casefold()
