"""Rounds of measurements: every combination once a round, each in a process of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from humanpose.errors import HumanPoseError
from humanpose.lab.bench.plan import Combination

if TYPE_CHECKING:
    from humanpose.evaluate.scores import Truth

_NOTHING = math.nan


@dataclass(frozen=True, slots=True)
class Row:
    """What was found about one combination; NaN where there is nothing to tell.

    Times are ms a frame, one frame after another; each is the median over the rounds of a round's
    median (or 95th percentile) over all frames. The pose of a frame without people takes 0 ms, so
    that every column is about the same frames.

    Attributes:
        of: the combination.
        why: why it cannot run; "" where it could.
        frames_0, frames_1, frames_more: frames with nobody, one person, more people.
        detector, pose, full: see above; full is reading, detector, pose and drawing.
        pose_1, pose_more: the pose over the frames with one person, and with more.
        full_low, full_high: the fastest and the slowest round's median.
        rate: frames a second.
        pose_precision, person_precision: what was computed in.
        pose_input, person_input: "WxH".
        pose_gmac, person_gmac: multiply-accumulates of one input, 1e9.
        pose_peak, person_peak: the machine's in that precision, 1e9 multiply-accumulates a second.
        pose_share, person_share: of the peak, in the same process, median over the rounds.
        memory: most memory of the process, MiB.
        cold, warm: seconds from the first import to the first result, with an empty cache of
            compiled models and with a filled one.
        scores: rule -> value in [0, 1], by data set.
    """

    of: Combination
    why: str = ""
    frames_0: int = 0
    frames_1: int = 0
    frames_more: int = 0
    detector: float = _NOTHING
    detector_p95: float = _NOTHING
    pose: float = _NOTHING
    pose_p95: float = _NOTHING
    pose_1: float = _NOTHING
    pose_more: float = _NOTHING
    full: float = _NOTHING
    full_p95: float = _NOTHING
    full_low: float = _NOTHING
    full_high: float = _NOTHING
    rate: float = _NOTHING
    pose_precision: str = ""
    person_precision: str = ""
    pose_input: str = ""
    person_input: str = ""
    pose_gmac: float = _NOTHING
    person_gmac: float = _NOTHING
    pose_peak: float = _NOTHING
    person_peak: float = _NOTHING
    pose_share: float = _NOTHING
    person_share: float = _NOTHING
    memory: float = _NOTHING
    cold: float = _NOTHING
    warm: float = _NOTHING
    scores: dict[str, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How to measure.

    Attributes:
        source: a video or a picture; "" for a made-up picture.
        frames: the first so many.
        rounds: how often every combination takes its turn.
    """

    source: str
    frames: int = 300
    rounds: int = 5


def measured(
    wanted: Sequence[Combination],
    protocol: Protocol,
    told: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """One row per combination, in their order.

    Args:
        wanted: what to measure.
        protocol: how.
        told: takes a line before every measurement.
    """
    results: dict[Combination, list[dict[str, Any]]] = {each: [] for each in wanted}
    why: dict[Combination, str] = {}
    with tempfile.TemporaryDirectory(prefix="humanpose-bench-") as folder:
        for i in range(protocol.rounds):
            for place, each in enumerate(wanted):
                if each in why:
                    continue
                told(f"round {i + 1}/{protocol.rounds}, {place + 1}/{len(wanted)}: {each}")
                own = Path(folder) / str(place)  # its cache is empty in the first round
                own.mkdir(exist_ok=True)
                result = _in_child(each, protocol, own)
                if "why" in result:
                    why[each] = result["why"]
                else:
                    results[each].append(result)
    return [
        Row(each, why[each]) if each in why else summary(each, results[each]) for each in wanted
    ]


def _in_child(each: Combination, protocol: Protocol, folder: Path) -> dict[str, Any]:
    job = folder / "job.json"
    cache = folder / "cache"
    asked = {
        "source": protocol.source,
        "frames": protocol.frames,
        "cache": str(cache),
        "folder": str(folder),
    }
    job.write_text(json.dumps(asdict(each) | asked), encoding="utf-8")
    command = [sys.executable, "-m", "humanpose.lab.bench.child", str(job)]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode:
        last = (ended.stderr.strip() or "it said nothing").splitlines()[-1]
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"code {ended.returncode}"
        return {"why": f"the process ended with {how}: {last[:200]}"}
    result: dict[str, Any] = json.loads(job.read_text(encoding="utf-8"))
    return result


def summary(each: Combination, rounds: Sequence[dict[str, Any]]) -> Row:
    """The row of a combination from the results of its rounds (see `child.measure`)."""
    people = np.array([frame[0] for frame in rounds[0]["frames"]])
    times = np.array([[frame[1:] for frame in result["frames"]] for result in rounds])
    full, detector, pose = np.moveaxis(times, -1, 0)  # each (rounds, frames)
    medians = np.median(full, axis=1)
    facts: dict[str, Any] = {}
    for task in rounds[0]["networks"]:
        nets = [result["networks"][task] for result in rounds]
        peaks = [net["peak"] or _NOTHING for net in nets]
        facts |= {
            f"{task}_input": "x".join(map(str, nets[0]["input"])),
            f"{task}_gmac": nets[0]["gmac"],
            f"{task}_precision": nets[0]["precision"],
            f"{task}_peak": _median(peaks) / 1e9,
            f"{task}_share": _median(
                net["rate"] / peak for net, peak in zip(nets, peaks, strict=True)
            ),
        }
    if each.person != "none":
        facts |= {"detector": _middle(detector), "detector_p95": _late(detector)}
    return Row(
        each,
        frames_0=int((people == 0).sum()),
        frames_1=int((people == 1).sum()),
        frames_more=int((people > 1).sum()),
        pose=_middle(pose),
        pose_p95=_late(pose),
        pose_1=_middle(pose[:, people == 1]),
        pose_more=_middle(pose[:, people > 1]),
        full=_median(medians),
        full_p95=_late(full),
        full_low=float(medians.min()),
        full_high=float(medians.max()),
        rate=_median(1e3 / full.mean(axis=1)),
        memory=_median([(r["memory"] or _NOTHING) / 2**20 for r in rounds]),
        cold=rounds[0]["start"],
        warm=_median([r["start"] for r in rounds[1:]]),
        **facts,
    )


def _middle(times: np.ndarray) -> float:
    """Median over the rounds of the medians over the frames of `times` (rounds, frames)."""
    return _median(np.median(times, axis=1)) if times.size else _NOTHING


def _late(times: np.ndarray) -> float:
    """Median over the rounds of the 95th percentiles over the frames."""
    return _median(np.percentile(times, 95, axis=1))


def _median(values: Iterable[float]) -> float:
    found = np.array(list(values), np.float64)
    return float(np.median(found)) if len(found) else _NOTHING


Scores = dict[str, tuple[str, float]]


def scored(
    wanted: Sequence[Combination],
    data: Sequence[str],
    split: str,
    told: Callable[[str], None] = lambda line: None,
) -> dict[Combination, Scores]:
    """The own score of every data set, boxes given, of each combination that can be loaded.

    Threads and the person network do not matter to it: combinations that differ in nothing else
    share theirs.

    Raises:
        InputError and its children: as the readers of the data sets say.
    """
    from humanpose.evaluate.run import read_all
    from humanpose.evaluate.scores import Rules

    sets, _ = read_all(data, (), split, Rules())
    known: dict[Combination, Scores | None] = {}
    for each in wanted:
        key = _scored_alike(each)
        if key not in known:
            told(f"scores: {each}")
            known[key] = _scores(each, sets)
    found = {each: known[_scored_alike(each)] for each in wanted}
    return {each: scores for each, scores in found.items() if scores is not None}


def _scored_alike(each: Combination) -> Combination:
    return replace(each, threads=None, person="")


def _scores(each: Combination, sets: Sequence[Truth]) -> Scores | None:
    """None where the network cannot be loaded: measuring it will say why."""
    from humanpose.evaluate.run import load_network, matched_on
    from humanpose.evaluate.scores import Comparison
    from humanpose.infer.options import InferenceOptions

    backend = "auto" if each.runtime == "torch" else each.runtime
    options = InferenceOptions(
        runtime=backend,
        precision=each.precision,
        device=each.device,
        threads=each.threads,
        cache="",
        size=each.size,
    )
    try:
        candidate = load_network(each.model, options)
    except HumanPoseError:
        return None
    scores = {}
    for truth in sets:
        score = Comparison(matched_on(truth, candidate), truth).scores[0]
        scores[truth.name] = (score.rule, score.value)
    return scores
