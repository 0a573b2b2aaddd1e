"""The report of an evaluation: one HTML page, a PNG per plot, and everything as JSON."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from humanpose import __version__
from humanpose.errors import MissingExtraError
from humanpose.evaluate import pages, plots
from humanpose.evaluate.candidates import Candidate, Outcome
from humanpose.evaluate.failures import worst_people
from humanpose.evaluate.metrics.groups import CONVENTIONS
from humanpose.evaluate.metrics.intervals import LEVEL
from humanpose.evaluate.metrics.pck import THRESHOLDS
from humanpose.evaluate.pages import safe
from humanpose.evaluate.run import FLOOR, RESAMPLES, SEED, Result, curve, heading, table
from humanpose.evaluate.scores import Rules
from humanpose.files import atomic_write, prepare_output
from humanpose.types import U8, Score

FORMAT = "humanpose-scores/1"
_PAGE, _SCORES = "report.html", "scores.json"


def prepare(folder: Path, *, force: bool, with_plots: bool) -> None:
    """See, before anything runs, that a report can be written to `folder`.

    Raises:
        OutputError: if one is there.
        MissingExtraError: if plots are asked for and matplotlib is not installed.
    """
    if with_plots and importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "data")
    for name in (_PAGE, _SCORES):
        prepare_output(folder / name, force=force)


def write(
    folder: Path,
    outcomes: Sequence[Outcome],
    candidates: Mapping[str, Candidate],
    rules: Rules,
    *,
    with_plots: bool,
) -> Path:
    """Write `report.html`, `scores.json` and the plots into `folder`; returns the page's path.

    Raises OutputError if a file cannot be written.
    """
    pictures: dict[str, list[tuple[str, str, bytes]]] = {}
    for outcome in outcomes:
        name = outcome.data.name
        pictures[name] = list(_pictures(outcome)) if with_plots else []
        for file, _, content in pictures[name]:
            with atomic_write(folder / file) as out:
                out.write(content)
    figures = _content(outcomes, candidates, rules)
    with atomic_write(folder / _SCORES) as out:
        out.write(json.dumps(figures, indent=1, allow_nan=False).encode())
    with atomic_write(folder / _PAGE) as out:
        out.write(_page(outcomes, candidates, rules, pictures))
    return folder / _PAGE


def _pictures(outcome: Outcome) -> Iterator[tuple[str, str, bytes]]:
    """(file name, caption, content) of each plot and of each candidate's worst people."""
    name = outcome.data.name
    posed = {label: each for label, each in outcome.results.items() if each.measure is not None}
    if posed:
        for kind, content in plots.draw(posed).items():
            yield f"{name}-{kind}.png", plots.CAPTIONS[kind], content
    for number, label in enumerate(posed, start=1):
        worst = worst_people(outcome, posed[label]) if label != FLOOR else None
        if worst is not None:
            sheet, lines = worst
            caption = f"Worst of {label} among the pictures at hand; truth left, prediction right: "
            yield f"{name}-worst-{number}.jpg", caption + "; ".join(lines), _jpeg(sheet)


def _jpeg(image: U8) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "jpeg", quality=88)
    return content.getvalue()


def _content(
    outcomes: Sequence[Outcome],
    candidates: Mapping[str, Candidate],
    rules: Rules,
) -> dict[str, Any]:
    """What `scores.json` holds: figures in full, null for what was never counted."""
    scores: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for outcome in outcomes:
        name = outcome.data.name
        scores[name] = {
            label: {score.rule: _figures(score) for score in result.scores}
            for label, result in outcome.results.items()
        }
        details[name] = {label: _details(result) for label, result in outcome.results.items()}
    return {
        "format": FORMAT,
        "humanpose": __version__,
        "command": ["humanpose", *sys.argv[1:]],
        "convention": {rules.convention: CONVENTIONS[rules.convention]},
        "compat": rules.compat or None,
        "intervals": {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "seed": SEED,
            "method": "percentile bootstrap over pictures",
        },
        "candidates": {label: candidate.about for label, candidate in candidates.items()},
        "sets": {
            outcome.data.name: {
                "path": str(outcome.data.path),
                "split": outcome.data.split,
                "people": len(outcome.truth.samples),
                "pictures": len(set(outcome.truth.pictures)),
                "floor": outcome.floor or None,
            }
            for outcome in outcomes
        },
        "scores": scores,
        "details": details,
    }


def _figures(score: Score) -> dict[str, Any]:
    value: dict[str, Any] = {"value": _number(score.value)}
    if score.joints:
        pairs = list(zip(score.joints, score.per_joint, score.count, strict=True))
        value["per_joint"] = {name: _number(each) for name, each, _ in pairs}
        value["count"] = {name: int(count) for name, _, count in pairs}
    return value


def _details(result: Result) -> dict[str, Any]:
    if result.found is None or result.measure is None or result.interval is None:
        return {}
    assert result.faults is not None and result.shift is not None
    first, measure = result.scores[0], result.measure
    ends = [[_number(end) for end in pair] for pair in result.interval.T]
    value: dict[str, Any] = {
        "matching": result.found.rule,
        "matched": result.found.matched,
        "interval": {
            "rule": first.rule,
            "value": ends[0],
            "per_joint": dict(zip(first.joints, ends[1:], strict=True)),
        },
        "distance": {"unit": measure.unit, "threshold": measure.threshold},
        "curve": {
            "thresholds": [round(float(t), 2) for t in THRESHOLDS],
            "within": [_number(share) for share in curve(result, THRESHOLDS)],
        },
        "median error x, y, px": [_number(v) for v in result.shift],
    }
    if result.groups is not None:
        value["groups"] = {"rule": result.groups.rule, **_figures(result.groups)}
    for word, score in zip(("swapped", "missed"), result.faults, strict=True):
        value[word] = {"rule": score.rule, **_figures(score)}
    if (fit := result.reliability) is not None:
        value["reliability"] = {
            "error": fit.error,
            "error per joint": {
                joint: _number(each) for joint, each in zip(first.joints, fit.each, strict=True)
            },
            "median score right, wrong, not annotated": [_number(m) for m in fit.medians],
            "score": [_number(v) for v in fit.score],
            "right": [_number(v) for v in fit.right],
            "count": [int(n) for n in fit.count],
        }
    return value


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _page(
    outcomes: Sequence[Outcome],
    candidates: Mapping[str, Candidate],
    rules: Rules,
    pictures: Mapping[str, Sequence[tuple[str, str, bytes]]],
) -> bytes:
    command = safe(" ".join(["humanpose", *sys.argv[1:]]))
    parts = [
        "<h1>Scores</h1><p class='quiet'>",
        f"humanpose {__version__}: <code>{command}</code></p>",
        "<ul>",
        *(f"<li>{safe(label)}: {_about(each)}</li>" for label, each in candidates.items()),
        "</ul>",
    ]
    for outcome in outcomes:
        first, *lines = heading(
            outcome.data.name, outcome.data.split, outcome.truth, outcome.results, rules
        )
        if outcome.floor:
            lines.append(f"{FLOOR}: {outcome.floor}")
        parts += [f"<h2>{safe(first)}</h2>", "<p>", "<br>".join(map(safe, lines)), "</p>"]
        rows = table(outcome.results, rules.convention)
        parts += pages.table(
            list(outcome.results),
            ((label, values, not label.startswith(" ")) for label, values in rows),
        )
        parts += [pages.figure(*picture) for picture in pictures[outcome.data.name]]
    return pages.page("humanpose evaluate", parts)


def _about(candidate: Candidate) -> str:
    return safe(", ".join(f"{key} {value}" for key, value in candidate.about.items()))
