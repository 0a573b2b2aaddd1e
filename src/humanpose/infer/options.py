"""How networks run, and how people are followed over time: the one list of both kinds of options.

Python keywords, options of the commands, keys of settings files and controls of the live window
are derived from the fields of the options classes and their metadata (see `types.option`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from humanpose.errors import InputError
from humanpose.heatmap import DECODERS
from humanpose.infer.tta import TestTimeAugmentation
from humanpose.types import check_options, option

BACKENDS = ("auto", "openvino", "onnxruntime")
# "float32" is the reference. "auto" is the INT8 form of a network where there is one and the CPU
# gains by it (`runtime.chosen`), else bf16 where the CPU computes in it, else float32. Of an INT8
# file it is that of the layers that are not quantised, for which "int8" means "auto".
PRECISIONS = ("auto", "float32", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """Networks and how they are applied; the metadata of each field holds its help text and limits.

    `None`, or an empty text, stands for the network's own value.

    Raises:
        InputError: naming a field whose value is not allowed.
    """

    model: str | Path = option("balanced", "Pose weights: a built-in name or a file.")
    detector: str | Path | None = option(
        "person", "Detector weights: a built-in name, a file, or 'none' (one person fills it)."
    )
    hands: str | Path | None = option(
        None, "Hand weights: also find 21 joints of every hand.", metavar="FILE"
    )
    runtime: str = option("auto", "auto, openvino or onnxruntime.", choices=BACKENDS)
    precision: str = option("auto", "auto, float32, bf16 or int8.", choices=PRECISIONS)
    device: str = option("cpu", "cpu, or what the runtime offers: gpu, npu, cuda.")
    threads: int | None = option(
        None, "CPU threads of a network call; physical cores if not given.", min=1
    )
    cache: str | None = option(
        None, "Folder of compiled models; '' turns the cache off.", metavar="DIR"
    )
    size: int | None = option(
        None, "Height of the pose network's input (CPM's box size); its own if not given.", min=8
    )
    detector_size: int | None = option(
        None,
        "Side of the square that the detector sees the picture in; its own if not given, but 224 "
        "beside --model fast.",
        min=8,
    )
    detector_score: float | None = option(
        None, "Least score of a detected person; the detector's own if not given.", min=0, max=1
    )
    max_people: int | None = option(
        None, "Keep at most this many people of a picture, best first.", min=1
    )
    tta: str | None = option(
        None,
        "Test-time augmentation, comma-separated: flip (mirrored crop), scales=0.8:1:1.25 (or "
        "benchmark, demo), upright=DEGREES (again, upright, for people tilted so far); none. "
        "Default: the network's own.",
        metavar="LIST",
    )
    crop: str = option(
        "",
        "Scale of a crop: box, or picture-height (the CPM release's). Default: the network's; "
        "picture-height with CPM's detector, which knows no sizes.",
        metavar="RULE",
        choices=("", "box", "picture-height"),
    )
    decode: str = option(
        "",
        "argmax, quarter or dark; the network's own if not given.",
        metavar="RULE",
        choices=("", *DECODERS),
    )
    compat: str = option(
        "",
        "matlab: sum maps at the picture's size, whole pixels; hrnet: its shifted flip.",
        choices=("", "matlab", "hrnet"),
    )
    keep_maps: bool = option(False, "Give people the heat maps of all stages.", hidden=True)

    def __post_init__(self) -> None:
        check_options(self)
        if self.tta is not None:
            TestTimeAugmentation.parse(self.tta)


@dataclass(frozen=True, slots=True)
class Kalman:
    """Constant velocity, driven by white acceleration; no frame comes later.

    Attributes:
        noise: standard deviation of a joint of score 1, body sizes; that of a joint of score s is
            noise / s^2. Body size = root of the box's area.
        agility: how fast speeds change: their standard deviation after t seconds is
            agility * sqrt(t) body sizes per second.
        hold: seconds for which a joint that is not seen is predicted; then it is missing, and
            where it is seen again the filter begins anew.
        compat: "2018" for the filter of timctho's demo: one frame is one unit of time, noises are
            in pixels, the state begins at 0, 0 as if that were certain, the prediction is shown.
    """

    noise: float = 0.005
    agility: float = 1.0
    hold: float = 0.3
    compat: str | None = None

    def __post_init__(self) -> None:
        if self.compat not in (None, "2018"):
            raise InputError(f"compat of the Kalman filter is '2018', not {self.compat!r}")


@dataclass(frozen=True, slots=True)
class OneEuro:
    """Low-pass filter whose cut-off rises with the speed; scores do not weigh.

    Attributes:
        min_cutoff: Hz, of a joint at rest.
        beta: Hz more for each body size per second.
        speed_cutoff: Hz, of the speed itself.
        hold: seconds for which a joint that is not seen stays where it was.

    Source: Casiez, Roussel, Vogel: 1 Euro Filter, CHI 2012; the speed is that of the point, not
    of each coordinate, so that the filter does not depend on the picture's axes.
    """

    min_cutoff: float = 1.0
    beta: float = 25.0
    speed_cutoff: float = 4.0
    hold: float = 0.3


@dataclass(frozen=True, slots=True)
class Rts:
    """Kalman filter with a backward pass over later frames: smooth without lag, for files.

    Attributes:
        noise, agility: as in Kalman.
        hold: as in Kalman; a shorter gap is bridged from both sides.
        lag: seconds that every frame waits for what comes after it.

    Source: Rauch, Tung, Striebel 1965, over a window that ends `lag` after the frame.
    """

    noise: float = 0.005
    agility: float = 2.0
    hold: float = 0.3
    lag: float = 1.0


Smoothing = Kalman | OneEuro | Rts
METHODS: dict[str, Smoothing | None] = {
    "none": None,
    "kalman": Kalman(),
    "one-euro": OneEuro(),
    "rts": Rts(),
}


def described(smoothing: Smoothing | None) -> dict[str, Any] | None:
    """Return name and settings for the header of a record."""
    if smoothing is None:
        return None
    name = next(name for name, usual in METHODS.items() if type(usual) is type(smoothing))
    return {"method": name, **asdict(smoothing)}


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """Tracking options.

    Raises:
        InputError: if there is no such smoothing, or the values do not go together.
    """

    track: bool = option(True, "Number the people of a video.")
    smoothing: str | Smoothing = option(
        "auto",
        "Smooth joints: none, kalman, one-euro, rts (best, files); auto = kalman where live.",
        metavar="METHOD",
    )
    detect_every: int = option(
        1, "Run the detector every N frames; boxes come from the last pose between.", min=1
    )

    def __post_init__(self) -> None:
        check_options(self)
        wanted = self.smoothing != "auto" and self.method(live=False) is not None
        if not self.track and (wanted or self.detect_every > 1):
            raise InputError("smoothing and a resting detector need tracking")

    def method(self, *, live: bool) -> Smoothing | None:
        """Return the smoothing of a source, `live` or not; None = no smoothing."""
        name = self.smoothing
        if not isinstance(name, str):
            return name
        if name == "auto":
            name = "kalman" if live and self.track else "none"
        if name not in METHODS:
            raise InputError(f"smoothing {name!r}: choose from {', '.join(METHODS)}")
        return METHODS[name]
