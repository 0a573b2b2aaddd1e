"""Where the time goes: seconds by thread and phase, for `humanpose predict --profile`.

Whoever works takes a `Profile` or None. With None a phase is one comparison and a context that
does nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from humanpose.infer.stream import Source
    from humanpose.types import Frame

A = TypeVar("A")

READING, TRACKING, SMOOTHING = "reading, decoding", "tracking", "smoothing"
DETECTOR, CROPS, NETWORK, MAPS = "detector", "crops", "network", "decoding of maps"
WRITING, WAITING = "drawing, writing", "waiting"

# The way of a frame.
_ORDER = (READING, DETECTOR, CROPS, NETWORK, MAPS, TRACKING, SMOOTHING, WRITING, WAITING)
_OFF = nullcontext()


class Profile:
    """Seconds of every phase of every thread.

    Phases may lie within each other: the inner one's time is not the outer one's. What of a
    thread's time no phase claims, it waited.

    Attributes:
        seconds: (thread's name, phase) -> seconds. Each thread writes only its own keys.
        wall: seconds that `running` lasted.
    """

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = {}
        self.wall = 0.0
        self._open = threading.local()

    @contextmanager
    def running(self) -> Iterator[None]:
        """What happens in here is the whole to which the shares refer."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - start

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The time in here is that of phase `name`, one of this module's, of the calling thread."""
        stack: list[str] = self._open.__dict__.setdefault("stack", [])
        self._charge(stack)
        stack.append(name)
        try:
            yield
        finally:
            self._charge(stack)
            stack.pop()

    def _charge(self, stack: list[str]) -> None:
        """Give the time since the last change to the phase that is open."""
        now = time.perf_counter()
        if stack:
            key = (threading.current_thread().name, stack[-1])
            self.seconds[key] = self.seconds.get(key, 0.0) + now - self._open.since
        self._open.since = now

    def table(self, frames: int) -> str:
        """A line per phase, for a terminal: ms per frame and share of the whole time.

        The threads work at the same time, so the shares of each of them make 100 %.

        Args:
            frames: that were done, pictures among them.
        """
        each = 1e3 / max(frames, 1)
        lines = [
            f"where the time goes: {frames} frames in {self.wall:.2f} s, {self.wall * each:.2f} ms "
            "a frame; the threads work side by side",
            f"{'thread':<11}{'phase':<20}{'ms/frame':>9}{'share':>9}",
        ]
        waited = {}
        keys = sorted(self.seconds, key=lambda key: _ORDER.index(key[1]))
        for thread in dict.fromkeys(thread for thread, _ in keys):
            own = {phase: self.seconds[at, phase] for at, phase in keys if at == thread}
            own.pop(WAITING, None)
            own[WAITING] = waited[thread] = max(0.0, self.wall - sum(own.values()))
            for phase, seconds in own.items():
                share = seconds / max(self.wall, 1e-9)
                lines.append(f"{_shown(thread):<11}{phase:<20}{seconds * each:>9.2f}{share:>9.1%}")
        if waited:
            slowest = min(waited, key=lambda thread: waited[thread])
            lines.append(f"the pace is set by the thread that waits least: {_shown(slowest)}")
        return "\n".join(lines)


def _shown(thread: str) -> str:
    return "main" if thread == threading.main_thread().name else thread


def phase(profile: Profile | None, name: str) -> AbstractContextManager[None]:
    """`profile.phase(name)`, or nothing where nobody asked."""
    return _OFF if profile is None else profile.phase(name)


def timed(items: Iterable[A], profile: Profile | None, name: str) -> Iterable[A]:
    """`items`; what each of them takes to come is counted as phase `name`."""
    return items if profile is None else _timed(items, profile, name)


def _timed(items: Iterable[A], profile: Profile, name: str) -> Iterator[A]:
    iterator = iter(items)
    end = object()
    try:
        while True:
            with profile.phase(name):
                item = next(iterator, end)
            if item is end:
                return
            yield item  # type: ignore[misc]  # it is not `end`
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


class TimedSource:
    """A source of frames (`infer.stream.Source`) whose reading is counted."""

    def __init__(self, source: Source, profile: Profile) -> None:
        self.live = source.live
        self._source, self._profile = source, profile

    def __iter__(self) -> Iterator[Frame]:
        return iter(timed(self._source, self._profile, READING))

    def stop(self) -> None:
        """As the source's own."""
        self._source.stop()

    def close(self) -> None:
        """As the source's own."""
        self._source.close()
