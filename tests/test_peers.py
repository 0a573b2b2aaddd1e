"""The comparison with peers, as far as it can be held without them."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from humanpose import PoseEstimator
from humanpose.errors import InputError
from humanpose.evaluate.metrics.pck import LIMB_JOINTS
from humanpose.evaluate.predictions import Matched
from humanpose.evaluate.scores import Truth
from humanpose.skeleton import LSP14
from humanpose.types import Sample

ROOT = Path(__file__).resolve().parent.parent
# MediaPipe as far as the child process uses it: all landmarks lie on the brightest pixel's middle.
_MEDIAPIPE = """
from types import SimpleNamespace as Space

class Pose:
    def __init__(self, static_image_mode, model_complexity):
        self.video = not static_image_mode
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def process(self, image):
        print("what a library says on standard output")
        height, width = image.shape[:2]
        if not image.any():
            return Space(pose_landmarks=None)
        y, x = divmod(int(image.sum(-1).argmax()), width)
        point = Space(x=(x + 0.5) / width, y=(y + 0.5) / height, visibility=0.75)
        return Space(pose_landmarks=Space(landmark=[point] * 33))

solutions = Space(pose=Space(Pose=Pose))
"""


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """The folder's scripts can be imported, as they import each other."""
    monkeypatch.syspath_prepend(ROOT / "recipes")
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "peers")


@pytest.fixture
def pictures() -> np.ndarray:
    """(2, 60, 80, 3): one bright pixel at x 31, y 22; nothing."""
    images = np.zeros((2, 60, 80, 3), np.uint8)
    images[0, 22, 31] = 255
    return images


def test_mediapipe_is_asked_over_pipes_and_answers_in_picture_pixels(
    monkeypatch, tmp_path, pictures
):
    import mediapipe_pose

    (tmp_path / "mediapipe.py").write_text(_MEDIAPIPE)
    info = tmp_path / "mediapipe-0.10.21.dist-info" / "METADATA"
    info.parent.mkdir()
    info.write_text("Metadata-Version: 2.1\nName: mediapipe\nVersion: 0.10.21\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # Inside; beyond the picture's edge; without the bright pixel; outside the picture.
    boxes = np.array([[20, 15, 25, 21], [-9, -9, 60, 90], [50, 5, 20, 20], [90, 5, 9, 9]], "f4")
    with mediapipe_pose.MediaPipePose(sys.executable) as peer:
        assert peer.version == "0.10.21"
        people = peer.estimate(pictures[0], boxes)
        peer.keep([*pictures, *pictures])
        times, found = peer.times(1, video=True)
    for person in people[:2]:
        np.testing.assert_allclose(person.joints, np.full((17, 2), (31, 22)), atol=1e-4)
        assert person.scores == pytest.approx(0.75)
    assert all(np.isnan(person.joints).all() for person in people[2:])
    assert len(times) == 3 and found == 1


def test_an_environment_without_mediapipe_is_told_how_to_get_it(monkeypatch):
    import mediapipe_pose

    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(InputError, match=r"mediapipe'\); .*pip install mediapipe==0\.10\.21"):
        mediapipe_pose.MediaPipePose(sys.executable)
    with pytest.raises(InputError, match=r"No such file or directory; .*pip install"):
        mediapipe_pose.MediaPipePose("no-such-python")


def test_what_yolox_finds_passes_through_the_detector_unchanged(monkeypatch):
    import mark_people
    import networks

    # The picture of 832 x 416 fills the middle 208 rows of YOLOX's 416 x 416, at half its size.
    inside = np.array([[100.3, 150.2, 40.5, 90.1, 0.9], [300, 120, 60, 150, 0.1]], np.float32)
    monkeypatch.setattr(networks, "compiled", lambda path: None)
    monkeypatch.setattr(mark_people, "find_people", lambda model, image, least: inside)
    detector = networks.yolox(Path("any.onnx"))
    picture = np.zeros((416, 832, 3), np.uint8)
    assert len(detector.detect(picture)[0]) == 1  # its threshold is 0.3
    boxes, scores = detector.detect(picture, threshold=0.02)
    corners = np.hstack([inside[:, :2], inside[:, :2] + inside[:, 2:4]])
    # Half a pixel: pixel i of the half covers 2 i and 2 i + 1; the picture begins at row 104.
    expected = (corners - [0, 104, 0, 104] + 0.5) * 2 - 0.5
    found = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    np.testing.assert_allclose(found, expected, atol=1.01)  # crops turn about w/2: up to a pixel
    np.testing.assert_allclose(boxes[:, 2:], 2 * inside[:, 2:4], atol=1e-3)
    np.testing.assert_allclose(scores, [0.9, 0.1], atol=1e-6)


def test_joints_above_a_cut_are_scored_though_the_hip_lies_below():
    from conditions import _inside, _pck

    joints = np.zeros((2, 14, 2), np.float32)
    joints[:, :, 1] = np.linspace(90, 10, 14)  # ankles first, head last
    index = {name: i for i, name in enumerate(LSP14.joints)}
    box, seen = np.array([0, 0, 50, 100], np.float32), np.full(14, 2, np.uint8)
    people = [
        Sample(Path("p.jpg"), each, seen, box, 1.0, "validation", ("lspet", "1"), LSP14)
        for each in joints
    ]
    whole, inside = Truth.of(people), Truth.of([_inside(person) for person in people])
    assert np.isnan(inside.joints[:, index["right_hip"]]).all()
    found = joints.copy()
    found[0, index["left_wrist"]] += 100  # a miss of those that can be seen
    found[1, index["left_ankle"]] += 100  # cut off: not counted
    seen = [n for n in LIMB_JOINTS if np.isfinite(inside.joints[0, index[n]]).all()]
    matched = Matched(found, np.ones(2, "f4"), np.ones(14, bool), 2, "", np.ones((2, 14), "f4"))
    assert _pck(matched, inside, whole) == pytest.approx(1 - 1 / (2 * len(seen)))


def test_the_table_has_a_row_for_every_contender_and_the_csv_every_figure():
    from table import Figure, as_csv, markdown

    figures = [
        Figure("Joints", "ours", "PCK", 2 / 3, ".1%", 0.6, 0.7),
        Figure("Joints", "ours", "OKS", 0.5),
        Figure("Joints", "theirs", "OKS", 0.25),
        Figure("Joints", "absent", note="left out, no file a.onnx"),
    ]
    text = markdown(figures)
    assert "| ours | 66.7% (60.0%-70.0%) | 0.500 |" in text
    assert "| theirs | - | 0.250 |" in text
    assert "| absent | - | - |" in text and "- absent: left out, no file a.onnx" in text
    rows = list(csv.DictReader(io.StringIO(as_csv(figures))))
    assert float(rows[0]["value"]) == 2 / 3 and rows[3]["note"] == figures[3].note


def test_nobody_is_found_where_nobody_walks(data):
    import people

    finders = {
        str(size): PoseEstimator(detector_size=size, precision="float32").finder.detector
        for size in (256, 224)
    }
    found = people.in_empty_frames(data / "videos" / "walkers.mp4", finders, None)
    assert {figure.contender: figure.value for figure in found} == {"256": 0, "224": 0}
    assert {figure.measure for figure in found} == {"walkers.mp4, 159 empty frames: with a find"}


def test_a_quick_look_without_the_peers_files(data, tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "peers" / "run.py", "--data", data]
    command += ["--weights", tmp_path, "--part", "joints", "--limit", "3", "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "peers.csv").read_text())))
    gone = {row["contender"].split()[0] for row in rows if row["note"].startswith("left out")}
    assert gone == {"MoveNet", "SimplePose", "MediaPipe"}
    there = {row["contender"] for row in rows if row["measure"].startswith("mpii_small, 3 persons")}
    assert {"balanced, float32", "published: newell"} <= there
    assert subprocess.run(command, capture_output=True, check=False).returncode == 74  # no --force
