"""humanpose predict SOURCE...: sources in, annotated pictures, videos and records out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from humanpose.cli.options import (
    INTO,
    NothingDone,
    SourceOptions,
    Stop,
    names_in,
    progress_bar,
    stopping,
    with_options,
)
from humanpose.draw import WITH_MAPS, DrawStyle, draw_heat
from humanpose.errors import EXIT_SKIPPED, InputError, OutputError
from humanpose.files import prepare_output
from humanpose.images import load_image, save_image
from humanpose.infer.options import InferenceOptions, Smoothing, TrackingOptions
from humanpose.infer.profile import READING, WAITING, WRITING, Profile
from humanpose.infer.stream import overlapped
from humanpose.media.sinks.record import RECORDS, RecordSink, record_path
from humanpose.media.sources import InputItem, find_inputs, open_source
from humanpose.media.sources.source import without_password
from humanpose.types import Frame, option

if TYPE_CHECKING:
    from rich.progress import Progress

    from humanpose.api import PoseEstimator

T = TypeVar("T")
_DRAWN = ("image", "video", "heatmaps")
_DEFAULT = ("image", "video", "json")
Job = tuple[tuple[InputItem, ...], Path]  # all pictures or one video; the path of their record
Loaded = tuple[InputItem, Frame | InputError]


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """Options of `humanpose predict`."""

    save: str | None = option(
        None,
        "Comma-separated: image, video, json (COCO's shape), jsonl, csv, coco (bare results), "
        "openpose, trc, heatmaps. Default: the annotated picture or video, and json.",
        metavar="KINDS",
    )
    output: Path = option(Path("humanpose-out"), "Folder for the results.", **INTO)
    force: bool = option(False, "Replace existing results.", flags=("--force",))
    as_video: bool = option(
        False, "Treat the pictures of a folder or glob as one video.", flags=("--as-video",)
    )
    frames: int | None = option(None, "End a video or camera after this many frames.", min=1)
    seconds: float | None = option(None, "End a video or camera after this time.", min=0)
    show: bool = option(False, "Open the first annotated result when done.", flags=("--show",))
    profile: bool = option(False, "Print where the time goes.", flags=("--profile",))
    quiet: bool = option(False, "Print no progress and no summary.", flags=("--quiet", "-q"))
    inference: InferenceOptions = InferenceOptions()
    tracking: TrackingOptions = TrackingOptions()
    style: DrawStyle = DrawStyle()
    source: SourceOptions = SourceOptions()


@with_options()
def predict(
    sources: list[str] = typer.Argument(
        metavar="SOURCE...",
        help="Pictures, folders, globs, videos; a camera (0), rtsp:// or http(s)://, "
        "ros:/TOPIC, a ROS recording, numbered pictures (FOLDER/%05d.jpg).",
    ),
    options: PredictOptions = PredictOptions(),
) -> None:
    """Find people and their joints in pictures and videos.

    Results go to humanpose-out/ (change with -o). A file that cannot be read is skipped, listed
    at the end, and makes the exit code 3. Ctrl-C ends early, with every result file complete.
    """
    from humanpose.api import PoseEstimator

    prediction = Prediction(sources, options)
    maps: dict[str, Any] = {"keep_maps": True} if prediction.needs_maps else {}
    estimator = PoseEstimator(options=options.inference, profile=prediction.profile, **maps)
    prediction.run(estimator)
    if not options.quiet:
        typer.echo(prediction.summary())
    if prediction.profile:
        typer.echo(prediction.profile.table(prediction.pictures + prediction.frames))
    for line in prediction.problems:
        typer.echo(line, err=True)
    if options.show and prediction.drawn:
        typer.launch(str(prediction.drawn[0]))
    if prediction.signal:
        raise typer.Exit(128 + prediction.signal)
    if prediction.problems:
        raise typer.Exit(EXIT_SKIPPED)


class Prediction:
    """One call of `predict`: planned and checked before a network is loaded, then run.

    Attributes:
        jobs: what is written together: all pictures, then each video.
        pictures, frames, people: done so far; frames are those of videos.
        seconds: spent on videos.
        drawn: annotated pictures and videos.
        problems: one line for each input that was skipped or damaged.
        signal: number of the signal that ended the run early, else 0.
        profile: where the time went, if asked for.

    Raises:
        InputError: a source does not exist or is empty, or `save` names a kind that is unknown
            or not for such a source.
        OutputError: a result exists and `force` is off.
    """

    _estimator: PoseEstimator
    _progress: Progress
    _stop: Stop

    def __init__(self, sources: Sequence[str], options: PredictOptions) -> None:
        self.options = options
        self.folder, self._force, save = options.output, options.force, options.save
        known = (*_DRAWN, *RECORDS)
        self._kinds = set(_DEFAULT if save is None else names_in("--save", save, known))
        self.jobs = self._plan(sources)
        self.pictures = self.frames = self.people = self.signal = 0
        self.seconds = 0.0
        self.drawn: list[Path] = []
        self.problems: list[str] = []
        self.profile = Profile() if options.profile else None

    @property
    def needs_maps(self) -> bool:
        """Whether people need their heat maps."""
        return "heatmaps" in self._kinds or self.options.style.view in WITH_MAPS

    def _plan(self, sources: Sequence[str]) -> list[Job]:
        items = find_inputs(sources, exclude=self.folder, as_video=self.options.as_video)
        pictures = tuple(item for item in items if item.kind == "picture")
        jobs: list[Job] = [
            ((item,), self.folder / item.output) for item in items if item.kind == "video"
        ]
        if self._kinds == {"trc"} and pictures:
            raise InputError(
                f"--save trc is for what moves, not for {pictures[0].path}; see --as-video"
            )
        if "heatmaps" in self._kinds and jobs:
            raise InputError(f"--save heatmaps is for pictures; {jobs[0][0][0].path} is a video")
        if pictures:
            name = "pictures"
            while any(item.output.with_suffix("") == Path(name) for item in items):
                name += "_all"  # so that no video's record has it
            record = pictures[0].output if len(pictures) == 1 else Path(f"{name}.json")
            jobs.insert(0, (pictures, self.folder / record))
        for path in (path for job in jobs for path in self._outputs(*job)):
            if path.exists() and not self._force:
                raise OutputError(
                    f"{path} exists; add --force to replace it, or -o for another folder"
                )
        return jobs

    def _outputs(self, items: tuple[InputItem, ...], record: Path) -> Iterator[Path]:
        """Return every file and folder that a job will write."""
        for item in items:
            if ("video" if item.kind == "video" else "image") in self._kinds:
                yield self.folder / item.output
            if "heatmaps" in self._kinds:
                yield self._maps_folder(item)
        yield from (record_path(kind, record) for kind in self._records(items[0]))

    def _maps_folder(self, item: InputItem) -> Path:
        drawn = self.folder / item.output
        return drawn.with_name(f"{drawn.stem}_heatmaps")

    def _records(self, item: InputItem) -> list[str]:
        """Return the kinds of records to write; TRC holds motion only."""
        drawn = _DRAWN if item.kind == "video" else (*_DRAWN, "trc")
        return sorted(self._kinds.difference(drawn))

    def run(self, estimator: PoseEstimator) -> None:
        """Do the jobs; an input that cannot be read is noted and the others are done.

        The first Ctrl-C or SIGTERM ends them after the frames at hand, with every file completed.
        """
        counted = self.profile.running() if self.profile else nullcontext()
        with counted, stopping() as stop, progress_bar(self.options.quiet) as progress:
            self._estimator, self._progress, self._stop = estimator, progress, stop
            for items, record in self.jobs:
                if stop.signal:
                    break
                try:
                    if items[0].kind == "video":
                        self._run_video(items[0], record)
                    else:
                        self._run_pictures(items, record)
                except InputError as error:
                    self.problems.append(f"skipped: {error}")
            if stop.signal:
                self.signal = stop.signal
                self.problems.append("interrupted: results are complete up to here")

    def _run_pictures(self, items: tuple[InputItem, ...], record: Path) -> None:
        problems: list[str] = []

        def load(item: InputItem) -> Loaded:
            try:
                name = (item.output.parent / item.path.name).as_posix()
                return item, Frame(load_image(item.path), name=name)
            except InputError as error:
                return item, error

        def estimate(loaded: Loaded) -> Loaded:
            item, frame = loaded
            return item, self._estimator.process(frame) if isinstance(frame, Frame) else frame

        with suppress(NothingDone), ExitStack() as stack:
            records = self._open_records(items, record, stack, problems)
            task = self._progress.add_task("pictures", total=len(items))
            wanted = takewhile(lambda _: not self._stop.signal, items)
            loaded = self._timed(map(load, wanted), READING)
            work = estimate if self.profile is None else self.profile.function(estimate)
            done: Iterator[Loaded]
            if len(items) == 1:
                done = map(work, loaded)
            else:  # reading, estimating and writing in threads of their own
                done = stack.enter_context(closing(overlapped(loaded, work)))
            before = self.pictures
            for item, frame in self._timed(done, WAITING, WRITING):
                self._progress.advance(task)
                if isinstance(frame, InputError):
                    problems.append(f"skipped: {frame}")
                    continue
                self._write_picture(item, frame, records)
            if self.pictures == before:
                raise NothingDone
        self.problems += problems

    def _timed(self, items: Iterator[T], *phases: str) -> Iterator[T]:
        return items if self.profile is None else self.profile.timed(items, *phases)

    def _write_picture(self, item: InputItem, frame: Frame, records: list[RecordSink]) -> None:
        if "image" in self._kinds:
            path = self.folder / item.output
            prepare_output(path, force=self._force)
            save_image(path, self.options.style.draw(frame))
            self.drawn.append(path)
        if "heatmaps" in self._kinds:
            self._save_heat_maps(self._maps_folder(item), frame)
        for record in records:
            record.write(frame)
        self.pictures += 1
        self.people += len(frame.people)

    def _save_heat_maps(self, folder: Path, frame: Frame) -> None:
        """Write joint_00_nose.jpg ...; stage_1.jpg ... show all joints. Without people: nothing."""
        maps = [person.maps for person in frame.people if person.maps is not None]
        if not maps:
            return
        if folder.exists() and not self._force:
            raise OutputError(f"{folder} exists; add --force to write into it")
        for i, name in enumerate(frame.people[0].skeleton.joints):
            heat = draw_heat(frame.image, frame.people, joint=i)
            save_image(folder / f"joint_{i:02}_{name}.jpg", heat)
        for stage in range(len(maps[0])):
            heat = draw_heat(frame.image, frame.people, stage=stage)
            save_image(folder / f"stage_{stage + 1}.jpg", heat)

    def _run_video(self, item: InputItem, record: Path) -> None:
        options, how = self.options, self.options.source
        start, before = time.perf_counter(), self.frames
        with (
            open_source(item.source, rate=how.rate, topic=how.topic, retries=how.retries) as video,
            ExitStack() as stack,
        ):
            stack.enter_context(self._stop.calling(video.stop))
            total = options.frames or video.frames
            task = self._progress.add_task(item.path.name, total=total, source=video)
            smoothing = options.tracking.method(live=video.live)
            sinks: list[Any] = self._open_records((item,), record, stack, video.problems, smoothing)
            stack.callback(video.close)  # before the record, whose footer holds the problems
            if "video" in self._kinds:
                sinks.append(self._open_video(item, video, stack))
            # Closed before the video is, also on an error: its thread must not read a closed file.
            done = stack.enter_context(closing(self._estimator.follow(video, options.tracking)))
            for frame in self._timed(done, WAITING, WRITING):
                if options.seconds is not None and frame.time >= options.seconds:
                    break
                for sink in sinks:
                    sink.write(frame)
                self.frames += 1
                self.people += len(frame.people)
                self._progress.advance(task)
                if self.frames - before == options.frames:
                    break
        self.problems += video.problems
        self.seconds += time.perf_counter() - start

    def _open_video(self, item: InputItem, video: Any, stack: ExitStack) -> Any:
        """Open the annotated video of `video`; the sink is closed with `stack`."""
        from humanpose.media.sinks.video import VideoSink
        from humanpose.media.sources.video import VideoSource

        path = self.folder / item.output
        sink = VideoSink(
            *(path, video.width, video.height, video.rate),
            look=self.options.style,
            audio=item.path if isinstance(video, VideoSource) and item.path.exists() else None,
            force=self._force,
        )
        # Called after the sink is closed, when it knows all of its problems.
        stack.callback(lambda: video.problems.extend(sink.problems))
        self.drawn.append(path)
        return stack.enter_context(sink)

    def _open_records(
        self,
        items: tuple[InputItem, ...],
        record: Path,
        stack: ExitStack,
        problems: list[str],
        smoothing: Smoothing | None = None,
    ) -> list[RecordSink]:
        if not (kinds := self._records(items[0])):
            return []
        one = without_password(items[0].source)
        source = one if len(items) == 1 else f"{len(items)} pictures"
        header = self._estimator.header(source, smoothing)
        sink = RecordSink(record, header, kinds, problems=problems, force=self._force)
        return [stack.enter_context(sink)]

    def summary(self) -> str:
        """Return one line for the user."""
        rate = self.frames / max(self.seconds, 1e-9)
        pictures = [f"{self.pictures} picture{'s' * (self.pictures > 1)}"] * bool(self.pictures)
        frames = [f"{self.frames} frames ({rate:.1f} frames/s)"] * bool(self.frames)
        done = " and ".join(pictures + frames) or "nothing"
        people = f"{self.people} {'person' if self.people == 1 else 'people'}"
        return f"{done} done, {people}; results in {self.folder}/"
