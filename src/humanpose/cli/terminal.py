"""What verbs share on the terminal: progress, signals that end a run, missing extras."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from humanpose.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")


def progress_bar(quiet: bool = False) -> Progress:
    """Return a bar on stderr that vanishes in the end; hidden if `quiet` or in a log.

    A task may have a field `source`: its `state`, if not empty, stands in place of the rate.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Any) -> Text:
            state = getattr(task.fields.get("source"), "state", "")
            return Text(state or ("" if task.speed is None else f"{task.speed:.1f}/s"))

    console = Console(stderr=True)
    return Progress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate("")),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    )


def progress(items: Iterable[T], text: str, quiet: bool = False) -> Iterator[T]:
    """Yield `items` beside a bar that counts them."""
    with progress_bar(quiet) as bar:
        yield from bar.track(items, description=text)


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
    """Yield a `Stop` that hears SIGINT and SIGTERM inside the block; in the main thread only."""
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


@contextmanager
def needs_extra(extra: str, package: str) -> Iterator[None]:
    """Raise MissingExtraError if an import inside the block fails; `package` if it has no name."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(error.name or package, extra) from error
