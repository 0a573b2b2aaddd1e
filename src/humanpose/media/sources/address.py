"""Find and open sources of frames by the text that names them, and name their results."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from humanpose.images import SAVE_SUFFIXES
from humanpose.media.sources.pictures import (
    PictureSequence,
    file_kind,
    files_of,
    is_numbered,
    sequence_files,
)
from humanpose.media.sources.source import Source, is_address, without_password

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
                sequence_files(source)
            name = result_name(source)
            path = Path(source) if os.path.lexists(source) else Path(name)
            found.append((name, InputItem(path, "video", _output(Path(name), "video"), source)))
            continue
        for top, path in files_of(source, skipped):
            place = os.path.abspath(path)
            if place not in seen:
                seen.add(place)
                kind = file_kind(path) or "video"
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
    return "sequence" if is_numbered(text) else ""


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
        return PictureSequence(text, result_name(text), rate)
    from humanpose.media.sources.video import VideoSource

    return VideoSource(text)


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
