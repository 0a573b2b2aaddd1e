"""Progress on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

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
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    )


def progress(items: Iterable[T], text: str, quiet: bool = False) -> Iterator[T]:
    """Yield `items` beside a bar that counts them."""
    with progress_bar(quiet) as bar:
        yield from bar.track(items, description=text)
