"""`humanpose live`: `session` is what runs, `window` what is seen of it."""

from __future__ import annotations

import os
import subprocess
import sys

from humanpose.cli.settings import Settings
from humanpose.cli.signals import stopping
from humanpose.errors import DeviceError, MissingExtraError

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
_PROBE = "from PySide6.QtWidgets import QApplication; QApplication([])"


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
