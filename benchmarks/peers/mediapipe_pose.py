"""MediaPipe Pose as an estimator beside ours: a child process of another environment's Python."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np

from humanpose.errors import InputError
from humanpose.skeleton import COCO17
from humanpose.types import F32, U8, Person

HOW = (
    "python3.11 -m venv mp && mp/bin/pip install mediapipe==0.10.21, then --mediapipe mp/bin/python"
)
CHILD = Path(__file__).with_name("mediapipe_child.py")
# Its 33 landmarks' rows in COCO's order.
ROWS = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
CONTEXT = 1.25  # the box grows by it; what of that lies in the picture is cut out, not scaled


class MediaPipePose:
    """The child process; `spec` and `estimate` are what `evaluate.run.estimate_samples` needs.

    Attributes:
        spec: names the skeleton.
        version: of the package.
    """

    def __init__(self, python: str) -> None:
        """Start it.

        Raises:
            InputError: `python` cannot be started or has no mediapipe.
        """
        self.spec = SimpleNamespace(skeleton=COCO17)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        try:
            self._child = subprocess.Popen([python, str(CHILD)], **pipes, stderr=self._said)
        except OSError as error:
            self._said.close()
            raise InputError(f"--mediapipe {python}: {error.strerror}; {HOW}") from error
        try:
            self.version: str = self._answer()["version"]
        except InputError:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.communicate()
        self._said.close()

    def estimate(self, image: U8, boxes: F32) -> tuple[Person, ...]:
        """One Person per box (N, 4); all joints NaN where nobody was found in it."""
        return tuple(self._person(image, box) for box in boxes)

    def keep(self, images: Sequence[U8]) -> None:
        """Hand over the pictures that `times` runs on."""
        self._ask({"do": "keep", "images": [_sent(image) for image in images]})

    def times(self, warm: int, *, video: bool) -> tuple[list[float], int]:
        """(ms of each kept picture but the first `warm`, in how many it found somebody)."""
        answer = self._ask({"do": "time", "video": video, "warm": warm})
        return answer["ms"], answer["found"]

    def _person(self, image: U8, box: F32) -> Person:
        size = (image.shape[1], image.shape[0])
        grow = (CONTEXT - 1) / 2 * box[2:]
        low = np.clip(np.rint(box[:2] - grow), 0, size).astype(int)
        high = np.clip(np.rint(box[:2] + box[2:] + grow), 0, size).astype(int)
        points = None
        if (high - low > 1).all():
            part = image[low[1] : high[1], low[0] : high[0]]
            points = self._ask({"do": "joints", "image": _sent(part)})["landmarks"]
        if points is None:
            gap = np.full((len(ROWS), 2), np.nan, np.float32)
            return Person(gap, np.zeros(len(ROWS), np.float32), box, 0.0)
        rows = np.array(points, np.float32)[ROWS]
        joints = (rows[:, :2] * (high - low) + low - 0.5).astype(np.float32)
        return Person(joints, np.clip(rows[:, 2], 0, 1), box, 1.0)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # it has died; what it said is in the answer
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip().splitlines()
            last = said[-1] if said else f"exit code {self._child.returncode}"
            raise InputError(f"--mediapipe: the child process ended ({last}); {HOW}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def row_name(child: MediaPipePose | None) -> str:
    """Name of its rows, with the version that runs, or of the one to install."""
    return f"MediaPipe Pose {child.version if child else '0.10.21'} full"


def _sent(image: U8) -> dict[str, Any]:
    height, width = image.shape[:2]
    rgb = base64.b64encode(np.ascontiguousarray(image).tobytes()).decode()
    return {"height": height, "width": width, "rgb": rgb}
