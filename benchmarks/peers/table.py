"""Figures of all contenders, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = ("part", "contender", "measure", "value", "low", "high", "note")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one contender.

    Attributes:
        part: heading of its table.
        contender: row of it.
        measure: column of it.
        value: NaN where there is none.
        form: how to print the value, as `format` takes it.
        low, high: ends of the 95 % interval, NaN where there is none.
        note: said below the table.
    """

    part: str
    contender: str
    measure: str = ""
    value: float = math.nan
    form: str = ".3f"
    low: float = math.nan
    high: float = math.nan
    note: str = ""

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        text = format(self.value, self.form)
        if math.isnan(self.low):
            return text
        return f"{text} ({format(self.low, self.form)}-{format(self.high, self.form)})"


def markdown(figures: Sequence[Figure]) -> str:
    """A table per part, contenders down, measures across, notes below."""
    blocks = []
    for part in dict.fromkeys(figure.part for figure in figures):
        mine = [figure for figure in figures if figure.part == part]
        measures = list(dict.fromkeys(figure.measure for figure in mine if figure.measure))
        cells = {(figure.contender, figure.measure): str(figure) for figure in mine}
        heads = measures or ["figures"]  # no contender is here: rows and notes all the same
        lines = [f"## {part}", "", f"| | {' | '.join(heads)} |"]
        lines.append("|---" * (1 + len(heads)) + "|")
        for contender in dict.fromkeys(figure.contender for figure in mine):
            row = (cells.get((contender, measure), "-") for measure in heads)
            lines.append(f"| {contender} | {' | '.join(row)} |")
        notes = dict.fromkeys(f"{f.contender}: {f.note}" for f in mine if f.note)
        lines += ["", *(f"- {note}" for note in notes)] if notes else []
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def as_csv(figures: Sequence[Figure]) -> str:
    """A line per figure in full, shares as fractions; names without Markdown's marks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for figure in figures:
        numbers = (figure.value, figure.low, figure.high)
        shown = ("" if math.isnan(number) else repr(float(number)) for number in numbers)
        name = figure.contender.replace("**", "")
        writer.writerow((figure.part, name, figure.measure, *shown, figure.note))
    return text.getvalue()
