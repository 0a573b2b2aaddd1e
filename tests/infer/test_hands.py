"""Hands: where they are searched, and that both sides come back in the picture's own pixels."""

import cv2
import numpy as np
import pytest
from makers.infer import Dots, pose_spec

from humanpose.draw import DrawStyle
from humanpose.errors import InputError
from humanpose.infer.hands import HandFinder, hand_boxes
from humanpose.infer.topdown import TopDown
from humanpose.skeleton import COCO17, HAND21, LSP14
from humanpose.types import Frame, Person

HUES = np.array([[[8 * i, 255, 255] for i in range(21)]], np.uint8)
COLOURS = [tuple(int(c) for c in rgb) for rgb in cv2.cvtColor(HUES, cv2.COLOR_HSV2RGB)[0]]


def body(skeleton=COCO17, **places) -> Person:
    joints = np.full((len(skeleton.joints), 2), np.nan, np.float32)
    for name, place in places.items():
        joints[skeleton.index(name)] = place
    scores = np.isfinite(joints).all(1).astype(np.float32)
    return Person(joints, scores, np.array([0, 0, 400, 300], np.float32), 1.0, skeleton=skeleton)


PERSON = body(
    left_shoulder=(250, 60), left_elbow=(300, 120), left_wrist=(300, 210),
    right_shoulder=(150, 60), right_elbow=(100, 120), right_wrist=(100, 210),
)  # fmt: skip


def test_square_lies_beyond_the_wrist_and_is_as_large_as_the_arm_says():
    owners, boxes = hand_boxes([PERSON], "right")
    assert owners == [0]
    side = 0.75 * max(90, 0.9 * np.hypot(50, 60))
    np.testing.assert_allclose(boxes, [[100 - side / 2, 240 - side / 2, side, side]])


@pytest.mark.parametrize(
    "person",
    [
        body(left_elbow=(300, 120)),
        body(left_elbow=(300, 120), left_wrist=(300, 130)),  # four pixels of hand
        body(right_elbow=(100, 120), right_wrist=(100, 210)),
        body(HAND21, wrist=(3, 3)),
    ],
)
def test_no_hand_is_looked_for_without_a_forearm(person):
    assert hand_boxes([person], "left")[0] == []


def test_without_a_shoulder_the_forearm_alone_says_how_large():
    owners, boxes = hand_boxes([PERSON, body(LSP14, left_elbow=(9, 9), left_wrist=(9, 99))], "left")
    assert owners == [0, 1] and boxes[1, 2] == pytest.approx(67.5)


def test_both_hands_come_back_with_owner_side_and_places():
    image = np.full((320, 420, 3), 20, np.uint8)
    rng = np.random.default_rng(0)
    truth = {}
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) - 2.0
    for side in ("left", "right"):
        _, boxes = hand_boxes([PERSON], side)
        places = boxes[0, :2] + boxes[0, 2:] / 2 + 15 * grid[rng.permutation(25)[:21]]
        truth[side] = places
        for (x, y), colour in zip(places, COLOURS, strict=True):
            cv2.circle(image, (round(x * 16), round(y * 16)), 5 * 16, colour, -1, cv2.LINE_AA, 4)
    spec = pose_spec(task="hand", net="cpm-hand", skeleton=HAND21, context=2.0, input=(368, 368))
    finder = HandFinder(TopDown(Dots(COLOURS), spec))
    frame = finder(Frame(image, people=(PERSON,)))
    assert [(hand.owner, hand.side) for hand in frame.hands] == [(0, "left"), (0, "right")]
    for hand in frame.hands:
        away = np.linalg.norm(hand.person.joints - truth[hand.side], axis=1)
        assert np.median(away) < 1.5
        box = hand.person.box
        np.testing.assert_allclose(box, hand_boxes([PERSON], hand.side)[1][0], atol=1e-3)
    record = frame.to_dict()
    assert [hand["side"] for hand in record["hands"]] == ["left", "right"]
    assert len(record["hands"][0]["joints"]) == 21
    bare = DrawStyle("skeleton", 0.0).draw(Frame(image, people=(PERSON,)))
    assert (DrawStyle("skeleton", 0.0).draw(frame) != bare).any()
    assert finder(Frame(image)).hands == ()
    assert "hands" not in Frame(image, people=(PERSON,)).to_dict()


def test_a_body_network_is_no_hand_network():
    with pytest.raises(InputError, match="finds no hands"):
        HandFinder(TopDown(Dots(COLOURS[:14]), pose_spec()))
