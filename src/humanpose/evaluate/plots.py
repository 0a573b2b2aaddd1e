"""Plots of a report, each as PNG bytes: one figure of all candidates on one data set."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from humanpose.evaluate.run import FAULTS, FLOOR, Result, curve, is_share, label, pooled_distances
from humanpose.types import F64, Score

if TYPE_CHECKING:
    from humanpose.evaluate.scores import Measure

# Okabe and Ito's colours, which stay apart for every common colour blindness.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#444444")
GREY = "#999999"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 130,
}

CAPTIONS = {
    "curves": "Share of joints within a distance of the truth; the dotted line is the threshold of "
    "the first score.",
    "errors": "Histogram of the distances.",
    "reliability": "How many joints of a score are right; the larger a mark, the more joints. On "
    "the dotted line a score is the chance to be right.",
    "joints": "The first score by joint; lines are 95 % intervals.",
    "swaps": "Joints within the threshold of the other side's joint and not of their own, and "
    "joints within the threshold of neither.",
}


def draw(results: Mapping[str, Result]) -> dict[str, bytes]:
    """PNG files by name: curves, joints, errors, swaps; reliability where joints have scores.

    `results` are of candidates whose joints are scored, by label; the floor may be among them.
    """
    return {
        name: png(partial(plot, results=results), size, columns)
        for name, plot, size, columns in (
            ("curves", _curves, (7.2, 4.2), 1),
            ("errors", _errors, (7.2, 4.2), 1),
            ("joints", _joints, (7.2, 5.6), 1),
            ("swaps", _swaps, (9.0, 5.6), 2),
            ("reliability", _reliability, (5.2, 4.6), 1),
        )
        if name != "reliability" or any(each.reliability for each in results.values())
    }


def png(paint: Callable[[Any], None], size: tuple[float, float], columns: int = 1) -> bytes:
    """The file of a figure of `size` (w, h) inches whose axes `paint` fills."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size)
        paint(figure.subplots(1, columns, sharey=True))
        content = io.BytesIO()
        figure.savefig(content, format="png")
    return content.getvalue()


def _looks(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(label, colour) of each candidate; the floor is grey."""
    shown = 0
    for name in results:
        yield name, GREY if name == FLOOR else COLOURS[shown % len(COLOURS)]
        shown += name != FLOOR


def _measures(results: Mapping[str, Result]) -> Iterator[tuple[str, str, str, Result, Measure]]:
    """(label, colour, kind of line, result, measure) of each candidate."""
    for name, colour in _looks(results):
        measure = results[name].measure
        if measure is not None:
            yield name, colour, "--" if name == FLOOR else "-", results[name], measure


def _curves(axes: Any, results: Mapping[str, Result]) -> None:
    """Share of joints within a distance."""
    for name, colour, line, result, measure in _measures(results):
        # PCKh@0.5 is shown to 0.5, as everywhere; finer scores beyond their threshold too.
        far = measure.threshold * (1 if measure.threshold >= 0.5 else 2.5)
        reach = np.linspace(0, far, 101)
        share = 100 * curve(result, reach)
        axes.plot(reach, share, line, color=colour, label=name, linewidth=1.8)
    axes.axvline(measure.threshold, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(
        xlabel=f"distance to the truth / {measure.unit}",
        ylabel="joints within that distance, %",
        xlim=(0, far),
        ylim=(0, 100),
        title="How many joints lie within a distance",
    )
    axes.legend(loc="best")


def _errors(axes: Any, results: Mapping[str, Result]) -> None:
    """Histogram of distances; the last bin holds what lies beyond it or was not predicted."""
    for name, colour, line, result, measure in _measures(results):
        distance, far = pooled_distances(result), 2 * measure.threshold
        edges = np.linspace(0, far, 41)
        share = 100 * np.histogram(distance, edges)[0] / max(len(distance), 1)
        beyond = 100 * float((distance > far).mean()) if len(distance) else 0.0
        axes.stairs(share, edges, color=colour, linewidth=1.5, linestyle=line,
                    label=f"{name} ({beyond:.1f} % beyond {far:g} or missing)")  # fmt: skip
    axes.axvline(measure.threshold, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(
        xlabel=f"distance to the truth / {measure.unit}",
        ylabel=f"joints per bin of {edges[1]:g}, %",
        xlim=(0, far),
        title="Where the joints lie",
    )
    axes.set_ylim(bottom=0)
    axes.legend()


def _joints(axes: Any, results: Mapping[str, Result]) -> None:
    """The first score of each joint that it pools, with its interval."""
    shown = {name: result for name, result in results.items() if name != FLOOR}
    for place, (name, colour) in enumerate(_looks(shown)):
        score, ends, measure = (
            results[name].scores[0],
            results[name].interval,
            results[name].measure,
        )
        assert ends is not None and measure is not None
        joints = _indices(score, measure)
        rows = _heights(joints, place, len(shown))
        factor = 100 if is_share(score) else 1
        low, high = factor * ends[:, 1:][:, joints]
        axes.hlines(rows, low, high, color=colour, linewidth=1.2)
        values = factor * score.per_joint[joints]
        axes.plot(values, rows, "o", color=colour, markersize=4, label=name)
    axes.set(xlabel=label(score), title="Each joint, with its 95 % interval")
    _name_joints(axes, score, joints)
    _legend_below(axes)


def _swaps(axes: Any, results: Mapping[str, Result]) -> None:
    """Swapped and missed joints, of those that the first score pools."""
    shown = {name: result for name, result in results.items() if name != FLOOR}
    for place, (name, colour) in enumerate(_looks(shown)):
        measure, faults = results[name].measure, results[name].faults
        assert measure is not None and faults is not None
        for panel, score in zip(axes, faults, strict=True):
            joints = _indices(score, measure)
            rows, values = _heights(joints, place, len(shown)), 100 * score.per_joint[joints]
            panel.hlines(rows, 0, values, color=colour, linewidth=1.2, alpha=0.5)
            panel.plot(values, rows, "o", color=colour, markersize=4, label=name)
    for panel, title in zip(axes, FAULTS, strict=True):
        panel.set(xlabel=f"joints {title}, %", title=title.capitalize())
        panel.set_xlim(left=0)
        _name_joints(panel, score, joints)
    _legend_below(axes[0])


def _reliability(axes: Any, results: Mapping[str, Result]) -> None:
    """Share of right joints by score; the larger a mark, the more joints."""
    axes.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1)
    for name, colour, _, result, measure in _measures(results):
        fit = result.reliability
        if fit is None:
            continue
        text = f"{name} (error {fit.error:.3f})"
        axes.plot(fit.score, fit.right, "-", color=colour, linewidth=1.2, label=text)
        axes.scatter(fit.score, fit.right, 8 + 400 * fit.count / fit.count.sum(), color=colour)
        axes.set_ylabel(f"share of them within {measure.threshold:g} {measure.unit}")
    axes.set(xlabel="score of joints", xlim=(0, 1), ylim=(0, 1), title="What a score is worth")
    axes.legend(loc="upper left")


def _legend_below(axes: Any) -> None:
    """A legend under the figure, where it hides no mark."""
    marks, names = axes.get_legend_handles_labels()
    axes.figure.legend(marks, names, loc="outside lower center", ncols=min(4, len(names)))


def _indices(score: Score, measure: Measure) -> list[int]:
    """The joints that the first score pools, without those that were never counted."""
    counts = zip(score.joints, measure.distance.T, strict=True)
    return [
        i for i, (name, each) in enumerate(counts)
        if name in measure.names and not np.isnan(each).all()
    ]  # fmt: skip


def _heights(joints: list[int], place: int, of: int) -> F64:
    """Height of each joint's mark; candidates lie side by side within a row."""
    return np.asarray(np.arange(len(joints)) + 0.6 * ((place + 0.5) / of - 0.5), np.float64)


def _name_joints(axes: Any, score: Score, joints: list[int]) -> None:
    names = [score.joints[i].replace("_", " ") for i in joints]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
