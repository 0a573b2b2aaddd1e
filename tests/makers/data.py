"""Makers of annotation files and data sets, as the readers expect them."""

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
from scipy.io import savemat


def point(joint: int, x: float, y: float, **more: object) -> dict[str, object]:
    return {"id": joint, "x": x, "y": y, **more}


def structs(rows: list[dict[str, object]]) -> np.ndarray:
    """A 1 x N struct array with every field that any row has, [] where a row lacks it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = np.empty((1, len(rows)), [(name, object) for name in names])
    for i, row in enumerate(rows):
        for name in names:
            table[0, i][name] = row.get(name, np.zeros((0, 0)))
    return table


def rectangle(points: list[dict[str, object]], **more: object) -> dict[str, object]:
    return {"x1": 10, "y1": 20, "x2": 40, "y2": 60, "annopoints": {"point": structs(points)}} | more


PLACED = {"scale": 2.0, "objpos": {"x": 51.0, "y": 81.0}}


WHOLE = rectangle(
    [
        point(0, 5, 300, is_visible=np.uint8(0)),
        point(9, 31.5, 2.25),  # head and neck have no flag
        point(8, 30, 42, is_visible=""),
        point(15, 90, 100, is_visible="1"),
        point(14, -7, 100, is_visible="0"),  # outside the picture
    ],
    **PLACED,
)


def write_release(folder: Path) -> Path:
    """Three training pictures and a test picture, with the odd cases of the real file."""
    no_points = {"x1": 1, "y1": 2, "x2": 3, "y2": 4, **PLACED}
    bare = rectangle([point(6, 7, 8, is_visible=1), point(9, np.nan, 3)])  # no scale, no objpos
    pictures = [
        ("a.jpg", structs([WHOLE, no_points])),
        ("b.jpg", np.zeros((0, 0))),
        ("c.jpg", structs([no_points, bare])),
        ("d.jpg", structs([{"x1": 1, "y1": 2, "x2": 3, "y2": 4, **PLACED}, {"x1": 9}])),
    ]
    annolist = structs([{"image": {"name": name}, "annorect": rects} for name, rects in pictures])
    release = {"annolist": annolist, "img_train": np.array([[1, 1, 1, 0]]), "version": "12"}
    file = folder / "mpii_human_pose_v1_u12_1.mat"
    savemat(file, {"RELEASE": release})
    return file


def write_detections(file: Path, keys: tuple[tuple[int, int], ...]) -> None:
    image, person = np.array(keys, np.uint16).T[:, None]
    content = {"annolist": structs([{"annorect": structs([WHOLE])} for _ in keys])}
    savemat(file, content | {"RELEASE_img_index": image, "RELEASE_person_index": person})


def write_h5(file: Path, n: int = 2, **changes: object) -> None:
    rng = np.random.default_rng(3)
    part = rng.uniform(1, 500, (n, 16, 2)).round()
    part[0, 3] = 0
    tables = {
        "imgname": np.array([f"{i}.jpg" for i in range(n)], "S13"),
        "index": np.arange(n, dtype=float) + 6,
        "person": np.zeros(n),
        "center": np.full((n, 2), 101.0),
        "scale": np.full(n, 2.5),
        "part": part,
        "visible": np.ones((n, 16)),
        "normalize": np.full(n, 30.0),
        "torsoangle": np.zeros(n),
    }
    with h5py.File(file, "w") as out:
        for name, value in (tables | changes).items():
            if value is not None:
                out[name] = value


def hrnet_entry(**changes: object) -> dict[str, object]:
    joints = [[float(10 + i), float(20 + i)] for i in range(16)]
    joints[0] = [-1.0, -1.0]
    entry = {
        "image": "a.jpg", "center": [51.0, 81.0], "scale": 1.5, "joints": joints,
        "joints_vis": [0] + [1] * 15,
    }  # fmt: skip
    return entry | changes


def write_hrnet(folder: Path, **files: list[dict[str, object]]) -> Path:
    (folder / "annot").mkdir(exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    for name, entries in files.items():
        (folder / "annot" / f"{name}.json").write_text(json.dumps(entries))
    return folder / "annot"


def write_lsp(folder: Path, n: int = 2) -> np.ndarray:
    """Its table (3, 14, n): joint 4 of person 0 is hidden, as the set marks it (flag 1)."""
    (folder / "images").mkdir(parents=True)
    table = np.random.default_rng(2).uniform(1, 100, (3, 14, n))
    table[2] = 0
    table[2, 4, 0] = 1
    savemat(folder / "joints.mat", {"joints": table})
    return table


def write_flic(folder: Path) -> np.ndarray:
    """Four examples, of which the third is bad; returns the coords (2, 29) of the first."""
    coords = np.full((2, 29), np.nan)
    for i, column in enumerate([0, 1, 2, 3, 4, 5, 6, 9, 12, 13, 16]):
        coords[:, column] = 100 - 3 * i, 50 + i
    away = coords.copy()
    away[0] = 200 - away[0]  # seen from behind: the right shoulder lies further right
    row = {"moviename": "film", "filepath": "film-1.jpg", "torsobox": np.array([[11, 21, 51, 121]])}
    row |= {"imgdims": np.array([[480, 720, 3]]), "istrain": True, "istest": False, "isbad": False}
    rows = [
        row | {"coords": coords},
        row | {"coords": away, "filepath": "film-2.jpg", "istest": True, "isunchecked": False},
        row | {"coords": coords, "isbad": True},
        row | {"coords": coords, "isunchecked": True},
    ]
    savemat(folder / "examples.mat", {"examples": structs(rows)})
    return coords


def picture(rng: np.random.Generator, path: Path, size: tuple[int, int]) -> None:
    small = rng.integers(0, 256, (size[1] // 40, size[0] // 40, 3), np.uint8)
    image = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    path.write_bytes(cv2.imencode(path.suffix, image, kind)[1].tobytes())


def make_sets(folder: Path, pictures: int) -> list[str]:
    """A COCO and an MPII data set below `folder`; large and small, JPEG and PNG, crowds."""
    rng = np.random.default_rng(5)
    images, annotations = [], []
    for i in range(pictures):
        size = (640, 480) if i % 3 else (120, 160)
        name = f"{'ab'[i % 2]}/{i}.{'png' if i % 5 == 4 else 'jpg'}"  # two sub-folders
        picture(rng, folder / "coco" / "images" / name, size)
        images.append({"id": i, "file_name": name})
        for _ in range(1 + i % 3):
            box = np.array([*rng.uniform(0, 0.4, 2), *rng.uniform(0.1, 0.8, 2)]) * (*size, *size)
            if i == 3:  # somebody who fills a small picture
                box = np.array([25, 35, 70, 90])
            table = np.zeros((17, 3))
            table[:, 2] = rng.integers(0, 3, 17)
            table[0, 2] = 2
            places = box[:2] + rng.uniform(-0.1, 1.1, (17, 2)) * box[2:]
            table[:, :2] = np.where(table[:, 2:] > 0, np.round(places, 2), 0)
            entry = {
                "id": len(annotations), "image_id": i, "keypoints": table.ravel().tolist(),
                "num_keypoints": int((table[:, 2] > 0).sum()), "bbox": box.tolist(),
                "area": float(box[2] * box[3]), "iscrowd": 0,
            }  # fmt: skip
            annotations.append(entry)
    rng.shuffle(annotations)  # the people of a picture do not follow each other
    content = {"images": images, "annotations": annotations}
    (folder / "coco" / "person_keypoints.json").write_text(json.dumps(content))
    for part in ("train", "valid"):
        entries = []
        for i in range(pictures // 2):
            name = f"{part}{i}.jpg"
            picture(rng, folder / "mpii" / "images" / name, (640, 360))
            joints = rng.uniform(50, 350, (16, 2)).round(3)
            entry = {
                "image": name, "joints": joints.tolist(), "center": [200.5, 190.0], "scale": 1.7,
                "joints_vis": rng.integers(0, 2, 16).tolist(), "headbox": [[60, 60], [90, 100]],
            }  # fmt: skip
            entries.append(entry)
        (folder / "mpii" / "annot").mkdir(exist_ok=True)
        (folder / "mpii" / "annot" / f"{part}.json").write_text(json.dumps(entries))
    return [f"{name}={folder / name}" for name in ("coco", "mpii")]
