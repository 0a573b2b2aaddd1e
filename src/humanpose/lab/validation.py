"""Scores of a network, while it trains by all processes of the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lightning.fabric import Fabric

from humanpose.data.detection import PersonPicture, pictures_of
from humanpose.data.sets import Marks
from humanpose.evaluate.predictions import Matched
from humanpose.evaluate.run import estimate_samples, person_scores, pose_score
from humanpose.evaluate.scores import Comparison, Truth
from humanpose.infer.detector import Detector
from humanpose.infer.runtime import Runtime
from humanpose.infer.topdown import TopDown
from humanpose.nets.network import Net
from humanpose.nets.torch_runtime import TorchRuntime
from humanpose.skeleton import joint_map
from humanpose.spec import ModelSpec
from humanpose.train.distributed import all_gather, rank_slice
from humanpose.types import F32, Sample, Score

# This many pictures or persons of each set, evenly spread; `humanpose evaluate` scores them all.
_SHARE = 400


def network_scores(runtime: Runtime, spec: ModelSpec, samples: Sequence[Sample]) -> list[Score]:
    """Return the scores of a network on `samples`, boxes given; of a detector on their pictures."""
    if spec.task == "person":
        return list(person_scores(Detector(runtime, spec), pictures_of(samples)))
    return [pose_score(TopDown(runtime, spec), samples)]


def validation_scores(
    net: Net,
    spec: ModelSpec,
    sets: dict[str, list[Sample]],
    marks: Marks,
    fabric: Fabric,
) -> dict[str, float]:
    """Scores of `net` on an even share of each set's validation part."""
    runtime = TorchRuntime(net, spec)
    scores: dict[str, float] = {}
    for name, samples in sets.items():
        part = [sample for sample in samples if sample.split == "validation"]
        if not part:
            continue
        if spec.task == "person":
            pictures = pictures_of(part, marks)
            pictures = pictures[:: max(1, len(pictures) // _SHARE)]
            found = _person_scores(Detector(runtime, spec), pictures, fabric)
            scores[f"{name}_recall"], scores[f"{name}_ap"] = found
        else:
            people = part[:: max(1, len(part) // _SHARE)]
            scores[name] = _pose_score(TopDown(runtime, spec), people, fabric)
    return scores


def _person_scores(
    detector: Detector, pictures: Sequence[PersonPicture], fabric: Fabric
) -> tuple[float, float]:
    """Recall and AP."""
    recall, precision = person_scores(
        detector, pictures[rank_slice(fabric)], gather=lambda found: all_gather(found, fabric)
    )
    return recall.value, precision.value


def _pose_score(estimator: TopDown, people: Sequence[Sample], fabric: Fabric) -> float:
    """The data set's own score, of the joints of all processes."""
    rows: list[tuple[F32, np.float32]] = []
    mine = people[rank_slice(fabric)]
    if mine:
        found = estimate_samples(estimator, mine)
        rows = list(zip(found.joints, found.scores, strict=True))
    joints, sure = map(np.stack, zip(*all_gather(rows, fabric), strict=True))
    known = joint_map(estimator.spec.skeleton, people[0].skeleton) >= 0
    whole = Matched(joints, sure, known, len(people), "boxes given")
    return Comparison(whole, Truth.of(people)).scores[0].value
