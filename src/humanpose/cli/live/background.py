"""Threads behind the live window: work that it asks for, and recordings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from humanpose.cli.options import NothingDone
from humanpose.draw import DrawStyle
from humanpose.errors import HumanPoseError
from humanpose.infer.stream import Live
from humanpose.media.sinks.record import RecordSink
from humanpose.media.sources.source import Source
from humanpose.results import Record
from humanpose.types import Frame


def one_line(error: Exception) -> str:
    """Return the message of `error` for the user."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, HumanPoseError) else f"{type(error).__name__}: {text}"


class Worker:
    """Runs `work` in a thread of its own when asked.

    All requests that come while it works lead to one more run.
    """

    def __init__(
        self, name: str, work: Callable[[], None], failed: Callable[[str, Exception], None]
    ) -> None:
        """Begin to wait; `failed` is called with the name and what `work` raised."""
        self._name, self._work, self._failed = name, work, failed
        self._working = self._closed = False
        self._asked = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a request is not yet done."""
        return self._asked.is_set() or self._working

    def ask(self) -> None:
        """Request a run; return at once."""
        self._asked.set()

    def close(self, patience: float) -> None:
        """Wait up to `patience` seconds for the present run; none follows."""
        self._closed = True
        self._asked.set()
        self._thread.join(patience)

    def _run(self) -> None:
        while self._asked.wait() and not self._closed:
            self._working = True
            self._asked.clear()
            try:
                self._work()
            except Exception as error:  # shown to the user; the next run may go well
                self._failed(self._name, error)
            self._working = False


class Recording:
    """Writes every result from now on in a thread of its own; times begin at 0.

    Attributes:
        path: of the video; the record has the suffix .jsonl.
        frames: written so far.
        problem: why it ended before `stop`, "" if it did not.
        running: until the files are finished.
    """

    def __init__(
        self,
        live: Live,
        source: Source,
        path: Path,
        header: Record,
        look: DrawStyle,
        done: Callable[[Recording], None],
    ) -> None:
        """Begin; `done` is called in the recording's thread when the files are finished."""
        from humanpose.media.sinks.video import VideoSink

        self.path, self.frames, self.problem, self.running = path, 0, "", True
        self._video = VideoSink(path, source.width, source.height, source.rate, look=look)
        self._record = RecordSink(path, header, ["jsonl"])
        self._done, self._stopped, self._results = done, False, live.follow()
        # The frame that is being processed may still be processed by other networks.
        self._after = -1 if live.frame is None else live.frame.index
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the files and wait for it."""
        self._stopped = True
        self._results.end()
        self._thread.join()

    def _run(self) -> None:
        start = 0.0
        try:
            with self._results as results, self._video as video, self._record as record:
                for frame in self._good(results):
                    start = start if self.frames else frame.time
                    frame = replace(frame, time=frame.time - start)
                    video.write(frame)
                    record.write(frame)
                    self.frames += 1
                if not self.frames:
                    raise NothingDone
        except NothingDone:
            if not self._stopped:
                self.problem = self.problem or "there was nothing to record"
        except Exception as error:  # shown in the window
            part = self.path.with_name(f"{self.path.name}.part")
            kept = f"; what there is lies in {part}" if part.exists() else ""
            self.problem = f"the recording ended: {one_line(error)}{kept}"
        finally:
            self.running = False
            self._done(self)

    def _good(self, results: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the results up to an error, which ends the recording and spoils nothing."""
        try:
            yield from (frame for frame in results if frame.index > self._after)
        except Exception as error:
            self.problem = f"the recording ended: {one_line(error)}"
