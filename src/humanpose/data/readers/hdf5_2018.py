"""The HDF5 layout that RoboticsLabURJC's humanpose trained and scored on in 2018.

`images` holds (N, b, b, 3) BGR crops, `labels` a compound row for each. A row mixes three frames:
`center` counts pixels of the resized picture, `joints` and `headsize` those of the original one,
1-based, and the crop shows the resized picture with `center` on pixel b / 2. `scale` is the factor
of the resize, not MPII's. Here everything is in pixels of the crop. Rows that were set aside and
never filled, and those without joints, are left out.

`scale` was rounded to 16 bits: a joint is exact to 0.05 % of its distance from the resized
picture's corner, half a pixel at 1,000.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from humanpose.data.pack import PackedSample, Stored
from humanpose.data.parsers.tables import hdf5_array
from humanpose.data.readers.common import joint_box, parse, plausible, split_of
from humanpose.errors import FormatError, InputError
from humanpose.geometry import Crop
from humanpose.sandbox import Arrays
from humanpose.skeleton import MPII16
from humanpose.types import Sample

_SETS = {"mpi": "mpii", "mpii": "mpii", "lsp": "lsp"}
_FIELDS = {"scale": (), "center": (2,), "joints": (16, 2)}
# Height of a person in the crops, in units of 200 px: what MPII's were resized to.
_MPII_SCALE = 41 / 35


def read_hdf5_2018(path: Path) -> list[Sample]:
    """Return the samples of `mpii_lsp_{train,val,test}.h5` in a folder, or of one such file.

    Raises InputError, FormatError: it is not there, damaged, of another layout, or compressed.
    """
    files = sorted(path.glob("mpii_lsp_*.h5")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no mpii_lsp_train.h5, mpii_lsp_val.h5 or mpii_lsp_test.h5 in it")
    return [sample for file in files for sample in _read_file(file)]


def _read_file(file: Path) -> list[PackedSample]:
    table = parse(_parse, file, "h5py")
    start, rows, side = table["images"].tolist()
    if start < 0 or start + rows * side * side * 3 > file.stat().st_size:
        raise FormatError(f"{file}: it ends before its last picture")
    stored = Stored.of(file)
    scale = plausible(table["scale"], file, "a scale")
    centre = table["center"].astype(np.int16)  # as they were before they were cast to uint16
    joints = table["joints"].astype(np.int16).astype(np.float32)
    missing = (joints == 0).all(-1)
    filled = (table["fname"] != "") & (scale > 0) & ~missing.all(1)
    samples = []
    for i in np.flatnonzero(filled).tolist():
        # Original pixel x, 0-based, came to scale * (x + 0.5) - 0.5 of the resized picture.
        move = (scale[i] - 1) / 2 - centre[i] + side // 2
        crop = Crop(np.column_stack([np.eye(2) * scale[i], move]), (side, side))
        places = np.where(missing[i, :, None], np.nan, crop.to_crop(joints[i] - 1))
        dataset, name = str(table["dataset"][i]).lower(), str(table["fname"][i])
        box, area = joint_box(places.astype(np.float32))
        samples.append(
            PackedSample(
                picture=file / str(i) / name,
                joints=places.astype(np.float32),
                visible=np.where(missing[i], 0, 2).astype(np.uint8),
                box=box,
                area=area,
                split=split_of(file) or "train",
                origin=(_SETS.get(dataset, dataset), f"{name} {i}"),
                skeleton=MPII16,
                head_size=float(table["headsize"][i] * scale[i]) or float("nan"),
                centre=np.full(2, side // 2 - scale[i] / 2, np.float32),
                scale=_MPII_SCALE if dataset.startswith("mp") else float("nan"),
                file=stored,
                place=(start + i * side * side * 3, side * side * 3),
                coding="bgr",
                crop=crop,
                name=name,
            )
        )
    return samples


def _parse(path: str) -> Arrays:
    import h5py

    with h5py.File(path, "r") as file:
        labels = hdf5_array(file, "labels", "V")
        images = file["images"]
        if images.chunks is not None:
            raise ValueError("images is stored in chunks; run h5repack -l images:CONTI on the file")
        start = images.id.get_offset()  # None: the pictures lie in another file
        n, side = images.shape[:2]
        wanted = (np.uint8, (len(labels), side, side, 3))
        if (images.dtype, images.shape) != wanted or n * side == 0 or not start:
            raise ValueError(f"{len(labels)} labels for pictures of shape {images.shape}")
        if any(labels.dtype[name].shape != shape for name, shape in _FIELDS.items()):
            raise ValueError("its labels are of another shape")
    texts = {name: np.char.decode(labels[name], "utf-8") for name in ("dataset", "fname")}
    # The older version of the file had no head sizes.
    heads = labels["headsize"] if "headsize" in (labels.dtype.names or ()) else np.full(n, np.nan)
    return {
        **texts,
        **{name: labels[name] for name in ("center", "joints")},
        "scale": labels["scale"].astype(np.float64),
        "headsize": heads.astype(np.float64),
        "images": np.array([start, n, side], np.int64),
    }
