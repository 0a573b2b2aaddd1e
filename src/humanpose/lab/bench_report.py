"""Write rows of `humanpose bench` as CSV, Markdown and plots, and recommend options."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from humanpose.errors import require
from humanpose.evaluate.plots import COLOURS, png
from humanpose.files import atomic_write, prepare_output
from humanpose.lab.bench import Row, backend, label

TABLE, FIGURES = "bench.md", "bench.csv"
_BY_SIZE, _BY_TIME = "time_by_size.png", "score_by_time_{}.png"
_FAR = 8  # ratio of times from which their axis is logarithmic
_POINTS = 0.01  # of a score that speed may cost

_COLUMNS = (
    "frames_0", "frames_1", "frames_more", "detector_ms", "detector_p95_ms", "pose_ms",
    "pose_p95_ms", "pose_1_ms", "pose_more_ms", "full_ms", "full_p95_ms", "full_low_ms",
    "full_high_ms", "frames_per_s", "pose_precision", "detector_precision", "pose_input",
    "detector_input", "pose_gmac", "detector_gmac", "memory_mib", "start_cold_s", "start_warm_s",
)  # fmt: skip
_HEADS = (
    "model", "input", "runtime", "precision", "threads", "detector ms", "pose ms",
    "pose ms of 1, more people", "full ms", "frames with 0, 1, more", "GMAC", "MiB", "start s",
)  # fmt: skip


def prepare(folder: Path, data: Sequence[str], *, force: bool, with_plots: bool) -> None:
    """Check, before anything runs, that the files can be written to `folder`.

    Raises:
        OutputError: a file is there and `force` is off.
        MissingExtraError: plots are asked for and matplotlib is not installed.
    """
    if with_plots:
        require("matplotlib", "data")
    plots = [_BY_SIZE, *map(_BY_TIME.format, data)] if with_plots else []
    for name in (TABLE, FIGURES, *plots):
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
    """Write table, figures and plots of `rows` into `folder`.

    `about` are lines about machine, video and protocol, `advice` is that of `recommend`, `data` are
    names of the data sets of the scores.

    Raises OutputError if a file cannot be written.
    """
    text = [*about, "", *markdown(rows, data), "", advice, ""]
    files = {TABLE: "\n".join(text).encode(), FIGURES: as_csv(rows, data).encode()}
    if with_plots:
        files[_BY_SIZE] = png(partial(_plot, rows=rows, data=""), (7.2, 4.2))
        for name in data:
            files[_BY_TIME.format(name)] = png(partial(_plot, rows=rows, data=name), (7.2, 4.2))
    for name, content in files.items():
        with atomic_write(folder / name) as file:
            file.write(content)


def as_csv(rows: Sequence[Row], data: Sequence[str]) -> str:
    """Return every figure of every row, empty where there is none; scores in percent."""
    lines = []
    for row in rows:
        of = row.options
        cells: dict[str, Any] = {
            "model": of.model, "detector": of.detector, "size": of.size, "runtime": backend(of),
            "precision": of.precision, "threads": of.threads, "device": of.device,
        }  # fmt: skip
        cells |= {name: row.figures.get(name) for name in _COLUMNS}
        for name in data:
            rule, value = row.scores.get(name, ("", None))
            cells |= {f"{name}_score": value and 100 * value, f"{name}_rule": rule}
        cells["why_not"] = row.why
        lines.append({k: round(v, 4) if isinstance(v, float) else v for k, v in cells.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def markdown(rows: Sequence[Row], data: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table: medians with the 95th percentiles behind a slash."""
    rules = dict.fromkeys(
        f"{name}: {row.scores[name][0]}, %" for row in rows for name in data if name in row.scores
    )
    heads = (*_HEADS, *rules)
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        of = row.options
        size = row.figures.get("pose_input") or of.size or ""
        cells = [Path(of.model).stem, size, backend(of), _precision(row), of.threads or of.device]
        if row.why:
            cells.append(f"cannot run: {row.why}".replace("|", "/"))
            cells += [""] * (len(heads) - len(cells))
        else:
            cells += [
                _joined(row, "detector_ms", "detector_p95_ms"),
                _joined(row, "pose_ms", "pose_p95_ms"),
                ", ".join(_number(row[n], 1) or "-" for n in ("pose_1_ms", "pose_more_ms")),
                _joined(row, "full_ms", "full_p95_ms"),
                ", ".join(f"{row[f'frames_{n}']:.0f}" for n in ("0", "1", "more")),
                _joined(row, "detector_gmac", "pose_gmac", digits=2, between=" + "),
                _number(row["memory_mib"], 0),
                _joined(row, "start_cold_s", "start_warm_s"),
                *(_number(100 * row.scores[n][1], 1) if n in row.scores else "" for n in data),
            ]
        yield f"| {' | '.join(map(str, cells))} |"


def _precision(row: Row) -> str:
    """Return the asked precision, and what the networks compute in where that differs."""
    own = row.options.precision
    pose, detector = (row.figures.get(f"{task}_precision", "") for task in ("pose", "detector"))
    text = own if pose in ("", own) else f"{pose}, rest {own}"
    return text if detector in ("", pose) else f"{text}, detector {detector}"


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _joined(row: Row, *names: str, digits: int = 1, between: str = " / ") -> str:
    return between.join(filter(None, (_number(row[name], digits) for name in names)))


def recommend(rows: Sequence[Row], cores: int) -> str:
    """Return one line: the best options of `predict` on this machine of so many physical `cores`.

    With scores, the fastest within a point of the best score; else the fastest. Threads are the
    physical cores, unless another number was faster in its slowest round than they were in their
    fastest: on a busy machine medians are not enough.
    """
    ran = [row for row in rows if not row.why]
    if not ran:
        return "recommended: nothing, as no combination could run"
    first = next((name for row in ran for name in row.scores), "")
    good, reason = ran, "the fastest; no score was measured (--data)"
    if first:
        best = max(row.scores[first][1] for row in ran)
        good = [row for row in ran if row.scores[first][1] >= best - _POINTS]
        reason = f"the fastest within a point of the best score on {first}"
    chosen = min(good, key=lambda row: row["full_ms"])
    alike = replace(chosen.options, threads=cores)
    usual = next((row for row in good if row.options == alike), None)
    if usual is not None and chosen["full_high_ms"] >= usual["full_low_ms"]:
        chosen = usual
    of = chosen.options
    words = [f"--model {of.model}", f"--detector {of.detector}"]
    words += [f"--size {of.size}"] if of.size else []
    words += [f"--runtime {of.runtime}"] if of.runtime != "auto" else []
    words += [f"--precision {of.precision}"]
    words += [f"--device {of.device}" if of.threads is None else f"--threads {of.threads}"]
    if of.threads == cores:
        reason += "; threads = physical cores"
    elif of.threads is not None and usual:
        reason += f"; threads measured faster than the {cores} physical cores"
    elif of.threads is not None:
        reason += f"; the {cores} physical cores were not measured"
    score = f", score {100 * chosen.scores[first][1]:.1f} %" if first else ""
    time = f"full frame {chosen['full_ms']:.1f} ms{score}"
    return f"recommended: {' '.join(words)} ({time}): {reason}"


def _height(row: Row) -> int:
    return int(str(row.figures["pose_input"]).partition("x")[2])


def _series(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """Return the rows that ran, grouped by all options but size, sorted by input height."""
    found: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if not row.why), key=_height):
        name = label(replace(row.options, size=None), _precision(row))
        found.setdefault(name, []).append(row)
    return found


def _plot(axes: Any, rows: Sequence[Row], data: str) -> None:
    """Draw time against size, or the score on `data` against time."""
    rule = ""
    for i, (name, own) in enumerate(_series(rows).items()):
        turn = i // len(COLOURS) % 4
        style = {
            "color": COLOURS[i % len(COLOURS)], "label": name,
            "marker": "os^D"[turn], "linestyle": ("-", "--", ":", "-.")[turn],
        }  # fmt: skip
        if not data:
            late = [max(row["full_p95_ms"] - row["full_ms"], 0) for row in own]
            heights, times = [_height(row) for row in own], [row["full_ms"] for row in own]
            axes.errorbar(heights, times, ([0.0] * len(own), late), capsize=2, **style)
            continue
        beside = (4, 4) if i % 2 == 0 else (4, -10)  # series that meet often come in pairs
        scored = [row for row in own if data in row.scores]
        points = [(row["full_ms"], 100 * row.scores[data][1]) for row in scored]
        axes.plot(*zip(*points, strict=True), **style)
        for row, point in zip(scored, points, strict=True):
            axes.annotate(str(_height(row)), point, beside, textcoords="offset points", fontsize=7)
            rule = row.scores[data][0]
    if data:
        axes.set(xlabel="full frame, ms (median); at each mark the height of the input",
                 ylabel=f"{rule}, %", title=f"Score against time: {data}")  # fmt: skip
    else:
        axes.set(xlabel="height of the pose network's input, pixels", title="Time of a frame",
                 ylabel="full frame, ms (median; whisker: 95th percentile)",
                 xticks=sorted({_height(row) for row in rows if not row.why}))  # fmt: skip
    times = [row["full_ms"] for row in rows if not row.why]
    axis = "x" if data else "y"
    if times and max(times) > _FAR * min(times):
        axes.set(**{f"{axis}scale": "log"})
        getattr(axes, f"{axis}axis").set_major_formatter("{x:g}")
    else:
        axes.set(**{f"{axis}lim": (0, None)})
    marks, names = axes.get_legend_handles_labels()
    if names:  # nothing may have run
        axes.figure.legend(marks, names, loc="outside lower center", ncols=2, fontsize=7.5)
