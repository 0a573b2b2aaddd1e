"""Pictures of a ROS recording: a .bag of ROS 1, a folder, .db3 or .mcap of ROS 2."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from humanpose.errors import FormatError, HumanPoseError, InputError, MissingExtraError
from humanpose.media.sources.ros import PICTURES, choose, to_rgb
from humanpose.media.sources.source import Source
from humanpose.types import Frame


class BagSource(Source):
    """The pictures of one topic; times are the messages' stamps, from the first picture on."""

    def __init__(self, path: str, topic: str | None = None) -> None:
        """Open the recording and read its first picture.

        Args:
            path: file or folder.
            topic: may be omitted where only one topic has pictures.

        Raises:
            InputError: no such topic; names the topics with pictures.
            FormatError: damaged, or no picture can be read.
            MissingExtraError: rosbags is not installed.
        """
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise MissingExtraError("rosbags", "ros") from error
        self.name, self.problems = os.path.basename(os.path.abspath(path)), []
        self._path = path
        try:
            # Old recordings of ROS 2 do not describe their message types.
            types = get_typestore(Stores.ROS2_HUMBLE)
            self._reader = AnyReader([Path(path)], default_typestore=types)
            self._reader.open()
        except Exception as error:  # the parser raises many types on damaged files
            raise _damaged(path, error) from error
        try:
            self._choose(topic)
            if not self._begin(self._read()):
                reason = f" ({self._first_error})" if self._first_error else ""
                raise FormatError(f"{path}: topic {self._topic} holds no picture{reason}")
        except BaseException:
            self.close()
            raise

    def _choose(self, topic: str | None) -> None:
        kinds = {c.topic: c.msgtype.replace("/msg/", "/") for c in self._reader.connections}
        try:
            self._topic = choose(topic, [name for name, kind in kinds.items() if kind in PICTURES])
        except InputError as error:
            raise InputError(f"{self._path}: {error}") from error
        self._connections = [c for c in self._reader.connections if c.topic == self._topic]
        self.frames = sum(c.msgcount for c in self._connections)
        self.rate = max(self.frames / max(self._reader.duration * 1e-9, 1e-3), 0.1)

    def _read(self) -> Iterator[Frame]:
        index, start = -1, None
        messages = self._reader.messages(self._connections)
        while True:
            try:
                connection, written, raw = next(messages)
            except StopIteration:
                return
            except Exception as error:
                reason = _damaged(self._path, error)
                if start is None:
                    raise reason from error
                self.problems.append(f"{self.name}: ends early after {index + 1} frames ({reason})")
                return
            index += 1
            try:
                message: Any = self._reader.deserialize(raw, connection.msgtype)
                image = to_rgb(message)
            except Exception as error:
                self._skip(error)
                continue
            stamp = message.header.stamp
            seconds = stamp.sec + stamp.nanosec * 1e-9 or written * 1e-9
            start = seconds if start is None else start
            yield Frame(image, index, seconds - start, f"{self.name}#{index}")

    def close(self) -> None:
        """Close the file and note unreadable pictures."""
        if self._reader.stack is not None:
            self._reader.close()
        super().close()


def _damaged(path: str, error: Exception) -> HumanPoseError:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return FormatError(f"{path} is not a recording that can be read ({text})")
