"""Training samples per second and core: a pack beside the official HRNet data set class.

    git clone https://github.com/leoxiaobin/deep-high-resolution-net.pytorch hrnet
    taskset -c 0 python benchmarks/data_loading.py --hrnet hrnet --people DATA/mpii_small

Makes 1280x720 photographs in MPII's layout from real ones (enlarged, their edges mirrored
outwards), packs them as JPEG and as pixels, and reads all three on one thread, in turns: the
photographs with the published MPIIDataset (decode, warp to 256x256, float normalisation, 16
targets of sigma 2), the packs with PoseDataset (decode, warp, 16 targets of sigma 2; the training
normalises on its device). All change scale, rotation and side at random. Seconds are those of
the processor, files come from the system's memory; medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from humanpose.data.augment import Augmentation
from humanpose.data.pack import Pack
from humanpose.data.pose import PoseDataset
from humanpose.data.readers import read
from humanpose.data.targets import Targets
from humanpose.images import load_image
from humanpose.lab.packing import PackRecipe, build
from humanpose.skeleton import MPII16
from humanpose.spec import ModelSpec

ENLARGE = 1.8  # a person of mpii_small then has MPII's usual size
SIZE = (1280, 720)


def photographs(people: Path, folder: Path, count: int) -> None:
    """`count` photographs of SIZE with `annot/train.json`, one person each."""
    (folder / "annot").mkdir()
    (folder / "images").mkdir()
    entries = []
    for i, sample in enumerate(read("mpii", people)[:count]):
        photo = load_image(sample.picture)
        middle = np.array(photo.shape[1::-1]) / 2
        # Pixel p of the photograph comes to ENLARGE * (p - middle) + SIZE / 2.
        move = np.array(SIZE) / 2 - ENLARGE * middle
        matrix = np.column_stack([np.eye(2) * ENLARGE, move])
        large = cv2.warpAffine(photo, matrix, SIZE, borderMode=cv2.BORDER_REFLECT_101)
        noise = np.random.default_rng(i).normal(0, 4, large.shape)  # as a camera's
        large = np.clip(large + noise, 0, 255).astype(np.uint8)[..., ::-1]
        name = f"{i:05d}.jpg"
        cv2.imwrite(str(folder / "images" / name), large, [cv2.IMWRITE_JPEG_QUALITY, 75])
        joints = np.nan_to_num(ENLARGE * sample.joints + move + 1, nan=0.0)
        entry = {
            "image": name,
            "joints": joints.tolist(),
            "joints_vis": (sample.visible > 0).astype(int).tolist(),
            "center": (ENLARGE * sample.centre + move + 1).tolist(),
            "scale": ENLARGE * sample.scale,
        }
        entries.append(entry)
    (folder / "annot" / "train.json").write_text(json.dumps(entries))


def official(hrnet: Path, folder: Path) -> Any:
    """The published MPIIDataset with its published settings for 256x256."""
    package = types.ModuleType("dataset")  # without its COCO part, which needs compiled code
    package.__path__ = [str(hrnet / "lib" / "dataset")]
    sys.modules["dataset"] = package
    sys.modules.setdefault("json_tricks", json)
    sys.path.insert(0, str(hrnet / "lib"))
    setattr(np, "float", float)  # noqa: B010  # removed from NumPy since
    from dataset.mpii import MPIIDataset  # type: ignore[import-not-found]

    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    def transform(image: np.ndarray) -> torch.Tensor:
        """What ToTensor and Normalize of torchvision do."""
        tensor = torch.from_numpy(image).permute(2, 0, 1).contiguous().float().div(255)
        return tensor.sub_(mean).div_(std)

    space = types.SimpleNamespace
    config = space(
        OUTPUT_DIR="",
        LOSS=space(USE_DIFFERENT_JOINTS_WEIGHT=False),
        MODEL=space(TARGET_TYPE="gaussian", IMAGE_SIZE=[256, 256], HEATMAP_SIZE=[64, 64], SIGMA=2),
        DATASET=space(
            DATA_FORMAT="jpg",
            SCALE_FACTOR=0.25,
            ROT_FACTOR=30,
            FLIP=True,
            NUM_JOINTS_HALF_BODY=8,
            PROB_HALF_BODY=-1.0,
            COLOR_RGB=True,
            SELECT_DATA=False,
        ),
    )
    return MPIIDataset(config, str(folder), "train", True, transform)


def ours(pack: Path) -> PoseDataset:
    """The pack with the same input, targets and kinds of change."""
    spec = ModelSpec("bench", "pose", "hrnet-w32", {}, MPII16, (256, 256), grid="corner")
    rules = Augmentation(scale=(0.75, 1.25), rotation=60, flip=0.5)
    return PoseDataset(list(Pack(pack)), spec, rules, targets=Targets(sigma=2.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hrnet", type=Path, required=True, help="checkout of the published code")
    parser.add_argument("--people", type=Path, required=True, help="MPII data with pictures")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # the published class draws from it
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs(options.people, folder, options.count)
        readers: dict[str, Callable[[int], Any]] = {
            "official class, 1280x720": official(options.hrnet, folder).__getitem__
        }
        for raw in (False, True):
            recipe = PackRecipe(data=[f"mpii={folder}"], raw=raw)
            pack = folder / f"{raw}.json"
            build(recipe, pack)
            dataset = ours(pack)
            rows = dataset.samples
            mean = np.mean([s.place[1] for s in rows]) / 1000  # type: ignore[attr-defined]
            label = f"pack, {'pixels' if raw else 'JPEG'} ({mean:.0f} kB a person)"
            readers[label] = lambda i, dataset=dataset: dataset[(0, i)]  # type: ignore[misc]
        sizes = [path.stat().st_size for path in (folder / "images").iterdir()]
        print(f"{len(sizes)} photographs of {np.mean(sizes) / 1000:.0f} kB")
        rates: dict[str, list[float]] = {label: [] for label in readers}
        for _ in range(options.rounds):
            for label, get in readers.items():
                start = time.process_time()
                for i in range(len(sizes)):
                    get(i)
                rates[label].append(len(sizes) / (time.process_time() - start))
    base = statistics.median(next(iter(rates.values())))
    for label, found in rates.items():
        rate = statistics.median(found)
        print(f"{label:<36}{rate:8.0f} samples/s  {rate / base:6.2f} x")


if __name__ == "__main__":
    main()
