"""Report of an evaluation: a table for the terminal, an HTML page with plots, and JSON."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from humanpose import __version__
from humanpose.errors import require
from humanpose.evaluate import plots
from humanpose.evaluate.metrics.diagnosis import LEVEL, RESAMPLES, SEED
from humanpose.evaluate.metrics.pck import CONVENTIONS, THRESHOLDS
from humanpose.evaluate.plots import as_text, label_of
from humanpose.evaluate.run import FLOOR, Candidate, Evaluation
from humanpose.evaluate.scores import Comparison, Rules
from humanpose.files import atomic_write, prepare_output
from humanpose.types import Score

FORMAT = "humanpose-scores/1"
Row = tuple[str, list[str]]
_PAGE, _SCORES = "report.html", "scores.json"


def prepare(folder: Path, *, force: bool, with_plots: bool) -> None:
    """Check, before anything runs, that a report can be written to `folder`.

    Raises:
        OutputError: if one exists.
        MissingExtraError: without jinja2, or without matplotlib if plots are asked for.
    """
    for package in ("jinja2", *(["matplotlib"] if with_plots else [])):
        require(package, "data")
    for name in (_PAGE, _SCORES):
        prepare_output(folder / name, force=force)


def write(
    folder: Path,
    evaluations: Sequence[Evaluation],
    candidates: Mapping[str, Candidate],
    rules: Rules,
    *,
    with_plots: bool,
) -> Path:
    """Write `report.html`, `scores.json` and the plots into `folder`; return the page's path.

    Raises OutputError if a file cannot be written.
    """
    command = " ".join(["humanpose", *sys.argv[1:]])
    about = [
        f"{label}: " + ", ".join(f"{key} {value}" for key, value in each.about.items())
        for label, each in candidates.items()
    ]
    notes = [f"humanpose {__version__}: {command}"]
    parts: list[dict[str, Any]] = [{"title": "Scores", "notes": notes, "bullets": about}]
    files: dict[str, bytes] = {}
    for each in evaluations:
        figures = list(_figures(each)) if with_plots else []
        files |= {name: content for name, _, content in figures}
        title, *lines = heading(each, rules)
        lines += [f"{FLOOR}: {each.floor}"] if each.floor else []
        columns, rows = list(each.scores), table(each, rules)
        main = [label for label, _ in rows if not label.startswith(" ")]
        parts.append(
            {"title": title, "lines": lines, "columns": columns, "rows": rows, "main": main,
             "figures": figures}
        )  # fmt: skip
    content = _plain(_content(evaluations, candidates, rules))
    files[_SCORES] = json.dumps(content, indent=1, allow_nan=False).encode()
    files[_PAGE] = html_page("humanpose evaluate", parts)
    for name, data in files.items():
        with atomic_write(folder / name) as out:
            out.write(data)
    return folder / _PAGE


def html_page(title: str, parts: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a page without outside links.

    Each part has some of the following, shown in this order: title; lines (one paragraph); bullets;
    columns and rows of a table [(label, cells)], of which those with a label in `main` are bold;
    notes; figures [(file name, caption, PNG or JPEG)]; pre (preformatted text).
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    page = environment.get_template("page.html.jinja").render(title=title, parts=list(parts))
    return page.encode()


def heading(found: Evaluation, rules: Rules) -> list[str]:
    """Return the lines above the table: the data, the kind of matching, the conventions."""
    truth = found.truth
    pictures = len(set(truth.pictures))
    lines = [f"{truth.name} {truth.split}: {len(truth.samples)} people in {pictures} pictures"]
    matching: dict[str, list[str]] = {}
    for label, each in found.comparisons.items():
        if label != FLOOR:
            matching.setdefault(each.predicted.rule, []).append(label)
    lines += [f"{', '.join(labels)}: {rule}" for rule, labels in matching.items()]
    lacking = [score for score in rules.scores if not truth.allows(score)]
    if lacking:
        lines.append(f"no truth in this set for: {', '.join(lacking)}")
    if any(each.groups is not None for each in found.comparisons.values()):
        lines.append(f"convention {rules.convention}: {CONVENTIONS[rules.convention]}")
    return lines


def table(found: Evaluation, rules: Rules) -> list[Row]:
    """Return (label, a cell per candidate) of each row; "" where a candidate has no such score."""
    columns = [
        dict(_rows(scores, found.comparisons.get(label), rules.convention))
        for label, scores in found.scores.items()
    ]
    longest = max(columns, key=len, default={})
    labels = dict.fromkeys([*longest, *(label for rows in columns for label in rows)])
    return [(label, [rows.get(label, "") for rows in columns]) for label in labels]


def _rows(
    scores: Sequence[Score], found: Comparison | None, convention: str
) -> Iterator[tuple[str, str]]:
    """Yield the cells of one candidate: the first score in full, the others by their value."""
    first, *others = scores
    if found is not None:
        yield f"matched, of {len(found.predicted.scores)}", str(found.predicted.matched)
    yield label_of(first), as_text(first)
    if found is not None:
        low, high = (as_text(first, float(end)) for end in found.interval[:, 0])
        yield f"  {100 * LEVEL:g} % interval", f"{low}-{high}"
        if found.groups is not None:
            yield from _joints(found.groups, counts=False)
            yield f"  Mean ({convention})", as_text(found.groups)
    for score in others:
        yield label_of(score), as_text(score)
    if found is not None:
        for word, score in zip(plots.FAULTS, found.faults, strict=True):
            yield f"{word}, %", f"{100 * score.value:.2f}"
        yield "median error x y, px", "{:+.1f} {:+.1f}".format(*found.shift)
        if (fit := found.reliability) is not None:
            within = f"within {found.threshold:g} {found.unit.name}"
            yield f"calibration error of joint scores ({within})", f"{fit.error:.3f}"
            worst = int(np.nanargmax(fit.each))
            yield "  of the worst joint", f"{first.joints[worst]} {fit.each[worst]:.3f}"
            medians = " / ".join("-" if np.isnan(m) else f"{m:.2f}" for m in fit.medians)
            yield "median joint score: right / wrong / not annotated", medians
    yield from _joints(first, counts=True)


def _joints(score: Score, *, counts: bool) -> Iterator[tuple[str, str]]:
    for joint, value, count in zip(score.joints, score.per_joint, score.count, strict=True):
        if count and not np.isnan(value):
            label = f"  {joint} ({count})" if counts else f"  {joint}"
            yield label, as_text(score, float(value))


def text_table(names: Sequence[str], rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    first = max(len(label) for label, _ in rows)
    widths = [max(len(name), *(len(v[i]) for _, v in rows)) for i, name in enumerate(names)]
    return "\n".join(
        f"{label:<{first}}"
        + "".join(f"  {value:>{w}}" for value, w in zip(values, widths, strict=True))
        for label, values in [("", list(names)), *rows]
    )


def _figures(found: Evaluation) -> Iterator[tuple[str, str, bytes]]:
    """Yield (file name, caption, content) of each plot and of each candidate's worst people."""
    name = found.truth.name
    if found.comparisons:
        for kind, caption, content in plots.draw(found.comparisons):
            yield f"{name}-{kind}.png", caption, content
    for number, (label, each) in enumerate(found.comparisons.items(), start=1):
        if label != FLOOR and (worst := plots.worst_people(each)) is not None:
            content, lines = worst
            caption = f"Worst of {label} among the pictures at hand; truth left, prediction right: "
            yield f"{name}-worst-{number}.jpg", caption + "; ".join(lines), content


def _content(
    evaluations: Sequence[Evaluation], candidates: Mapping[str, Candidate], rules: Rules
) -> dict[str, Any]:
    """Return what `scores.json` holds."""
    sets: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    details: dict[str, Any] = {}
    for each in evaluations:
        truth = each.truth
        sets[truth.name] = {
            "path": str(truth.path), "split": truth.split, "people": len(truth.samples),
            "pictures": len(set(truth.pictures)), "floor": each.floor or None,
        }  # fmt: skip
        scores[truth.name] = {
            label: {s.rule: _score(s) for s in found} for label, found in each.scores.items()
        }
        details[truth.name] = {
            label: _details(each.comparisons[label]) if label in each.comparisons else {}
            for label in each.scores
        }
    return {
        "format": FORMAT,
        "humanpose": __version__,
        "command": ["humanpose", *sys.argv[1:]],
        "convention": {rules.convention: CONVENTIONS[rules.convention]},
        "compat": rules.compat or None,
        "intervals": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED,
                      "method": "percentile bootstrap over pictures"},
        "candidates": {label: candidate.about for label, candidate in candidates.items()},
        "sets": sets,
        "scores": scores,
        "details": details,
    }  # fmt: skip


def _score(score: Score) -> dict[str, Any]:
    value: dict[str, Any] = {"value": score.value}
    if score.joints:
        value["per_joint"] = dict(zip(score.joints, score.per_joint, strict=True))
        value["count"] = dict(zip(score.joints, score.count, strict=True))
    return value


def _details(found: Comparison) -> dict[str, Any]:
    first = found.scores[0]
    pooled, *ends = found.interval.T
    value: dict[str, Any] = {
        "matching": found.predicted.rule,
        "matched": found.predicted.matched,
        "interval": {"rule": first.rule, "value": pooled,
                     "per_joint": dict(zip(first.joints, ends, strict=True))},
        "distance": {"unit": found.unit.name, "threshold": found.threshold},
        "curve": {"thresholds": THRESHOLDS.round(2), "within": found.curve(THRESHOLDS)},
        "median error x, y, px": found.shift,
    }  # fmt: skip
    named = {"groups": found.groups, "swapped": found.faults[0], "missed": found.faults[1]}
    value |= {word: {"rule": score.rule, **_score(score)} for word, score in named.items() if score}
    if (fit := found.reliability) is not None:
        value["reliability"] = {
            "error": fit.error,
            "error per joint": dict(zip(first.joints, fit.each, strict=True)),
            "median score right, wrong, not annotated": fit.medians,
            "score": fit.score, "right": fit.right, "count": fit.count.astype(int),
        }  # fmt: skip
    return value


def _plain(value: Any) -> Any:
    """Return `value` as JSON holds it: lists for arrays, null for what is not a number."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
