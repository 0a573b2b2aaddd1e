"""`Live`: the newest frame and the newest result, whatever the source and the networks do."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.media import video, wait_for

from humanpose.infer.stream import Live, results
from humanpose.media.sources import open_source
from humanpose.types import Frame

IMAGE = np.zeros((4, 6, 3), np.uint8)


class Clock:
    """A live source of `rate` frames per second, in the shape that `Live` asks for."""

    def __init__(self, rate: float = 30.0, count: float = float("inf"), live: bool = True) -> None:
        self.rate, self.count, self.live = rate, count, live
        self.closed = False
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        start, i = time.monotonic(), 0
        while i < self.count and not self._stopped.is_set():
            taken = time.monotonic() if self.live else None
            yield Frame(IMAGE, i, i / self.rate, f"clock#{i}", captured=taken)
            i += 1
            if self.live:
                self._stopped.wait(max(start + i / self.rate - time.monotonic(), 0))

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self.closed = True


def slow(seconds: float) -> Callable[[Frame], Frame]:
    def process(frame: Frame) -> Frame:
        time.sleep(seconds)
        return replace(frame, name=f"{seconds:g}")

    return process


def no_thread_is_left() -> None:
    wait_for(
        lambda: not [t for t in threading.enumerate() if t.name in ("capture", "inference")], 2
    )


def ages_of(seconds: float) -> tuple[np.ndarray, int, int]:
    """(ages of results at 5 per second from 30 frames per second, captured, dropped)."""
    source = Clock(30)
    live = Live(source, slow(0.2))
    ages, end = [], time.monotonic() + seconds
    frames = live.follow()
    with live, frames:
        for frame in frames:
            ages.append(time.monotonic() - frame.captured)
            if time.monotonic() > end:
                break
    assert source.closed
    no_thread_is_left()
    done = live.statistics()
    assert done.captured - done.results - done.dropped in (0, 1, 2)  # at hand, and fresh
    return np.array(ages), done.captured, done.dropped


def judge_ages(ages: np.ndarray, captured: int, dropped: int) -> None:
    # One frame and one inference; a busy machine may be late now and then, never more and more.
    assert np.median(ages) <= 1 / 30 + 0.2 + 0.02
    third = len(ages) // 3
    print(f"\nage {np.median(ages):.3f} s, worst {ages.max():.3f} s, of {len(ages)} results")
    assert abs(np.median(ages[-third:]) - np.median(ages[:third])) < 0.03
    assert dropped > 0.7 * captured


def test_results_are_one_frame_and_one_inference_old() -> None:
    judge_ages(*ages_of(8))


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_results_grow_no_older_in_ten_minutes() -> None:
    judge_ages(*ages_of(600))


def test_statistics_count_everything() -> None:
    with Live(Clock(50), slow(0.1)) as live:
        wait_for(lambda: live.statistics().results >= 15)
        now = live.statistics()
        assert live.frame is not None and live.result is not None
        assert live.frame.index > live.result.index
    assert now.captured - now.results - now.dropped in (0, 1, 2)  # at hand, and fresh
    assert 25 < now.capture_rate < 60 and 4 < now.result_rate < 11 and 0.1 < now.age < 0.5


def test_the_estimator_is_swapped_while_running() -> None:
    live = Live(Clock(100), slow(0.001))
    with live:
        wait_for(lambda: live.result and live.result.name == "0.001")
        live.process = slow(0.002)
        at = live.frame.index
        wait_for(lambda: live.result.name == "0.002")
        assert live.result.index <= at + 30


def test_on_demand_looks_only_when_asked() -> None:
    live = Live(Clock(100), slow(0.001))
    live.continuous = False
    with live:
        wait_for(lambda: live.statistics().captured > 10)
        assert live.result is None
        live.look()
        wait_for(lambda: live.result is not None)
        time.sleep(0.1)
        done = live.statistics()
        assert done.results == 1 and done.dropped == 0
        live.continuous = True
        wait_for(lambda: live.statistics().results > 5)


def test_an_error_of_the_estimator_is_shown_and_passes() -> None:
    def broken(frame: Frame) -> Frame:
        raise ValueError("wrong size")

    live = Live(Clock(100), broken)
    follower = live.follow()
    with live:
        wait_for(lambda: live.error is not None)
        assert str(live.error) == "wrong size"
        with pytest.raises(ValueError, match="wrong size"), follower as frames:
            next(iter(frames))
        live.process = slow(0.001)
        wait_for(lambda: live.result is not None)
        assert live.error is None


def test_an_error_of_the_source_ends_the_capture() -> None:
    class Broken(Clock):
        def __iter__(self) -> Iterator[Frame]:
            yield from super().__iter__()
            raise OSError("unplugged")

    live = Live(Broken(100, count=3), slow(0.001))
    got = []
    with live.follow() as frames, live:
        with pytest.raises(OSError, match="unplugged"):
            for frame in frames:
                got.append(frame.index)
        assert live.over and str(live.error) == "unplugged"
        with pytest.raises(OSError, match="unplugged"), live.follow() as late:
            next(iter(late))
    assert got[-1] == 2


def test_a_slow_sink_makes_nothing_older() -> None:
    live = Live(Clock(100), slow(0.001))
    with live:
        with live.follow() as frames:
            for count, _ in enumerate(frames):
                time.sleep(0.05)
                if count == 30:
                    break
        wait_for(lambda: live.statistics().age < 0.1)
        assert live.statistics().dropped > 50


def test_stop_comes_back_from_everywhere() -> None:
    for _ in range(20):
        with Live(Clock(200), slow(0.001)):
            pass
    live = Live(Clock(30), slow(0.001))
    live.stop()  # never begun
    frames = results(Clock(100), slow(0.001))
    next(frames)
    frames.close()
    no_thread_is_left()


def test_a_file_is_played_by_its_own_clock(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", [0, 0.1, 0.2, 0.7, 0.8])
    start = time.monotonic()
    taken = {}
    live = Live(open_source(path), slow(0.001))
    with live.follow() as frames, live:
        for frame in frames:
            taken[frame.index] = frame.captured - start
    assert live.over and live.error is None
    assert taken[4] - taken[0] >= 0.79 and taken[3] - taken[2] >= 0.45


def test_results_of_a_file_are_all_its_frames() -> None:
    source = Clock(count=40, live=False)
    assert [f.index for f in results(source, slow(0.002))] == list(range(40))
    source = Clock(100, count=40)
    got = [f.index for f in results(source, slow(0.05))]
    assert len(got) < 20 and got == sorted(got) and got[-1] == 39 and source.closed
