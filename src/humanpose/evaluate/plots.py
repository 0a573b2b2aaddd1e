"""Figures of a report: numbers as text, plots of all candidates, pictures of the worst people."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from humanpose.data.pack import has_picture, image_of
from humanpose.draw import contact_sheet, draw_people
from humanpose.errors import InputError
from humanpose.evaluate.run import FLOOR
from humanpose.evaluate.scores import Comparison
from humanpose.geometry import crop_of_box
from humanpose.types import F32, F64, U8, Person, Sample, Score

# Okabe and Ito's colours, which stay apart for every common colour blindness.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#444444")
GREY = "#999999"
FAULTS = ("taken for the other side", "missed")
_CELL = (240, 300)
_COLUMNS = 4  # pairs side by side
_GAP = 16  # pixels between the pairs
_OUTSIDE = (110, 110, 110)  # beyond the picture's edge
_STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.edgecolor": "#888888", "axes.linewidth": 0.8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True, "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7, "legend.frameon": False, "figure.facecolor": "white",
    "figure.constrained_layout.use": True, "savefig.dpi": 130,
}  # fmt: skip


def draw(found: Mapping[str, Comparison]) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, caption, PNG) of each plot; calibration only if joints have scores.

    `found` are candidates by label; the floor may be among them.
    """
    for name, plot, size, columns, caption in _PLOTS:
        if name != "reliability" or any(each.reliability for each in found.values()):
            yield name, caption, png(partial(plot, found=found), size, columns)


def is_percent(score: Score) -> bool:
    """Return whether papers give the score in percent."""
    return "PCK" in score.rule or "PCP" in score.rule


def label_of(score: Score) -> str:
    """Return the rule, with its unit where it is percent."""
    return f"{score.rule}, %" if is_percent(score) else score.rule


def as_text(score: Score, value: float | None = None) -> str:
    """Return a value of `score` (default: its own) in percent, or as a fraction."""
    value = score.value if value is None else value
    return f"{100 * value:.2f}" if is_percent(score) else f"{value:.4f}"


def png(paint: Callable[[Any], None], size: tuple[float, float], columns: int = 1) -> bytes:
    """Return the file of a figure of `size` (w, h) inches whose axes `paint` fills."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size)
        paint(figure.subplots(1, columns, sharey=True))
        content = io.BytesIO()
        figure.savefig(content, format="png")
    return content.getvalue()


def _styled(found: Mapping[str, Comparison]) -> Iterator[tuple[Comparison, dict[str, Any]]]:
    """Yield each candidate and the label, colour and kind of its line; the floor is grey."""
    shown = 0
    for name, each in found.items():
        floor = name == FLOOR
        colour = GREY if floor else COLOURS[shown % len(COLOURS)]
        yield each, {"label": name, "color": colour, "linestyle": "--" if floor else "-"}
        shown += not floor


def _curves(axes: Any, found: Mapping[str, Comparison]) -> None:
    """Plot the share of joints within a distance."""
    for each, style in _styled(found):
        # PCKh@0.5 is shown to 0.5, as everywhere; finer scores beyond their threshold too.
        far = each.threshold * (1 if each.threshold >= 0.5 else 2.5)
        reach = np.linspace(0, far, 101)
        axes.plot(reach, 100 * each.curve(reach), linewidth=1.8, **style)
    title = "How many joints lie within a distance"
    _distance_axis(axes, each, far, ylabel="joints within that distance, %", title=title)
    axes.set_ylim(0, 100)
    axes.legend(loc="best")


def _errors(axes: Any, found: Mapping[str, Comparison]) -> None:
    """Plot a histogram of distances; those beyond it and missing joints are in the legend."""
    for each, style in _styled(found):
        distance, far = each.pooled_distances(), 2 * each.threshold
        edges = np.linspace(0, far, 41)
        share = 100 * np.histogram(distance, edges)[0] / max(len(distance), 1)
        beyond = 100 * float((distance > far).mean()) if len(distance) else 0.0
        style["label"] += f" ({beyond:.1f} % beyond {far:g} or missing)"
        axes.stairs(share, edges, linewidth=1.5, **style)
    ylabel = f"joints per bin of {edges[1]:g}, %"
    _distance_axis(axes, each, far, ylabel=ylabel, title="Where the joints lie")
    axes.set_ylim(bottom=0)
    axes.legend()


def _distance_axis(axes: Any, found: Comparison, far: float, **more: str) -> None:
    axes.axvline(found.threshold, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel=f"distance to the truth / {found.unit.name}", xlim=(0, far), **more)


def _joints(axes: Any, found: Mapping[str, Comparison]) -> None:
    """Plot the first score of each joint that it pools, with its interval."""
    for each, joints, rows, style in _marks(found):
        score = each.scores[0]
        factor = 100 if is_percent(score) else 1
        low, high = factor * each.interval[:, 1:][:, joints]
        axes.hlines(rows, low, high, color=style["color"], linewidth=1.2)
        axes.plot(factor * score.per_joint[joints], rows, **style)
    axes.set(xlabel=label_of(score), title="Each joint, with its 95 % interval")
    _name_joints(axes, score, joints)
    _legend_below(axes)


def _swaps(axes: Sequence[Any], found: Mapping[str, Comparison]) -> None:
    """Plot swapped and missed joints, of those that the first score pools."""
    for each, joints, rows, style in _marks(found):
        for panel, score in zip(axes, each.faults, strict=True):
            values = 100 * score.per_joint[joints]
            panel.hlines(rows, 0, values, color=style["color"], linewidth=1.2, alpha=0.5)
            panel.plot(values, rows, **style)
    for panel, title in zip(axes, FAULTS, strict=True):
        panel.set(xlabel=f"joints {title}, %", title=title.capitalize())
        panel.set_xlim(left=0)
        _name_joints(panel, score, joints)
    _legend_below(axes[0])


def _reliability(axes: Any, found: Mapping[str, Comparison]) -> None:
    """Plot the share of right joints by score; the larger a mark, the more joints."""
    axes.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1)
    for each, style in _styled(found):
        fit, colour = each.reliability, style["color"]
        if fit is None:
            continue
        text = f"{style['label']} (error {fit.error:.3f})"
        axes.plot(fit.score, fit.right, "-", color=colour, linewidth=1.2, label=text)
        axes.scatter(fit.score, fit.right, 8 + 400 * fit.count / fit.count.sum(), color=colour)
        axes.set_ylabel(f"share of them within {each.threshold:g} {each.unit.name}")
    axes.set(xlabel="score of joints", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Calibration of joint scores")
    axes.legend(loc="upper left")


def _legend_below(axes: Any) -> None:
    """Add a legend under the figure, where it hides no mark."""
    marks, names = axes.get_legend_handles_labels()
    axes.figure.legend(marks, names, loc="outside lower center", ncols=min(4, len(names)))


def _marks(
    found: Mapping[str, Comparison],
) -> Iterator[tuple[Comparison, list[int], F64, dict[str, Any]]]:
    """Yield each candidate but the floor, its joints, and the heights and style of their marks.

    The joints are those that the first score pools and that were counted. Candidates lie side by
    side within a row.
    """
    shown = {name: each for name, each in found.items() if name != FLOOR}
    for place, (each, style) in enumerate(_styled(shown)):
        counted = zip(each.truth.skeleton.joints, each.scores[0].count, strict=True)
        joints = [i for i, (name, n) in enumerate(counted) if name in each.unit.joints and n]
        rows: F64 = np.arange(len(joints), dtype=np.float64)
        rows += 0.6 * ((place + 0.5) / len(shown) - 0.5)
        yield each, joints, rows, style | {"linestyle": "", "marker": "o", "markersize": 4}


def _name_joints(axes: Any, score: Score, joints: list[int]) -> None:
    names = [score.joints[i].replace("_", " ") for i in joints]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


_PLOTS: tuple[tuple[str, Callable[..., None], tuple[float, float], int, str], ...] = (
    ("curves", _curves, (7.2, 4.2), 1,
     "Share of joints within a distance of the truth; the dotted line is the threshold of the "
     "first score."),
    ("errors", _errors, (7.2, 4.2), 1, "Histogram of the distances."),
    ("joints", _joints, (7.2, 5.6), 1, "The first score by joint; lines are 95 % intervals."),
    ("swaps", _swaps, (9.0, 5.6), 2,
     "Joints within the threshold of the other side's joint and not of their own, and joints "
     "within the threshold of neither."),
    ("reliability", _reliability, (5.2, 4.6), 1,
     "Share of right joints by score; the larger a mark, the more joints. On the dotted line a "
     "score is the chance to be right."),
)  # fmt: skip


def worst_people(found: Comparison, most: int = 8) -> tuple[bytes, list[str]] | None:
    """Return a JPEG of pairs, truth left and prediction right, worst first, and a line on each.

    Worst: the greatest mean distance of the person's joints, each counted as at most twice the
    threshold. People whose pictures are absent are passed over; None if all are.
    """
    distance, far = found.distance, 2 * found.threshold
    capped = np.minimum(distance, far)
    counted = ~np.isnan(capped)
    mean = np.nansum(capped, 1) / np.maximum(counted.sum(1), 1)
    sheets: list[U8] = []
    lines = []
    for i in np.argsort(-mean, kind="stable"):
        sample = found.truth.samples[int(i)]
        if len(sheets) == most or mean[i] == 0:
            break
        if not (np.isfinite(sample.box).all() and has_picture(sample)):
            continue
        try:
            image = image_of(sample)
        except InputError:
            continue
        right = int((distance[i] <= found.threshold).sum())
        who = f"{sample.picture.name}, {sample.origin[1]}"
        lines.append(f"{who}: {right} of {counted[i].sum()} right")
        sheets.append(_pair(image, sample, found.predicted.joints[int(i)]))
    if not sheets:
        return None
    columns = min(_COLUMNS, -(-len(sheets) // 2))
    sheet = contact_sheet(sheets, columns, (sheets[0].shape[1], sheets[0].shape[0]))
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "jpeg", quality=88)
    return content.getvalue(), lines


def _pair(image: U8, sample: Sample, predicted: F32) -> U8:
    """Return truth and prediction side by side, with a margin below and to the right."""
    box = sample.box.copy()
    box[2:] = np.maximum(box[2:], 8)
    crop = crop_of_box(box, _CELL)
    cut = crop.cut(image, _OUTSIDE)
    halves = []
    for joints in (sample.joints, predicted):
        there = np.asarray(np.isfinite(joints).all(-1), np.float32)
        person = Person(crop.to_crop(joints), there, box, 1.0, skeleton=sample.skeleton)
        halves.append(draw_people(cut, [person], boxes=False))
    return np.pad(np.concatenate(halves, axis=1), ((0, _GAP), (0, _GAP), (0, 0)))
