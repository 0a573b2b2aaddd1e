"""Candidates judged on one data set, and the table that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from humanpose.evaluate.metrics.calibration import Reliability, reliability
from humanpose.evaluate.metrics.diagnosis import constant_predictor, swaps_and_misses
from humanpose.evaluate.metrics.groups import CONVENTIONS, in_groups
from humanpose.evaluate.metrics.intervals import LEVEL, bootstrap, interval
from humanpose.evaluate.metrics.oks import oks, similarities
from humanpose.evaluate.metrics.pck import within
from humanpose.evaluate.predictions import Matched, Predictions
from humanpose.evaluate.scores import Measure, Rules, Truth, measured, scores_of
from humanpose.types import F64, Score

FLOOR = "floor"
FAULTS = ("taken for the other side", "missed")
RESAMPLES, SEED = 1000, 0

Row = tuple[str, list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """How one candidate does on one data set.

    Attributes:
        scores: the data set's own first.
        found: its predictions beside the persons; None for a person network.
        groups: the first score by group; None where the set has no groups.
        interval: (2, 1 + J) ends of the 95 % interval of the first score and of its joints.
        measure: the distances behind the first score.
        faults: joints taken for the other side, and joints missed.
        shift: (2,) median of predicted minus true joints, pixels: an offset in the coordinates
            shows here.
        reliability: of the joints' scores, where the candidate gives some.
    """

    scores: list[Score]
    found: Matched | None = None
    groups: Score | None = None
    interval: F64 | None = None
    measure: Measure | None = None
    faults: tuple[Score, Score] | None = None
    shift: F64 | None = None
    reliability: Reliability | None = None


def judge(
    candidates: Mapping[str, tuple[Matched, Predictions | None]], truth: Truth, rules: Rules
) -> dict[str, Result]:
    """The results of all candidates; their intervals come from the same draws of pictures."""
    measures = {name: measured(found, truth, rules) for name, (found, _) in candidates.items()}
    sums = [
        _sums(found, truth, measures[name], rules.compat) for name, (found, _) in candidates.items()
    ]
    right, counted = (np.hstack(part) for part in zip(*sums, strict=True))
    draws = bootstrap(right, counted, truth.pictures, resamples=RESAMPLES, seed=SEED)
    ends = np.split(interval(draws, level=LEVEL), len(measures), axis=1)
    results = {}
    for (name, (found, everything)), end in zip(candidates.items(), ends, strict=True):
        scores = scores_of(found, truth, rules, everything)
        groups = None
        if truth.own_score != "oks":
            groups = in_groups(scores[0], measures[name].names, convention=rules.convention)
        measure, joints = measures[name], truth.as_known_to(found)
        faults = swaps_and_misses(
            found.joints,
            joints,
            measure.size,
            truth.skeleton,
            threshold=measure.threshold,
            names=measure.names,
        )
        apart = (found.joints - joints).reshape(-1, 2)
        apart = apart[np.isfinite(apart).all(1)]
        shift = np.median(apart, axis=0) if len(apart) else np.full(2, np.nan)
        fit = None
        if found.certainty is not None:
            fit = reliability(found.certainty, measure.distance, measure.threshold)
        results[name] = Result(scores, found, groups, end, measure, faults, shift, fit)
    return results


def _sums(found: Matched, truth: Truth, measure: Measure, compat: str) -> tuple[F64, F64]:
    """(N, 1 + J) what is right, and what is counted, of each person: pooled, then by joint."""
    counted = (~np.isnan(measure.distance)).astype(np.float64)
    if truth.own_score == "oks":
        joints = truth.as_known_to(found)
        each = similarities(found.joints, joints, truth.area, truth.skeleton)
        person = oks(found.joints, joints, truth.area, truth.skeleton)
        right = np.column_stack([person, each])
        return np.nan_to_num(right), np.column_stack([~np.isnan(person), counted])
    hits = within(measure.distance, measure.threshold, compat)[0].astype(np.float64)
    rows = [i for i, name in enumerate(truth.skeleton.joints) if name in measure.names]
    return (
        np.column_stack([hits[:, rows].sum(1), hits]),
        np.column_stack([counted[:, rows].sum(1), counted]),
    )


def curve(result: Result, thresholds: F64) -> F64:
    """(T,) share, of the joints that the first score pools, within each of `thresholds`."""
    distance = pooled_distances(result)
    return np.array([(distance <= t).mean() if len(distance) else np.nan for t in thresholds])


def pooled_distances(result: Result) -> F64:
    """(M,) distances of the joints that the first score pools."""
    assert result.measure is not None
    rows = [name in result.measure.names for name in result.scores[0].joints]
    each = result.measure.distance[:, rows]
    return np.asarray(each[~np.isnan(each)], np.float64)


def floor(truth: Truth) -> tuple[Matched, str]:
    """What knowing nothing but where the person is would give, and how that is meant."""
    centres = [sample.centre for sample in truth.samples]
    side: F64 = np.array([200 * sample.scale for sample in truth.samples], np.float64)
    if all(centre is not None for centre in centres) and (side > 0).all():
        middle = np.stack([centre for centre in centres if centre is not None])
        frame = "given centre and scale"
    else:
        boxes = np.stack([sample.box for sample in truth.samples])
        middle = np.asarray(boxes[:, :2] + boxes[:, 2:] / 2, np.float32)
        side = boxes[:, 2:].max(1).astype(np.float64)
        frame = "box (middle and longer side)"
    joints = constant_predictor(truth.joints, middle, np.maximum(side, 1))
    known = np.asarray(np.isfinite(truth.joints).all(-1).any(0))
    n = len(joints)
    how = (
        f"each joint at its mean place in the frame of the person's {frame}, over these {n} people"
    )
    return Matched(joints, np.ones(n, np.float32), known, n, "boxes given"), how


def heading(
    name: str, split: str, truth: Truth, results: Mapping[str, Result], rules: Rules
) -> list[str]:
    """What stands above the table: the data, who is whose, the conventions."""
    pictures = len(set(truth.pictures))
    lines = [f"{name} {split}: {len(truth.samples)} people in {pictures} pictures"]
    matching: dict[str, list[str]] = {}
    for label, result in results.items():
        if result.found is not None and label != FLOOR:
            matching.setdefault(result.found.rule, []).append(label)
    lines += [f"{', '.join(labels)}: {rule}" for rule, labels in matching.items()]
    lacking = [score for score in rules.scores if not truth.allows(score)]
    if lacking:
        lines.append(f"no truth in this set for: {', '.join(lacking)}")
    if any(result.groups is not None for result in results.values()):
        lines.append(f"convention {rules.convention}: {CONVENTIONS[rules.convention]}")
    return lines


def table(results: Mapping[str, Result], convention: str) -> list[Row]:
    """(label, one text per candidate) of each row; "" where a candidate has no such figure."""
    columns = {name: dict(_rows(result, convention)) for name, result in results.items()}
    longest = max(columns.values(), key=len, default={})
    labels = list(
        dict.fromkeys([*longest, *(label for rows in columns.values() for label in rows)])
    )
    return [(label, [rows.get(label, "") for rows in columns.values()]) for label in labels]


def _rows(result: Result, convention: str) -> list[tuple[str, str]]:
    """The figures of one candidate: the first score in full, the others by their value."""
    first, *others = result.scores
    rows = [(label(first), shown(first))]
    if result.found is not None:
        people = len(result.found.scores)
        rows.insert(0, (f"matched, of {people}", str(result.found.matched)))
    if result.interval is not None:
        low, high = (shown(first, float(end)) for end in result.interval[:, 0])
        rows.append((f"  {100 * LEVEL:g} % interval", f"{low}-{high}"))
    if result.groups is not None:
        rows += _named(result.groups, counts=False)
        rows.append((f"  Mean ({convention})", shown(result.groups)))
    rows += [(label(score), shown(score)) for score in others]
    if result.faults is not None and result.shift is not None:
        rows += [
            (f"{word}, %", f"{100 * score.value:.2f}")
            for word, score in zip(FAULTS, result.faults, strict=True)
        ]
        rows.append(("median error x y, px", "{:+.1f} {:+.1f}".format(*result.shift)))
    if result.reliability is not None:
        fit, measure = result.reliability, result.measure
        assert measure is not None
        within = f"within {measure.threshold:g} {measure.unit}"
        rows.append((f"calibration error of joint scores ({within})", f"{fit.error:.3f}"))
        worst = int(np.nanargmax(fit.each))
        rows.append(("  of the worst joint", f"{first.joints[worst]} {fit.each[worst]:.3f}"))
        medians = " / ".join("-" if np.isnan(m) else f"{m:.2f}" for m in fit.medians)
        rows.append(("median joint score: right / wrong / not annotated", medians))
    return rows + _named(first, counts=True)


def _named(score: Score, *, counts: bool) -> list[tuple[str, str]]:
    return [
        (f"  {joint} ({count})" if counts else f"  {joint}", shown(score, float(value)))
        for joint, value, count in zip(score.joints, score.per_joint, score.count, strict=True)
        if count and not np.isnan(value)
    ]


def is_share(score: Score) -> bool:
    """Whether the field gives the score in percent."""
    return "PCK" in score.rule or "PCP" in score.rule


def label(score: Score) -> str:
    """The rule, with its unit where it is percent."""
    return f"{score.rule}, %" if is_share(score) else score.rule


def shown(score: Score, value: float | None = None) -> str:
    """A figure of `score` as the field writes it: percent of joints, or a fraction."""
    value = score.value if value is None else value
    return f"{100 * value:.2f}" if is_share(score) else f"{value:.4f}"


def text_table(names: Sequence[str], rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    first = max(len(label) for label, _ in rows)
    widths = [
        max(len(name), *(len(values[i]) for _, values in rows)) for i, name in enumerate(names)
    ]
    lines = [("", list(names)), *rows]
    return "\n".join(
        f"{label:<{first}}"
        + "".join(f"  {value:>{w}}" for value, w in zip(values, widths, strict=True))
        for label, values in lines
    )
