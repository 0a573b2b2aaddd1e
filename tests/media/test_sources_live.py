"""Cameras and streams: found, lost, found again; hung, killed, refused; and never a thread more."""

import functools
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from makers.media import EVEN, Feed, mjpeg, quarters, rtsp, video, wait_for

from humanpose.errors import InputError
from humanpose.infer.stream import Live, results
from humanpose.media.sources import camera, capture, open_source
from humanpose.media.sources import video as sources_video
from humanpose.media.sources.camera import LiveSource


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = threading.active_count()
    children = set(psutil.Process().children())  # of other tests: multiprocessing's own tracker
    yield
    wait_for(lambda: threading.active_count() <= before)
    assert set(psutil.Process().children()) <= children


def reader() -> psutil.Process:
    """The one child that reads a source."""
    (child,) = [p for p in psutil.Process().children() if any("capture" in a for a in p.cmdline())]
    return child


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "STALL_S", 0.7)


def identity(frame):
    return frame


@contextmanager
def watched(url: str) -> Iterator[Live]:
    with Live(open_source(url), identity) as shown:
        wait_for(lambda: shown.result is not None)
        yield shown


def age_of(frame, feed: Feed) -> float:
    """Seconds since the server made the picture, by what the picture shows."""
    return time.monotonic() - feed.sent[round(float(frame.image.mean()))]


@pytest.mark.parametrize("server", [mjpeg, rtsp])
def test_stream_gives_the_newest_frames_with_their_times(server) -> None:
    with server(30) as feed, open_source(feed.url) as source:
        assert source.live and (source.width, source.height) == (64, 48)
        frames, ages = [], []
        for frame in source:
            frames.append(frame)
            ages.append(age_of(frame, feed))
            if frame.time > 1.5:
                source.stop()
        assert [f.index for f in frames] == list(range(len(frames))) and len(frames) > 30
        assert frames[0].time == 0 and frames[5].name == f"{source.name}#5"
        assert all(b.captured >= a.captured for a, b in itertools.pairwise(frames))
        assert np.median(ages) < 0.15  # a stream holds one frame back
        assert source.problems == [] and source.state == ""


def test_results_of_a_stream_are_one_frame_and_one_inference_old() -> None:
    def slow(frame):
        time.sleep(0.2)
        return frame

    with mjpeg(30) as feed:
        ages = []
        frames = results(open_source(feed.url), slow)
        for frame in frames:
            ages.append(age_of(frame, feed))
            if frame.time > 4:
                break
        frames.close()
    assert len(ages) > 12 and np.median(ages) < 1 / 30 + 0.2 + 0.04  # and the way through the child


def cycle(shown: Live, feed: Feed, event: threading.Event) -> tuple[float, float]:
    """(seconds until a loss is noticed, from the source's return to the next frame)."""
    start = time.monotonic()
    event.set()
    wait_for(lambda: shown.source.state, 10)
    noticed = time.monotonic() - start
    event.clear()
    start, losses = time.monotonic(), shown.source.losses
    wait_for(lambda: not shown.source.state, 20)
    assert shown.source.losses == losses
    count = shown.statistics().results
    wait_for(lambda: shown.statistics().results > count, 10)
    return noticed, time.monotonic() - start


@pytest.mark.parametrize("server", [mjpeg, rtsp])
def test_a_lost_stream_is_found_again(server, impatient: None) -> None:
    with server(30) as feed:
        before = threading.active_count()
        with watched(feed.url) as shown:
            for event in (feed.stalled, feed.refusing):
                cycle(shown, feed, event)
            assert "attempt" not in shown.source.state
            assert shown.source.losses == 2
        wait_for(lambda: threading.active_count() <= before)
        (line,) = shown.source.problems
        assert line.startswith(f"{feed.url}: lost 2 times, ")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_two_hundred_losses_are_noticed_in_three_seconds_and_mended_in_five() -> None:
    with mjpeg(30) as feed:
        before = threading.active_count()
        with watched(feed.url) as shown:
            event = {0: feed.stalled, 1: feed.stalled, 2: feed.refusing}
            times = np.array([cycle(shown, feed, event[i % 3]) for i in range(200)])
            now = threading.active_count()
        print(f"\nnoticed {times[:, 0].max():.2f} s, back {times[:, 1].max():.2f} s at most")
        assert times[:, 0].max() <= 3 and times[:, 1].max() <= 5
        assert shown.source.losses == 200 and now <= before + 4  # two of ours, two of the server's


def test_a_reader_that_hangs_in_its_driver_is_replaced(impatient: None) -> None:
    with mjpeg(30) as feed, watched(feed.url) as shown:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            child = reader()
            losses = shown.source.losses
            child.send_signal(number)
            wait_for(lambda losses=losses: shown.source.losses > losses)
            wait_for(lambda: not shown.source.state)
            assert reader().pid != child.pid


def test_stop_ends_the_wait_for_a_lost_source(impatient: None) -> None:
    with mjpeg(30) as feed, watched(feed.url) as shown:
        feed.refusing.set()
        wait_for(lambda: "attempt 3" in shown.source.state)
        start = time.monotonic()
        shown.stop()
        assert time.monotonic() - start < 2 and shown.over and shown.error is None


def test_attempts_may_be_limited() -> None:
    with mjpeg(30) as feed, open_source(feed.url, retries=2) as source:
        for frame in source:
            if frame.index == 5:
                feed.refusing.set()
    assert source.losses == 1 and len(source.problems) == 1
    assert "lost after 2 attempts (" in source.problems[0]


def test_what_cannot_be_reached_is_one_line_without_the_password() -> None:
    with mjpeg() as feed:
        gone = feed.url
    for url, words in (
        (gone.replace("//", "//user:secret@"), "Connection refused"),
        ("rtsp://user:secret@127.0.0.1:1/live?key=secret", "Connection refused"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            open_source(url)
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    with mjpeg() as feed:
        feed.refusing.set()
        with pytest.raises(InputError, match=r"cannot be read: .*5XX"):
            open_source(feed.url)


def test_a_stream_without_pictures_is_one_line(impatient: None, monkeypatch) -> None:
    monkeypatch.setattr(camera, "_FIRST_S", 1.0)
    with mjpeg() as feed:
        feed.stalled.set()
        with pytest.raises(InputError, match=r"nothing came for 1\.0 s"):
            open_source(feed.url)


def test_a_camera_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for address in ("97", "/dev/video97", "/dev/v4l/by-id/none"):
        with pytest.raises(InputError, match=rf"camera {address}: there is no /dev/.*97|none"):
            open_source(address)
    (tmp_path / "fake").write_bytes(b"x")
    with pytest.raises(InputError, match="another program uses it, or it is no camera"):
        LiveSource(str(tmp_path / "fake"), "camera", "fake")


def test_camera_pictures_are_rgb_and_end_when_it_is_unplugged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV reads a file in place of a camera; the file's name stands for the device."""
    path = video(tmp_path / "camera.mp4", [i / 30 for i in range(60)], size=(64, 48))
    monkeypatch.setattr(cv2, "CAP_V4L2", cv2.CAP_ANY)
    monkeypatch.setattr(capture, "_CHECK_S", 0.0)
    frames = capture.camera(str(path))
    image, rate = next(frames)
    assert np.abs(image.astype(int) - quarters(64, 48)).mean() < 8 and abs(rate - 30) < 1
    os.unlink(path)
    with pytest.raises(InputError, match="still plugged in"):
        next(frames)


@contextmanager
def served(folder: Path, cut: int | None = None) -> Iterator[str]:
    """Address of a server for the files in `folder`, which stalls after `cut` bytes."""
    over = threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def copyfile(self, source, target) -> None:
            target.write(source.read(cut))
            if cut is not None:
                over.wait(20)

    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        over.set()
        server.shutdown()
        thread.join()


def test_a_video_behind_an_address_is_read_whole(tmp_path: Path) -> None:
    video(tmp_path / "walk.mp4", EVEN, movflags="faststart")
    with served(tmp_path) as url, open_source(f"{url}/walk.mp4?token=secret") as source:
        frames = list(source)
    assert not source.live and source.name == "walk.mp4" and source.problems == []
    assert np.allclose([f.time for f in frames], EVEN, atol=1e-3)


def test_a_video_whose_transfer_stalls_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_video, "_TIMEOUT_S", 1.0)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    times = [i / 10 for i in range(200)]
    whole = video(
        tmp_path / "a.mp4", times, picture=noise, movflags="faststart", encoder={"g": "1"}
    )
    half = whole.stat().st_size // 2
    with served(tmp_path, cut=half) as url, open_source(f"{url}/a.mp4") as source:
        frames = list(source)
    assert 20 < len(frames) < 190
    assert source.problems == [f"a.mp4: ends early, {len(frames)} of 200 frames could be read"]
