"""The live window: picture and result side by side; a timer reads the state of its `Session`."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
from PySide6.QtCore import QRectF, Qt, QTimer
from PySide6.QtGui import (
    QCloseEvent,
    QColor,
    QImage,
    QKeySequence,
    QPainter,
    QPaintEvent,
    QShortcut,
)
from PySide6.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from humanpose.cli.live.session import Session
from humanpose.cli.live.settings import FILE, OTHER, choices
from humanpose.types import U8

_TICK_MS = 8  # between checks for new pictures: below half a frame at 60 per second
_TELL_S = 0.25  # between two updates of the figures
_SELECTORS = ("source", "model", "size", "precision", "view", "smoothing")
_STYLE = """
QWidget { background: #16181d; color: #e8eaee; font-size: 15px; }
QLabel#caption { color: #9aa3b2; font-size: 13px; }
QLabel#figures { font-size: 17px; padding: 2px 2px 6px 2px; }
QLabel#trouble { background: #6b2a12; color: #ffe9dc; font-size: 16px; padding: 8px 12px; }
QLabel#said { color: #9aa3b2; }
QComboBox, QPushButton { background: #262a33; border: 1px solid #3a404d; border-radius: 5px;
  padding: 6px 10px; min-height: 22px; }
QComboBox QAbstractItemView { background: #262a33; selection-background-color: #2f6fb3; }
QComboBox:hover, QPushButton:hover { border-color: #6b7688; }
QComboBox:focus { border-color: #4c9be8; }
QPushButton { font-size: 16px; padding: 8px 16px; }
QPushButton:checked { background: #1f6f43; border-color: #2f9d61; }
QPushButton#record:checked { background: #a32020; border-color: #d84a4a; }
"""


class Pane(QWidget):
    """A picture, as large as there is room for, or a line that says why there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(240, 180)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.picture: U8 | None = None
        self.text = ""

    def show_picture(self, picture: U8 | None, text: str = "") -> None:
        """Show `picture` (H, W, 3) RGB, which must not change any more, else `text`."""
        if picture is not self.picture or text != self.text:
            self.picture, self.text = picture, text
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the picture, the only copy of it being the one at the screen's size."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor("#0b0c0f"))
        if self.picture is None:
            painter.setPen(QColor("#9aa3b2"))
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, self.text)
            return
        ratio = self.devicePixelRatioF()
        height, width = self.picture.shape[:2]
        scale = min(self.width() * ratio / width, self.height() * ratio / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        fitted = resized(self.picture, size)
        image = QImage(fitted.data, *size, 3 * size[0], QImage.Format.Format_RGB888)
        shown = QRectF(0, 0, size[0] / ratio, size[1] / ratio)
        shown.moveCenter(QRectF(self.rect()).center())
        painter.drawImage(shown, image)


def resized(picture: U8, size: tuple[int, int]) -> U8:
    """Return `picture` (H, W, 3) at `size` (width, height); about a millisecond even from 4K."""
    way = cv2.INTER_LINEAR
    if picture.shape[1] > 2 * size[0]:  # averaged pairs keep fine lines from flickering
        picture = np.asarray(cv2.resize(picture, (2 * size[0], 2 * size[1])), np.uint8)
        way = cv2.INTER_AREA
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=way), np.uint8)


class Window(QWidget):
    """Shows a `session`, and closes it in the end.

    Attributes:
        selectors: boxes to choose from, by the option that they change.
        buttons: by name.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.setWindowTitle("humanpose live")
        self.setStyleSheet(_STYLE)
        self.resize(1280, 720)
        self.live_pane, self.result_pane = Pane(), Pane()
        self.live_line, self.result_line = _label("figures"), _label("figures")
        self.trouble, self.said = _label("trouble"), _label("said")
        self.trouble.setWordWrap(True)
        self.trouble.hide()
        self.said.setWordWrap(True)
        self.selectors: dict[str, QComboBox] = {}
        self.buttons: dict[str, QPushButton] = {}
        self._told = 0.0
        layout = QVBoxLayout(self)
        layout.setSpacing(8)
        layout.addLayout(self._make_selectors())
        layout.addWidget(self.trouble)
        layout.addLayout(self._make_panes(), 1)
        layout.addLayout(self._make_buttons())
        for key, act in (("V", self.next_view), ("Q", self.close), ("Escape", self.dismiss)):
            QShortcut(QKeySequence(key), self).activated.connect(act)
        self._timer = QTimer(self, timerType=Qt.TimerType.PreciseTimer, interval=_TICK_MS)
        self._timer.timeout.connect(self.tick)
        self._timer.start()

    def _make_selectors(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        for column, key in enumerate(_SELECTORS):
            box = self.selectors[key] = QComboBox()
            box.setMinimumContentsLength(8)
            box.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # else it would take letters for itself
            box.activated.connect(lambda _, key=key: self._chosen(key))
            title = f"{key.capitalize()} (V)" if key == "view" else key.capitalize()
            grid.addWidget(_label("caption", title), 0, column)
            grid.addWidget(box, 1, column)
            grid.setColumnStretch(column, 2 if key == "source" else 1)
        self._fill_selectors()
        return grid

    def _make_panes(self) -> QGridLayout:
        grid = QGridLayout()
        live = (_label("caption", "Live"), self.live_pane, self.live_line)
        result = (_label("caption", "Result"), self.result_pane, self.result_line)
        for column, widgets in enumerate((live, result)):
            for row, widget in enumerate(widgets):
                grid.addWidget(widget, row, column)
            grid.setColumnStretch(column, 1)
        grid.setRowStretch(1, 1)
        return grid

    def _make_buttons(self) -> QHBoxLayout:
        row, session = QHBoxLayout(), self.session
        for name, title, key, act in (
            ("continuous", "Continuous (C)", "C", lambda on: session.change(continuous=on)),
            ("look", "Detect now (Space)", "Space", lambda _: session.look()),
            ("snapshot", "Snapshot (S)", "S", lambda _: session.snapshot()),
            ("record", "Record (R)", "R", session.record),
        ):
            button = self.buttons[name] = QPushButton(title)
            button.setObjectName(name)
            button.setShortcut(QKeySequence(key))
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # Space is to mean one thing only
            button.setCheckable(name in ("continuous", "record"))
            button.clicked.connect(act)
            row.addWidget(button)
        row.addWidget(self.said, 1)
        return row

    def tick(self) -> None:
        """Show the newest pictures and figures."""
        session = self.session
        session.refresh()
        live, drawn = session.live, session.drawn
        frame = None if live is None else live.frame
        picture = None if frame is None else frame.image
        self.live_pane.show_picture(picture, session.busy or "no picture")
        idle = "waiting" if session.options.continuous else "Space: detect now"
        text = session.busy or idle * (frame is not None)
        self.result_pane.show_picture(None if drawn is None else drawn.picture, text)
        if time.monotonic() - self._told >= _TELL_S:
            self._told = time.monotonic()
            self._tell()

    def _tell(self) -> None:
        session, live = self.session, self.session.live
        trouble = session.trouble()
        self.trouble.setText("\n".join(trouble) + "  (Esc hides it)" * bool(session.problems))
        self.trouble.setVisible(bool(trouble))
        said = f"recording {path}" if (path := session.recording) else session.said
        self.said.setText(session.busy or said)
        self.buttons["continuous"].setChecked(session.options.continuous)
        self.buttons["record"].setChecked(session.options.record)
        self._fill_selectors()
        if live is None:
            return
        now = live.statistics()
        size = "" if live.frame is None else "{1} x {0}, ".format(*live.frame.image.shape)
        ended = "ended" if live.over else f"{now.capture_rate:.1f} frames/s"
        self.live_line.setText(f"{size}{ended}")
        taken = None if session.drawn is None else session.drawn.result.captured
        age = "" if taken is None else f", {_age(time.monotonic() - taken)} old"
        self.result_line.setText(f"{now.result_rate:.1f} results/s{age}, {now.dropped} dropped")

    def _fill_selectors(self) -> None:
        """Update what the selectors offer and show; not while a list is open."""
        for key, box in self.selectors.items():
            if box.view().isVisible():
                continue
            items, chosen = choices(key, self.session.options)
            if [box.itemData(i) for i in range(box.count())] != [value for value, _ in items]:
                box.clear()
                for value, text in items:
                    box.addItem(text, value)
            box.setCurrentIndex(chosen)

    def _chosen(self, key: str) -> None:
        value = self.selectors[key].currentData()
        if value == FILE:
            items, present = choices(key, self.session.options)
            folder = str(Path(items[present][0]).parent)
            value, _ = QFileDialog.getOpenFileName(self, "humanpose: a file", folder)
        elif value == OTHER:
            value, _ = QInputDialog.getText(self, "humanpose", "Address, device or topic:")
            value = value.strip()
        if value != "":
            self.session.change(**{key: value})
        self._told = 0.0

    def next_view(self) -> None:
        """Show results in the next view."""
        box = self.selectors["view"]
        box.setCurrentIndex((box.currentIndex() + 1) % box.count())
        self._chosen("view")

    def dismiss(self) -> None:
        """Hide the present problems."""
        self.session.problems.clear()
        self._told = 0.0

    def closeEvent(self, event: QCloseEvent) -> None:
        """Hide the window and finish every file."""
        self._timer.stop()
        self.hide()
        self.session.close()
        event.accept()


def _label(name: str, text: str = "") -> QLabel:
    label = QLabel(text)
    label.setObjectName(name)
    return label


def _age(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
