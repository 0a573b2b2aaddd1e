"""How networks run: the one list of inference options.

Python keywords, options of the commands, keys of settings files and controls of the live window
are derived from the fields of `InferenceOptions` and their metadata (see `types.option`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
