"""Results of a study: table, a plot of all variants, a plot of each, and an HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from humanpose.evaluate.metrics.diagnosis import LEVEL, difference, mean_interval
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
    """A study and its results so far."""

    study: Study
    rows: Sequence[Row]
    points: Sequence[Point]
    baselines: Sequence[Baseline]

    def of(self, variant: str) -> list[Row]:
        """Return the finished runs of a variant, by seed."""
        return sorted((r for r in self.rows if r.variant == variant), key=lambda row: row.seed)

    def path(self, row: Row) -> tuple[F64, F64]:
        """Return epochs and scores in percent of a run."""
        mine = [p for p in self.points if (p.variant, p.seed) == (row.variant, row.seed)]
        mine.sort(key=lambda point: point.epoch)
        return np.array([p.epoch for p in mine]), np.array([100 * p.score for p in mine])


def table(found: Findings) -> list[tuple[str, list[str]]]:
    """Return a row per variant and baseline: percent, means over seeds with deviations."""
    baseline = next(iter(found.study.variants))
    first = _finite(found.of(baseline), "last")
    lines = []
    for name in found.study.variants:
        rows = found.of(name)
        if not rows:
            continue
        last, ended = _finite(rows, "last"), sum(bool(row.ended) for row in rows)
        cells = [
            str(len(rows)) + (f" ({ended} diverged)" if ended else ""),
            _spread(last),
            _ends(mean_interval(last)),
            "" if name == baseline else _ends(difference(last, first), "+"),
            _spread(_finite(rows, "best")),
            _spread(_finite(rows, "fine")),
            f"{100 * _mean(_finite(rows, 'dead')):.0f} %",
            f"{rows[0].parameters:,}",
            f"{rows[0].multiplies / 1e6:.0f}",
            f"{_mean(_finite(rows, 'rate')):.0f}",
        ]
        lines.append((name, cells))
    blank = [""] * (len(HEADINGS) - 2)
    lines += [(each.name, ["", f"{100 * each.score:.1f}", *blank]) for each in found.baselines]
    return lines


def _finite(rows: Sequence[Row], field: str) -> list[float]:
    """Return the finite values of a field: those of runs that did not diverge."""
    return [value for row in rows if math.isfinite(value := getattr(row, field))]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    deviation = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * _mean(values):.1f}{deviation}"


def _ends(ends: tuple[float, float], sign: str = "") -> str:
    low, high = (format(100 * end, f"{sign}.1f") for end in ends)
    return f"{low} to {high}" if all(map(math.isfinite, ends)) else ""


def write(folder: Path, found: Findings) -> Path:
    """Write the page, the table as Markdown and the plots into `folder`; return the page's path.

    Raises OutputError if a file cannot be written.
    """
    study, lines = found.study, table(found)
    figures = [("overlay.png", "Mean over seeds of every variant; the band is their range.",
                png(partial(_plot, found=found), (8.4, 5.2)))]  # fmt: skip
    for name, variant in study.variants.items():
        if found.of(name):
            content = png(partial(_plot, found=found, alone=name), (6.4, 4.0))
            figures.append((f"{name}.png", f"{name}: {variant.about}", content))
    markdown = [("", *HEADINGS), ("---",) * (len(HEADINGS) + 1), *((n, *c) for n, c in lines)]
    files = {name: content for name, _, content in figures}
    files[TABLE] = "".join(f"| {' | '.join(line)} |\n" for line in markdown).encode()
    about = [
        f"{name}: {variant.about}; {variant.set}; checked: {', '.join(variant.holds) or '-'}"
        for name, variant in study.variants.items()
    ]
    ended = [f"{row.variant}, seed {row.seed}: {row.ended}" for row in found.rows if row.ended]
    how = (
        f"{len(found.rows)} of {len(study.variants) * len(study.seeds)} runs; validation score of "
        f"{study.score} in percent, mean ± deviation over seeds; intervals: Student's t, of "
        "differences Welch's; of the runs that did not diverge"
    )
    recipe = yaml.safe_dump(study.recipe, sort_keys=False, default_flow_style=None)
    files[PAGE] = html_page(
        study.name,
        [
            {"title": study.name, "lines": [study.about], "notes": [how]},
            {"columns": HEADINGS, "rows": lines, "main": list(study.variants), "notes": ended},
            {"figures": figures[:1]},
            {"title": "Variants", "bullets": about, "figures": figures[1:]},
            {"title": "Recipe", "pre": recipe},
        ],
    )
    for name, data in files.items():
        with atomic_write(folder / name) as file:
            file.write(data)
    return folder / PAGE


def _plot(axes: Any, found: Findings, alone: str = "") -> None:
    """Plot score by epoch: mean and range of every variant, or each seed of one `alone`."""
    for i, name in enumerate(found.study.variants):
        paths = {row: found.path(row) for row in found.of(name)}
        colour = COLOURS[i % len(COLOURS)]
        if alone == name:
            for place, (row, (epochs, scores)) in enumerate(paths.items()):
                axes.plot(epochs, scores, ("o-", "s--", "^:", "D-.")[place % 4], markersize=4,
                          color=colour, alpha=0.7, linewidth=1.3,
                          label=f"seed {row.seed}{', diverged' if row.ended else ''}")  # fmt: skip
        longest = max((epochs for epochs, _ in paths.values()), key=len, default=())
        if alone or not len(longest):
            continue
        each = np.array(list(zip_longest(*(s for _, s in paths.values()), fillvalue=np.nan)))
        style = "-" if i < len(COLOURS) else "--"
        axes.plot(longest, np.nanmean(each, 1), style, color=colour, label=name, linewidth=1.8)
        low, high = np.nanmin(each, 1), np.nanmax(each, 1)
        axes.fill_between(longest, low, high, color=colour, alpha=0.15, linewidth=0)
    for baseline, line in zip(found.baselines, ("--", "-.", ":"), strict=False):
        value = 100 * baseline.score
        axes.axhline(value, color=GREY, linestyle=line, linewidth=1, label=baseline.name)
    axes.set(xlabel="epoch", ylabel=f"validation score of {found.study.score}, %")
    axes.set_title(alone or f"{found.study.name}: validation score by epoch")
    axes.set_ylim(bottom=0)
    if alone:
        axes.legend(loc="best", fontsize=7)
    else:
        axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
