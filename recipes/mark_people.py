"""Mark the people of a data set that have no annotation, with a YOLOX detector.

COCO and LSPET annotate some of the people in a picture. A detector that learns from them must
not be told that the others are background; `recipes/person.yaml` leaves these places out, and
`humanpose evaluate --marks` does the same when it counts false finds.

    python recipes/mark_people.py yolox_nano.onnx marks.json --data coco=PATH --data lspet=PATH

Writes {"<data set>/<file name>": [[x, y, width, height, score], ...]} in picture pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import openvino as ov

from humanpose.data.readers import read
from humanpose.data.sets import data_path
from humanpose.files import atomic_write
from humanpose.geometry import nms
from humanpose.images import load_image
from humanpose.types import F32, U8

INPUT = 416
STRIDES = (8, 16, 32)
PERSON = 0  # COCO's first class
LEAST_SCORE = 0.15


def grid() -> tuple[F32, F32]:
    """Cell corners (M, 2) and strides (M, 1) of YOLOX's three output maps, in its order."""
    cells, strides = [], []
    for stride in STRIDES:
        n = INPUT // stride
        rows, columns = np.mgrid[:n, :n]
        cells.append(np.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(np.full((n * n, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def find_people(model: ov.CompiledModel, image: U8, least: float = LEAST_SCORE) -> F32:
    """(N, 5) x, y, width, height, score above `least` of the people in an RGB picture."""
    scale = INPUT / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale)
    canvas = np.full((INPUT, INPUT, 3), 114, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small[:INPUT, :INPUT]
    blob = canvas[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)  # BGR, 0..255
    out = np.asarray(model(blob)[0])[0]
    cells, strides = grid()
    scores = out[:, 4] * out[:, 5 + PERSON]
    middle = (out[:, :2] + cells) * strides
    sides = np.exp(out[:, 2:4]) * strides
    boxes = np.concatenate([middle - sides / 2, sides], axis=1)[scores > least] / scale
    scores = scores[scores > least]
    kept = nms(boxes, scores, threshold=0.6)
    return np.concatenate([boxes, scores[:, None]], axis=1)[kept].astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="YOLOX in ONNX, 416 x 416, undecoded output")
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    options = {"INFERENCE_NUM_THREADS": args.threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = ov.Core().compile_model(args.model, "CPU", options)
    marks = {}
    for name, path in map(data_path, args.data):
        pictures = sorted({sample.picture for sample in read(name, path)})
        for number, picture in enumerate(pictures):
            found = find_people(model, load_image(picture))
            marks[f"{name}/{picture.name}"] = [[round(float(v), 2) for v in box] for box in found]
            if number % 1000 == 0:
                print(f"{name}: {number} of {len(pictures)}", flush=True)
    with atomic_write(args.output) as file:
        file.write(json.dumps(marks).encode())


if __name__ == "__main__":
    main()
