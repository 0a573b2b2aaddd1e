"""The owner of threads: reading, estimating and writing overlap, at bounded memory.

Here for what lies in files, of which no frame may be lost; `infer.stream` for what does not wait.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Self, TypeVar

A = TypeVar("A")
B = TypeVar("B")

# Frames that may wait between two stages. More would only add memory: the slowest stage sets
# the rate, and a handful rides out its jitter.
_DEPTH = 4
_END = object()


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
            except queue.Full:  # the reader is slow or gone; look again
                continue
        return False

    def end(self, error: BaseException | None = None) -> None:
        """The reader's loop ends after what was put before; `error` is raised there."""
        self.put(_END if error is None else _Failure(error))

    def leave(self) -> None:
        """Nothing will be read any more; a waiting `put` comes back."""
        self._left.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def __iter__(self) -> Iterator[Any]:
        while (item := self._waiting.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def ahead(
    items: Iterable[A], *, depth: int = _DEPTH, name: str = "ahead"
) -> Generator[A, None, None]:
    """`items`, produced in a thread of their own; at most `depth` wait.

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
    """`map(work, items)` with reading, working and the caller's own loop in three threads."""
    return ahead(_mapped(ahead(items, name="reader"), work), name="worker")


def _mapped(items: Generator[A, None, None], work: Callable[[A], B]) -> Iterator[B]:
    try:
        for item in items:
            yield work(item)
    finally:
        items.close()
