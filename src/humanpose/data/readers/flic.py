"""FLIC (Frames Labeled In Cinema): `examples.mat` and `images/`.

Source: Sapp & Taskar, CVPR 2013. Eleven of the 29 columns of `coords` are labelled; the eyes
are left out, and the nose is FLIC9's head, as in the CPM release.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from humanpose.data.parsers.tables import column, number, records, text, variables
from humanpose.data.readers.common import joint_box, parse, picture_path, pictures_beside, plausible
from humanpose.sandbox import Arrays
from humanpose.skeleton import FLIC9
from humanpose.types import Sample

# Columns of `coords` (FLIC's lookupPart): arms, hips, nose, in FLIC9's order.
_COLUMNS = [0, 1, 2, 3, 4, 5, 6, 9, 16]
# The CPM release's: a person's height / 200 px from the height of the torso box.
_SCALE_OF_TORSO = 0.0110


def read_flic(path: Path, *, cpm: bool = False) -> list[Sample]:
    """Return the samples of the set in folder `path` (or of its `examples.mat`).

    Examples marked bad or unchecked (in FLIC-full) are left out. `centre` and `scale` come from
    the torso box, as in the CPM release. Left and right are as the set has them; with `cpm` they
    are swapped where the right shoulder lies further right in the picture (observer-centric
    labels), as the CPM release trains and scores.

    Raises InputError, FormatError: the file is not there, is damaged or no table of examples.
    """
    mat = path / "examples.mat" if path.is_dir() else path
    table = parse(_examples, mat, "scipy")
    places = plausible(table["coords"], mat, "a joint", first=1).astype(np.float32)
    torsos = plausible(table["torso"], mat, "a torso box", first=1)
    pictures = pictures_beside(mat)
    samples = []
    for i, (joints, torso) in enumerate(zip(places, torsos, strict=True)):
        if cpm and joints[3, 0] > joints[0, 0]:
            joints = joints[FLIC9.flip_index]
        known = np.isfinite(joints).all(1)
        x1, y1, x2, y2 = torso
        centre = np.array([(x1 + x2) / 2, 0.7 * y1 + 0.3 * y2], np.float32)
        box, area = joint_box(joints)
        samples.append(
            Sample(
                picture=picture_path(pictures, str(table["name"][i]), mat),
                joints=joints,
                visible=np.where(known, 2, 0).astype(np.uint8),
                box=box,
                area=area,
                split="test" if table["test"][i] else "train",
                origin=("flic", str(table["row"][i])),
                skeleton=FLIC9,
                centre=centre if np.isfinite(centre).all() else None,
                scale=float(_SCALE_OF_TORSO * (y2 - y1)),
            )
        )
    return samples


def _examples(path: str) -> Arrays:
    """Return plain arrays of `examples`; runs in the child process of `sandbox.parse`."""
    found = records(variables(path, ["examples"])["examples"])
    flags = {
        name: np.array([number(value, 0) != 0 for value in column(found, name)])
        for name in ("istest", "isbad", "isunchecked")
    }
    rows = np.flatnonzero(~flags["isbad"] & ~flags["isunchecked"])
    if not len(rows):
        raise ValueError("no examples in it")
    found = found[rows]
    coords = np.stack([value[:2, _COLUMNS].T for value in column(found, "coords")])
    torso = np.stack([value.reshape(4) for value in column(found, "torsobox")])
    return {
        "row": rows + 1,
        "coords": coords.astype(np.float64),
        "torso": torso.astype(np.float64),
        "name": np.array([text(value) for value in column(found, "filepath")]),
        "test": flags["istest"][rows],
    }
