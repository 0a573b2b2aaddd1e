"""What runs behind the live window: source, networks, drawing and recording.

Each is replaced while the others run. No method waits for a network, a source or a disk, except
`close`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from humanpose.cli.live.background import Recording, Worker, one_line
from humanpose.cli.live.settings import LiveOptions
from humanpose.cli.options import changed, fields_of
from humanpose.errors import InputError
from humanpose.images import save_image
from humanpose.infer.options import Rts
from humanpose.infer.smooth import Smoother
from humanpose.infer.stream import Live, Process
from humanpose.media.sinks.record import RecordSink
from humanpose.media.sources import open_source, result_name, source_kind
from humanpose.media.sources.source import Source, without_password
from humanpose.results import Record
from humanpose.types import U8, Frame

if TYPE_CHECKING:
    from humanpose.api import PoseEstimator

_SAVED = (".png", ".json", ".mp4", ".jsonl", ".mp4.part", ".jsonl.part")
_PATIENCE = 3.0  # seconds that `close` waits for what is being loaded, opened or drawn


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A result and the picture (H, W, 3) that was drawn of it."""

    result: Frame
    picture: U8


class Session:
    """One source, one set of networks and their results.

    Attributes:
        options: what is asked for; a part that fails falls back to what runs.
        live: capture and inference; None before the first source is open.
        drawn: the newest result as it is to be shown, None before the first.
        problems: present problems by part: "networks", "source" ...
        said: what was saved last.
    """

    def __init__(self, options: LiveOptions) -> None:
        """Nothing runs before `start`."""
        self.options = options
        self.live: Live | None = None
        self.drawn: Drawn | None = None
        self.problems: dict[str, str] = {}
        self.said = ""
        self._estimator: PoseEstimator | None = None
        self._follower: Process = lambda frame: frame
        self._loaded = self._opened = options
        self._source: Source | None = None
        self._recording: Recording | None = None
        self._closed = False
        self._asking = threading.Lock()  # of `options` alone: held for moments
        # Of what runs: source, networks, recording. Never taken by the window's own thread.
        self._swapping = threading.RLock()
        self._networks = Worker("networks", self._load, self._complain)
        self._sources = Worker("source", self._open, self._complain)
        self._drawing = Worker("drawing", self._draw, self._complain)
        self._files = ThreadPoolExecutor(1, "files")

    def start(self) -> None:
        """Begin to load and to open."""
        self._networks.ask()
        self._sources.ask()
        if self.options.record:
            self.record(True)

    def change(self, **changes: Any) -> None:
        """Ask for other options; they act as soon as they can be had.

        "source" reopens also what is open already.
        """
        try:
            with self._asking:
                self.options = changed(self.options, changes)
        except InputError as error:
            self.problems["options"] = str(error)
            return
        self.problems.pop("options", None)
        if "continuous" in changes:
            self._set_continuous()

        def touches(part: str) -> bool:
            return any(each.name in changes for each in fields_of(getattr(self.options, part)))

        if touches("inference"):
            self.problems.pop("networks", None)
        if touches("inference") or touches("tracking"):
            self._networks.ask()
        if touches("opening") or "source" in changes:
            self.problems.pop("source", None)
            self._sources.ask()
        if touches("style"):
            self._drawing.ask()

    def refresh(self) -> None:
        """Request a drawing of the newest result if `drawn` is an older one."""
        result = None if self.live is None else self.live.result
        if result is not None and (self.drawn is None or self.drawn.result is not result):
            self._drawing.ask()

    def look(self) -> None:
        """Process the newest frame now."""
        if self.live is not None and self._estimator is not None:
            self.live.look()

    def snapshot(self) -> Future[None]:
        """Save the newest result, as it is shown, as PNG and its record as JSON."""
        return self._files.submit(self._try, "snapshot", self._snapshot)

    def record(self, on: bool) -> Future[None]:
        """Begin or finish a recording: an mp4 as it is shown, and a jsonl record."""
        self._set_record(on)
        return self._files.submit(self._try, "recording", self._renew_recording)

    @property
    def recording(self) -> Path | None:
        """The video that is being written, None if none is."""
        recording = self._recording
        return None if recording is None or not recording.running else recording.path

    @property
    def busy(self) -> str:
        """Name what is being loaded or opened, "" if nothing."""
        loading = f"loading {self.options.inference.model}"
        opening = f"opening {without_password(self.options.source)}"
        return ", ".join([loading] * self._networks.busy + [opening] * self._sources.busy)

    def trouble(self) -> list[str]:
        """Return one line for each problem of now."""
        lines = list(self.problems.values())
        if self._source is not None and self._source.state:
            lines.append(f"{without_password(self._opened.source)} {self._source.state}")
        if self.live is not None and self.live.error is not None:
            lines.append(one_line(self.live.error))
        return lines

    def close(self) -> None:
        """End everything and finish every file; a thread that hangs ends with the program."""
        if self._closed:
            return
        self.record(False)
        self._files.shutdown(wait=True)
        with self._swapping:
            self._closed, live = True, self.live
        if live is not None:
            live.stop()
        for worker in (self._networks, self._sources, self._drawing):
            worker.close(_PATIENCE)

    def _complain(self, part: str, error: Exception) -> None:
        self.problems[part] = one_line(error)
        if part == "recording":
            self._set_record(False)

    def _try(self, part: str, work: Callable[[], None]) -> None:
        self.problems.pop(part, None)
        try:
            work()
        except Exception as error:  # shown in the window, which goes on
            self._complain(part, error)

    def _fall_back(self, asked: LiveOptions, running: LiveOptions, *parts: str) -> None:
        """Return to the `running` parts: those `asked` for failed. Newer requests stay."""
        with self._asking:
            if all(getattr(self.options, part) == getattr(asked, part) for part in parts):
                back = {part: getattr(running, part) for part in parts}
                self.options = replace(self.options, **back)

    def _load(self) -> None:
        """Bring networks, tracking and smoothing in line with the options."""
        from humanpose.api import PoseEstimator

        asked, estimator = self.options, self._estimator
        if estimator is None or asked.inference != self._loaded.inference:
            try:
                # With maps, so that every view can be had at once.
                estimator = PoseEstimator(options=asked.inference, keep_maps=True)
            except Exception:
                self._fall_back(asked, self._loaded, "inference")
                if self._estimator is not None:
                    self._networks.ask()  # for what else was asked
                raise
        with self._swapping:
            new, old = asked.tracking, self._loaded.tracking
            anew = (new.track, new.detect_every) != (old.track, old.detect_every)
            anew = anew or estimator is not self._estimator
            self._estimator, self._loaded = estimator, asked
            if self.live is not None:
                self._stop_recording()  # a record belongs to one set of networks
                self.live.process = self._process(anew)
                self._set_continuous()
                self._renew_recording()
                if self.live.over and self.live.result is None:
                    self._sources.ask()  # a video that was over before the networks were there

    def _process(self, anew: bool) -> Process:
        """Return the function for `Live`: people with numbers (`anew`: new ones), smoothed."""
        estimator, tracking = self._estimator, self._loaded.tracking
        if estimator is None:  # the networks are not there yet, and nothing asks
            return lambda frame: frame
        if anew:
            every = tracking.detect_every
            self._follower = estimator.follower(every) if tracking.track else estimator.process
        follower, method = self._follower, tracking.method(live=True)
        if method is None:
            return follower
        assert not isinstance(method, Rts)  # which `LiveOptions` does not know: it waits for later
        smoother = Smoother(method)

        def process(frame: Frame) -> Frame:
            frame = follower(frame)
            return replace(frame, people=smoother.update(frame.people, frame.time))

        return process

    def _set_continuous(self) -> None:
        if self.live is not None:
            self.live.continuous = self.options.continuous and self._estimator is not None

    def _open(self) -> None:
        """Open the source that is asked for; it replaces the present one."""
        asked, old = self.options, self.live
        if old is not None and asked.source == self._opened.source:
            self._stop_recording()
            old.stop()  # two cannot have one camera
        try:
            source = open_source(asked.source, **asdict(asked.opening))
        except Exception:
            if old is not None:
                self._fall_back(asked, self._opened, "source", "opening")
            raise
        with self._swapping:
            if self._closed:
                source.close()
                return
            self._stop_recording()
            if old is not None:
                old.stop()  # before the next begins: they share the networks
            live = Live(source, self._process(anew=True))  # another source, other people
            self.live, self.drawn, self._opened, self._source = live, None, asked, source
            self._set_continuous()
            live.start()
            self._renew_recording()

    def _draw(self) -> None:
        live = self.live
        if live is not None and (result := live.result) is not None:
            picture = self.options.style.draw(result)
            if live is self.live:
                self.drawn = Drawn(result, picture)

    def _header(self, estimator: PoseEstimator) -> Record:
        method = self._loaded.tracking.method(live=True)
        return estimator.header(without_password(self._opened.source), method)

    def _free_path(self) -> Path:
        """Return a path without files yet, for snapshots and recordings."""
        text = self._opened.source
        name = result_name(text) if source_kind(text) else Path(text).stem
        name = f"{name.replace('.', '-')}_{time.strftime('%Y%m%d-%H%M%S')}"
        path, number = Path(self.options.output, name), 1
        while any(path.with_suffix(suffix).exists() for suffix in _SAVED):
            number += 1
            path = path.with_name(f"{name}_{number}")
        return path

    def _snapshot(self) -> None:
        frame = None if self.live is None else self.live.result
        estimator = self._estimator
        if frame is None or estimator is None:
            raise InputError("there is no result to save yet")
        path = self._free_path()
        with RecordSink(path, self._header(estimator), ["json"]) as record:
            record.write(frame)
            save_image(path.with_suffix(".png"), self.options.style.draw(frame))
        self.said = f"saved {path}.png and .json"

    def _stop_recording(self) -> None:
        with self._swapping:
            recording, self._recording = self._recording, None
            if recording is not None:
                recording.stop()

    def _renew_recording(self) -> None:
        """Finish the recording there is, if any, and begin one if the options say so."""
        with self._swapping:
            self._stop_recording()
            live, source, estimator = self.live, self._source, self._estimator
            if self.options.record and live and source and estimator:
                path, header = self._free_path().with_suffix(".mp4"), self._header(estimator)
                look = self.options.style
                self._recording = Recording(live, source, path, header, look, self._recorded)

    def _recorded(self, recording: Recording) -> None:
        if recording.frames:
            self.said = f"recorded {recording.frames} frames in {recording.path}"
        if recording.problem:
            self._complain("recording", InputError(recording.problem))
        elif self.live is not None and self.live.over:
            self._set_record(False)

    def _set_record(self, on: bool) -> None:
        with self._asking:
            self.options = replace(self.options, record=on)
