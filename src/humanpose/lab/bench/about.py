"""The lines above a table: what machine, what video, what was done."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from humanpose import __version__
from humanpose.lab.bench.plan import cores
from humanpose.lab.bench.runs import Protocol

_BUSY = 0.3  # of the cores at work before we begin


def lines(protocol: Protocol) -> list[str]:
    """Machine, versions, source and protocol; what else runs here now, if much does."""
    own = cores()
    what = Path(protocol.source).name if protocol.source else "a made-up picture, 640x480"
    found = [
        f"humanpose {__version__} on {processor()}, {own} physical cores, {platform.system()}; "
        + ", ".join(versions()),
        f"At most the first {protocol.frames} frames of {what}, one after another; medians over "
        f"{protocol.rounds} round{'s' if protocol.rounds > 1 else ''}, in which all combinations "
        "took turns, each in a process of its own. Times: median / 95th percentile over all "
        "frames; a frame without people has a pose of 0 ms. Full: reading, detector, pose, "
        "drawing. GMAC and share of the machine's measured peak: detector, pose. Start: first "
        "import to first result, empty / filled cache of compiled models.",
    ]
    if not protocol.source:
        found.append(
            "In a made-up picture there is nobody to be found: the pose network looks at the "
            "whole. Give a --video to measure with people."
        )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > _BUSY * own:
        found.append(
            f"Other work ran on the machine when this began (load {load:.1f}): trust ratios, not "
            "milliseconds."
        )
    return found


def processor() -> str:
    """The processor's name, as OpenVINO has it."""
    import openvino as ov

    return str(ov.Core().get_property("CPU", "FULL_DEVICE_NAME")).strip()


def versions() -> list[str]:
    """Names and versions of the back-ends that are installed."""
    found = []
    for package in ("openvino", "onnxruntime", "torch"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
