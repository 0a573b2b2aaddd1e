"""What `humanpose predict` does: sources in, annotated pictures and records out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from humanpose.errors import InputError, OutputError
from humanpose.images import load_image
from humanpose.infer.pipeline import overlapped
from humanpose.media.sinks import SINKS, SUFFIXES, PictureSink, RecordSink, open_sinks
from humanpose.media.sources import Item, expand
from humanpose.types import Frame

if TYPE_CHECKING:
    from rich.progress import Progress

    from humanpose.api import PoseEstimator

_DRAWN = ("image", "video")
_DEFAULT = ("image", "video", "json")


@dataclass(frozen=True, slots=True)
class Job:
    """One record's worth of work: all pictures of a call, or one video.

    Attributes:
        items: what to read; several only for pictures.
        record: path of the record; each kind replaces its suffix.
        folder: where results go.
        save: kinds of results.
        min_score: of a joint that is drawn.
        force: replace existing results.
    """

    items: tuple[Item, ...]
    record: Path
    folder: Path
    save: frozenset[str]
    min_score: float
    force: bool

    @property
    def is_video(self) -> bool:
        """Whether this job is one video."""
        return self.items[0].kind == "video"

    def drawn(self, item: Item) -> Path:
        """Where the annotated picture or video of `item` goes."""
        return self.folder / item.output

    def outputs(self) -> Iterator[Path]:
        """Every file that this job will write."""
        if ("video" if self.is_video else "image") in self.save:
            yield from (self.drawn(item) for item in self.items)
        yield from (self.record.with_suffix(SUFFIXES[kind]) for kind in self.records)

    @property
    def records(self) -> list[str]:
        """Kinds of records to write."""
        return sorted(self.save - set(_DRAWN))


@dataclass
class Outcome:
    """What was done."""

    pictures: int = 0
    frames: int = 0
    people: int = 0
    seconds: float = 0.0
    folder: Path = Path()
    drawn: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for the user."""
        parts = []
        if self.pictures:
            parts.append(f"{self.pictures} picture{'s' if self.pictures > 1 else ''}")
        if self.frames:
            rate = self.frames / max(self.seconds, 1e-9)
            parts.append(f"{self.frames} frames ({rate:.1f} frames/s)")
        done = " and ".join(parts) or "nothing"
        people = f"{self.people} {'person' if self.people == 1 else 'people'}"
        return f"{done} done, {people}; results in {self.folder}/"


def plan(
    sources: Sequence[str], save: str | None, folder: Path, *, min_score: float, force: bool
) -> list[Job]:
    """The work that `sources` mean, checked before anything is loaded.

    Raises:
        InputError: if a source does not exist or is empty, or `save` names an unknown kind.
        OutputError: if a result exists and `force` is off.
    """
    kinds = _kinds(save)
    items = expand(sources, exclude=folder)
    pictures = tuple(item for item in items if item.kind == "picture")
    jobs = []
    if pictures:
        record = pictures[0].output if len(pictures) == 1 else _common_record(items)
        jobs.append(Job(pictures, folder / record, folder, kinds, min_score, force))
    for item in items:
        if item.kind == "video":
            jobs.append(Job((item,), folder / item.output, folder, kinds, min_score, force))
    if not force:
        for path in (path for job in jobs for path in job.outputs()):
            if path.exists():
                raise OutputError(
                    f"{path} exists; add --force to replace it, or -o for another folder"
                )
    return jobs


def _common_record(items: Sequence[Item]) -> Path:
    """Name of the record of several pictures; no video's record has it."""
    name = "pictures"
    while any(item.output.with_suffix("") == Path(name) for item in items):
        name += "_all"
    return Path(f"{name}.json")


def _kinds(save: str | None) -> frozenset[str]:
    if save is None:
        return frozenset(_DEFAULT)
    kinds = frozenset(kind.strip() for kind in save.split(",") if kind.strip())
    known = (*_DRAWN, *SINKS)
    unknown = sorted(kinds - set(known))
    if unknown or not kinds:
        what = ", ".join(unknown) or "nothing"
        raise InputError(f"--save {what}: choose from {', '.join(known)}")
    return kinds


def run(jobs: Sequence[Job], estimator: PoseEstimator, *, quiet: bool) -> Outcome:
    """Do the jobs; an input that cannot be read is noted and the others are done."""
    outcome = Outcome(folder=jobs[0].folder)
    with _progress(quiet) as progress:
        for job in jobs:
            try:
                work = _run_video if job.is_video else _run_pictures
                work(job, estimator, outcome, progress)
            except InputError as error:
                outcome.problems.append(f"skipped: {error}")
    return outcome


class _NothingDone(Exception):
    """Leaves the sinks of a job of which nothing could be read, so that they leave no file."""


def _run_pictures(job: Job, estimator: PoseEstimator, outcome: Outcome, progress: Progress) -> None:
    task = progress.add_task("pictures", total=len(job.items))

    def load(item: Item) -> tuple[Item, Frame | InputError]:
        try:
            name = (item.output.parent / item.path.name).as_posix()
            return item, Frame(load_image(item.path), name=name)
        except InputError as error:
            return item, error

    def estimate(loaded: tuple[Item, Frame | InputError]) -> tuple[Item, Frame | InputError]:
        item, frame = loaded
        return item, estimator.process(frame) if isinstance(frame, Frame) else frame

    with suppress(_NothingDone), ExitStack() as stack:
        records = _records(job, estimator, stack)
        done = stack.enter_context(closing(overlapped(map(load, job.items), estimate)))
        before = outcome.pictures
        for item, frame in done:
            progress.advance(task)
            if isinstance(frame, InputError):
                outcome.problems.append(f"skipped: {frame}")
                continue
            if "image" in job.save:
                path = job.drawn(item)
                with PictureSink(path, min_score=job.min_score, force=job.force) as sink:
                    sink.write(frame)
                outcome.drawn.append(path)
            for record in records:
                record.write(frame)
            outcome.pictures += 1
            outcome.people += len(frame.people)
        if outcome.pictures == before:
            raise _NothingDone


def _run_video(job: Job, estimator: PoseEstimator, outcome: Outcome, progress: Progress) -> None:
    from humanpose.media.sinks.video import VideoSink
    from humanpose.media.sources.video import VideoSource

    (item,) = job.items
    start = time.perf_counter()
    with VideoSource(item.path) as video, ExitStack() as stack:
        task = progress.add_task(item.path.name, total=video.frames)
        sinks: list[Any] = list(_records(job, estimator, stack))
        if "video" in job.save:
            path = job.drawn(item)
            drawn = VideoSink(
                path,
                video.width,
                video.height,
                video.rate,
                min_score=job.min_score,
                audio=item.path,
                force=job.force,
            )
            # Called after the sink is closed, when it knows of everything.
            stack.callback(lambda: outcome.problems.extend(drawn.problems))
            sinks.append(stack.enter_context(drawn))
            outcome.drawn.append(path)
        # Closed before the video is, also on an error: its thread must not read a closed file.
        for frame in stack.enter_context(closing(overlapped(video, estimator.process))):
            for sink in sinks:
                sink.write(frame)
            outcome.frames += 1
            outcome.people += len(frame.people)
            progress.advance(task)
        outcome.problems += video.problems
    outcome.seconds += time.perf_counter() - start


def _records(job: Job, estimator: PoseEstimator, stack: ExitStack) -> list[RecordSink]:
    source = str(job.items[0].path) if len(job.items) == 1 else f"{len(job.items)} pictures"
    sinks = open_sinks(
        job.records, job.record, estimator.header(source), estimator.skeleton, job.force
    )
    return [stack.enter_context(sink) for sink in sinks]


def _progress(quiet: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    class Rate(TextColumn):
        def render(self, task: Any) -> Any:
            from rich.text import Text

            return Text("" if task.speed is None else f"{task.speed:.1f} frames/s")

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        console=console,
        disable=quiet or not console.is_terminal,  # a log needs the summary, not the bar
        transient=True,
    )
