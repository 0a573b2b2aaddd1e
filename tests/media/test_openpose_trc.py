"""The two outputs that other programs define: OpenPose's folder and TRC."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.media import read_trc, record_sink

from humanpose.errors import OutputError
from humanpose.skeleton import BODY19, HAND21
from humanpose.types import Frame, Hand, Person

IMAGE = np.zeros((48, 64, 3), np.uint8)


def frame(i: int, tracks: Sequence[int]) -> Frame:
    """Frame i with people without necks, told apart by their first joint's x."""
    people = []
    for track in tracks:
        rng = np.random.default_rng(100 * i + track)
        joints = rng.uniform(5, 45, (19, 2)).astype(np.float32)
        scores = rng.uniform(0.2, 1, 19).astype(np.float32)
        joints[0], joints[17], scores[17] = (track, 10), np.nan, 0
        people.append(Person(joints, scores, np.array([4, 5, 30, 40]), 0.5, track, BODY19))
    return Frame(IMAGE, i, i / 10, f"walk.mp4#{i}", tuple(people))


FRAMES = [frame(0, [0]), frame(1, []), frame(2, [0, 1])]


def test_trc_holds_the_track_with_most_frames(tmp_path: Path) -> None:
    tracks = [[], [7], [7, 9], [9], [], [9]]
    frames = [frame(i, there) for i, there in enumerate(tracks)]
    with record_sink("trc", tmp_path / "a.trc") as sink:
        for one in frames:
            sink.write(one)
    head, markers, rows = read_trc(tmp_path / "a.trc")
    assert markers == list(BODY19.joints) and head["Units"] == "px"
    assert float(head["DataRate"]) == 10 and int(head["NumFrames"]) == 6
    assert rows[:, 0].tolist() == [1, 2, 3, 4, 5, 6] and np.allclose(rows[:, 1], np.arange(6) / 10)
    gap = np.nan
    assert np.array_equal(rows[:, 2], [gap, gap, 9, 9, gap, 9], equal_nan=True)
    assert rows[2, 3:5].tolist() == [48 - 1 - 10, 0]  # Y is up, Z is 0
    assert np.isnan(rows[2, 2 + 3 * 17 :][:3]).all()  # the neck is missing


def test_openpose_names_a_file_per_frame(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.openpose"
    with record_sink("openpose", path) as sink:
        for one in FRAMES:
            sink.write(one)
        for name in ("sub/photo.jpg", "sub/photo.png"):
            sink.write(replace(FRAMES[0], name=name))
        assert not path.exists()
    files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*.json"))
    assert files == [
        "sub/photo.png_keypoints.json",
        "sub/photo_keypoints.json",
        *(f"walk_{i:012d}_keypoints.json" for i in range(3)),
    ]
    assert list(path.parent.iterdir()) == [path]
    content = json.loads((path / "walk_000000000002_keypoints.json").read_text())
    assert content["version"] == 1.3 and len(content["people"]) == 2
    person, truth = content["people"][1], FRAMES[2].people[1]
    assert person["person_id"] == [1] and person["hand_left_keypoints_2d"] == []
    joints = np.array(person["pose_keypoints_2d"]).reshape(25, 3)
    wrist = BODY19.index("right_wrist")
    assert np.allclose(joints[4], [*truth.joints[wrist], truth.scores[wrist]], atol=0.006)
    hips = [BODY19.index(f"{side}_hip") for side in ("left", "right")]
    assert np.allclose(joints[8, :2], truth.joints[hips].mean(0), atol=0.006)
    assert joints[8, 2] == pytest.approx(truth.scores[hips].min(), abs=1e-4)
    assert not joints[[1, *range(19, 25)]].any()  # no neck here; no feet either


def test_openpose_holds_the_hands(tmp_path: Path) -> None:
    joints = np.arange(42, dtype=np.float32).reshape(21, 2)
    joints[3] = np.nan
    scores = np.where(np.isnan(joints).any(1), 0, np.float32(0.5))
    box = np.array([0, 0, 42, 42], np.float32)
    hand = Person(joints, scores, box, 0.5, skeleton=HAND21)
    frame = replace(FRAMES[2], hands=(Hand(hand, owner=1, side="left"),))
    with record_sink("openpose", tmp_path / "a.openpose") as sink:
        sink.write(frame)
    (file,) = (tmp_path / "a.openpose").glob("*.json")
    first, second = json.loads(file.read_text())["people"]
    assert first["hand_left_keypoints_2d"] == second["hand_right_keypoints_2d"] == []
    found = np.array(second["hand_left_keypoints_2d"]).reshape(21, 3)
    assert found[3].tolist() == [0, 0, 0] and found[20].tolist() == [40, 41, 0.5]


def test_openpose_replaces_only_what_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.openpose"
    with record_sink("openpose", path) as sink:
        for one in FRAMES:
            sink.write(one)
    with (
        pytest.raises(OutputError, match="exists; add --force"),
        record_sink("openpose", path),
    ):
        pass
    with pytest.raises(ZeroDivisionError), record_sink("openpose", path, force=True) as sink:
        sink.write(FRAMES[0])
        raise ZeroDivisionError
    assert len(list(path.iterdir())) == 3  # the old ones
    (tmp_path / "a.jsonl.part").unlink()
    with record_sink("openpose", path, force=True) as sink:
        sink.write(FRAMES[1])
    assert [p.name for p in path.iterdir()] == ["walk_000000000001_keypoints.json"]
    assert list(tmp_path.iterdir()) == [path]
    (path / "notes.txt").write_text("mine")
    with (
        pytest.raises(OutputError, match="holds other files"),
        record_sink("openpose", path, force=True),
    ):
        pass
    assert (path / "notes.txt").read_text() == "mine" and len(list(path.iterdir())) == 2
    with pytest.raises(KeyboardInterrupt), record_sink("openpose", tmp_path / "b.openpose"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="in the way"),
        record_sink("openpose", tmp_path / "file" / "a.openpose"),
    ):
        pass
