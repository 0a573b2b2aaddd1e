"""From a recipe to joints by the commands alone: train, evaluate, export, predict."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tiny_coco(tmp_path: Path) -> Path:
    """Twelve made-up pictures with one "person" each; id 22 is the validation part."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "tiny" / "images"
    folder.mkdir(parents=True)
    images, annotations = [], []
    for i in range(12):
        image_id = 22 if i == 11 else 100 + i * 11 + 1  # never divisible by 11 but for 22
        image = rng.integers(0, 80, (96, 96, 3), np.uint8)
        image[20:90, 30:60] = 220
        name = f"{image_id:012d}.png"
        (folder / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
        keypoints = np.stack([rng.uniform(30, 60, 17), rng.uniform(20, 90, 17), np.full(17, 2)], 1)
        images.append({"id": image_id, "file_name": name})
        annotations.append({
            "id": i, "image_id": image_id, "num_keypoints": 17, "area": 2000.0, "iscrowd": 0,
            "keypoints": keypoints.ravel().tolist(), "bbox": [30, 20, 30, 70],
        })  # fmt: skip
    content = {"images": images, "annotations": annotations}
    (folder.parent / "person_keypoints.json").write_text(json.dumps(content))
    return folder.parent


@pytest.mark.parametrize("name", ["lite", "person"])
def test_train_evaluate_export_predict(cli, tiny_coco, tmp_path, name):
    run = tmp_path / "run"
    data = f"coco={tiny_coco}"
    changes = ["start=null", "samples=8", "batch=4", "workers=0", "precision=32-true"]
    changes += ["warmup=1", "input=[96, 128]"] if name == "lite" else ["input=[128, 128]"]
    if name == "person":
        changes += ["marks=gone.json", "batch=2", "samples=4"]
    sets = [part for change in changes for part in ("--set", change)]
    code, said, err = cli(
        "train", ROOT / "recipes" / f"{name}.yaml", "--data", data, "-o", run, *sets
    )
    assert code == 0, err
    best = run / "best.safetensors"
    items = 11 if name == "lite" else 22  # its recipe repeats COCO
    assert ("warning: no gone.json: people without annotation" in said) == (name == "person")
    assert f"{items} training items; 2 steps" in said and f"best weights: {best}" in said

    code, said, err = cli(
        "train", ROOT / "recipes" / f"{name}.yaml", "--data", data, "-o", run, *sets
    )
    assert code == 0 and "resumed at step 2 of 2" in said

    code, said, err = cli("evaluate", best, "--data", data, "-q")
    assert code == 0, err
    assert "(torch, float32)" in said and "coco validation:" in said

    onnx = tmp_path / "mine.onnx"
    code, said, err = cli("export", best, "-o", onnx, "--check", tiny_coco / "images")
    assert code == 0, err
    assert "compared on 12 pictures" in said and "openvino float32" in said
    code, _, err = cli("export", best, "-o", onnx)
    assert code == 74 and "add --force to replace it" in err

    option = ["--model", onnx] if name == "lite" else ["--detector", onnx]
    picture = tiny_coco / "images" / "000000000022.png"
    code, _, err = cli("predict", picture, *option, "--save", "coco", "-o", tmp_path / "out")
    assert code == 0, err
    results = json.loads((tmp_path / "out" / "000000000022.coco.json").read_text())
    assert all(result["image_id"] == 22 for result in results)


def test_train_says_what_is_missing(cli, tiny_coco, tmp_path, monkeypatch):
    recipe = ROOT / "recipes" / "lite.yaml"
    monkeypatch.delenv("HUMANPOSE_DATA", raising=False)
    code, _, err = cli("train", recipe, "-o", tmp_path / "run")
    assert code == 2 and "$HUMANPOSE_DATA" in err and len(err.strip().splitlines()) == 1
    code, _, err = cli("train", recipe, "-o", tmp_path / "run", "--set", "start=null")
    assert code == 2 and "write lspet=PATH, or set HUMANPOSE_DATA" in err
    code, _, err = cli(
        "train",
        recipe,
        "-o",
        tmp_path / "run",
        "--set",
        "start=gone.safetensors",
        "--data",
        f"coco={tiny_coco}",
    )
    assert code == 2 and "gone.safetensors: no such weights file" in err
    code, _, err = cli("train", tmp_path / "gone.yaml")
    assert code == 2 and "gone.yaml: cannot be read" in err
