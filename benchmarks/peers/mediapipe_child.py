"""MediaPipe Pose in the Python of its own environment; started by `mediapipe_pose.py` beside it.

Reads one JSON object a line from standard input and answers each by one on standard output:

    {"do": "joints", "image": IMAGE}         -> {"landmarks": [[x, y, visibility], ... 33] or null}
    {"do": "keep", "images": [IMAGE, ...]}   -> {"kept": N}
    {"do": "time", "video": bool, "warm": W} -> {"ms": [...], "found": N}

IMAGE is {"height": H, "width": W, "rgb": base64 of H x W x 3 bytes}; x and y are shares of W and H.
"time" runs the kept images through a fresh solution, and does not time the first W. Times are taken
here, from the decoded picture to the landmarks, so that the pipe costs nothing.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import sys
import time
from typing import Any

import mediapipe
import numpy as np

COMPLEXITY = 1  # "full", the default


def image_of(value: dict[str, Any]) -> np.ndarray:
    """(H, W, 3) uint8 of an IMAGE."""
    flat = np.frombuffer(base64.b64decode(value["rgb"]), np.uint8)
    return flat.reshape(value["height"], value["width"], 3)


def pose(*, video: bool) -> Any:
    """The solution as its authors set it up; `video` follows the person from frame to frame."""
    return mediapipe.solutions.pose.Pose(static_image_mode=not video, model_complexity=COMPLEXITY)


def timed(images: list[np.ndarray], warm: int, *, video: bool) -> dict[str, Any]:
    """Milliseconds of each image but the first `warm`, and in how many somebody was found."""
    times, found = [], 0
    with pose(video=video) as solution:
        for image in images[:warm]:
            solution.process(image)
        for image in images[warm:]:
            start = time.perf_counter()
            result = solution.process(image)
            times.append((time.perf_counter() - start) * 1e3)
            found += result.pose_landmarks is not None
    return {"ms": times, "found": found}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints must not come between the answers
    images: list[np.ndarray] = []
    still = pose(video=False)
    version = importlib.metadata.version("mediapipe")
    print(json.dumps({"version": version}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "joints":
            found = still.process(image_of(request["image"])).pose_landmarks
            points = found and [[p.x, p.y, p.visibility] for p in found.landmark]
            answer = {"landmarks": points}
        elif request["do"] == "keep":
            images = [image_of(value) for value in request["images"]]
            answer = {"kept": len(images)}
        else:
            answer = timed(images, request["warm"], video=request["video"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
