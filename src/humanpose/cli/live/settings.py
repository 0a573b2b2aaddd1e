"""Options of the live window, their file `humanpose.yaml`, and what its selectors offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from humanpose.cli.options import INTO, SourceOptions, changed, fields_of
from humanpose.draw import DrawStyle
from humanpose.errors import InputError
from humanpose.files import read_limited
from humanpose.infer.options import InferenceOptions, TrackingOptions
from humanpose.infer.runtime import installed, read_spec
from humanpose.media.sources import source_kind
from humanpose.media.sources.source import without_password
from humanpose.types import option

FILE, OTHER = "\0file", "\0other"  # not values, but ways to name one
_SIZES = (None, 128, 192, 256, 320, 384)
_SMOOTHING = ("auto", "kalman", "one-euro", "none")  # RTS comes a second late
_MOST_BYTES = 1 << 20
_NET_FILES = (".onnx", ".safetensors")


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Options of `humanpose live`; fields, also those of the parts, are keys of the file."""

    source: str = option("0", "Camera, video, address or ros:/TOPIC.")
    opening: SourceOptions = SourceOptions()
    inference: InferenceOptions = InferenceOptions()
    tracking: TrackingOptions = TrackingOptions()
    continuous: bool = option(
        True,
        "Process every frame that there is time for, or one when asked.",
        flags=("--continuous/--on-demand",),
    )
    style: DrawStyle = DrawStyle()
    record: bool = option(False, "Record from the start.")
    output: str = option("humanpose-out", "Folder of snapshots and recordings.", **INTO)

    def __post_init__(self) -> None:
        if not self.source:
            raise InputError("source: name a camera, a file, an address or ros:/TOPIC")
        if (method := self.tracking.smoothing) not in _SMOOTHING:
            raise InputError(f"smoothing {method!r} is not one of {', '.join(_SMOOTHING)}")


def load_options(path: Path) -> tuple[LiveOptions, list[str]]:
    """Return the options in a YAML file; of a file of 2018 also notes on what its keys became.

    Raises:
        InputError: on a missing file, bad YAML, an unknown key or a wrong value; it names them.
    """
    try:
        tree = yaml.safe_load(read_limited(path, _MOST_BYTES).decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    tree = {} if tree is None else tree  # nothing but comments
    if not isinstance(tree, dict):
        raise InputError(f"{path}: write 'key: value' lines, such as 'source: 0'")
    notes: list[str] = []
    if "HumanPose" in tree:
        tree, notes = _of_2018(tree)
    try:
        return changed(LiveOptions(), {str(key): value for key, value in tree.items()}), notes
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


# Part of a key of 2018 -> why it is left out; "" = it is read. The first part found counts.
_KEYS_2018 = {
    **dict.fromkeys(("Source", "Local.", "Video.", "JdeR.", "ramework", "_models."), ""),
    **dict.fromkeys(("ROS.CameraRGB.Topic", "Camera.Server", "Camera.Topic"), ""),
    "CameraDEPTH": "depth is not read",
    "Proxy": "JdeRobot's Ice servers are no longer read",
    "Name": "was JdeRobot's",
    "Fps": "frames come at the source's own rate",
    "Format": "the format of pictures is recognised",
    "GPU": "see `device`: cpu, gpu, npu or cuda",
    "device": "now a name, such as `device: cuda`",
    "limbs": "limbs are the network's own",
    "colors": "colours tell the sides of the body",
    "sigma": "the centre map is inside the network's file",
}
_SOURCES_2018 = {
    "local": ("Local.DeviceNo",),
    "video": ("Video.Path",),
    "ros": ("ROS.CameraRGB.Topic", "Camera.Topic"),
}


def _of_2018(tree: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return today's keys and notes for a `HumanPose:` file, of 2017-18 or of 2018-20."""
    top = tree.pop("HumanPose")
    old = dict(_leaves({**tree, **(top if isinstance(top, dict) else {})}))
    kind = str(old.get("Source", {1: "jder", 2: "ros"}.get(old.get("Camera.Server", 0))))
    named = [old[key] for key in _SOURCES_2018.get(kind, ()) if old.get(key) is not None]
    new: dict[str, Any] = {"source": "ros:" * (kind == "ros") + str(named[0])} if named else {}
    gone = "JdeRobot's Ice servers are no longer read; name another (ros:/TOPIC)"
    none = gone if kind == "jder" else "the file names none; camera 0 is used"
    notes = [f"source: {new.get('source', none)}"]
    for role, word, usual in (("model", "pose", "balanced"), ("detector", "human", "person")):
        frameworks = [str(old[key]) for key in old if key.endswith(f"{word}_framework")]
        framework = (frameworks or [str(old.get("Framework", ""))])[0]
        paths = [
            Path(str(path))
            for key, value in old.items()
            if "_models." in key and word in key and "deploy" not in key
            if {"tensorflow": "tf"}.get(framework, framework) in key
            for path in (value if isinstance(value, list) else [value])
            if path
        ]
        files = [path.with_suffix(suffix) for path in paths for suffix in _NET_FILES]
        if usable := [str(file) for file in files if file.is_file()]:
            new[role] = usable[0]
            notes.append(f"{role}: {usable[0]}, which lies beside the old file")
        elif what := ", ".join(sorted(map(str, paths))) or framework:
            notes.append(
                f"{role}: {what} is not read as it is; `humanpose import` turns it into a file to "
                f"put beside it; until then the built-in `{usual}` is used"
            )
    for key, value in old.items():
        why = next((why for part, why in _KEYS_2018.items() if part in key), "not known")
        if key.endswith("boxsize") and "model" in new:
            new["size"] = value
            notes.append(f"size: {value}, was boxsize")
        elif key.endswith("boxsize"):
            notes.append(f"{key} {value}: left out, for it was the old network's; see `size`")
        elif why:
            notes.append(f"{key}: left out; {why}")
    notes.append("read as: " + ", ".join(f"{key}: {value}" for key, value in new.items()))
    return new, notes


def _leaves(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (Camera.Server, 0) and so on: every value with its path."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def choices(key: str, options: LiveOptions) -> tuple[list[tuple[Any, str]], int]:
    """Return what the selector of `key` offers, (value, text) each, and the present one's index."""
    field = next(field for field in fields_of(options) if field.name == key)
    offered: dict[str, Callable[[], list[str]]] = {"model": _models, "source": _cameras}
    known = {"size": _SIZES, "smoothing": _SMOOTHING}.get(key, field.about.get("choices", ()))
    values = list(dict.fromkeys((*(offered[key]() if key in offered else known), field.value)))
    items = [(value, _text(key, value)) for value in values]
    if key in offered:
        items.append((FILE, "File ..."))
    if key == "source":
        items.append((OTHER, "Address ..."))
    return items, values.index(field.value)


def _text(key: str, value: Any) -> str:
    """Return the text for a value: an address without its password, a file without its folder."""
    if key == "size":
        return "its own" if value is None else f"{value} px"
    kind = source_kind(value) if key == "source" else ""
    if kind == "camera":
        return f"Camera {value}"
    return without_password(value) if kind in ("stream", "topic") else Path(value).name


def _cameras() -> list[str]:
    """Return the numbers of the cameras; "0" at least, to show how one is named."""
    found = Path("/dev").glob("video[0-9]*")
    return sorted((path.name[5:] for path in found), key=lambda name: (len(name), name)) or ["0"]


@cache
def _models() -> list[str]:
    return [name for name, path in installed().items() if read_spec(path).task == "pose"]
