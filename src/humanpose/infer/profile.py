"""Where the time goes: seconds by thread and phase, for `humanpose predict --profile`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from humanpose.infer.runtime import Runtime
    from humanpose.types import F32, U8

A = TypeVar("A")
B = TypeVar("B")

READING, DETECTOR, POSE, HANDS = "reading, decoding", "detector", "pose network", "hand network"
REST, SMOOTHING = "crops, maps, tracks", "smoothing"
WRITING, WAITING = "drawing, writing", "waiting"

# In the order in which a frame goes through them.
_ORDER = (READING, DETECTOR, POSE, HANDS, REST, SMOOTHING, WRITING, WAITING)


class Profile:
    """Seconds of every phase of every thread.

    Phases may lie within each other: the inner one's time is not the outer one's. The time of a
    thread outside all phases counts as waiting.

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
        """Count the time in here as the whole to which the shares refer."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - start

    def timed(self, items: Iterable[A], name: str, use: str = "") -> Iterator[A]:
        """Yield `items`; making them is phase `name`, what the caller does with them `use`."""
        iterator = iter(items)
        end = object()
        try:
            while True:
                with self._phase(name):
                    item = next(iterator, end)
                if item is end:
                    return
                with self._phase(use) if use else nullcontext():
                    yield item  # type: ignore[misc]  # it is not `end`
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    def function(self, work: Callable[[A], B], name: str = REST) -> Callable[[A], B]:
        """Return `work` with the time of each call counted as phase `name`."""

        def counted(item: A) -> B:
            with self._phase(name):
                return work(item)

        return counted

    def runtime(self, runtime: Runtime, name: str) -> Runtime:
        """Return `runtime` with the time of each run counted as phase `name`."""
        return _TimedRuntime(runtime, self, name)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Count the time in here as phase `name` of the calling thread."""
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
        """Return a line per phase, for a terminal: ms per frame and share of the whole time.

        The threads work at the same time, so the shares of each of them make 100 %. `frames` were
        done, pictures among them.
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
            shown = "main" if thread == threading.main_thread().name else thread
            for phase, seconds in own.items():
                share = seconds / max(self.wall, 1e-9)
                lines.append(f"{shown:<11}{phase:<20}{seconds * each:>9.2f}{share:>9.1%}")
        if waited:
            slowest = min(waited, key=lambda thread: waited[thread])
            shown = "main" if slowest == threading.main_thread().name else slowest
            lines.append(f"the pace is set by the thread that waits least: {shown}")
        return "\n".join(lines)


class _TimedRuntime:
    def __init__(self, runtime: Runtime, profile: Profile, phase: str) -> None:
        self.name, self.precision = runtime.name, runtime.precision
        self._run = profile.function(runtime.run, phase)

    def run(self, crops: U8) -> dict[str, F32]:
        return self._run(crops)
