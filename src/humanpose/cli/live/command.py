"""humanpose live [SOURCE]"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from humanpose.cli.settings import Settings, load_settings
from humanpose.cli.signals import stopping
from humanpose.errors import DeviceError, MissingExtraError

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
_PROBE = "from PySide6.QtWidgets import QApplication; QApplication([])"


def live(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="A camera (0), a video, rtsp:// or http(s)://, ros:/TOPIC and what else `predict` "
            "takes and moves; camera 0 if not given.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings, as in humanpose.yaml; options go before it."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Pose weights: a built-in name or a file.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(help="Detector weights: a built-in name, a file, or 'none' (one fills it)."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Height of the pose network's input (CPM's box size).")
    ] = None,
    detector_size: Annotated[
        int | None, typer.Option(help="Side of the detector's input, pixels.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32, bf16 or int8.")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, openvino or onnxruntime.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, or what the runtime offers: gpu, npu, cuda.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a network call.")] = None,
    detector_score: Annotated[float | None, typer.Option(help="Least score of a person.")] = None,
    max_people: Annotated[
        int | None, typer.Option(help="Keep at most this many people of a picture, best first.")
    ] = None,
    tta: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Test-time augmentation, as of predict."),
    ] = None,
    smooth: Annotated[
        str | None, typer.Option(metavar="METHOD", help="none, kalman (default) or one-euro.")
    ] = None,
    detect_every: Annotated[
        int | None, typer.Option(help="Look for people every so many frames.")
    ] = None,
    continuous: Annotated[
        bool | None,
        typer.Option("--continuous/--on-demand", help="Look at every frame, or when asked."),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(help="boxes, skeleton, heatmaps, stages or side-by-side."),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(help="Draw joints at or above this score.")
    ] = None,
    legend: Annotated[
        bool | None, typer.Option("--legend/--no-legend", help="Draw which colour is which side.")
    ] = None,
    record: Annotated[
        bool | None, typer.Option("--record/--no-record", help="Record from the start.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of snapshots and recordings."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Topic of a ROS recording.")] = None,
    rate: Annotated[float | None, typer.Option(help="Frames/s of numbered pictures.")] = None,
    retries: Annotated[
        int | None, typer.Option(help="Attempts to find a lost source again.")
    ] = None,
) -> None:
    """Open a window with the live picture and the result beside it.

    Space: detect now; C: continuous; S: snapshot; R: record; V: next view; Q: quit.
    """
    given = {key: value for key, value in locals().items() if key != "config" and value is not None}
    from humanpose.infer.catalog import weights_path

    settings, notes = (Settings(), []) if config is None else load_settings(config)
    for note in notes:
        typer.echo(f"{config}: {note}", err=True)
    settings = settings.changed(given)
    weights_path(settings.model)  # what is misspelt is best told before a window opens
    signal = show(settings)
    if signal:
        raise typer.Exit(128 + signal)


def show(settings: Settings) -> int:
    """Open the window and stay until it is closed; gives the number of a signal that closed it.

    Raises:
        MissingExtraError: PySide6 is not installed.
        DeviceError: there is no display.
    """
    try:
        import PySide6  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("PySide6", "gui") from error
    if sys.platform == "linux":
        _check_display()
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication
    from shiboken6 import delete

    from humanpose.cli.live.session import Session
    from humanpose.cli.live.window import Window

    with stopping() as stop:
        app = QApplication(sys.argv[:1])
        session = Session(settings)
        window = Window(session)
        session.start()
        window.show()
        # Python's signal handlers run between two of its instructions: the timer sees to that.
        pulse = QTimer(interval=50)
        pulse.timeout.connect(lambda: window.close() if stop.signal else None)
        pulse.start()
        app.exec()
        delete(window)  # before the application; Python's collector knows no such order
        return stop.signal


def _check_display() -> None:
    """Try in a child process, for where Qt finds no display it ends the program.

    Raises:
        DeviceError: it cannot open a window here.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROBE],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["?"]
        why = lines[0] if any(map(os.environ.get, _DISPLAYS)) else "DISPLAY is not set"
        if "Error: " in lines[-1]:  # of Python: a system library is missing
            why = lines[-1]
        raise DeviceError(
            f"no window can be opened here ({why}); `humanpose predict` works without a screen"
        )
