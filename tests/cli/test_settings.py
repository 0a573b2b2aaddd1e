"""`humanpose.yaml`, and the files of the component of 2018."""

import re
from pathlib import Path

import pytest

from humanpose.cli.live.settings import LiveOptions, choices, load_options
from humanpose.cli.options import changed, fields_of
from humanpose.draw import VIEWS
from humanpose.errors import InputError
from humanpose.infer.options import BACKENDS, METHODS, PRECISIONS

DOCS = Path(__file__).resolve().parents[2] / "docs"

# As the component's own files had it, first and last generation.
V1 = """
HumanPose:
  Camera:
    Server: 2 # 0 -> Deactivate, 1 -> Ice, 2 -> ROS
    Proxy: "default -h localhost -p 9999"
    Format: RGB8
    Topic: "/usb_cam/image_raw"
    Name: HumanPoseCamera
    Fps: 30
  NodeName: HumanPose
  Framework: "caffe"
  Settings:
    GPU: true
    device: 0
    caffe_models:
      model_human: "models/caffe/pose_iter_70000.caffemodel"
      deploy_human: "models/caffe/pose_deploy_copy_4sg_resize.prototxt"
      model_pose: "models/caffe/pose_iter_320000.caffemodel"
      deploy_pose: "models/caffe/pose_deploy_resize.prototxt"
    tf_models:
      model_human: "models/tf/person_net.ckpt"
      model_pose: "models/tf/pose_net.ckpt"
    boxsize: 192
    limbs: [1, 2, 3, 4]
    colors: [[0, 0, 255]]
    sigma: 21
"""
V2 = """
HumanPose:
  Source: video # local, video, jder, ros
  Local: {DeviceNo: 1}
  Video: {Path: clip.mp4}
  JdeR: {CameraRGB: x, CameraDEPTH: y, NodeName: HumanPose}
  ROS:
    CameraRGB: {Topic: /camera/rgb/image_raw, Format: RGB8}
    CameraDEPTH: {Topic: /camera/depth, Format: DEPTH32, fx: 606, cx: 321, fy: 609, cy: 238}
  Estimator:
    human_framework: naxvm
    pose_framework: stacked
    GPU: false
    human_models: {naxvm: models/ssd.pb, cpm_caffe: [a.caffemodel, a.prototxt]}
    pose_models: {stacked: models/hg.pth, chained: models/chained.pth}
    limbs: [1, 2]
    colors: [[1, 2, 3]]
    boxsize: 256
    cpm_config: {sigma: 21}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "humanpose.yaml"
    path.write_text(text)
    return path


def test_every_key_is_read_and_documented(tmp_path: Path) -> None:
    text = (DOCS / "video.md").read_text()
    (block,) = re.findall(r"```yaml\n(source:.*?)```", text, re.S)
    settings, notes = load_options(written(tmp_path, block))
    assert notes == []
    assert {line.split(":")[0] for line in block.splitlines() if line} == {
        field.name for field in fields_of(LiveOptions())
    }
    assert settings == changed(LiveOptions(), {"threads": 2})


def test_choices_are_those_of_the_program() -> None:
    def values(key: str) -> set[str]:
        return {value for value, _ in choices(key, LiveOptions())[0]}

    assert values("view") == set(VIEWS)
    assert values("smoothing") == {"auto", *METHODS} - {"rts"}  # which comes a second late
    assert values("precision") == set(PRECISIONS) and values("runtime") == set(BACKENDS)


def test_an_empty_file_sets_nothing_and_numbers_are_cameras(tmp_path: Path) -> None:
    assert load_options(written(tmp_path, "# nothing\n"))[0] == LiveOptions()
    assert load_options(written(tmp_path, "source: 2"))[0].source == "2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modle: balanced", "modle: there is no such key"),
        ("size: big", "size: .*integer"),
        ("smoothing: rts", "smoothing .*kalman"),
        ("view: [boxes]", "view: "),
        ("view: maps", "view 'maps' is not one of boxes, skeleton"),
        ("threads: 0", "threads must be at least 1"),
        ("record: 1", "record: .*true or false"),
        ("rate: fast", "rate: .*number"),
        ("source: yes", "source: "),
        ("- a", "'key: value' lines"),
        ("a: [", "not YAML"),
        ("model: !!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(tmp_path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=says) as error:
        load_options(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nix\.yaml does not exist"):
        load_options(tmp_path / "nix.yaml")


def test_the_first_generation_is_understood(tmp_path: Path) -> None:
    settings, notes = load_options(written(tmp_path, V1))
    assert settings == LiveOptions(source="ros:/usb_cam/image_raw")
    said = "\n".join(notes)
    assert "model: models/caffe/pose_iter_320000.caffemodel is not read as it is" in said
    assert "detector: models/caffe/pose_iter_70000.caffemodel is not read as it is" in said
    assert "person_net" not in said.replace("tf_models", "")  # of the framework not chosen
    for key in ("Camera.Proxy", "Camera.Fps", "Settings.GPU", "Settings.limbs", "Settings.sigma"):
        assert f"{key}: left out; " in said
    assert "not known" not in said and "Settings.boxsize 192: left out" in said


def test_the_last_generation_is_understood(tmp_path: Path) -> None:
    settings, notes = load_options(written(tmp_path, V2))
    assert settings == LiveOptions(source="clip.mp4")
    said = "\n".join(notes)
    assert "model: models/hg.pth is not" in said and "detector: models/ssd.pb is not" in said
    assert "ROS.CameraDEPTH.fx: left out; depth is not read" in said and "not known" not in said


@pytest.mark.parametrize(
    ("source", "read"), [("local", "1"), ("ros", "ros:/camera/rgb/image_raw"), ("jder", "0")]
)
def test_each_source_of_the_last_generation(tmp_path: Path, source: str, read: str) -> None:
    settings, notes = load_options(
        written(tmp_path, V2.replace("Source: video", f"Source: {source}"))
    )
    assert settings.source == read
    assert any("Ice servers are no longer read" in note for note in notes) == (source == "jder")


def test_imported_networks_beside_the_old_ones_are_used(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models" / "caffe"
    folder.mkdir(parents=True)
    (folder / "pose_iter_320000.safetensors").touch()
    (folder / "pose_iter_70000.onnx").touch()
    settings, notes = load_options(written(tmp_path, V1))
    assert settings.inference.model == "models/caffe/pose_iter_320000.safetensors"
    assert settings.inference.detector == "models/caffe/pose_iter_70000.onnx"
    assert settings.inference.size == 192 and "size: 192, was boxsize" in notes


def test_an_old_file_with_unknown_keys_is_told(tmp_path: Path) -> None:
    settings, notes = load_options(written(tmp_path, "HumanPose:\n  Colour: red\n"))
    assert settings == LiveOptions() and "Colour: left out; not known" in notes
    assert load_options(written(tmp_path, "HumanPose:\n"))[0] == LiveOptions()
