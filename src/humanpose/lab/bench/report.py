"""Rows of `humanpose bench` as CSV, Markdown, plots and one line of advice."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from humanpose.errors import MissingExtraError
from humanpose.evaluate.plots import COLOURS, png
from humanpose.files import atomic_write, prepare_output
from humanpose.lab.bench.runs import Row

TABLE, FIGURES = "bench.md", "bench.csv"
_BY_SIZE = "time_by_size.png"
# Times that differ by more than this factor need a logarithmic axis.
_FAR = 8
# Points of a score that speed may cost.
_POINTS = 0.01

# Names that a file of figures needs to tell units by.
_COLUMNS = {
    **{f"{part}{end}": f"{part}{end}_ms" for part in ("detector", "pose") for end in ("", "_p95")},
    **{f"pose_{people}": f"pose_{people}_ms" for people in ("1", "more")},
    **{f"full{end}": f"full{end}_ms" for end in ("", "_p95", "_low", "_high")},
    "rate": "frames_per_s",
    **{f"{task}_peak": f"{task}_peak_gmac_per_s" for task in ("pose", "person")},
    "memory": "memory_mib",
    "cold": "start_cold_s",
    "warm": "start_warm_s",
}
_HEADS = (
    "model", "input", "runtime", "precision", "threads", "detector ms", "pose ms",
    "pose ms of 1, more people", "full ms",
    "frames with 0, 1, more", "GMAC", "of peak", "MiB", "start s",
)  # fmt: skip


def outputs(data: Sequence[str], *, with_plots: bool) -> list[str]:
    """Names of the files to write, for data sets of those names."""
    plots = [_BY_SIZE, *(_by_time(name) for name in data)] if with_plots else []
    return [TABLE, FIGURES, *plots]


def prepare(folder: Path, data: Sequence[str], *, force: bool, with_plots: bool) -> None:
    """See, before anything runs, that the files can be written to `folder`.

    Raises:
        OutputError: if one is there and `force` is off.
        MissingExtraError: if plots are asked for and matplotlib is not installed.
    """
    if with_plots and importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "data")
    for name in outputs(data, with_plots=with_plots):
        prepare_output(folder / name, force=force)


def write(
    folder: Path,
    rows: Sequence[Row],
    about: Sequence[str],
    advice: str,
    data: Sequence[str],
    *,
    with_plots: bool,
) -> None:
    """Write the files that `outputs` names.

    Args:
        folder: where.
        rows: the figures.
        about: lines about machine, video and protocol.
        advice: see `recommendation`.
        data: names of the data sets that were scored on.
        with_plots: whether to draw.

    Raises:
        OutputError: if a file cannot be written.
    """
    text = [*about, "", *markdown(rows, data), "", advice, ""]
    files = {TABLE: "\n".join(text).encode(), FIGURES: as_csv(rows, data).encode()}
    if with_plots:
        files[_BY_SIZE] = png(partial(_draw_sizes, rows=rows), (7.2, 4.2))
        for name in data:
            files[_by_time(name)] = png(partial(_draw_scores, rows=rows, data=name), (7.2, 4.2))
    for name, content in files.items():
        with atomic_write(folder / name) as file:
            file.write(content)


def as_csv(rows: Sequence[Row], data: Sequence[str]) -> str:
    """Every figure of every row, empty where there is none; a column per data set, in percent."""
    lines = []
    for row in rows:
        cells = asdict(row)
        scores = cells.pop("scores")
        why = cells.pop("why")
        cells = cells.pop("of") | cells
        for name in data:
            rule, value = scores.get(name, ("", math.nan))
            cells |= {f"{name}_score": 100 * value, f"{name}_rule": rule}
        named = {_COLUMNS.get(name, name): _plain(value) for name, value in cells.items()}
        lines.append(named | {"why_not": why})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return round(value, 4) if isinstance(value, float) else value


def markdown(rows: Sequence[Row], data: Sequence[str]) -> Iterator[str]:
    """The main figures as a table: medians with the 95th percentiles behind a slash."""
    rules = dict.fromkeys(
        f"{name}: {row.scores[name][0]}, %" for row in rows for name in data if name in row.scores
    )
    heads = (*_HEADS, *rules)
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        of = row.of
        where = str(of.threads) if of.threads else of.device
        size = row.pose_input or ("" if of.size is None else str(of.size))
        cells = [Path(of.model).stem, size, of.runtime, _precision(row), where]
        if row.why:
            cells += [
                f"cannot run: {row.why}".replace("|", "/"),
                *[""] * (len(heads) - len(cells) - 1),
            ]
        else:
            share = [_share(row.person_share), _share(row.pose_share)]
            gmac = [_number(row.person_gmac, 2), _number(row.pose_gmac, 2)]
            cells += [
                _pair(row.detector, row.detector_p95),
                _pair(row.pose, row.pose_p95),
                ", ".join(_number(value, 1) or "-" for value in (row.pose_1, row.pose_more)),
                _pair(row.full, row.full_p95),
                f"{row.frames_0}, {row.frames_1}, {row.frames_more}",
                " + ".join(filter(None, gmac)),
                ", ".join(filter(None, share)),
                _number(row.memory, 0),
                " / ".join(filter(None, (_number(row.cold, 1), _number(row.warm, 1)))),
                *(_number(100 * row.scores[n][1], 1) if n in row.scores else "" for n in data),
            ]
        yield f"| {' | '.join(cells)} |"


def _precision(row: Row) -> str:
    """What was asked for, and what the pose and the person network compute in if not in that."""
    own = row.of.precision
    text = own if row.pose_precision in ("", own) else f"{row.pose_precision}, rest {own}"
    differs = row.person_precision not in ("", row.pose_precision)
    return f"{text}, person {row.person_precision}" if differs else text


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _pair(middle: float, late: float) -> str:
    return " / ".join(filter(None, (_number(middle, 1), _number(late, 1))))


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0%}"


def recommendation(rows: Sequence[Row], cores: int) -> str:
    """One line: the options of `predict` that serve best on this machine.

    Threads are the physical cores, unless another number was faster in its slowest round than they
    were in their fastest: on a busy machine a median alone does not tell.
    Where scores are known: of everything within a point of the best score the fastest; else the
    fastest of all.

    Args:
        rows: what was measured.
        cores: physical cores of this machine.
    """
    ran = [row for row in rows if not row.why]
    if not ran:
        return "recommended: nothing, as no combination could run"
    first = next((name for row in ran for name in row.scores), None)
    good, reason = ran, "the fastest; no score was measured (--data)"
    if first is not None:
        best = max(row.scores[first][1] for row in ran)
        good = [row for row in ran if row.scores[first][1] >= best - _POINTS]
        reason = f"the fastest within a point of the best score on {first}"
    chosen = min(good, key=lambda row: row.full)
    usual = [row for row in good if row.of.threads == cores and _alike(row, chosen)]
    if usual and chosen.full_high >= usual[0].full_low:
        chosen = usual[0]
    of = chosen.of
    options = [f"--model {of.model}", f"--detector {of.person}"]
    options += [f"--size {of.size}"] if of.size else []
    options += [f"--runtime {of.runtime}"] if of.runtime != "torch" else []
    options += [f"--precision {of.precision}"]
    if of.threads is None:
        options.append(f"--device {of.device}")
    else:
        options.append(f"--threads {of.threads}")
        if of.threads == cores:
            reason += "; threads = physical cores"
        elif usual:
            reason += f"; threads measured faster than the {cores} physical cores"
        else:
            reason += f"; the {cores} physical cores were not measured"
    score = f", score {100 * chosen.scores[first][1]:.1f} %" if first is not None else ""
    return f"recommended: {' '.join(options)} (full frame {chosen.full:.1f} ms{score}): {reason}"


def _alike(a: Row, b: Row) -> bool:
    """Whether two rows differ in their threads alone."""
    return replace(a.of, threads=None) == replace(b.of, threads=None)


def _by_time(name: str) -> str:
    return f"score_by_time_{name}.png"


def _series(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """What ran, by everything but the size, in the order of the rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if not row.why:
            of = row.of
            where = f"{of.threads} threads" if of.threads else of.device
            label = f"{Path(of.model).stem}, {of.runtime} {_precision(row)}, {where}"
            found.setdefault(label.replace(" 1 threads", " 1 thread"), []).append(row)
    return found


def _height(row: Row) -> int:
    return int(row.pose_input.partition("x")[2])


def _styled(series: Mapping[str, list[Row]]) -> Iterator[tuple[str, list[Row], dict[str, Any]]]:
    for i, (label, rows) in enumerate(series.items()):
        turn = i // len(COLOURS)
        yield (
            label,
            rows,
            {
                "color": COLOURS[i % len(COLOURS)],
                "marker": "os^D"[turn % 4],
                "linestyle": ("-", "--", ":", "-.")[turn % 4],
            },
        )


def _draw_sizes(axes: Any, rows: Sequence[Row]) -> None:
    for label, own, style in _styled(_series(rows)):
        own = sorted(own, key=_height)
        sizes, times = [_height(row) for row in own], [row.full for row in own]
        late = [max(row.full_p95 - row.full, 0) for row in own]
        axes.errorbar(
            sizes, times, ([0.0] * len(own), late), label=label, capsize=2, elinewidth=0.8, **style
        )
    shown = sorted({_height(row) for row in rows if not row.why})
    axes.set(
        xlabel="height of the pose network's input, pixels",
        ylabel="full frame, ms (median; whisker: 95th percentile)",
        title="Time of a frame",
        xticks=shown,
    )
    _scale(axes, "y", rows)
    _legend(axes)


def _draw_scores(axes: Any, rows: Sequence[Row], data: str) -> None:
    rule = ""
    for i, (label, own, style) in enumerate(_styled(_series(rows))):
        own = sorted((row for row in own if data in row.scores), key=_height)
        beside = (4, 4) if i % 2 == 0 else (4, -10)  # series that meet often come in pairs
        points = [(row.full, 100 * row.scores[data][1]) for row in own]
        axes.plot(*zip(*points, strict=True), label=label, **style)
        for row, point in zip(own, points, strict=True):
            axes.annotate(str(_height(row)), point, beside, textcoords="offset points", fontsize=7)
            rule = row.scores[data][0]
    axes.set(
        xlabel="full frame, ms (median); at each mark the height of the input",
        ylabel=f"{rule}, %",
        title=f"Score against time: {data}",
    )
    _scale(axes, "x", rows)
    _legend(axes)


def _scale(axes: Any, name: str, rows: Sequence[Row]) -> None:
    """Times on axis `name` from 0 on; in logarithms where they are far from each other."""
    times = [row.full for row in rows if not row.why]
    if times and max(times) > _FAR * min(times):
        axes.set(**{f"{name}scale": "log"})
        getattr(axes, f"{name}axis").set_major_formatter("{x:g}")
    else:
        axes.set(**{f"{name}lim": (0, None)})


def _legend(axes: Any) -> None:
    marks, names = axes.get_legend_handles_labels()
    if names:  # nothing may have run
        axes.figure.legend(marks, names, loc="outside lower center", ncols=2, fontsize=7.5)
