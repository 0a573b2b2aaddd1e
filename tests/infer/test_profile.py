"""predict --profile: the time of every phase of every thread."""

from __future__ import annotations

import pytest

from humanpose.infer import profile as profiling
from humanpose.infer.profile import Profile


@pytest.fixture
def clock(monkeypatch):
    """The profile's clock; the test moves it."""

    class Clock:
        now = 100.0

        def tick(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: clock.now)
    return clock


def test_a_run_of_a_network_is_not_the_time_of_the_work_around_it(clock):
    profile = Profile()

    class Slow:
        name, precision = "slow", "float32"

        def run(self, crops):
            clock.tick(5)
            return {"maps": crops}

    timed = profile.runtime(Slow(), profiling.POSE)
    assert (timed.name, timed.precision) == ("slow", "float32")

    def work(item):
        clock.tick(2)
        assert timed.run(item) == {"maps": item}
        clock.tick(1)
        return -item

    with profile.running():
        clock.tick(1)
        assert profile.function(work)(7) == -7
        clock.tick(1)
    by_phase = {name: seconds for (_, name), seconds in profile.seconds.items()}
    assert by_phase == {profiling.REST: 3, profiling.POSE: 5}
    assert profile.wall == 10


def test_the_shares_of_a_thread_make_the_whole_and_waiting_is_not_counted_twice(clock):
    profile = Profile()

    def source():
        for i in range(4):
            clock.tick(2)
            yield i

    with profile.running():
        due = profile.timed(source(), profiling.WAITING)

        def smoothed():
            for item in due:
                clock.tick(0.5)
                yield item

        for _ in profile.timed(smoothed(), profiling.SMOOTHING, profiling.WRITING):
            clock.tick(1)
        clock.tick(1)  # outside every phase
    lines = profile.table(4).splitlines()
    cells = {line[11:31].strip(): line[31:].split() for line in lines[2:-1]}
    assert cells == {
        "smoothing": ["500.00", "13.3%"],
        "drawing, writing": ["1000.00", "26.7%"],
        "waiting": ["2250.00", "60.0%"],
    }
    assert "4 frames in 15.00 s, 3750.00 ms a frame" in lines[0]
    assert lines[-1].endswith(": main")


def test_leaving_a_timed_loop_closes_what_it_runs_over():
    closed = []

    def source():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    frames = Profile().timed(source(), profiling.READING)
    for _ in frames:
        break
    frames.close()
    assert closed == [True]


def test_predict_profile_names_every_phase_of_a_video(cli, data, tmp_path):
    video = data / "videos" / "dance.mp4"
    options = ("-o", tmp_path, "--frames", "4", "--smoothing", "kalman", "--save", "jsonl")
    code, out, _ = cli("predict", video, *options, "--profile")
    assert code == 0 and "where the time goes: 4 frames" in out
    for name in (
        *("reading, decoding", "detector", "pose network", "crops, maps, tracks", "smoothing"),
        *("drawing, writing", "waiting"),
    ):
        assert name in out, name
    plain = cli("predict", video, *options, "--force")
    assert plain[0] == 0 and "where the time goes" not in plain[1]


def test_predict_profile_of_pictures(cli, noise_picture, tmp_path):
    _, out, _ = cli(
        "predict", noise_picture, "-o", tmp_path / "o", "--profile", "--detector", "none"
    )
    for name in ("reading, decoding", "pose network", "crops, maps, tracks", "drawing, writing"):
        assert name in out
    assert "smoothing" not in out and "detector" not in out
