"""Results of a study: table, a plot of all variants, a plot of each, and an HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from humanpose.evaluate.metrics.intervals import LEVEL, difference, mean_interval
from humanpose.evaluate.plots import COLOURS, GREY, png
from humanpose.evaluate.report import html_page
from humanpose.files import atomic_write
from humanpose.lab.study import Baseline, Point, Row
from humanpose.lab.study_plan import Study
from humanpose.types import F64

PAGE, TABLE = "study.html", "table.md"
HEADINGS = (
    "seeds", "after the last epoch", f"its {LEVEL:.0%} interval", "against the first",
    "best epoch", "at half the threshold", "dead maps", "parameters", "MMAC", "samples/s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Findings:
    """A study, and what there is of it so far."""

    study: Study
    rows: Sequence[Row]
    points: Sequence[Point]
    baselines: Sequence[Baseline]

    def of(self, variant: str) -> list[Row]:
        """The finished runs of a variant."""
        return [row for row in self.rows if row.variant == variant]

    def path(self, variant: str, seed: int) -> tuple[F64, F64]:
        """Epochs and scores of a run."""
        mine = [p for p in self.points if (p.variant, p.seed) == (variant, seed)]
        mine.sort(key=lambda point: point.epoch)
        return np.array([p.epoch for p in mine]), np.array([p.score for p in mine])


def table(found: Findings) -> list[tuple[str, list[str]]]:
    """Return a row per variant and baseline: percent, means over seeds with deviations."""
    baseline = next(iter(found.study.variants))
    first = _finite([row.last for row in found.of(baseline)])
    lines = []
    for name in found.study.variants:
        rows = found.of(name)
        if not rows:
            continue
        last = _finite([row.last for row in rows])
        lines.append((
            name,
            [
                str(len(rows)) + _cut_short(rows),
                _spread(last),
                _ends(mean_interval(last)),
                "" if name == baseline else _ends(difference(last, first), "+"),
                _spread([row.best for row in rows]),
                _spread([row.fine for row in rows]),
                f"{100 * _mean([row.dead for row in rows]):.0f} %",
                f"{rows[0].parameters:,}",
                f"{rows[0].multiplies / 1e6:.0f}",
                f"{_mean([row.rate for row in rows]):.0f}",
            ],
        ))  # fmt: skip
    blank = [""] * (len(HEADINGS) - 2)
    lines += [(each.name, ["", f"{100 * each.score:.1f}", *blank]) for each in found.baselines]
    return lines


def _cut_short(rows: Sequence[Row]) -> str:
    count = sum(bool(row.ended) for row in rows)
    return f" ({count} diverged)" if count else ""


def _finite(values: Sequence[float]) -> list[float]:
    """Those of runs that did not diverge."""
    return [value for value in values if math.isfinite(value)]


def _mean(values: Sequence[float]) -> float:
    known = _finite(values)
    return float(np.mean(known)) if known else math.nan


def _spread(values: Sequence[float]) -> str:
    known = [100 * value for value in _finite(values)]
    if not known:
        return "none"
    deviation = f" ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else ""
    return f"{np.mean(known):.1f}{deviation}"


def _ends(ends: tuple[float, float], sign: str = "") -> str:
    if not all(map(math.isfinite, ends)):
        return ""
    low, high = (format(100 * end, f"{sign}.1f") for end in ends)
    return f"{low} to {high}"


def write(folder: Path, found: Findings) -> Path:
    """Write the page, the table as Markdown and the plots into `folder`; returns the page's path.

    Raises OutputError if a file cannot be written.
    """
    study, lines = found.study, table(found)
    pictures = [("overlay.png", "Mean over seeds of every variant; the band is their range.",
                 png(lambda axes: _overlay(axes, found), (8.4, 5.2)))]  # fmt: skip
    for i, (name, variant) in enumerate(study.variants.items()):
        if found.of(name):
            paint = png(lambda axes, n=name, i=i: _alone(axes, found, n, i), (6.4, 4.0))  # type: ignore[misc]
            pictures.append((f"{name}.png", f"{name}: {variant.about}", paint))
    markdown = [("", *HEADINGS), ("---",) * (len(HEADINGS) + 1), *((n, *c) for n, c in lines)]
    files = {name: content for name, _, content in pictures}
    files[TABLE] = "".join(f"| {' | '.join(line)} |\n" for line in markdown).encode()
    files[PAGE] = _page(found, lines, pictures)
    for name, content in files.items():
        with atomic_write(folder / name) as file:
            file.write(content)
    return folder / PAGE


def _page(
    found: Findings,
    lines: Sequence[tuple[str, list[str]]],
    pictures: Sequence[tuple[str, str, bytes]],
) -> bytes:
    study = found.study
    about = [
        f"{name}: {variant.about}; {variant.set}; checked: {', '.join(variant.holds) or '-'}"
        for name, variant in study.variants.items()
    ]
    ended = [f"{row.variant}, seed {row.seed}: {row.ended}" for row in found.rows if row.ended]
    plain = yaml.safe_dump(study.recipe, sort_keys=False, default_flow_style=None)
    of = len(study.variants) * len(study.seeds)
    how = (
        f"{len(found.rows)} of {of} runs; validation score of {study.score} in percent, mean ± "
        "deviation over seeds; intervals: Student's t, of differences Welch's; of the runs that "
        "did not diverge"
    )
    return html_page(
        study.name,
        [
            {"title": study.name, "lines": [study.about], "notes": [how]},
            {"columns": HEADINGS, "rows": lines, "main": list(study.variants), "notes": ended},
            {"figures": pictures[:1]},
            {"title": "Variants", "bullets": about, "figures": pictures[1:]},
            {"title": "Recipe", "pre": plain},
        ],
    )


def _overlay(axes: Any, found: Findings) -> None:
    for i, name in enumerate(found.study.variants):
        paths = [found.path(name, row.seed) for row in found.of(name)]
        paths = [(epochs, scores) for epochs, scores in paths if len(epochs)]
        if not paths:
            continue
        longest = max((epochs for epochs, _ in paths), key=len)
        scores = np.full((len(paths), len(longest)), np.nan)
        for line, (_, values) in zip(scores, paths, strict=True):
            line[: len(values)] = 100 * values
        colour, style = COLOURS[i % len(COLOURS)], "-" if i < len(COLOURS) else "--"
        axes.plot(longest, np.nanmean(scores, 0), style, color=colour, label=name, linewidth=1.8)
        low, high = np.nanmin(scores, 0), np.nanmax(scores, 0)
        axes.fill_between(longest, low, high, color=colour, alpha=0.15, linewidth=0)
    _draw_baselines(axes, found)
    axes.set_title(f"{found.study.name}: validation score by epoch")
    marks, names = axes.get_legend_handles_labels()
    axes.figure.legend(marks, names, loc="outside right upper")


def _alone(axes: Any, found: Findings, name: str, i: int) -> None:
    for place, row in enumerate(sorted(found.of(name), key=lambda row: row.seed)):
        epochs, scores = found.path(name, row.seed)
        axes.plot(epochs, 100 * scores, ("o-", "s--", "^:", "D-.")[place % 4], markersize=4,
                  color=COLOURS[i % len(COLOURS)], alpha=0.7, linewidth=1.3,
                  label=f"seed {row.seed}{', diverged' if row.ended else ''}")  # fmt: skip
    _draw_baselines(axes, found)
    axes.set_title(name)
    axes.legend(loc="best", fontsize=7)


def _draw_baselines(axes: Any, found: Findings) -> None:
    for each, line in zip(found.baselines, ("--", "-.", ":"), strict=False):
        value = 100 * each.score
        axes.axhline(value, color=GREY, linestyle=line, linewidth=1, label=each.name)
    axes.set(xlabel="epoch", ylabel=f"validation score of {found.study.score}, %")
    axes.set_ylim(bottom=0)
