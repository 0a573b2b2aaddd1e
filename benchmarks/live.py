"""Results a second of `humanpose live`, window and all, on a file played in real time.

    python benchmarks/live.py walk.mp4 [--seconds 12] [--detect-every N]

Opens the window (QT_QPA_PLATFORM=offscreen where there is no screen), waits until the networks
are there, and counts. Needs the extra gui, and a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import time

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from humanpose.cli.live.session import Session
from humanpose.cli.live.settings import LiveOptions
from humanpose.cli.live.window import Window
from humanpose.cli.options import changed

_SETTLE_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--detect-every", type=int, default=1)
    arguments = parser.parse_args()
    application = QApplication([])
    asked = {"source": arguments.video, "detect_every": arguments.detect_every}
    session = Session(changed(LiveOptions(), asked))
    window = Window(session)
    session.start()
    window.show()
    started = 0.0
    before = 0

    def look() -> None:
        nonlocal started, before
        live = session.live
        if session.busy or live is None or live.result is None:
            return
        now = time.monotonic()
        if not started:
            started, before = now, -1
        elif before < 0 and now - started > _SETTLE_S:
            started, before = now, live.statistics().results
        elif before >= 0 and now - started > arguments.seconds:
            found = live.statistics()
            rate = (found.results - before) / (now - started)
            print(
                f"{rate:.1f} results/s of {found.capture_rate:.1f} frames/s, "
                f"{1000 * found.age:.0f} ms from frame to result, {found.dropped} frames dropped"
            )
            window.close()
            application.quit()

    timer = QTimer(interval=50)
    timer.timeout.connect(look)
    timer.start()
    application.exec()


if __name__ == "__main__":
    main()
