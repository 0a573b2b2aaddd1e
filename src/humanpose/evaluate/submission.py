"""MPII's test-set submission: `pred_keypoints_mpii.mat`, shaped like the release's test part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from humanpose.data.parsers.tables import column, field, number, records, variables
from humanpose.data.readers.common import parse
from humanpose.errors import InputError
from humanpose.files import atomic_write
from humanpose.sandbox import Arrays
from humanpose.skeleton import MPII16
from humanpose.types import F32, Sample

RELEASE = "mpii_human_pose_v1_u12_1.mat"
_MIDDLES = {"pelvis": ("left_hip", "right_hip"), "thorax": ("left_shoulder", "right_shoulder")}


def write_submission(
    path: Path, release: Path, samples: Sequence[Sample], joints: F32
) -> tuple[int, int]:
    """Write `pred(i).annorect(r).annopoints.point(k).{x, y, id}`; 1-based pixels, 0-based ids.

    `pred` has an entry for every test picture of the release and a rectangle for every one there;
    those without a prediction stay empty. Where pelvis or thorax is missing it is taken from
    the middle of hips or shoulders.

    Args:
        path: of the file to write.
        release: folder of the release, or its .mat file; `samples` were read from it.
        samples: N persons; `origin` tells picture and rectangle.
        joints: (N, 16, 2) predicted, 0-based picture pixels, NaN = missing.

    Returns:
        Number of rectangles with a prediction, and of those the test asks for (single_person).

    Raises:
        InputError: if the release is not there, or a sample is not of its test part.
        FormatError, LimitError: if it is damaged.
        OutputError: if the file cannot be written.
    """
    file = release / RELEASE if release.is_dir() else release
    found = parse(_test_part, file, "scipy")
    place = {int(image): i for i, image in enumerate(found["image"])}
    rectangles = [np.empty((1, n), [("annopoints", object)]) for n in found["rectangles"]]
    for entry in rectangles:
        entry["annopoints"] = [[np.zeros((0, 0))] * entry.shape[1]]
    filled = 0
    joints = joints.copy()
    for name, ends in _MIDDLES.items():
        row, (a, b) = MPII16.index(name), (joints[:, MPII16.index(end)] for end in ends)
        missing = np.isnan(joints[:, row]).any(-1)
        joints[missing, row] = (a + b)[missing] / 2
    for sample, person in zip(samples, joints, strict=True):
        image, _, rectangle = sample.origin[1].partition("/")
        if not (image.isdecimal() and int(image) in place):
            raise InputError(f"{sample.picture.name}: not a test picture of {file}")
        known = np.flatnonzero(np.isfinite(person).all(-1))
        if known.size:
            points = np.empty((1, len(known)), [("x", object), ("y", object), ("id", object)])
            for k, joint in enumerate(known):
                points[0, k] = (*(person[joint].astype(np.float64) + 1), float(joint))
            annopoints = np.empty((1, 1), [("point", object)])
            annopoints[0, 0]["point"] = points
            rectangles[place[int(image)]][0, int(rectangle) - 1]["annopoints"] = annopoints
            filled += 1
    pred = np.empty((1, len(rectangles)), [("annorect", object)])
    for i, entry in enumerate(rectangles):
        pred[0, i]["annorect"] = entry
    from scipy.io import savemat

    with atomic_write(path) as out:
        savemat(out, {"pred": pred}, do_compression=True)
    return filled, int(found["single"])


def _test_part(path: str) -> Arrays:
    """Index (1-based) and number of rectangles of each test picture; runs in a child process."""
    release = records(variables(path, ["RELEASE"])["RELEASE"])
    entries = records(field(release, "annolist"))
    training = field(release, "img_train").ravel()
    single = field(release, "single_person").ravel()
    if not len(entries) == len(training) == len(single):
        raise ValueError("annolist, img_train and single_person do not fit each other")
    test = [i for i in range(len(entries)) if number(training[i : i + 1], 1) == 0]
    counts = [records(value).size for value in column(entries[test], "annorect")]
    wanted = sum(np.asarray(single[i]).size for i in test)
    return {
        "image": np.array(test, np.int64) + 1,
        "rectangles": np.array(counts, np.int64),
        "single": np.array(wanted),
    }
