"""What runs behind the live window, without a window."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.media import video, wait_for

from humanpose import PoseEstimator
from humanpose.cli.live.background import Recording, Worker
from humanpose.cli.live.session import Session
from humanpose.cli.live.settings import FILE, LiveOptions, choices
from humanpose.cli.options import changed
from humanpose.draw import DrawStyle
from humanpose.infer.stream import Live
from humanpose.media.sources import open_source
from humanpose.results import read_records
from humanpose.types import Frame


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return video(tmp_path / "clip.mp4", np.arange(100) / 20)


@pytest.fixture
def session(clip: Path, tmp_path: Path) -> Iterator[Session]:
    out = str(tmp_path / "out")
    session = Session(
        changed(LiveOptions(), {"source": str(clip), "detector": "none", "output": out})
    )
    session.start()
    yield session
    session.close()


def test_a_worker_does_what_is_asked_meanwhile_once_more() -> None:
    done, failures, go = [], [], threading.Event()

    def work() -> None:
        done.append(len(done))
        go.wait(10)
        if len(done) == 2:
            raise ValueError("second")

    worker = Worker("test", work, lambda name, error: failures.append(f"{name}: {error}"))
    worker.ask()
    wait_for(lambda: done)
    for _ in range(100):
        worker.ask()
    assert worker.busy
    go.set()
    wait_for(lambda: not worker.busy)
    assert done == [0, 1] and failures == ["test: second"]
    worker.ask()
    wait_for(lambda: len(done) == 3)
    worker.close(5)
    worker.ask()
    time.sleep(0.05)
    assert len(done) == 3


def test_of_many_changes_the_last_holds(session: Session) -> None:
    for size in (128, 160, 192, 224):
        session.change(size=size, precision="float32")
    wait_for(lambda: session.live and session.live.result and not session.busy, 60)
    wait_for(lambda: session.live.result.people[0].maps.shape[-2] == 224 // 4)
    session.change(size=4)
    assert (
        "size must be at least 8" in session.trouble()[0] and session.options.inference.size == 224
    )
    session.change(size=33)  # no multiple of the network's 32
    wait_for(lambda: "networks" in session.problems)
    assert session.options.inference.size == 224 and session.live.error is None


def test_networks_that_cannot_be_had_hold_nothing_else_up(session: Session) -> None:
    wait_for(lambda: session.live and session.live.result, 60)
    session.change(smoothing="none", model="nix")
    wait_for(lambda: "networks" in session.problems and not session.busy)
    assert session.options.inference.model == "balanced" and "'nix'" in session.trouble()[0]
    session.record(True).result()
    path = session.recording
    part = path.with_name(f"{path.stem}.jsonl.part")
    wait_for(lambda: part.exists() and part.read_bytes().count(b"\n") > 1)
    session.record(False).result()
    assert read_records(path.with_suffix(".jsonl"))[0]["smoothing"] is None
    session.change(model="balanced")
    wait_for(lambda: not session.trouble())


def test_a_recording_without_a_frame_leaves_nothing(session: Session, tmp_path: Path) -> None:
    wait_for(lambda: session.live and session.live.result, 60)
    session.change(continuous=False)
    wait_for(lambda: session.live.statistics().age > 0)
    time.sleep(0.2)
    session.record(True).result()
    wait_for(lambda: list((tmp_path / "out").glob("*.mp4.part")))
    session.record(False).result()
    assert not list((tmp_path / "out").iterdir()) and not session.trouble()


def recording(clip: Path, path: Path, process) -> Recording:
    """Of the whole clip, `process` being what looks at it."""
    estimator = PoseEstimator(detector=None)
    ended = []
    with open_source(clip) as source:
        live = Live(source, process(estimator))
        header = estimator.header("clip")
        look = DrawStyle("skeleton")
        made = Recording(live, source, path, header, look, ended.append)
        with live:
            wait_for(lambda: ended, 30)
    assert ended == [made] and not made.running
    return made


def test_an_error_of_the_networks_ends_a_recording_with_whole_files(clip, tmp_path) -> None:
    def process(estimator):
        def work(frame: Frame) -> Frame:
            if frame.index > 20:
                raise ValueError("wrong")
            return replace(estimator.process(frame), time=frame.time + 100)

        return work

    made = recording(clip, tmp_path / "a.mp4", process)
    assert "wrong" in made.problem and made.frames > 3
    frames = list(read_records(tmp_path / "a.jsonl")[1])
    assert len(frames) == made.frames and frames[0]["time"] == 0 < frames[-1]["time"] < 2
    assert (tmp_path / "a.mp4").exists() and not list(tmp_path.glob("*.part"))


def test_a_recording_that_cannot_be_written_is_told(clip, tmp_path) -> None:
    (tmp_path / "file").touch()
    made = recording(clip, tmp_path / "file" / "a.mp4", lambda estimator: estimator.process)
    assert "the recording ended: cannot write" in made.problem and made.frames == 0


def test_closing_waits_neither_for_a_mute_source_nor_for_networks(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}/video"
        session = Session(LiveOptions(source=address, output=str(tmp_path / "out")))
        session.start()
        wait_for(lambda: not session.busy.startswith("loading"), 60)
        assert session.busy == f"opening {address}"
        session.snapshot().result(5)
        assert "no result to save" in session.trouble()[0]
        begun = time.monotonic()
        session.close()
        session.close()
        assert time.monotonic() - begun < 6 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("source", "7", "Camera 7"),
        ("source", "/a/b/walk.mp4", "walk.mp4"),
        ("source", "rtsp://me:secret@host/live", "rtsp://host/live"),
        ("source", "ros:/camera/image", "ros:/camera/image"),
        ("model", "/a/b/own.onnx", "own.onnx"),
        ("size", 368, "368 px"),
        ("size", None, "its own"),
        ("view", "stages", "stages"),
    ],
)
def test_a_selector_shows_what_is_set_whatever_it_is(key, value, text) -> None:
    items, chosen = choices(key, changed(LiveOptions(), {key: value}))
    assert items[chosen] == (value, text)
    assert len({item for item, _ in items}) == len(items)
    assert (FILE in [item for item, _ in items]) == (key in ("source", "model"))
