"""The one owner of threads: reading, estimating and writing overlap, at bounded memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

# Frames that may wait between two stages. More would only add memory: the slowest stage sets
# the rate, and a handful rides out its jitter.
_DEPTH = 4
_END = object()


def ahead(
    items: Iterable[A], *, depth: int = _DEPTH, name: str = "ahead"
) -> Generator[A, None, None]:
    """`items`, produced in a thread of their own; at most `depth` wait.

    An error in `items` is raised here. Leaving the loop early ends the thread before control
    returns; a source that blocks for ever inside a driver needs a time-out of its own.
    """
    waiting: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:  # the consumer is slow or gone; look at `stop` again
                continue
        return False

    def produce() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # handed to the consumer, who can act on it
            put(_Failure(error))
        finally:
            # In the thread that ran it; left to the collector, its own threads might outlive us.
            if isinstance(iterator, Generator):
                iterator.close()

    thread = threading.Thread(target=produce, name=name, daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def overlapped(items: Iterable[A], work: Callable[[A], B]) -> Generator[B, None, None]:
    """`map(work, items)` with reading, working and the caller's own loop in three threads."""
    return ahead(_mapped(ahead(items, name="reader"), work), name="worker")


def _mapped(items: Generator[A, None, None], work: Callable[[A], B]) -> Iterator[B]:
    try:
        for item in items:
            yield work(item)
    finally:
        items.close()
