"""What all sources of moving pictures have in common, and which one a text means."""

from __future__ import annotations

import glob
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from humanpose.types import Frame

_SCHEMES = ("rtsp", "rtsps", "http", "https")
NUMBER = re.compile(r"%0?(\d*)d")  # as printf has it


class Source(ABC):
    """Frames of what moves; a context manager. It can be read once.

    Attributes:
        name: short name; frames are called name#index, or as their own file is.
        width: pixels of the first frame, upright.
        height: pixels of the first frame, upright.
        rate: frames per second, as far as known.
        frames: number of frames to come, None if unknown.
        live: frames come by the clock; one that is not taken before the next is lost.
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
    _stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None:
        """End the iteration after the frame at hand; may be called from any thread."""
        self._stopped = True

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; frames already handed out stay good."""


def kind_of(text: str) -> str:
    """What `text` names.

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
    if NUMBER.search(path.name) and not os.path.lexists(path):
        return "sequence"
    return ""


def is_address(text: str) -> bool:
    """Whether `text` is an address in a network."""
    return text.partition("://")[0].lower() in _SCHEMES and "://" in text


def shown(text: str) -> str:
    """`text` as messages and records may tell it: an address without user and password."""
    if not is_address(text):
        return text
    parts = urlsplit(text)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def file_name(text: str) -> str:
    """A name for the results of `text`, which is not a file: camera-0, host-path, topic, folder."""
    kind = kind_of(text)
    if kind == "camera":
        text = f"camera-{text.removeprefix('/dev/')}"
    elif kind == "stream":
        text = shown(text).partition("://")[2]
    elif kind == "topic":
        text = text.removeprefix("ros:")
    else:
        while glob.has_magic(text) or kind_of(text) == "sequence":
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
    """The source that `text` names, with its first frame read.

    Args:
        text: a video file; a camera by number (0) or device (/dev/video0); rtsp://, rtsps://,
            http:// or https://; ros:/TOPIC; a ROS 1 or 2 recording; pictures as FOLDER/%05d.jpg,
            a folder or a pattern.
        rate: frames per second of pictures, 25 if not given.
        topic: of a recording; may be left out where there is only one with pictures.
        retries: attempts to get a lost live source back before its end; None = without end.

    Raises:
        InputError, FormatError, LimitError: nothing can be read from it.
        MissingExtraError: a recording, and rosbags is not installed.
    """
    text = str(text)
    kind = kind_of(text)
    if kind in ("camera", "stream", "topic"):
        from humanpose.media.sources.live import open_live

        return open_live(text, kind, retries)
    if kind == "bag":
        from humanpose.media.sources.bag import BagSource

        return BagSource(text, topic)
    if kind == "sequence" or not os.path.isfile(text):
        from humanpose.media.sources.sequence import SequenceSource

        return SequenceSource(text, rate)
    from humanpose.media.sources.video import VideoSource

    return VideoSource(text)
