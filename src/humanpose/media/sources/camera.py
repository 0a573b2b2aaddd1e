"""Cameras, network streams and ROS topics: read by a child process that is replaced when lost."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from humanpose.errors import InputError
from humanpose.media.sources.capture import FAILED, FILE, FRAME, HEAD
from humanpose.media.sources.source import Source, without_password
from humanpose.media.sources.video import VideoSource
from humanpose.types import U8, Frame

STALL_S = 2.5  # a source that sends nothing for so long is lost
_FIRST_S = 10.0  # limit for the first frame; after a loss twice the time it took, but
_AGAIN_S = 4.0  # at least this: the source may come back while an attempt to reach it hangs
_FRAMELESS_S = 15.0  # data, but no frame: a stream may have to wait for a key frame
_BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 3.0)  # between attempts; the last one from then on
_CHILD_S = 20.0  # for Python to start
_MAX_PIXELS = 1 << 26
_RATE = 30.0


class _Lost(Exception):
    """The child must be replaced; the text says why."""


class _Ends(_Lost):
    """The address is a video with an end."""


class LiveSource(Source):
    """The newest frames of a camera, stream or topic; a lost source is opened again.

    Times are seconds since the first frame on this machine's clock; `Frame.captured` is set.

    Attributes:
        losses: how often the source was lost.
    """

    live = True

    def __init__(self, address: str, kind: str, name: str, retries: int | None = None) -> None:
        """Connect and wait for the first frame.

        Args:
            address: as `open_source` takes it.
            kind: "camera", "stream" or "topic".
            name: short name.
            retries: attempts to find a lost source again before the end; None = without end.

        Raises:
            InputError: no frame came.
            _Ends: the address is a video with an end.
        """
        self.name, self.problems = name, []
        self.losses, self._lost_s = 0, 0.0
        self._job = {"kind": kind, "address": address}
        self._title = f"camera {address}" if kind == "camera" else without_password(address)
        self._retries = retries
        self._ended = threading.Event()
        self._child: _Child | None = None
        self._patience = _FIRST_S
        began = time.monotonic()
        try:
            self._first = self._connect()
        except BaseException as error:
            self.stop()
            if isinstance(error, _Lost) and not isinstance(error, _Ends):
                raise InputError(f"{self._title} cannot be read: {error}") from error
            raise
        self._patience = max(_AGAIN_S, 2 * (time.monotonic() - began))
        image, _ = self._first
        self.height, self.width = image.shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames as they come, until `stop` or after the last attempt to reconnect."""
        image, captured = self._first
        start, index = captured, 0
        while not self._ended.is_set():
            yield Frame(image, index, captured - start, f"{self.name}#{index}", captured=captured)
            index += 1
            try:
                image, captured = self._next(STALL_S)
            except _Lost as error:
                if not self._find_again(str(error), captured):
                    return
                image, captured = self._first

    def stop(self) -> None:
        """End the iteration at once, also while it waits; may be called from any thread."""
        self._ended.set()
        if self._child is not None:
            self._child.end()

    def close(self) -> None:
        """End the child."""
        self.stop()
        if self.losses and not self.problems:
            times = "once" if self.losses == 1 else f"{self.losses} times"
            self.problems.append(f"{self._title}: lost {times}, {self._lost_s:.1f} s in all")

    def _find_again(self, reason: str, since: float) -> bool:
        """Reconnect until a frame comes; return False if stopped or after the last attempt."""
        attempt = 0
        self.losses += not self._ended.is_set()
        while not self._ended.is_set():
            if attempt == self._retries:
                self.problems.append(f"{self._title}: lost after {attempt} attempts ({reason})")
                return False
            tried = time.monotonic()
            attempt += 1
            self.state = f"lost: {reason}; attempt {attempt}"
            try:
                self._first = self._connect()
            except _Lost as error:
                reason = str(error)
                # Random, so that several clients of one source do not reconnect in step.
                pause = _BACK_OFF_S[min(attempt, len(_BACK_OFF_S)) - 1] * random.uniform(0.8, 1.2)
                self._ended.wait(max(tried + pause - time.monotonic(), 0))
                continue
            self.state = ""
            self._lost_s += time.monotonic() - since
            return True
        return False

    def _connect(self) -> tuple[U8, float]:
        """Return the first frame of a new child."""
        if self._child is not None:
            self._child.end()
        self._child = _Child(self._job)
        if self._ended.is_set():  # `stop` may have ended the one before
            self._child.end()
        return self._next(self._patience)

    def _next(self, patience: float) -> tuple[U8, float]:
        """Return the next (picture, capture time); wait at most `patience` seconds for data."""
        assert self._child is not None
        latest = time.monotonic() + _FRAMELESS_S
        while time.monotonic() < latest:
            head = self._child.receive(HEAD.size, patience)
            kind, captured, rate, width, height, size = HEAD.unpack(head)
            patience = STALL_S
            if kind == FRAME:
                if size != width * height * 3 or size > 3 * _MAX_PIXELS:
                    raise _Lost(f"a frame of {width} x {height} pixels")
                self.rate = rate if 0 < rate < 1000 else _RATE
                content = self._child.receive(size, STALL_S)
                return np.frombuffer(content, np.uint8).reshape(height, width, 3), captured
            if kind == FAILED:
                raise _Lost(self._child.receive(size, STALL_S).decode(errors="replace"))
            if kind == FILE:
                raise _Ends("it is a video with an end")
        raise _Lost(f"data, but no picture for {_FRAMELESS_S:.0f} s")


class _Child:
    """A running `sources.capture` and the connection to it."""

    def __init__(self, job: dict[str, str]) -> None:
        token = secrets.token_bytes(16)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "humanpose.media.sources.capture"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C must not reach the child, which can import what this program can.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            # On stdin, not in the list of processes: an address may hold a password.
            more = {"port": server.getsockname()[1], "token": token.hex()}
            server.settimeout(_CHILD_S)
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps({**job, **more}).encode() + b"\n")
                self._process.stdin.flush()
                self._link, _ = server.accept()
            except OSError as error:
                self._kill()
                raise _Lost("the reading process did not start") from error
        try:
            if self.receive(len(token), _CHILD_S) != token:
                raise _Lost("another program answered")
        except _Lost:
            self.end()
            raise

    def receive(self, size: int, patience: float) -> bytearray:
        """Return `size` bytes; raise _Lost after a pause of more than `patience` seconds."""
        content = bytearray(size)
        view = memoryview(content)
        try:
            self._link.settimeout(patience)
            while view:
                count = self._link.recv_into(view)
                if not count:
                    raise _Lost("the reading process has ended")
                view = view[count:]
        except TimeoutError as error:
            raise _Lost(f"nothing came for {patience:.1f} s") from error
        except OSError as error:  # closed by `end`, or reset
            raise _Lost("the reading process has ended") from error
        return content

    def end(self) -> None:
        """Kill the process; a waiting `receive` returns."""
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._kill()
        self._link.close()

    def _kill(self) -> None:
        self._process.kill()
        # A process inside a driver call cannot end yet; do not wait for it.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()


def open_camera(address: str, kind: str, name: str, retries: int | None) -> Source:
    """Open the live source at `address`, or the video there. Raises InputError if none comes."""
    if kind == "camera" and sys.platform == "linux":
        device = Path(f"/dev/video{address}" if address.isdigit() else address)
        if not device.exists():
            there = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
            raise InputError(f"camera {address}: there is no {device} (cameras here: {there})")
        if not os.access(device, os.R_OK | os.W_OK):
            raise InputError(f"camera {address}: no permission to use {device}")
    try:
        return LiveSource(address, kind, name, retries)
    except _Ends:
        return VideoSource(address)
