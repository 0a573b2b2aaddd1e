"""humanpose: finds people in pictures, videos and cameras and tells where their joints are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# OpenCV's threads wait for more work by spinning, on the cores where the network that follows a
# crop would run: a frame took 4 % longer. OpenCV reads this when it is loaded.
os.environ.setdefault("OPENCV_THREAD_POOL_ACTIVE_WAIT_WORKER", "0")

if TYPE_CHECKING:
    from humanpose.api import PoseEstimator
    from humanpose.skeleton import Skeleton
    from humanpose.types import Frame, Person

__all__ = ["Frame", "Person", "PoseEstimator", "Skeleton"]
__version__ = "0.1.0"

_HOMES = {
    "Frame": "humanpose.types",
    "Person": "humanpose.types",
    "PoseEstimator": "humanpose.api",
    "Skeleton": "humanpose.skeleton",
}


def __getattr__(name: str) -> Any:
    # Nothing heavy is imported before it is asked for (PEP 562).
    if name not in _HOMES:
        raise AttributeError(f"module 'humanpose' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
