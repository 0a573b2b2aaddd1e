"""Threads: reading, inference and the caller's loop overlap, at bounded memory.

`overlapped` is for files, of which no frame may be lost. `Live` is for sources that do not wait:
capture, inference and consumers run in threads of their own, no frame waits for its turn, and a
result is at most one frame and one inference old.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

from humanpose.infer.profile import READING, Profile
from humanpose.types import Frame

A = TypeVar("A")
B = TypeVar("B")
Process = Callable[[Frame], Frame]

_WINDOW = 2.0  # seconds over which rates are counted
_PATIENCE = 5.0  # seconds that `stop` waits for a thread
# Frames that may wait between two stages. More would only add memory: the slowest stage sets
# the rate, and a handful rides out its jitter.
_DEPTH = 4


class Channel:
    """A bounded queue between two threads that its writer can end and its reader can leave.

    Read it by a loop inside `with`, which leaves it.
    """

    def __init__(self, depth: int = _DEPTH) -> None:
        self._waiting: queue.Queue[object] = queue.Queue(depth)
        self._left = threading.Event()

    def put(self, item: object) -> bool:
        """Wait for room and put `item` there; False where the reader has left."""
        while not self._left.is_set():
            try:
                self._waiting.put(item, timeout=0.1)
                return True
            except queue.Full:  # the reader is slow or gone; try again
                continue
        return False

    def end(self, error: BaseException | None = None) -> None:
        """End the reader's loop after what was put before; `error` is raised there."""
        self.put(_End(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()  # a waiting `put` comes back

    def __iter__(self) -> Iterator[Any]:
        while not isinstance(item := self._waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


def ahead(
    items: Iterable[A], *, depth: int = _DEPTH, name: str = "ahead"
) -> Generator[A, None, None]:
    """Yield `items`, produced in a thread of their own; at most `depth` wait.

    An error in `items` is raised here. Leaving the loop early ends the thread before control
    returns; a source that blocks for ever inside a driver needs a time-out of its own.
    """
    channel = Channel(depth)

    def produce() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not channel.put(item):
                    return
            channel.end()
        except BaseException as error:  # handed to the consumer, who can act on it
            channel.end(error)
        finally:
            # In the thread that ran it; left to the collector, its own threads might outlive us.
            if isinstance(iterator, Generator):
                iterator.close()

    thread = threading.Thread(target=produce, name=name, daemon=True)
    thread.start()
    try:
        with channel:
            yield from channel
    finally:
        thread.join()


def overlapped(items: Iterable[A], work: Callable[[A], B]) -> Generator[B, None, None]:
    """Map `work` over `items`: reading, working and the caller's own loop in three threads."""
    return ahead(_mapped(ahead(items, name="reader"), work), name="worker")


def _mapped(items: Generator[A, None, None], work: Callable[[A], B]) -> Iterator[B]:
    try:
        for item in items:
            yield work(item)
    finally:
        items.close()


class Source(Protocol):
    """Interface of a source for `Live`; `media.sources.Source` implements it."""

    live: bool

    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None:
        """End the iteration soon; may be called from any thread."""

    def close(self) -> None:
        """Let go of everything, once the iteration is over."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of a `Live`.

    Attributes:
        captured: frames that came.
        results: frames that were processed.
        dropped: frames that were not, because a newer one had come.
        capture_rate: frames per second over the last two seconds.
        result_rate: results per second over the last two seconds.
        age: seconds from capture to result, of the newest result; NaN before the first.
    """

    captured: int
    results: int
    dropped: int
    capture_rate: float
    result_rate: float
    age: float


class Live:
    """Runs a source and an estimator apart; a context manager that starts and stops them.

    A file is played by its own clock, as if it were a camera.

    Attributes:
        process: the estimator's function; another one may be set at any time and acts on the next
            frame.
        continuous: process every frame that there is time for; else only when `look` is called.
        frame: the newest frame, None before the first.
        result: the newest frame with its people, None before the first.
        over: the source has ended and everything is processed.
    """

    def __init__(self, source: Source, process: Process) -> None:
        """Take over `source`, which is closed in the end. Nothing runs before `start`."""
        self.source, self.process = source, process
        self.continuous = True
        self.frame: Frame | None = None
        self.result: Frame | None = None
        self.over = False
        self._broken: Exception | None = None  # what ended the source
        self._failed: Exception | None = None  # what `process` raised last
        self._asked = self._ended = False
        self._fresh = False  # whether `frame` is still to be processed
        self._dropped = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._captures, self._results = _Rate(), _Rate()
        self._age = math.nan
        self._followers: list[Channel] = []
        self._threads = [
            threading.Thread(target=self._capture, name="capture", daemon=True),
            threading.Thread(target=self._infer, name="inference", daemon=True),
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to capture and to process."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End everything, at the latest after the frame at hand, and close the source."""
        self._stop.set()
        self.source.stop()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_PATIENCE)
        if not self._threads[0].is_alive():  # who still reads must not lose the ground
            self.source.close()

    @property
    def error(self) -> Exception | None:
        """Error that ended the source, else that of `process` at the newest frame, else None."""
        return self._broken or self._failed

    def look(self) -> None:
        """Process one frame, the newest, though not `continuous`."""
        with self._changed:
            self._asked = True
            self._fresh = self.frame is not None
            self._changed.notify_all()

    def statistics(self) -> Statistics:
        """Return counts and rates as of now."""
        with self._changed:
            came, done = self._captures, self._results
            counts = came.count, done.count, self._dropped
            return Statistics(*counts, came.now(), done.now(), self._age)

    def follow(self) -> Channel:
        """Return every result from here on, in order, to its end: `with ... as frames: for`.

        For sinks. Who is slow to take them slows the inference and makes nothing older. What the
        source or `process` raises is raised in the loop.
        """
        channel = Channel()
        with self._changed:
            if self.over:
                channel.end(self._broken)
            else:
                self._followers.append(channel)
        return channel

    def _capture(self) -> None:
        began = time.monotonic()
        try:
            for frame in self.source:
                if not self.source.live:
                    # By the file's clock; what is late already is handed on at once.
                    self._stop.wait(max(began + frame.time - time.monotonic(), 0))
                if frame.captured is None:
                    frame = replace(frame, captured=time.monotonic())
                if self._stop.is_set():
                    break
                with self._changed:
                    self._dropped += self._fresh and self.continuous
                    self.frame, self._fresh = frame, True
                    self._captures.tick()
                    self._changed.notify_all()
        except Exception as error:  # kept for `error`: a thread has no caller
            self._broken = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _infer(self) -> None:
        while (frame := self._next()) is not None:
            result: Frame | None = None
            try:
                result = self.process(frame)
                self._failed = None
            except Exception as error:
                self._failed = error
            with self._changed:
                if result is not None:
                    self.result = result
                    self._age = time.monotonic() - (frame.captured or math.nan)
                    self._results.tick()
                followers = list(self._followers)
                self._changed.notify_all()
            for follower in followers:
                if result is None:
                    follower.end(self._failed)
                elif follower.put(result):
                    continue
                with self._changed:
                    self._followers.remove(follower)
        with self._changed:
            self.over = True
        for follower in self._followers:
            follower.end(self._broken)

    def _next(self) -> Frame | None:
        """Wait for a frame to process; None at the end."""

        def wanted() -> bool:
            return self._fresh and (self.continuous or self._asked)

        with self._changed:
            self._changed.wait_for(lambda: wanted() or self._ended or self._stop.is_set())
            if not wanted() or self._stop.is_set():
                return None
            self._fresh = self._asked = False
            return self.frame


class _Rate:
    """Counts events, and those per second of late."""

    def __init__(self) -> None:
        self.count = 0
        self._times: deque[float] = deque(maxlen=256)

    def tick(self) -> None:
        self.count += 1
        self._times.append(time.monotonic())

    def now(self) -> float:
        since = time.monotonic() - _WINDOW
        times = [at for at in self._times if at > since]
        return (len(times) - 1) / max(times[-1] - times[0], 1e-9) if len(times) > 1 else 0.0


def results(
    source: Source, process: Process, profile: Profile | None = None
) -> Generator[Frame, None, None]:
    """Yield frames with their people: of a file every one, of a live source the newest."""
    frames: Iterable[Frame] = source
    if profile is not None:
        frames, process = profile.timed(source, READING), profile.function(process)
    if not source.live:
        yield from overlapped(frames, process)
        return
    live = Live(source, process)
    frames = live.follow()  # before the first result
    with live, frames:
        yield from frames
