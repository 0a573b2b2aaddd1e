"""What `humanpose predict` does: sources in, annotated pictures and records out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from humanpose.cli.progress import progress_bar
from humanpose.cli.signals import Stop, stopping
from humanpose.draw import DrawStyle
from humanpose.errors import InputError, OutputError
from humanpose.images import load_image
from humanpose.infer.pipeline import overlapped
from humanpose.infer.profile import READING, WRITING, Profile, TimedSource, phase, timed
from humanpose.infer.track import TrackingOptions
from humanpose.media.sinks import (
    RECORDS,
    PictureSink,
    RecordSink,
    record_path,
    save_heat_maps,
)
from humanpose.media.sources import InputItem, find_inputs, open_source, without_password
from humanpose.types import Frame

if TYPE_CHECKING:
    from rich.progress import Progress

    from humanpose.api import PoseEstimator
    from humanpose.infer.smooth import Smoothing

_DRAWN = ("image", "video", "heatmaps")
_DEFAULT = ("image", "video", "json")


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read what moves.

    Attributes:
        as_video: the pictures of a folder or pattern are one video.
        rate: see `open_source`, as `topic` and `retries`.
        topic: of a recording.
        retries: attempts to find a lost source again.
        frames: end after so many results.
        seconds: end at this time of the source.
    """

    as_video: bool = False
    rate: float | None = None
    topic: str | None = None
    retries: int | None = None
    frames: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One record's worth of work: all pictures of a call, or one video.

    Attributes:
        items: what to read; several only for pictures.
        record: path of the record; each kind replaces its suffix.
        folder: where results go.
        save: kinds of results.
        look: how frames are drawn.
        force: replace existing results.
        reading: how to read what moves.
        following: what is done with it beyond looking at each frame by itself.
    """

    items: tuple[InputItem, ...]
    record: Path
    folder: Path
    save: frozenset[str]
    look: DrawStyle
    force: bool
    reading: Reading
    following: TrackingOptions

    @property
    def is_video(self) -> bool:
        """Whether this job is one video."""
        return self.items[0].kind == "video"

    def drawn(self, item: InputItem) -> Path:
        """Where the annotated picture or video of `item` goes."""
        return self.folder / item.output

    def heat_maps(self, item: InputItem) -> Path:
        """Folder of the heat maps of picture `item`."""
        drawn = self.drawn(item)
        return drawn.with_name(f"{drawn.stem}_heatmaps")

    def outputs(self) -> Iterator[Path]:
        """Every file and folder that this job will write."""
        if ("video" if self.is_video else "image") in self.save:
            yield from (self.drawn(item) for item in self.items)
        if "heatmaps" in self.save:
            yield from (self.heat_maps(item) for item in self.items)
        yield from (record_path(kind, self.record) for kind in self.records)

    @property
    def records(self) -> list[str]:
        """Kinds of records to write; of pictures no motion."""
        return sorted(self.save - set(_DRAWN) - (set() if self.is_video else {"trc"}))


@dataclass
class Outcome:
    """What was done."""

    pictures: int = 0
    frames: int = 0
    people: int = 0
    signal: int = 0
    seconds: float = 0.0
    folder: Path = Path()
    drawn: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    profile: Profile | None = None

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
    sources: Sequence[str],
    save: str | None,
    folder: Path,
    *,
    look: DrawStyle = DrawStyle(),
    force: bool,
    reading: Reading = Reading(),
    following: TrackingOptions = TrackingOptions(),
) -> list[Job]:
    """The work that `sources` mean, checked before anything is loaded.

    Raises:
        InputError: if a source does not exist or is empty, or `save` names an unknown kind or
            one that is not for such a source.
        OutputError: if a result exists and `force` is off.
    """
    kinds = _kinds(save)
    items = find_inputs(sources, exclude=folder, as_video=reading.as_video)
    pictures = tuple(item for item in items if item.kind == "picture")
    if kinds == {"trc"} and pictures:
        raise InputError(
            f"--save trc is for what moves, not for {pictures[0].path}; see --as-video"
        )
    if "heatmaps" in kinds and len(pictures) < len(items):
        video = next(item.path for item in items if item.kind == "video")
        raise InputError(f"--save heatmaps is for pictures; {video} is a video")
    work: list[tuple[tuple[InputItem, ...], Path]] = [
        ((item,), folder / item.output) for item in items if item.kind == "video"
    ]
    if pictures:
        record = pictures[0].output if len(pictures) == 1 else _common_record(items)
        work.insert(0, (pictures, folder / record))
    jobs = [
        Job(inputs, record, folder, kinds, look, force, reading, following)
        for inputs, record in work
    ]
    if not force:
        for path in (path for job in jobs for path in job.outputs()):
            if path.exists():
                raise OutputError(
                    f"{path} exists; add --force to replace it, or -o for another folder"
                )
    return jobs


def _common_record(items: Sequence[InputItem]) -> Path:
    """Name of the record of several pictures; no video's record has it."""
    name = "pictures"
    while any(item.output.with_suffix("") == Path(name) for item in items):
        name += "_all"
    return Path(f"{name}.json")


def _kinds(save: str | None) -> frozenset[str]:
    if save is None:
        return frozenset(_DEFAULT)
    kinds = frozenset(kind.strip() for kind in save.split(",") if kind.strip())
    known = (*_DRAWN, *RECORDS)
    unknown = sorted(kinds - set(known))
    if unknown or not kinds:
        what = ", ".join(unknown) or "nothing"
        raise InputError(f"--save {what}: choose from {', '.join(known)}")
    return kinds


def run(
    jobs: Sequence[Job],
    estimator: PoseEstimator,
    *,
    quiet: bool,
    profile: Profile | None = None,
) -> Outcome:
    """Do the jobs; an input that cannot be read is noted and the others are done.

    The first Ctrl-C or SIGTERM ends them after the frames at hand, with every file completed.
    `profile`, which `estimator` has too, is told where the time goes.
    """
    outcome = Outcome(folder=jobs[0].folder, profile=profile)
    counted = profile.running() if profile else nullcontext()
    with counted, stopping() as stop, progress_bar(quiet) as progress:
        for job in jobs:
            if stop.signal:
                break
            try:
                work = _run_video if job.is_video else _run_pictures
                work(job, estimator, outcome, progress, stop)
            except InputError as error:
                outcome.problems.append(f"skipped: {error}")
        if stop.signal:
            outcome.signal = stop.signal
            outcome.problems.append("interrupted: results are complete up to here")
    return outcome


class _NothingDone(Exception):
    """Leaves the sinks of a job of which nothing could be read, so that they leave no file."""


def _run_pictures(
    job: Job, estimator: PoseEstimator, outcome: Outcome, progress: Progress, stop: Stop
) -> None:
    task = progress.add_task("pictures", total=len(job.items))
    problems: list[str] = []

    def load(item: InputItem) -> tuple[InputItem, Frame | InputError]:
        try:
            name = (item.output.parent / item.path.name).as_posix()
            return item, Frame(load_image(item.path), name=name)
        except InputError as error:
            return item, error

    def estimate(
        loaded: tuple[InputItem, Frame | InputError],
    ) -> tuple[InputItem, Frame | InputError]:
        item, frame = loaded
        return item, estimator.process(frame) if isinstance(frame, Frame) else frame

    with suppress(_NothingDone), ExitStack() as stack:
        records = _records(job, estimator, stack, problems)
        items = takewhile(lambda _: not stop.signal, job.items)
        loaded = timed(map(load, items), outcome.profile, READING)
        done = stack.enter_context(closing(overlapped(loaded, estimate)))
        before = outcome.pictures
        for item, frame in done:
            progress.advance(task)
            if isinstance(frame, InputError):
                problems.append(f"skipped: {frame}")
                continue
            with phase(outcome.profile, WRITING):
                if "image" in job.save:
                    path = job.drawn(item)
                    with PictureSink(path, look=job.look, force=job.force) as sink:
                        sink.write(frame)
                    outcome.drawn.append(path)
                if "heatmaps" in job.save:
                    save_heat_maps(job.heat_maps(item), frame, force=job.force)
                for record in records:
                    record.write(frame)
            outcome.pictures += 1
            outcome.people += len(frame.people)
        if outcome.pictures == before:
            raise _NothingDone
    outcome.problems += problems


def _run_video(
    job: Job, estimator: PoseEstimator, outcome: Outcome, progress: Progress, stop: Stop
) -> None:
    from humanpose.media.sinks.video import VideoSink
    from humanpose.media.sources.video import VideoSource

    (item,), reading = job.items, job.reading
    start, before = time.perf_counter(), outcome.frames
    with (
        open_source(
            item.source, rate=reading.rate, topic=reading.topic, retries=reading.retries
        ) as video,
        ExitStack() as stack,
    ):
        stack.enter_context(stop.calling(video.stop))
        task = progress.add_task(item.path.name, total=reading.frames or video.frames, source=video)
        smoothing = job.following.method(live=video.live)
        sinks: list[Any] = list(_records(job, estimator, stack, video.problems, smoothing))
        stack.callback(video.close)  # before the record, whose footer holds the problems
        if "video" in job.save:
            path = job.drawn(item)
            drawn = VideoSink(
                path,
                video.width,
                video.height,
                video.rate,
                look=job.look,
                audio=item.path if isinstance(video, VideoSource) and item.path.exists() else None,
                force=job.force,
            )
            # Called after the sink is closed, when it knows of everything.
            stack.callback(lambda: video.problems.extend(drawn.problems))
            sinks.append(stack.enter_context(drawn))
            outcome.drawn.append(path)
        # Closed before the video is, also on an error: its thread must not read a closed file.
        read = video if outcome.profile is None else TimedSource(video, outcome.profile)
        for frame in stack.enter_context(closing(estimator.follow(read, job.following))):
            if reading.seconds is not None and frame.time >= reading.seconds:
                break
            with phase(outcome.profile, WRITING):
                for sink in sinks:
                    sink.write(frame)
            outcome.frames += 1
            outcome.people += len(frame.people)
            progress.advance(task)
            if outcome.frames - before == reading.frames:
                break
    outcome.problems += video.problems
    outcome.seconds += time.perf_counter() - start


def _records(
    job: Job,
    estimator: PoseEstimator,
    stack: ExitStack,
    problems: list[str],
    smoothing: Smoothing | None = None,
) -> list[RecordSink]:
    if not job.records:
        return []
    item, several = job.items[0], f"{len(job.items)} pictures"
    source = without_password(item.source) if len(job.items) == 1 else several
    header = estimator.header(source, smoothing)
    sink = RecordSink(job.record, header, job.records, problems=problems, force=job.force)
    return [stack.enter_context(sink)]
