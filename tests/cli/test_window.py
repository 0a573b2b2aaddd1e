"""The live window, driven as a user drives it: keys, selectors, a source that goes, the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6", reason="PySide6 is not installed (extra gui)")
try:
    from PySide6.QtCore import Qt
    from PySide6.QtGui import QImage
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QApplication
    from shiboken6 import delete
except ImportError as error:  # a system library
    pytest.skip(f"Qt cannot be used here: {error}", allow_module_level=True)
from makers.media import mjpeg, video

from humanpose.cli.live.session import Session
from humanpose.cli.live.settings import LiveOptions
from humanpose.cli.live.window import Window, resized
from humanpose.cli.options import changed
from humanpose.results import read_records
from humanpose.types import Person

HERE = Path(__file__).resolve()
OURS = {"capture", "inference", "networks", "source", "drawing", "recording", "files_0"}


@pytest.fixture(scope="module")
def app() -> QApplication:
    return QApplication.instance() or QApplication(["test"])


@pytest.fixture
def opened(app: QApplication, tmp_path: Path) -> Iterator[Callable[..., Window]]:
    """Opens windows that save below tmp_path / "out", and closes them in the end."""
    windows = []

    def opens(**options: object) -> Window:
        options["output"] = str(tmp_path / "out")
        session = Session(changed(LiveOptions(), options))
        window = Window(session)
        windows.append(window)
        session.start()
        window.show()
        window.activateWindow()  # no window manager does it under Xvfb
        assert QTest.qWaitForWindowActive(window)
        return window

    yield opens
    for window in windows:
        window.close()
        delete(window)  # not whenever Python's collector comes by
    wait_for(lambda: not ours())


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in OURS]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        QTest.qWait(10)


def choose(window: Window, key: str, text: str) -> None:
    """As a user does: by the list."""
    box = window.selectors[key]
    box.setCurrentIndex(box.findText(text))
    box.activated.emit(box.currentIndex())


def pixels(window: Window) -> np.ndarray:
    image = window.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), -1)
    # A copy: the image takes its memory along.
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def results(window: Window) -> int:
    return window.session.live.statistics().results


def wait_for_frames(path: Path, count: int = 1) -> None:
    """Until the recording to `path` holds this many frames."""
    part = path.with_name(f"{path.stem}.jsonl.part")
    wait_for(lambda: part.exists() and part.read_bytes().count(b"\n") > count)


def wait_while_playing(window: Window, condition: Callable[[], object]) -> None:
    """Like `wait_for`; a video that ends meanwhile, as on a slow machine, starts again."""

    def met() -> object:
        session = window.session
        if session.live.over and not session.busy:
            session.change(source=session.options.source)
        return condition()

    wait_for(met)


def check_recording(path: Path) -> int:
    """Video and record are whole and tell of the same frames; gives their number."""
    header, frames = read_records(path.with_suffix(".jsonl"))
    times = [frame["time"] for frame in frames]
    assert times[0] == 0 and np.all(np.diff(times) > 0) and header["models"]
    with av.open(str(path)) as annotated:
        shown = [frame.time for frame in annotated.decode(video=0)]
    assert np.allclose(shown, times, atol=2e-3)
    assert not list(path.parent.glob("*.part"))
    return len(times)


def test_the_whole_way(opened, data: Path, tmp_path: Path) -> None:
    window = opened(source=str(data / "videos" / "dance.mp4"))
    session = window.session
    wait_for(lambda: session.drawn and session.drawn.result.people)
    wait_for(lambda: window.result_pane.picture is session.drawn.picture)
    wait_for(lambda: " old, " in window.result_line.text())
    assert window.live_line.text().startswith("384 x 496, ")
    first = pixels(window)
    assert first.shape[:2] == (window.height(), window.width()) and first.std() > 20

    def people() -> tuple[Person, ...]:
        result = session.live.result
        return () if result is None else result.people

    # Precision and size: the old networks run until the new are there.
    choose(window, "precision", "float32")
    assert session.busy and session.live.error is None
    wait_for(lambda: not session.busy)
    choose(window, "size", "192 px")
    wait_for(lambda: not session.busy)
    before = results(window)
    wait_while_playing(window, lambda: results(window) > before + 3)
    wait_while_playing(window, lambda: people() and people()[0].maps.shape[-2:] == (48, 32))
    assert not session.trouble()
    choose(window, "smoothing", "none")
    wait_while_playing(window, lambda: people() and people()[0].raw is None)
    choose(window, "smoothing", "one-euro")
    wait_while_playing(window, lambda: people() and people()[0].raw is not None)

    # Every view by its key.
    for view in ("skeleton", "heatmaps", "stages", "side-by-side"):
        old = session.drawn.picture
        QTest.keyClick(window, Qt.Key.Key_V)
        assert session.options.style.view == view
        wait_for(lambda old=old: session.drawn.picture is not old)
    wait_for(lambda: session.drawn.picture.shape[1] == 2 * session.drawn.result.image.shape[1])
    choose(window, "view", "boxes")

    # What cannot be had is said, and nothing stops.
    session.change(model="nix")
    session.change(source=str(tmp_path / "nix.mp4"))
    wait_for(lambda: "'nix'" in window.trouble.text() and "nix.mp4" in window.trouble.text())
    wait_for(lambda: not session.busy and window.trouble.isVisible())
    assert session.options.inference.model == "balanced" and session.options.source.endswith(
        "dance.mp4"
    )
    before = results(window)
    wait_while_playing(window, lambda: results(window) > before)
    QTest.keyClick(window, Qt.Key.Key_Escape)
    wait_for(lambda: not window.trouble.isVisible())

    QTest.keyClick(window, Qt.Key.Key_R)
    wait_for(lambda: session.recording)
    QTest.keyClick(window, Qt.Key.Key_S)
    wait_for_frames(session.recording, 3)
    assert window.buttons["record"].isChecked()
    assert list((tmp_path / "out").glob("*.mp4.part"))
    QTest.keyClick(window, Qt.Key.Key_R)
    wait_for(lambda: "recorded" in session.said)
    (path,) = (tmp_path / "out").glob("*.mp4")
    assert check_recording(path) >= 3
    (picture,) = (tmp_path / "out").glob("*.png")
    assert len(json.loads(picture.with_suffix(".json").read_text())["annotations"]) == 1
    QTest.keyClick(window, Qt.Key.Key_Q)
    assert not window.isVisible()
    wait_for(lambda: not ours(), 5)


def test_on_demand(opened, data: Path) -> None:
    window = opened(source=str(data / "videos" / "dance.mp4"), continuous=False)
    wait_for(lambda: window.live_pane.picture is not None and not window.session.busy)
    assert not window.buttons["continuous"].isChecked()
    QTest.qWait(300)
    assert results(window) == 0 and window.result_pane.text == "Space: detect now"
    QTest.keyClick(window, Qt.Key.Key_Space)
    wait_for(lambda: window.result_pane.picture is not None)
    QTest.qWait(300)
    assert results(window) == 1
    QTest.keyClick(window, Qt.Key.Key_C)
    wait_for(lambda: results(window) > 5 and window.buttons["continuous"].isChecked())


def test_a_source_is_lost_and_comes_back(opened, tmp_path: Path) -> None:
    with mjpeg(30) as feed:
        window = opened(source=feed.url.replace("//", "//me:secret@"), detector="none", record=True)
        wait_for(lambda: window.session.recording and results(window) > 5)
        feed.stalled.set()
        wait_for(lambda: "lost: " in window.trouble.text() and window.trouble.isVisible(), 20)
        assert "secret" not in window.trouble.text()
        assert "secret" not in window.selectors["source"].currentText()
        before = results(window)
        feed.stalled.clear()
        wait_for(lambda: results(window) > before and not window.trouble.isVisible(), 30)
        feed.refusing.set()  # the window is closed while the source is away
        wait_for(lambda: "lost: " in window.trouble.text(), 20)
        window.close()
    assert not ours()
    (path,) = (tmp_path / "out").glob("*.mp4")
    assert check_recording(path) > 6


def test_a_file_that_ends_finishes_its_recording_and_plays_again(opened, tmp_path: Path) -> None:
    path = video(tmp_path / "a.b.mp4", np.arange(20) / 2)  # longer than loading takes
    window = opened(source=str(path), detector="none", record=True)
    wait_for(lambda: "recorded" in window.session.said)
    wait_for(lambda: "ended" in window.live_line.text())
    wait_for(lambda: not window.buttons["record"].isChecked())
    assert not window.session.trouble() and window.result_pane.picture is not None
    (made,) = (tmp_path / "out").glob("a-b_*.mp4")
    assert 1 <= check_recording(made) <= 20
    choose(window, "source", "a.b.mp4")
    wait_for(lambda: window.session.live.frame and not window.session.live.over)


def test_another_source_and_other_networks_begin_another_recording(opened, tmp_path: Path) -> None:
    with mjpeg(30) as feed, mjpeg(30) as other:
        window = opened(source=feed.url, detector="none")
        wait_for(lambda: window.result_pane.picture is not None)
        QTest.keyClick(window, Qt.Key.Key_R)
        for changes in ({"precision": "float32"}, {"source": other.url}, {"smoothing": "none"}):
            wait_for(lambda: window.session.recording and results(window) > 3)
            before = window.session.recording
            wait_for_frames(before)
            window.session.change(**changes)
            wait_for(lambda b=before: window.session.recording not in (None, b))
            assert not window.session.trouble()
        wait_for_frames(window.session.recording)
        window.close()
    paths = sorted((tmp_path / "out").glob("*.mp4"), key=lambda path: path.stat().st_mtime_ns)
    headers = [read_records(path.with_suffix(".jsonl"))[0] for path in paths]
    assert [check_recording(path) > 0 for path in paths] == [True] * 4
    precisions = [header["models"][0]["precision"] for header in headers]
    assert precisions[1:] == ["float32"] * 3
    assert [h["source"] for h in headers] == [feed.url] * 2 + [other.url] * 2
    assert [h["smoothing"] is None for h in headers] == [False] * 3 + [True]


def test_nothing_to_show_is_said_in_the_window(opened, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")  # nor a place to save anything
    window = opened(source="97", model="person")
    wait_for(lambda: "camera 97: there is no /dev/video97" in window.trouble.text())
    wait_for(lambda: "finds people, not joints" in window.trouble.text())
    assert window.trouble.isVisible()
    for key in (Qt.Key.Key_S, Qt.Key.Key_R, Qt.Key.Key_Space, Qt.Key.Key_C):
        QTest.keyClick(window, key)
    wait_for(lambda: "nothing" in window.trouble.text() or "no result" in window.trouble.text())
    window.session.change(model="balanced", source=str(video(tmp_path / "a.mp4", [0, 1, 2, 3])))
    wait_for(lambda: window.session.live and window.session.live.frame)
    wait_for(lambda: "out" in window.session.problems.get("recording", ""))
    wait_for(lambda: not window.buttons["record"].isChecked())


def test_pictures_of_any_size_are_fitted() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 3000).astype(np.uint8)[None, :, None], (40, 3000, 3))
    for width in (3000, 2000, 1000, 100, 7):
        fitted = resized(ramp, (width, 20))
        assert fitted.shape == (20, width, 3) and fitted.flags["C_CONTIGUOUS"]
        expected = (np.arange(width) + 0.5) / width * 255
        assert np.abs(fitted[10, :, 1] - expected).max() < 3 + 255 / width / 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_closes_the_window_and_finishes_the_files(tmp_path, number, code) -> None:
    with mjpeg(30) as feed:
        config = tmp_path / "humanpose.yaml"
        config.write_text(f"source: {feed.url}\ndetector: none\nview: skeleton\n")
        command = [sys.executable, "-m", "humanpose.cli.main", "live", "--config", str(config)]
        child = subprocess.Popen(
            [*command, "--record", "-o", str(tmp_path / "out")],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        end = time.monotonic() + 60
        while not (parts := list((tmp_path / "out").glob("*.jsonl.part"))) or (
            parts[0].read_bytes().count(b"\n") < 10
        ):
            assert child.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        child.send_signal(number)
        _, error = child.communicate(timeout=30)
    said = error.replace("This plugin does not support propagateSizeHints()\n", "")
    assert (child.returncode, said) == (code, "")
    (path,) = (tmp_path / "out").glob("*.mp4")
    assert check_recording(path) >= 9


def test_what_is_wrong_from_the_start_is_one_line(cli, monkeypatch, tmp_path: Path) -> None:
    code, _, error = cli("live", "--model", "nix")
    assert code == 2 and error.startswith("error: model 'nix'") and error.count("\n") == 1
    code, _, error = cli("live", "--smoothing", "rts")
    assert code == 2 and "smoothing 'rts'" in error and error.count("\n") == 1
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform == "linux":
        code, _, error = cli("live", tmp_path / "a.mp4")
        assert (code, error.count("\n")) == (2, 1)
        assert "no window can be opened here" in error and "`humanpose predict`" in error
    monkeypatch.setitem(sys.modules, "PySide6", None)
    code, _, error = cli("live")
    assert code == 2 and "pip install 'humanpose[gui]'" in error


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="xvfb-run is not installed")
def test_the_whole_way_on_a_display(data: Path) -> None:
    command = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24", sys.executable, "-m", "pytest"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(HERE), "-k", "whole_way and not display"],
        env={**os.environ, "QT_QPA_PLATFORM": "xcb"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "could not load the Qt platform plugin" in done.stdout + done.stderr:
        pytest.skip("Qt lacks a system library for X (libxcb-cursor0 ...)")
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
