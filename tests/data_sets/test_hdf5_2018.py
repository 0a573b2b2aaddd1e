"""The HDF5 layout of 2018, written here as it was then, with its mixed coordinates."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose.data.pack import Pack, image_of
from humanpose.data.readers import read
from humanpose.errors import FormatError, InputError
from humanpose.lab.packing import PackRecipe, build
from humanpose.skeleton import MPII16

SIDE = 368
LABELS = np.dtype(
    [
        ("dataset", "S3"), ("fname", "S13"), ("scale", "<f2"), ("center", "<u2", 2),
        ("joints", "<u2", (16, 2)), ("headsize", "<f2"),
    ]
)  # fmt: skip


def old_crop(image: np.ndarray, centre: np.ndarray, scale: float) -> np.ndarray:
    """The crop as it was made then: resize, then pad or cut around `centre`, grey outside."""
    resized = cv2.resize(image, None, fx=scale, fy=scale)
    out = np.full((SIDE, SIDE, 3), 128, np.uint8)
    left, top = SIDE // 2 - centre
    height, width = resized.shape[:2]
    x, y = np.arange(SIDE) - left, np.arange(SIDE) - top
    rows, columns = (y >= 0) & (y < height), (x >= 0) & (x < width)
    out[np.ix_(rows, columns)] = resized[np.ix_(y[rows], x[columns])]
    return out


def write_2018(path: Path, headsize: bool = True) -> np.ndarray:
    """Three people, an empty one between, two rows never filled; returns joints (3, 16, 2)."""
    import h5py

    kept = [name for name in LABELS.names or () if headsize or name != "headsize"]
    rng = np.random.default_rng(0)
    joints = rng.integers(40, 400, (3, 16, 2))
    joints[:, 6] = 0  # missing
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (6, SIDE, SIDE, 3), np.uint8)
        labels = file.create_dataset("labels", (6,), LABELS[kept])
        for row, i in ((0, 0), (2, 1), (3, 2)):
            # A white square on each joint, blue on the first: the file is BGR.
            image = np.zeros((480, 640, 3), np.uint8)
            for j, (x, y) in enumerate(joints[i]):
                if j != 6:
                    colour = (255, 0, 0) if j == 0 else (255, 255, 255)
                    cv2.rectangle(image, (x - 5, y - 5), (x + 3, y + 3), colour, -1)
            scale = (0.61, 1.37, 0.9)[i]
            centre = np.array([[250, 200], [-20, 160], [300, 240]][i])  # one wraps around
            images[row] = old_crop(image, (centre * scale).astype(int), scale)
            values = ("mpi" if i else "LSP", f"{i}.jpg", scale, (centre * scale).astype(int)
                      .astype(np.int16).view(np.uint16), joints[i], 31.5)  # fmt: skip
            labels[row] = np.array(values[: len(kept)], LABELS[kept])
        labels[1] = np.array(
            ("mpi", "bad.jpg", 1, [3, 3], np.zeros((16, 2)), 0)[: len(kept)], LABELS[kept]
        )
    return joints


@pytest.mark.parametrize("headsize", [True, False])
def test_the_layout_of_2018_in_one_frame(tmp_path, headsize):
    path = tmp_path / "mpii_lsp_val.h5"
    joints = write_2018(path, headsize)
    people = read("hdf5_2018", tmp_path)
    assert [p.origin for p in people] == [
        ("lsp", "0.jpg 0"),
        ("mpii", "1.jpg 2"),
        ("mpii", "2.jpg 3"),
    ]
    for person, truth, scale in zip(people, joints, (0.61, 1.37, 0.9), strict=True):
        assert person.split == "validation" and person.skeleton == MPII16
        assert np.isnan(person.joints[6]).all() and person.visible[6] == 0
        back = person.crop.to_picture(person.joints)
        assert np.allclose(np.delete(back, 6, 0), np.delete(truth, 6, 0) - 1, atol=1e-3)
        assert (
            np.isnan(person.head_size)
            if not headsize
            else abs(person.head_size - 31.5 * scale) < 0.1
        )
        image = image_of(person)
        seen = 0
        for x, y in np.rint(person.joints[np.isfinite(person.joints).all(1)]).astype(int):
            if 0 <= x < SIDE and 0 <= y < SIDE:
                seen += 1
                assert image[y, x].max() > 250
        assert seen > 2
        x, y = np.rint(person.joints[0]).astype(int)
        if 0 <= x < SIDE and 0 <= y < SIDE:
            assert image[y, x, 2] > 200  # blue in RGB
    build(PackRecipe(data=[f"hdf5_2018={path}"]), tmp_path / "new.json")
    back = [row.crop.to_picture(row.joints) for row in Pack(tmp_path / "new.json")]
    assert np.allclose(np.delete(back, 6, 1), np.delete(joints, 6, 1) - 1, atol=2e-3)


def test_a_damaged_file_of_2018_is_refused(tmp_path):
    import h5py

    path = tmp_path / "mpii_lsp_train.h5"
    write_2018(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"mpii_lsp_train\.h5"):
        read("hdf5_2018", path)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (2, 8, 8, 3), np.uint8, chunks=(1, 8, 8, 3))
        file.create_dataset("labels", (2,), LABELS)
    with pytest.raises(FormatError, match="h5repack"):
        read("hdf5_2018", path)
    with pytest.raises(InputError, match=r"no mpii_lsp_train\.h5"):
        read("hdf5_2018", tmp_path / "..")
