"""Joints of people who are hard to see: the validation persons of `joints`, chosen or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import joints
import numpy as np
from scipy.stats import mannwhitneyu
from table import Figure

from humanpose.data.readers import read
from humanpose.data.sets import evenly, part_of
from humanpose.errors import InputError
from humanpose.evaluate.metrics import pck
from humanpose.evaluate.predictions import Matched
from humanpose.evaluate.run import estimate_samples
from humanpose.evaluate.scores import Comparison, Truth
from humanpose.geometry import iou
from humanpose.images import load_image
from humanpose.types import F32, U8, Person, Sample

PART = "Joints under hard conditions, boxes given"
# Changed pixels, the box in them, and the affine (2, 3) from there back to the picture.
View = tuple[U8, F32, F32]
_SAME: F32 = np.eye(2, 3, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Condition:
    """Attributes:
    name: column of the table.
    folder: data set, as `joints.SETS` has it.
    holds: which of the set's persons; told the others in the picture.
    seen: what the networks get instead of a picture (H, W, 3) and a box (4,).
    """

    name: str
    folder: str
    holds: Callable[[Sample, Sequence[Sample]], bool] = lambda sample, others: True
    seen: Callable[[U8, F32], View] = lambda image, box: (image, box, _SAME)


def is_small(sample: Sample, others: Sequence[Sample]) -> bool:
    """Less than 96 px high."""
    return bool(sample.box[3] < 96)


def is_crowded(sample: Sample, others: Sequence[Sample]) -> bool:
    """Another annotated person's box covers it with IoU 0.3 or more."""
    return any(iou(sample.box[None], other.box[None])[0, 0] >= 0.3 for other in others)


def is_at_the_edge(sample: Sample, others: Sequence[Sample]) -> bool:
    """Its box comes within 2 px of the picture's edge."""
    height, width = load_image(sample.picture).shape[:2]
    x, y, w, h = sample.box
    return bool(min(x, y, width - x - w, height - y - h) <= 2)


def is_from_behind(sample: Sample, others: Sequence[Sample]) -> bool:
    """Upright, the left shoulder and hip on the picture's left."""
    names = sample.skeleton.joints
    at = {name: sample.joints[names.index(name)] for name in names}
    left, right = (
        np.stack([at[f"{side}_shoulder"], at[f"{side}_hip"]]) for side in ("left", "right")
    )
    upright = (left[1] + right[1] - left[0] - right[0])[1] > abs((left[1] - left[0])[0])
    return bool(upright and (left[:, 0] < right[:, 0]).all())


def turned(quarters: int) -> Callable[[U8, F32], View]:
    """The picture turned counter-clockwise by so many quarters."""

    def view(image: U8, box: F32) -> View:
        height, width = image.shape[:2]
        back = {
            1: [[0, -1, width - 1], [1, 0, 0]],
            2: [[-1, 0, width - 1], [0, -1, height - 1]],
        }[quarters]
        back = np.array(back, np.float32)
        there = cv2.invertAffineTransform(back)
        # A box ends half a pixel before its first pixel's centre.
        corners = np.stack([box[:2] - 0.5, box[:2] + box[2:] - 0.5]) @ there[:, :2].T + there[:, 2]
        low, high = corners.min(0) + 0.5, corners.max(0) + 0.5
        new = np.concatenate([low, high - low]).astype(np.float32)
        return np.ascontiguousarray(np.rot90(image, quarters)), new, back

    return view


def dark(image: U8, box: F32) -> View:
    """An eighth of the light, and a sensor's noise (deviation 3 of 255)."""
    noise = np.random.default_rng(image.size).normal(0, 3, image.shape)
    return np.clip(image / 8 + noise, 0, 255).astype(np.uint8), box, _SAME


def coarse(image: U8, box: F32) -> View:
    """Only as many pixels as make the box's longer side 48."""
    height, width = image.shape[:2]
    share = min(1.0, 48 / float(box[2:].max()))
    few = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR), box, _SAME


def upper_half(image: U8, box: F32) -> View:
    """A picture that ends at the middle of the box."""
    end = _cut(box)
    x, y, width, _ = box
    return image[:end].copy(), np.array([x, y, width, end - y], np.float32), _SAME


def _cut(box: F32) -> int:
    return max(1, round(float(box[1] + box[3] / 2)))


CONDITIONS = (
    Condition("all", "coco"),
    Condition("under 96 px", "coco", is_small),
    Condition("another in the box", "coco", is_crowded),
    Condition("at the edge", "coco", is_at_the_edge),
    Condition("dark", "coco", seen=dark),
    Condition("48 px of detail", "coco", seen=coarse),
    Condition("upside down", "coco", seen=turned(2)),
    Condition("all", "lspet"),
    Condition("from behind", "lspet", is_from_behind),
    Condition("on its side", "lspet", seen=turned(1)),
    Condition("upside down", "lspet", seen=turned(2)),
    Condition("cut at the middle", "lspet", seen=upper_half),
)


class Seen:
    """A contender that is shown something else than the picture."""

    def __init__(self, contender: Any, seen: Callable[[U8, F32], View]) -> None:
        self.spec = SimpleNamespace(skeleton=contender.spec.skeleton)
        self._contender, self._seen = contender, seen

    def estimate(self, image: U8, boxes: F32) -> tuple[Person, ...]:
        """One Person per box (N, 4), in the picture's own pixels."""
        people = []
        for box in boxes:
            changed, new, back = self._seen(image, box)
            (person,) = self._contender.estimate(changed, new[None])
            places = person.joints @ back[:, :2].T + back[:, 2]
            people.append(replace(person, joints=places.astype(np.float32), box=box))
        return tuple(people)


def figures(data: Path, weights: Path, child: Any | None, limit: int | None) -> Iterator[Figure]:
    """Return the rows of all contenders that are installed, in float32."""
    contenders, gone = joints.contenders(weights, child, PART)
    # Ours would be there twice: "**balanced**, int8" as well.
    contenders = {name: each for name, each in contenders.items() if "**, int8" not in name}
    sets: dict[str, list[Sample]] = {}
    for folder in ("coco", "lspet"):
        try:
            whole = part_of(read(folder, data / folder), "validation", folder)
            sets[folder] = evenly(whole, limit)
        except InputError as error:
            yield Figure(PART, folder, note=f"left out, {error}")
    for condition in CONDITIONS:
        if condition.folder in sets:
            yield from _under(condition, sets[condition.folder], contenders)
    yield from gone


def _under(
    condition: Condition, samples: list[Sample], contenders: dict[str, Any]
) -> Iterator[Figure]:
    neighbours: dict[Path, list[Sample]] = {}
    for sample in samples:
        neighbours.setdefault(sample.picture, []).append(sample)
    chosen = [
        sample
        for sample in samples
        if condition.holds(sample, [s for s in neighbours[sample.picture] if s is not sample])
    ]
    if not chosen:
        return
    cut = condition.seen is upper_half
    whole = Truth.of(chosen)
    truth = Truth.of([_inside(sample) for sample in chosen]) if cut else whole
    measure = f"{condition.folder}: {condition.name} ({len(chosen)})"
    for label, contender in contenders.items():
        print(f"{measure}: {label}", flush=True)
        found = estimate_samples(Seen(contender, condition.seen), chosen)  # type: ignore[arg-type]
        value = _pck(found, truth, whole) if cut else Comparison(found, truth).scores[0].value
        form = ".3f" if condition.folder == "coco" else ".1%"
        yield Figure(PART, label, measure, value, form)
        if cut:
            value = _told_apart(found, truth.joints, whole.joints)
            yield Figure(PART, label, "of it: absent joints told by their scores", value, ".1%")


def _inside(sample: Sample) -> Sample:
    """`sample` without the joints that `upper_half` cuts off."""
    gone = sample.joints[:, 1] > _cut(sample.box) - 0.5
    seen = np.where(gone[:, None], np.float32(np.nan), sample.joints)
    return replace(sample, joints=seen, visible=np.where(gone, 0, sample.visible).astype(np.uint8))


def _pck(found: Matched, truth: Truth, whole: Truth) -> float:
    """PCK@0.2 of the joints in `truth`, by the torsos of `whole`, whose hips may be cut off."""
    torso = pck.torso_size(whole.joints, whole.skeleton)
    distance = pck.normalised(found.joints, Comparison(found, truth).true_joints, torso)
    hit, counted = distance <= 0.2, ~np.isnan(distance)
    names = truth.skeleton.joints
    return pck.pooled("PCK@0.2", hit, counted, names, pck.LIMB_JOINTS, "joints").value


def _told_apart(found: Matched, present: F32, all_joints: F32) -> float:
    """Chance that a joint in the picture has a higher score than one beyond it (area under ROC)."""
    known = np.isfinite(found.joint_scores)
    there = np.isfinite(present).all(-1) & known
    absent = np.isfinite(all_joints).all(-1) & ~np.isfinite(present).all(-1) & known
    wins = mannwhitneyu(found.joint_scores[there], found.joint_scores[absent]).statistic
    return float(wins / (there.sum() * absent.sum()))
