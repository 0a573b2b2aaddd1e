"""Joints of people in given boxes: every contender on the same persons, by the same scorer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import ours
from mediapipe_pose import HOW, MediaPipePose, row_name
from table import Figure

from humanpose.data.readers import read
from humanpose.data.sets import evenly, part_of
from humanpose.errors import InputError
from humanpose.evaluate.metrics.pck import LIMB_JOINTS
from humanpose.evaluate.plots import is_percent
from humanpose.evaluate.predictions import Matched, match, read_predictions
from humanpose.evaluate.run import estimate_samples
from humanpose.evaluate.scores import Comparison, Truth
from humanpose.infer.topdown import TopDown
from humanpose.types import Sample

PART = "Joints, boxes given"
# Folder -> its reader.
SETS = {"coco": "coco", "lspet": "lspet", "mpii_small": "mpii"}
PUBLISHED = ("tompson.h5", "bearpaw-hg_s2_b1.mat", "newell.h5")
PEERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "MoveNet Lightning int8": ("movenet_single_pose_lightning_ptq.tflite", networks.MoveNet),
    "SimplePose nano 192x256": (
        "ultralight_nano_simplepose_192x256.onnx",
        networks.simple_pose,
    ),
}


def figures(
    data: Path, weights: Path, child: MediaPipePose | None, limit: int | None
) -> list[Figure]:
    """Return the rows of all contenders; a missing one is a row that says so."""
    present, found = contenders(weights, child, PART)
    scored = []
    for folder in SETS:
        try:
            whole = part_of(read(SETS[folder], data / folder), "validation", folder)
        except InputError as error:
            scored.append(Figure(PART, folder, note=f"left out, {error}"))
            continue
        scored += _on_set(folder, evenly(whole, limit), present)
        if folder == "mpii_small":
            scored += _published(data, [whole.index(s) for s in evenly(whole, limit)])
    return scored + found


def contenders(
    weights: Path, child: MediaPipePose | None, part: str
) -> tuple[dict[str, Any], list[Figure]]:
    """Label -> who finds joints in given boxes; and rows of `part` for those who are not here."""
    here: dict[str, Any] = {}
    gone = []
    for label, network, spec in ours.loaded("pose"):
        here[label] = TopDown(network, spec)
    for label, (file, make) in PEERS.items():
        try:
            here[label] = make(weights / file)
        except InputError as error:
            gone.append(Figure(part, label, note=f"left out, {error}"))
    if child is None:
        gone.append(Figure(part, row_name(child), note=f"left out; {HOW}"))
    else:
        here[row_name(child)] = child
    return here, gone


def _on_set(folder: str, samples: list[Sample], contenders: dict[str, Any]) -> Iterator[Figure]:
    truth, found = Truth.of(samples), {}
    for label, contender in contenders.items():
        print(f"{folder}: {label}", flush=True)
        found[label] = estimate_samples(contender, samples)
    yield from _scored(folder, found, truth)
    for label, contender in contenders.items():
        if isinstance(contender, MediaPipePose):
            share = float(np.isfinite(found[label].joints).all(-1).any(-1).mean())
            yield Figure(PART, label, f"{folder}: found anybody, share of boxes", share, ".1%")


def _scored(folder: str, found: dict[str, Matched], truth: Truth) -> Iterator[Figure]:
    """The set's own score; of MPII only the limb joints, which every contender knows."""
    if truth.own_score == "pckh":
        limbs = np.isin(truth.skeleton.joints, LIMB_JOINTS)
        found = {label: replace(each, known=each.known & limbs) for label, each in found.items()}
    for label, each in found.items():
        result = Comparison(each, truth)
        score, ends = result.scores[0], result.interval
        # MPII's rule counts them and does not know that they are the limbs.
        rule = score.rule.removesuffix(", boxes given").replace("12 joints", "12 limb joints")
        measure = f"{folder}, {len(truth.samples)} persons: {rule}"
        form = ".1%" if is_percent(score) else ".3f"
        low, high = (float(end) for end in ends[:, 0])
        yield Figure(PART, label, measure, score.value, form, low, high)


def _published(data: Path, rows: list[int]) -> list[Figure]:
    """Published predictions on the persons of mpii_small's validation part in `rows`.

    They are of the original pictures and are scored there: PCKh knows no scale.
    """
    labels = {name: f"published: {Path(name).stem}" for name in PUBLISHED}
    entries = json.loads((data / "mpii_small" / "annot" / "valid.json").read_text())
    places = [entries[row]["valid_row"] for row in rows]
    try:
        whole = read("mpii", data / "mpii")
        if max(places) >= len(whole):
            raise InputError(f"{data / 'mpii'}: {len(whole)} persons, not MPII's validation part")
    except InputError as error:
        return [Figure(PART, label, note=f"left out, {error}") for label in labels.values()]
    samples, found, gone = [whole[place] for place in places], {}, []
    for name, label in labels.items():
        try:
            found[label] = match(read_predictions(data / "mpii" / name), samples, whole)
        except InputError as error:
            gone.append(Figure(PART, label, note=f"left out, {error}"))
    return [*_scored("mpii_small", found, Truth.of(samples)), *gone] if found else gone
