"""What verbs share: their options, progress on the terminal, signals that end a run.

A verb states its options as defaults of its parameters (`types.option`: help and limits). What
several verbs, settings files or the window share is an options class, a frozen dataclass of such
fields. A field may hold another options class: its fields count as fields of the outer one.
"""

from __future__ import annotations

import functools
import inspect
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field as DataclassField
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import typer

from humanpose.errors import InputError, MissingExtraError
from humanpose.types import check_limits, option

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
INTO: dict[str, Any] = {"metavar": "DIR", "flags": ("--output", "-o")}  # of an output folder
TO_FILE = INTO | {"metavar": "FILE"}
FORCE: Any = option(False, "Replace existing results.", flags=("--force",))
CHANGES: Any = option(
    (), "Change a value of the file, e.g. seed=1; repeatable.", flags=("--set",),
    metavar="KEY=VALUE",
)  # fmt: skip
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
    """A field of an options class, or an option of one verb.

    Attributes:
        name: key in files; `--name` is the option.
        kind: one of bool, int, float, str and Path.
        optional: None is allowed.
        many: a tuple of values; the option is repeatable.
        value: of the given options; `...` if one must be given.
        about: help, min, max, choices, metavar, flags.
        panel: heading in the help; None = "Options".
    """

    name: str
    kind: type
    optional: bool
    many: bool
    value: Any
    about: Mapping[str, Any]
    panel: str | None

    @classmethod
    def of(
        cls, name: str, hint: Any, value: Any, about: Mapping[str, Any], panel: str | None = None
    ) -> Field:
        """Return the field of a type `hint`, such as int | None or tuple[str, ...]."""
        kinds = get_args(hint) or (hint,)
        kind = next(kind for kind in kinds if kind in _KINDS)
        return cls(name, kind, type(None) in kinds, ... in kinds, value, about, panel)

    def accepted(self, value: Any) -> Any:
        """Return `value` as this field's kind.

        Raises:
            InputError: if it is of another kind. Limits are checked by the class itself.
        """
        if value is None and self.optional:
            return None
        if self.many:
            return tuple(map(replace(self, many=False).accepted, value))
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
        shown = typer.Option(
            self.value,
            *self.about.get("flags", ()),
            help=self.about["help"],
            metavar=self.about.get("metavar", _METAVARS.get(self.kind)),
            min=self.about.get("min"),
            max=self.about.get("max"),
            rich_help_panel=self.panel,
        )
        one: Any = self.kind | None if self.optional else self.kind
        kind = list[one] if self.many else one
        only = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(self.name, only, default=shown, annotation=kind)


def fields_of(options: Any, panel: str | None = None) -> Iterator[Field]:
    """Yield the fields of `options`, an instance of an options class, in order.

    Fields of options classes inside it get the heading of their class as `panel`.
    """
    hints = get_type_hints(type(options))
    for each in fields(options):
        value = getattr(options, each.name)
        if is_dataclass(value):
            yield from fields_of(value, _heading(value))
        elif "help" in each.metadata and not each.metadata.get("hidden"):
            yield Field.of(each.name, hints[each.name], value, each.metadata, panel)


def _heading(options: Any) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(options).__name__).capitalize()


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
    """Decorate a verb whose defaults are options (`types.option`) or hold them.

    A parameter whose default is an instance of an options class receives such an instance, made
    of the options given; the default holds theirs. Its fields in `left_out` are no options, the
    others stand under a heading, except those of a parameter named `options`.
    """

    def decorate(verb: Callable[..., T]) -> Callable[..., T]:
        hints = get_type_hints(verb)
        shown: list[inspect.Parameter] = []
        single: list[Field] = []
        groups: dict[str, tuple[Any, list[str]]] = {}
        for name, parameter in inspect.signature(verb).parameters.items():
            default = parameter.default
            if isinstance(default, DataclassField):
                single.append(Field.of(name, hints[name], default.default, default.metadata))
                shown.append(single[-1].parameter())
            elif is_dataclass(default):
                panel = None if name == "options" else _heading(default)
                own = [each for each in fields_of(default, panel) if each.name not in left_out]
                groups[name] = default, [field.name for field in own]
                shown += [field.parameter() for field in own]
            else:
                kind = inspect.Parameter.KEYWORD_ONLY
                shown.append(parameter.replace(kind=kind, annotation=hints[name]))

        @functools.wraps(verb)
        def called(**given: Any) -> T:
            for field in single:
                value = given[field.name] = field.accepted(given[field.name])
                for each in value if field.many else (value,):
                    check_limits(field.name, each, field.about)
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
