"""Ctrl-C and SIGTERM as a request to finish: reading ends, files are completed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether a signal has asked to end.

    Attributes:
        signal: number of the signal that came, 0 if none did.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._calls: list[Callable[[], None]] = []

    @contextmanager
    def calling(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call `stop` when a signal comes inside the block, or at once if one has come."""
        self._calls.append(stop)
        try:
            if self.signal:
                stop()
            yield
        finally:
            self._calls.remove(stop)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:  # the second time: at once
            raise KeyboardInterrupt
        self.signal = number
        for stop in self._calls:
            stop()


@contextmanager
def stopping() -> Iterator[Stop]:
    """A `Stop` that listens to SIGINT and SIGTERM inside the block; in the main thread only."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
                signal.signal(number, stop._handle)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
