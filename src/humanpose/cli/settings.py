"""`humanpose.yaml`: the settings of `humanpose live`, and the files of its forerunner of 2018."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from humanpose.errors import InputError
from humanpose.files import read_limited

_MOST_BYTES = 1 << 20
_NET_FILES = (".onnx", ".safetensors")


class Settings(BaseModel):
    """What is watched, by which networks, and how it is shown; keys are those of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field("0", min_length=1, description="see media.sources.open_source")
    topic: str | None = None
    rate: float | None = Field(None, ge=0.01)
    retries: int | None = Field(None, ge=0)

    model: str = "balanced"
    detector: str = Field("person", description='"none": one person fills the picture')
    size: int | None = Field(None, ge=8)
    detector_size: int | None = Field(None, ge=8)
    precision: Literal["auto", "float32", "bf16", "int8"] = "auto"
    runtime: Literal["auto", "openvino", "onnxruntime"] = "auto"
    device: str = "cpu"
    threads: int | None = Field(None, ge=1)
    detector_score: float | None = Field(None, ge=0, le=1)
    max_people: int | None = Field(None, ge=1)
    tta: str | None = None

    smooth: Literal["none", "kalman", "one-euro"] = "kalman"
    detect_every: int = Field(1, ge=1)
    continuous: bool = Field(True, description="look at every frame that there is time for")

    view: Literal["boxes", "skeleton", "heatmaps", "stages", "side-by-side"] = "boxes"
    min_score: float = Field(0.3, ge=0, le=1)
    legend: bool = False

    record: bool = Field(False, description="from the start")
    output: str = Field("humanpose-out", description="folder of snapshots and recordings")

    @field_validator("source", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def changed(self, changes: dict[str, Any], where: str = "") -> Settings:
        """These settings with others in place of some.

        Args:
            changes: key -> value.
            where: what error messages begin with.

        Raises:
            InputError: on an unknown key or a wrong value; it names them.
        """
        try:
            return Settings.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: "
                + ("there is no such key" if item["type"] == "extra_forbidden" else item["msg"])
                for item in error.errors()
            )
            raise InputError(f"{where}{problems}") from error


def load_settings(path: Path) -> tuple[Settings, list[str]]:
    """The settings in a YAML file; of one of 2018 also what has become of its keys.

    Raises:
        InputError: on a missing file, bad YAML, an unknown key or a wrong value; it names them.
    """
    try:
        tree = yaml.safe_load(read_limited(path, _MOST_BYTES).decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if tree is None:  # nothing but comments
        tree = {}
    if not isinstance(tree, dict):
        raise InputError(f"{path}: write 'key: value' lines, such as 'source: 0'")
    notes: list[str] = []
    if "HumanPose" in tree:
        tree, notes = _of_2018(tree)
    return Settings().changed({str(key): value for key, value in tree.items()}, f"{path}: "), notes


# What old keys that set nothing any more have become, by their last part.
_GONE = {
    "Fps": "frames come at the source's own rate",
    "Format": "the format of pictures is recognised",
    "Name": "was JdeRobot's",
    "NodeName": "was JdeRobot's",
    "Proxy": "JdeRobot's Ice servers are no longer read",
    "device": "now a name: `device: cuda`, as the runtime offers it",
    "limbs": "limbs are the network's own",
    "colors": "colours tell the sides of the body",
    "sigma": "the centre map is inside the network's file",
}


def _of_2018(tree: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keys of today and notes for a `HumanPose:` file, of 2017-18 or of 2018-20."""
    inner = tree["HumanPose"] if isinstance(tree["HumanPose"], dict) else {}
    old = dict(_leaves({**inner, **{k: v for k, v in tree.items() if k != "HumanPose"}}))
    new: dict[str, Any] = {}
    notes: list[str] = []
    used = _old_source(old, new, notes) | _old_networks(old, new, notes)
    for key, value in old.items():
        if key in used:
            continue
        name = key.rpartition(".")[2]
        if name == "GPU":
            said = "`device: cpu` unless you set another" if value else "`device: cpu`"
        elif "CameraDEPTH" in key:
            said = "depth is not read"
        else:
            said = _GONE.get(name, "not known")
        notes.append(f"{key}: left out; {said}")
    notes.append("read as: " + (", ".join(f"{key}: {value}" for key, value in new.items())))
    return new, notes


def _leaves(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(Camera.Server, 0) and so on: every value with its path."""
    for key, value in tree.items():
        path = f"{above}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _old_source(old: dict[str, Any], new: dict[str, Any], notes: list[str]) -> set[str]:
    """Set `source`; gives the keys that have been dealt with."""
    wanted = old.get("Source", {0: "off", 1: "jder", 2: "ros"}.get(old.get("Camera.Server", -1)))
    texts = {
        "local": str(old.get("Local.DeviceNo", 0)),
        "video": old.get("Video.Path"),
        "ros": next(
            (old[key] for key in ("ROS.CameraRGB.Topic", "Camera.Topic") if old.get(key)), None
        ),
    }
    text = texts.get(str(wanted))
    if text:
        new["source"] = f"ros:{text}" if wanted == "ros" else str(text)
        notes.append(f"source: {new['source']}")
    elif wanted == "jder":
        notes.append("source: JdeRobot's Ice servers are no longer read; name another (ros:/TOPIC)")
    else:
        notes.append("source: the file names none; camera 0 is used")
    # What stands there for the sources that are not chosen means nothing.
    sections = ("Local.", "Video.", "JdeR.", "ROS.CameraRGB.Topic", "Camera.Server", "Camera.Topic")
    return {key for key in old if key == "Source" or key.startswith(sections)}


def _old_networks(old: dict[str, Any], new: dict[str, Any], notes: list[str]) -> set[str]:
    """Set `model`, `detector` and `size`; gives the keys that have been dealt with."""
    frameworks = {key: v for key, v in old.items() if key.lower().endswith("framework")}
    names = {"cpm_caffe": "caffe", "cpm_tf": "tf", "tensorflow": "tf"}
    used = set(frameworks)
    for key in old:
        groups = key.lower().split(".")
        if any(group.endswith("_models") for group in groups[:-1]):
            used.add(key)
    for role, word, usual in (("model", "pose", "balanced"), ("detector", "human", "person")):
        chosen = next((str(v) for k, v in frameworks.items() if word in k.lower()), "")
        chosen = chosen or next((str(v) for k, v in frameworks.items() if k == "Framework"), "")
        chosen = names.get(chosen, chosen)
        paths = [
            str(item)
            for key in used - set(frameworks)
            for item in (old[key] if isinstance(old[key], list) else [old[key]])
            if item and word in key.lower() and "deploy" not in key.lower() and chosen in key
        ]
        usable = [
            Path(path).with_suffix(suffix)
            for path in paths
            for suffix in _NET_FILES
            if Path(path).with_suffix(suffix).is_file()
        ]
        if usable:
            new[role] = str(usable[0])
            notes.append(f"{role}: {usable[0]}, which lies beside the old file")
        elif paths or chosen:
            what = ", ".join(sorted(paths)) or chosen
            notes.append(
                f"{role}: {what} is not read as it is; `humanpose import` turns it into a file to "
                f"put beside it; until then the built-in `{usual}` is used"
            )
    for key in [key for key in old if key.rpartition(".")[2] == "boxsize"]:
        used.add(key)
        if "model" in new:
            new["size"] = old[key]
            notes.append(f"size: {old[key]}, was boxsize")
        else:
            notes.append(f"{key} {old[key]}: left out, for it was the old network's; see `size`")
    return used
