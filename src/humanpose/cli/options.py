"""What verbs share: options classes, progress on the terminal, signals that end a run.

Options classes become options of verbs, keys of settings files and controls of the window. An
options class is a frozen dataclass; each field states its help and its limits (`types.option`). A
field may hold another options class: its fields count as fields of the outer one.
"""

from __future__ import annotations

import functools
import inspect
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from humanpose.errors import InputError, MissingExtraError
from humanpose.types import option

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value of the file, e.g. seed=1; repeatable."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing results.")]
INTO: dict[str, Any] = {"metavar": "DIR", "flags": ("--output", "-o")}  # of an output folder
_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path"}
_METAVARS = {int: "N", float: "X", str: "NAME"}


class NothingDone(Exception):
    """Leaves sinks to which nothing was written, so that they leave no file."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Options of moving sources; see `media.sources.open_source`."""

    rate: float | None = option(None, "Frames/s of numbered pictures; 25 if not given.", min=0.01)
    topic: str | None = option(None, "Topic of a ROS recording, where several have pictures.")
    retries: int | None = option(
        None, "Attempts to reopen a lost camera or stream; endless if not given.", min=0
    )


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an options class.

    Attributes:
        name: key in files; `--name` is the option.
        kind: one of bool, int, float, str and Path.
        optional: None is allowed.
        value: of the given options.
        about: help, min, max, choices, metavar, flags.
        panel: heading in the help; None = "Options".
    """

    name: str
    kind: type
    optional: bool
    value: Any
    about: Mapping[str, Any]
    panel: str | None

    def accepted(self, value: Any) -> Any:
        """Return `value` as this field's kind.

        Raises:
            InputError: if it is of another kind. Limits are checked by the class itself.
        """
        if value is None and self.optional:
            return None
        number = type(value) in (int, float)
        fits = {
            bool: type(value) is bool,
            int: type(value) is int,
            float: number,
            str: number or isinstance(value, str | Path),  # a number may be a camera
            Path: isinstance(value, str | Path),
        }
        if fits[self.kind]:
            return self.kind(value)
        raise InputError(f"{self.name}: write {_KINDS[self.kind]}, not {value!r}")

    def parameter(self) -> inspect.Parameter:
        """Return the field as a parameter of a typer command."""
        flags = self.about.get("flags", ())
        if not flags and self.kind is bool:
            flag = self.name.replace("_", "-")
            flags = (f"--{flag}/--no-{flag}",)
        shown = typer.Option(
            *flags,
            help=self.about["help"],
            metavar=self.about.get("metavar", _METAVARS.get(self.kind)),
            min=self.about.get("min"),
            max=self.about.get("max"),
            rich_help_panel=self.panel,
        )
        kind: Any = self.kind | None if self.optional else self.kind
        only = inspect.Parameter.KEYWORD_ONLY
        about = Annotated[kind, shown]
        return inspect.Parameter(self.name, only, default=self.value, annotation=about)


def fields_of(options: Any, panel: str | None = None) -> Iterator[Field]:
    """Yield the fields of `options`, an instance of an options class, in order.

    Fields of options classes inside it get the name of their class as `panel`.
    """
    hints = get_type_hints(type(options))
    for each in fields(options):
        value = getattr(options, each.name)
        if is_dataclass(value):
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(value).__name__)
            yield from fields_of(value, words.capitalize())
        elif "help" in each.metadata and not each.metadata.get("hidden"):
            kinds = get_args(hints[each.name]) or (hints[each.name],)
            kind = next(kind for kind in kinds if kind in _KINDS)
            optional = type(None) in kinds
            yield Field(each.name, kind, optional, value, each.metadata, panel)


def changed(options: T, changes: Mapping[str, Any]) -> T:
    """Return `options` with other values for the fields that `changes` names.

    Options classes without another value stay the same object.

    Raises:
        InputError: on an unknown field or a value that it does not allow; it names the field.
    """
    known = {field.name: field for field in fields_of(options)}
    for name in changes:
        if name not in known:
            raise InputError(f"{name}: there is no such key")
    accepted = {name: known[name].accepted(value) for name, value in changes.items()}
    made: T = _replaced(options, {n: v for n, v in accepted.items() if v != known[n].value})
    return made


def _replaced(options: Any, changes: Mapping[str, Any]) -> Any:
    parts = {}
    for each in fields(options):
        value = getattr(options, each.name)
        new = _replaced(value, changes) if is_dataclass(value) else changes.get(each.name, value)
        if new is not value:
            parts[each.name] = new
    return replace(options, **parts) if parts else options


def names_in(flag: str, text: str, known: Iterable[str]) -> list[str]:
    """Split the comma-separated `text` given for `flag`.

    Raises:
        InputError: if it has no name, or one that is not `known`.
    """
    names, known = comma_list(text), list(known)
    unknown = sorted(set(names).difference(known))
    if unknown or not names:
        what = ", ".join(unknown) or "nothing"
        raise InputError(f"{flag} {what}: choose from {', '.join(known)}")
    return names


def comma_list(text: str) -> list[str]:
    """Return the parts of a comma-separated text without blanks around them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def with_options(*left_out: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorate a verb: typer shows the fields of its options classes, but for those `left_out`.

    A parameter whose default is an instance of an options class receives such an instance, made
    of the options given; the default holds theirs.
    """

    def decorate(verb: Callable[..., T]) -> Callable[..., T]:
        hints = get_type_hints(verb, include_extras=True)
        shown: list[inspect.Parameter] = []
        groups: dict[str, tuple[Any, list[str]]] = {}
        for parameter in inspect.signature(verb).parameters.values():
            if not is_dataclass(parameter.default):
                kind = inspect.Parameter.KEYWORD_ONLY
                shown.append(parameter.replace(kind=kind, annotation=hints[parameter.name]))
                continue
            own = [f for f in fields_of(parameter.default) if f.name not in left_out]
            groups[parameter.name] = parameter.default, [field.name for field in own]
            shown += [field.parameter() for field in own]

        @functools.wraps(verb)
        def called(**given: Any) -> T:
            for name, (default, names) in groups.items():
                given[name] = changed(default, {each: given.pop(each) for each in names})
            return verb(**given)

        called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return called

    return decorate


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
    """Whether a signal has asked to end: `signal` is its number, 0 before one came."""

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
