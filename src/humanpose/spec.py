"""ModelSpec: everything one must know to use a weights file, carried inside that file."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from humanpose.errors import FormatError
from humanpose.skeleton import Skeleton

FORMAT = "humanpose-model/2"
_FORMER = "humanpose-model/1"
METADATA_KEY = "humanpose"

_CHOICES = {
    "task": ("pose", "person", "hand"),
    "channels": ("rgb", "bgr"),
    "crop": ("box", "picture-height", "whole"),
    "crop_centre": ("w/2", "(w-1)/2"),
    "grid": ("corner", "centre"),
    "decode": ("argmax", "quarter", "dark", "simcc", "boxes", "peaks"),
    "precision": ("float32", "int8"),
}
_DEGREES = r"(?:1[0-7]\d|180|\d{1,2})(?:\.\d+)?"
_ITEM = rf"(?:flip|scales=[\w.:]+|upright={_DEGREES})"
_TTA = rf"(?:{_ITEM}(?:,{_ITEM})*)?"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Settings to feed a network and to decode its output.

    Attributes:
        name: of the weights, e.g. "balanced".
        task: "pose", "person" or "hand".
        net: name for `nets.create`; `options` are its keyword arguments.
        skeleton: joints of the maps, by value; for a person net only its name matters.
        input: (width, height) of the crop, pixels.
        multiple_of: what the input's sides must be multiples of.
        channels: order the network wants; the exported graph takes RGB and reorders itself.
        mean, std: per channel of the 0..255 values; normalisation is inside the graph.
        pad: RGB value outside the picture.
        crop: "box" (a box grown by context), "picture-height" or "whole" (the whole picture).
        context: growth of a tight box.
        crop_centre: crop pixel the box centre falls on.
        stride: crop pixels per heat-map cell; `grid` says where cell 0 lies (heatmap.py).
        background: the last map is background.
        tta: test-time augmentation by default, as text (`infer.tta`); "" = none. The scores
            inside are without its upright crop.
        detector_size: side of the built-in detector's input beside this network, pixels; 0 = the
            detector's own.
        decode: rule of heatmap.decode, or the detector's.
        threshold: least score of a reported person (task "person").
        data: what it was trained on, one line each.
        licences: of code, weights and data.
        scores: rule -> figure on the validation split.
        recipe: how it was made (recipe file, samples seen, commit).
        precision: "float32" (computed in what the runtime is told), or "int8": most layers of the
            graph are quantised, the rest computes in what the runtime is told.
    """

    name: str
    task: str
    net: str
    options: dict[str, Any]
    skeleton: Skeleton
    input: tuple[int, int]
    multiple_of: int = 32
    channels: str = "rgb"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    pad: tuple[int, int, int] = (128, 128, 128)
    crop: str = "box"
    context: float = 1.25
    crop_centre: str = "w/2"
    stride: int = 4
    grid: str = "centre"
    background: bool = False
    tta: str = ""
    detector_size: int = 0
    decode: str = "dark"
    threshold: float = 0.3
    data: tuple[str, ...] = ()
    licences: dict[str, str] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    recipe: str = ""
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"spec: {name} {getattr(self, name)!r} is not one of {allowed}")
        if min(self.input) < 1 or any(side % self.multiple_of for side in self.input):
            raise ValueError(f"spec: input {self.input} is not a multiple of {self.multiple_of}")
        if not re.fullmatch(_TTA, self.tta):
            raise ValueError(f"spec: tta {self.tta!r} is not such as flip,scales=0.8:1,upright=60")
        if self.detector_size % 32:
            raise ValueError(f"spec: detector_size {self.detector_size} is not a multiple of 32")

    @property
    def flip_index(self) -> list[int]:
        """Return the map that holds each map's mirror image; the background is its own."""
        index = [int(i) for i in self.skeleton.flip_index]
        return [*index, len(index)] if self.background else index

    def to_json(self) -> str:
        """Return one line of JSON; `from_json` reads it back."""
        value = asdict(replace(self)) | {"format": FORMAT, "skeleton": self.skeleton.to_dict()}
        return json.dumps(value, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, origin: str = "spec") -> ModelSpec:
        """Read the spec that `to_json` wrote, of this format or of the one before it.

        Raises:
            FormatError: naming `origin`, if `text` is not such a spec.
        """
        try:
            value = json.loads(text)
            written = value.pop("format")
            if written == _FORMER:
                value.pop("flip", None)  # the graph of such a file does it
                tilt = value.pop("second_look", 0)
                value["tta"] = f"upright={tilt:g}" if tilt else ""
            elif written != FORMAT:
                raise ValueError(f"format is not {FORMAT}")
            value["skeleton"] = Skeleton.from_dict(value["skeleton"])
            for name in ("input", "mean", "std", "pad", "data"):
                value[name] = tuple(value[name])
            return cls(**value)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FormatError(f"{origin}: no readable model description ({error})") from error
