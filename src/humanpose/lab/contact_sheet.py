"""Samples of data sets with their joints drawn: a contact sheet, or one HTML page."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from humanpose.data.pack import has_picture, image_of
from humanpose.data.pose import joints_in
from humanpose.data.readers import read
from humanpose.data.sets import data_path
from humanpose.draw import contact_sheet, draw_people
from humanpose.errors import InputError
from humanpose.files import atomic_write
from humanpose.geometry import augmented_crop, crop_of_box
from humanpose.images import save_image
from humanpose.types import U8, Person, Sample

_CELL = (240, 320)
_COLUMNS = 10
_OUTSIDE = (110, 110, 110)  # beyond the picture's edge


@dataclass(frozen=True, slots=True)
class View:
    """Which samples to show, and how they lie.

    Attributes:
        data_set: only of this one; "" = of all.
        split: only of this one; "" = of all.
        joints: (least, most) annotated joints.
        count: at most so many, evenly spread over what is left; 0 = all of it.
        flip: mirrored.
        rotate: degrees, counter-clockwise.
    """

    data_set: str = ""
    split: str = ""
    joints: tuple[int, int] = (0, 1000)
    count: int = 60
    flip: bool = False
    rotate: float = 0.0


def samples_of(entries: Sequence[str]) -> list[Sample]:
    """All samples of data sets NAME[=PATH], and of packs given by their file name alone."""
    samples: list[Sample] = []
    for entry in entries:
        samples += read(*data_path(entry))
    return samples


def chosen(samples: Sequence[Sample], view: View) -> tuple[list[Sample], int]:
    """The samples to show, and how many others have no picture here.

    Raises:
        InputError: if there is none.
    """
    low, high = view.joints
    wanted = [
        sample
        for sample in samples
        if view.data_set in ("", sample.origin[0])
        and view.split in ("", sample.split)
        and low <= known(sample) <= high
        and np.isfinite(sample.box).all()
    ]
    there = [sample for sample in wanted if has_picture(sample)]
    if not there:
        raise InputError(f"no picture of the {len(wanted)} persons asked for is here")
    step = max(1.0, len(there) / view.count) if view.count else 1.0
    places = np.arange(0, len(there), step).astype(int)
    return [there[i] for i in places], len(wanted) - len(there)


def known(sample: Sample) -> int:
    """Annotated joints of `sample`."""
    return int((sample.visible > 0).sum())


def drawn(sample: Sample, view: View) -> U8:
    """The person (320, 240, 3) as a network would be given it, with the joints drawn on it.

    Crop, change and joints are made by what makes them for a training.
    """
    crop = augmented_crop(
        crop_of_box(sample.box, _CELL, context=1.25), rotation=view.rotate, flip=view.flip
    )
    joints = joints_in(crop, sample, sample.skeleton, view.flip)
    scores = np.asarray(~np.isnan(joints).any(1), np.float32)
    person = Person(joints, scores, sample.box, 1.0, skeleton=sample.skeleton)
    return draw_people(crop.cut(image_of(sample), _OUTSIDE), [person], boxes=False)


def write_sheet(path: Path, samples: Sequence[Sample], view: View) -> None:
    """All samples side by side as a picture, each with its data set and identifier."""
    cells = []
    for sample in samples:
        cell = drawn(sample, view)
        cell[:18] = cell[:18] // 4
        text = f"{sample.origin[0]} {sample.origin[1]}"
        cv2.putText(cell, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, 16)
        cells.append(cell)
    columns = min(_COLUMNS, int(np.ceil(np.sqrt(1.5 * len(cells)))))
    save_image(path, contact_sheet(cells, columns, _CELL))


def write_page(path: Path, samples: Sequence[Sample], view: View, title: str) -> None:
    """One HTML page of all samples, pictures inside it, with a filter; memory for one at a time."""
    sets = Counter(sample.origin[0] for sample in samples)
    splits = Counter(sample.split for sample in samples)
    most = max(map(known, samples))
    with atomic_write(path, "w") as file:
        file.write(
            _HEAD.format(
                title=html.escape(title),
                sets=_options(sets),
                splits=_options(splits),
                most=most,
                count=len(samples),
            )
        )
        for sample in samples:
            file.write(_figure(sample, view))
        file.write(_TAIL)


def _options(counts: Counter[str]) -> str:
    return "".join(
        f'<option value="{html.escape(name)}">{html.escape(name)} ({n})</option>'
        for name, n in sorted(counts.items())
    )


def _figure(sample: Sample, view: View) -> str:
    bgr = cv2.cvtColor(drawn(sample, view), cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    name, identifier = (html.escape(text) for text in sample.origin)
    return (
        f'<figure data-set="{name}" data-split="{sample.split}" data-joints="{known(sample)}">'
        f'<img alt="{name} {identifier}" loading="lazy" width="{_CELL[0]}" height="{_CELL[1]}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
        f"<figcaption>{name} {identifier}<br>{html.escape(sample.picture.name)}, {sample.split}, "
        f"{known(sample)} joints</figcaption></figure>\n"
    )


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
body {{ font: 14px sans-serif; margin: 1em; background: #202020; color: #ddd }}
form {{ position: sticky; top: 0; padding: .6em 0; background: #202020 }}
main {{ display: flex; flex-wrap: wrap; gap: 8px }}
figure {{ margin: 0; width: 240px }}
figcaption {{ overflow-wrap: anywhere; font-size: 12px }}
label {{ margin-right: 1em }} [hidden] {{ display: none }}
</style></head><body><h1>{title}</h1>
<p>The person's left is blue, the right orange, the middle green.</p>
<form><label>Data set <select id="set"><option value="">all</option>{sets}</select></label>
<label>Split <select id="split"><option value="">all</option>{splits}</select></label>
<label>Joints <input id="least" type="number" min="0" max="{most}" value="0"> to
<input id="most" type="number" min="0" max="{most}" value="{most}"></label>
<label>Name <input id="name" type="search"></label> <output id="shown">{count}</output> shown</form>
<main>
"""
_TAIL = """</main><script>
const field = id => document.getElementById(id);
const figures = [...document.querySelectorAll("figure")];
function filter() {
  let shown = 0;
  for (const figure of figures) {
    const {set, split, joints} = figure.dataset;
    const fits = (!field("set").value || set === field("set").value)
      && (!field("split").value || split === field("split").value)
      && +joints >= +field("least").value && +joints <= +field("most").value
      && figure.textContent.includes(field("name").value);
    figure.hidden = !fits;
    shown += fits;
  }
  field("shown").value = shown;
}
document.querySelector("form").addEventListener("input", filter);
</script></body></html>
"""
