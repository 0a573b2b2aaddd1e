"""People with wrists -> their hands, by a hand network on crops around the wrists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from humanpose.errors import InputError
from humanpose.infer.topdown import TopDown
from humanpose.types import F32, Frame, Hand, Person

_LEAST_SCORE = 0.2  # of wrist and elbow: where they are not sure there is no hand to look at
_LEAST_SIDE = 16.0  # pixels; a smaller hand has no fingers to be seen


class HandFinder:
    """Hands of the people of a frame.

    Args:
        estimator: with a hand network.
    """

    def __init__(self, estimator: TopDown) -> None:
        if estimator.spec.task != "hand":
            raise InputError(f"model {estimator.spec.name!r} finds no hands")
        self._estimator = estimator

    def __call__(self, frame: Frame) -> Frame:
        """Return `frame` with the hands of its people, left and right of each in order."""
        width = frame.image.shape[1]
        found: dict[tuple[int, str], Hand] = {}
        for side in ("left", "right"):
            owners, boxes = hand_boxes(frame.people, side)
            image = frame.image
            if side == "left":  # the networks were trained on right hands: show its mirror image
                image = np.ascontiguousarray(image[:, ::-1])
                boxes[:, 0] = width - 1 - boxes[:, 0] - boxes[:, 2]
            for owner, hand in zip(owners, self._estimator.estimate(image, boxes), strict=True):
                if side == "left":
                    hand = _mirrored(hand, width)
                found[owner, side] = Hand(hand, owner, side)
        return replace(frame, hands=tuple(found[key] for key in sorted(found)))


def hand_boxes(people: Sequence[Person], side: str) -> tuple[list[int], F32]:
    """Return who of `people` shows the hand of that side, and squares (N, 4) around those hands.

    The middle lies beyond the wrist by a third of the forearm; the square is 0.75 of the forearm
    or of 0.9 of the upper arm, if that is longer.

    Source: OpenPose's handDetector.cpp, which cuts squares of twice that size: here the context
    in the hand network's spec (2) does that.
    """
    owners, boxes = [], []
    for i, person in enumerate(people):
        names = [f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist")]
        if not set(names) <= set(person.skeleton.joints):
            continue
        rows = [person.skeleton.index(name) for name in names]
        shoulder, elbow, wrist = person.joints[rows].astype(np.float64)
        if not np.isfinite([elbow, wrist]).all() or person.scores[rows[1:]].min() < _LEAST_SCORE:
            continue
        arms = (np.linalg.norm(wrist - elbow), 0.9 * np.linalg.norm(elbow - shoulder))
        extent = 0.75 * float(np.nanmax(arms))
        if extent < _LEAST_SIDE:
            continue
        middle = wrist + (wrist - elbow) / 3
        owners.append(i)
        boxes.append([*(middle - extent / 2), extent, extent])
    return owners, np.array(boxes, np.float32).reshape(-1, 4)


def _mirrored(hand: Person, width: int) -> Person:
    """Mirror `hand` at the middle of its picture; a hand's joints have no other side."""
    joints = hand.joints * (-1, 1) + (width - 1, 0)
    box = hand.box * (-1, 1, 1, 1) + (width - 1 - hand.box[2], 0, 0, 0)
    return replace(hand, joints=joints.astype(np.float32), box=box.astype(np.float32))
