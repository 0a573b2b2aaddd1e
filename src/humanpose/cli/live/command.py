"""humanpose live [SOURCE]"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

from humanpose.cli.live.settings import LiveOptions, load_options
from humanpose.cli.options import changed, fields_of, stopping, with_options
from humanpose.errors import DeviceError, require
from humanpose.infer.runtime import weights_path
from humanpose.types import option

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
_PROBE = "from PySide6.QtWidgets import QApplication; QApplication([])"


@with_options("source")
def live(
    ctx: typer.Context,
    source: str | None = typer.Argument(
        None,
        metavar="SOURCE",
        help="A camera (0), a video, rtsp:// or http(s)://, ros:/TOPIC and other moving sources "
        "of `predict`; camera 0 if not given.",
        show_default=False,
    ),
    config: Path | None = option(
        None, "Read options from a file such as humanpose.yaml; those given win.", metavar="FILE"
    ),
    options: LiveOptions = LiveOptions(),
) -> None:
    """Open a window with the live picture and the result beside it.

    Space: detect now; C: continuous; S: snapshot; R: record; V: next view; Q: quit.
    """
    given: dict[str, Any] = {} if source is None else {"source": source}
    for field in fields_of(options):
        origin = ctx.get_parameter_source(field.name)
        if origin is not None and origin.name == "COMMANDLINE" and field.name != "source":
            given[field.name] = field.value
    base, notes = (LiveOptions(), []) if config is None else load_options(config)
    for note in notes:
        typer.echo(f"{config}: {note}", err=True)
    options = changed(base, given)
    weights_path(str(options.inference.model))  # tell a misspelt name before a window opens
    require("PySide6", "gui")
    if signal := show(options):
        raise typer.Exit(128 + signal)


def show(options: LiveOptions) -> int:
    """Open the window until it is closed; return the number of a signal that closed it, or 0.

    Raises:
        DeviceError: there is no display.
    """
    if sys.platform == "linux":
        _check_display()
    from PySide6.QtCore import QTimer
    from PySide6.QtWidgets import QApplication
    from shiboken6 import delete

    from humanpose.cli.live.session import Session
    from humanpose.cli.live.window import Window

    with stopping() as stop:
        app = QApplication(sys.argv[:1])
        session = Session(options)
        window = Window(session)
        session.start()
        window.show()
        # Not at once: the handler may have interrupted what holds the session's locks.
        with stop.calling(lambda: QTimer.singleShot(0, window.close)):
            app.exec()
        delete(window)  # before the application; Python's collector knows no such order
        return stop.signal


def _check_display() -> None:
    """Open Qt in a child process: where it finds no display, it ends the program.

    Raises:
        DeviceError: it cannot open a window here.
    """
    probe = [sys.executable, "-c", _PROBE]
    done = subprocess.run(probe, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["?"]
        why = lines[0] if any(map(os.environ.get, _DISPLAYS)) else "DISPLAY is not set"
        if "Error: " in lines[-1]:  # of Python: a system library is missing
            why = lines[-1]
        raise DeviceError(
            f"no window can be opened here ({why}); `humanpose predict` works without a screen"
        )
