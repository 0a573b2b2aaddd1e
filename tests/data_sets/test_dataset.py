from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose.data.augment import Augmentation, generator
from humanpose.data.detection import MOST, PersonDataset, PersonPicture, boxes_in_crop, pictures_of
from humanpose.data.pose import INSIDE, OUTSIDE, UNKNOWN, PoseDataset, half_body_box, joint_state
from humanpose.data.targets import Targets
from humanpose.geometry import augmented_crop, crop_of_picture
from humanpose.heatmap import to_pixels
from humanpose.skeleton import BODY19, COCO17, LSP14
from humanpose.spec import ModelSpec
from humanpose.types import Sample

POSE = ModelSpec("t", "pose", "lite", {"joints": 19}, BODY19, (96, 128))
PERSON = ModelSpec("t", "person", "person", {}, BODY19, (160, 128), crop="whole", decode="boxes")
NONE = np.zeros((0, 4), np.float32)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """A black picture with a white patch on the left wrist and a grey one on the right."""
    image = np.zeros((120, 100, 3), np.uint8)
    joints = np.full((17, 2), np.nan, np.float32)
    left, right = COCO17.index("left_wrist"), COCO17.index("right_wrist")
    joints[left], joints[right], joints[0] = (30, 60), (70, 50), (300, 60)
    image[57:64, 27:34], image[47:54, 67:74] = 255, 120
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    visible = np.where(np.isnan(joints[:, 0]), 0, 2).astype(np.uint8)
    box = np.array([10, 10, 80, 100], np.float32)
    return Sample(path, joints, visible, box, 4000.0, "train", ("coco", "1"), COCO17)


@pytest.mark.parametrize("index", range(6))
def test_the_target_peak_lies_on_its_patch_through_every_change(sample, index):
    rules = Augmentation(scale=(0.8, 1.2), rotation=90, rotation_chance=1, shift=0.05, flip=0.5)
    item = PoseDataset([sample], POSE, rules, seed=index)[(0, 0)]
    image, target, known = item["image"], item["target"], item["known"]
    assert image.shape == (128, 96, 3) and target.shape == (19, 32, 24)
    # After a mirror the patch that was on the left wrist is on a right one: brightness tells.
    bright = {}
    for side in ("left", "right"):
        j = BODY19.index(f"{side}_wrist")
        assert known[j] == INSIDE
        row, column = divmod(int(target[j].argmax()), 24)
        x, y = np.rint(to_pixels(np.array([column, row], np.float32), 4, "centre")).astype(int)
        bright[side] = int(image[y, x].max())
    assert {bright["left"] > 200, bright["right"] > 200} == {True, False}
    assert known[0] == OUTSIDE and known[BODY19.index("neck")] == UNKNOWN
    assert target[0].max() == 0


@pytest.mark.parametrize("rule", ["exact", "hrnet", "cpm"])
def test_a_joint_beyond_the_picture_is_absent_and_has_no_target(sample, rule):
    spec = replace(POSE, background=rule == "cpm")
    rules, left = Augmentation(cut=1), BODY19.index("left_wrist")
    states = set()
    for epoch in range(24):
        item = PoseDataset([sample], spec, rules, targets=Targets(rule, 1.0))[(epoch, 0)]
        seen = bool((item["image"].max(-1) > 200).any())
        assert (item["known"][left] == INSIDE) == seen
        assert (item["target"][left].max() > 0.5) == seen
        states.add(seen)
    assert states == {True, False}


def test_half_body_uses_the_joints_of_one_half():
    joints = np.stack([np.full(14, 50), np.arange(14) * 10], -1).astype(np.float32)
    joints[:6, 1] += 1000  # ankles, knees and hips far below the rest
    whole = np.array([0, 0, 100, 2000], np.float32)
    boxes = [half_body_box(joints, LSP14, generator(0, 0, i), default=whole) for i in range(20)]
    assert {bool(box[1] > 500) for box in boxes if box[3] < 500} <= {True, False}
    few = np.full_like(joints, np.nan)
    assert (half_body_box(few, LSP14, generator(0, 0, 0), default=whole) == whole).all()


def test_joint_state():
    joints = np.array([[0, 0], [95, 127], [96, 5], [np.nan, np.nan]], np.float32)
    assert joint_state(joints, (96, 128)).tolist() == [INSIDE, INSIDE, OUTSIDE, UNKNOWN]


def test_people_and_places_to_ignore_come_in_rows_of_one_length(sample):
    far = np.array([[60, 90, 30, 20]], np.float32)
    picture = PersonPicture(sample.picture, sample.box[None], far)
    item = PersonDataset([picture], PERSON, Augmentation())[(0, 0)]
    assert item["people"].shape == item["ignore"].shape == (MOST, 4)
    assert not item["people"][1:].any() and (item["people"][0, 2:] > 0).all()
    x, y, w, h = item["people"][0]
    whole = crop_of_picture((100, 120), PERSON.input)
    corner = whole.to_crop(sample.box[:2][None])[0]
    assert np.allclose([x - w / 2, y - h / 2], corner, atol=1e-3)
    assert item["ignore"][0, 2:].tolist() == pytest.approx([far[0, 2] * w / 80, far[0, 3] * w / 80])


def test_boxes_are_cut_at_the_edge_and_mostly_lost_ones_reported():
    whole = crop_of_picture((160, 128), (160, 128), centre="(w-1)/2")
    crop = augmented_crop(whole, shift=(0.25, 0.0))  # 40 px to the right
    boxes = np.array([[10, 10, 40, 60], [100, 20, 40, 50], [115, 0, 45, 50]], np.float32)
    kept, lost = boxes_in_crop(boxes, crop)
    assert np.allclose(kept, [[50, 10, 40, 60], [140, 20, 20, 50]], atol=0.01)
    assert np.allclose(lost, [[155, 0, 5, 50]], atol=0.01)


def test_pictures_are_grouped_and_marks_of_annotated_people_dropped(sample):
    other = Sample(
        sample.picture, sample.joints, sample.visible, np.array([50, 0, 20, 30], np.float32), 1.0,
        "train", ("coco", "2"), COCO17,
    )  # fmt: skip
    marks = {
        "coco/a.png": [
            [12, 12, 78, 96, 0.9],  # the annotated person again
            [20, 20, 20, 30, 0.5],  # a part of that person
            [300, 300, 10, 20, 0.4],  # somebody else
        ]
    }
    (picture,) = pictures_of([sample, other], marks)
    assert picture.boxes.shape == (2, 4)
    assert picture.ignore.tolist() == [[300, 300, 10, 20]]


def test_inputs_without_anybody_are_made(sample):
    picture = PersonPicture(sample.picture, sample.box[None], NONE)
    dataset = PersonDataset([picture] * 60, PERSON, Augmentation(), empty=0.5)
    items = [dataset[0, i] for i in range(60)]
    nobody = [item for item in items if not item["people"].any()]
    assert 18 <= len(nobody) <= 42 and all(item["image"].shape == (128, 160, 3) for item in items)
    assert len({item["image"].tobytes() for item in nobody}) == len(nobody)


def test_mosaic_keeps_people_in_their_tiles(sample):
    picture = PersonPicture(sample.picture, sample.box[None], NONE)
    rules = Augmentation(flip=0.5)
    item = PersonDataset([picture] * 5, PERSON, rules, mosaic=1.0)[(0, 0)]
    assert item["image"].shape == (128, 160, 3)
    people = item["people"][item["people"][:, 2] > 0]
    assert len(people) == 4
    # The patches are bright, the pad is grey: each person's box holds some of both patches.
    for *middle, w, h in people:
        part = item["image"][
            max(0, int(middle[1] - h / 2)) : int(middle[1] + h / 2),
            max(0, int(middle[0] - w / 2)) : int(middle[0] + w / 2),
        ]
        assert part.max() > 200
