"""`humanpose predict` as a user meets it: good input, bad input, and what is left on disk."""

import csv
import io
import json
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from humanpose.results import read_records

SIZE = (120, 160)


def person_picture(photo: Path) -> np.ndarray:
    return cv2.imread(str(photo))[..., ::-1]


@pytest.fixture
def video(tmp_path: Path, photo: Path) -> Path:
    """Twelve frames of the gymnast, moving 4 px to the right each, with odd time stamps."""
    path = tmp_path / "walk é.mp4"
    image = person_picture(photo)
    image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=30)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 3
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(12):
            frame = av.VideoFrame.from_ndarray(np.roll(image, 4 * i, 1), format="rgb24")
            frame.pts = 40 * i + (13 if i > 5 else 0)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def test_a_picture_gives_a_picture_and_coco_shaped_json(cli, photo, tmp_path):
    out = tmp_path / "out"
    code, said, err = cli("predict", photo, "-o", out)
    assert code == 0, err
    assert "1 picture done" in said and str(out) in said
    drawn = cv2.imread(str(out / photo.name))
    assert drawn.shape == cv2.imread(str(photo)).shape
    content = json.loads((out / f"{photo.stem}.json").read_text())
    assert content["images"][0]["file_name"] == photo.name
    assert len(content["categories"][0]["keypoints"]) == 19
    best = max(content["annotations"], key=lambda a: a["score"])
    assert len(best["keypoints"]) == 57 and best["num_keypoints"] > 12
    assert content["info"]["models"][0]["name"] == "balanced"


def test_every_record_kind_tells_the_same_people(cli, photo, tmp_path):
    code, _, err = cli("predict", photo, "-o", tmp_path, "--save", "json,jsonl,csv,coco")
    assert code == 0, err
    _, frames = read_records(tmp_path / f"{photo.stem}.jsonl")
    (frame,) = frames
    content = json.loads((tmp_path / f"{photo.stem}.json").read_text())
    coco = json.loads((tmp_path / f"{photo.stem}.coco.json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / f"{photo.stem}.csv").read_text())))
    n = len(frame["people"])
    assert n >= 1 and len(content["annotations"]) == len(coco) == len(rows) == n
    x, y, _ = frame["people"][0]["joints"][9]
    assert content["annotations"][0]["keypoints"][27:29] == [x, y]
    assert float(rows[0]["left_wrist_x"]) == x and len(coco[0]["keypoints"]) == 51


def test_a_video_keeps_its_times_and_finishes_its_files(cli, video, tmp_path):
    out = tmp_path / "out"
    code, said, err = cli("predict", video, "--save", "video,jsonl,json", "-o", out)
    assert code == 0, err
    assert "12 frames" in said
    _, frames = read_records(out / "walk é.jsonl")
    frames = list(frames)
    times = [round(frame["time"], 3) for frame in frames]
    assert times == [round((40 * i + (13 if i > 5 else 0)) / 1000, 3) for i in range(12)]
    assert [frame["index"] for frame in frames] == list(range(12))
    with av.open(str(out / "walk é.mp4")) as annotated:
        assert sum(1 for _ in annotated.decode(video=0)) == 12
    assert sorted(p.name for p in out.iterdir()) == ["walk é.json", "walk é.jsonl", "walk é.mp4"]


def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_bad_files_in_a_folder_are_listed_and_the_others_done(cli, photo, video, tmp_path):
    folder = tmp_path / "my pictures é"
    (folder / "below").mkdir(parents=True)
    (folder / "good.jpg").write_bytes(photo.read_bytes())
    (folder / "below" / "good.jpg").write_bytes(photo.read_bytes())
    (folder / "half.jpg").write_bytes(photo.read_bytes()[:3000])
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(b"\x00\x01" * 3000)
    (folder / "notes.txt").write_text("passed over")
    out = tmp_path / "out"
    code, said, err = cli("predict", folder, "-o", out)
    assert code == 3
    assert "2 pictures done" in said
    bad = ["half.jpg", "text.png", "empty.jpg", "bomb.png", "empty.mp4", "noise.mp4"]
    lines = [line for line in err.splitlines() if line.startswith("skipped:")]
    assert len(lines) == len(bad)
    for name in bad:
        assert sum(name in line for line in lines) == 1, name
    assert "too many pixels" in next(line for line in lines if "bomb.png" in line)
    there = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert there == ["below/good.jpg", "good.jpg", "pictures.json"]
    images = json.loads((out / "pictures.json").read_text())["images"]
    assert sorted(image["file_name"] for image in images) == ["below/good.jpg", "good.jpg"]


@pytest.mark.parametrize("make", ["half.jpg", "text.jpg", "empty.jpg", "bomb.png", "half.mp4"])
def test_a_single_bad_file_is_one_line_exit_3_and_nothing_on_disk(
    cli, photo, video, tmp_path, make
):
    contents = {
        "half.jpg": photo.read_bytes()[:3000],
        "text.jpg": b"hello",
        "empty.jpg": b"",
        "bomb.png": bomb(),
        "half.mp4": video.read_bytes()[:400],  # ends inside the header
    }
    path = tmp_path / make
    path.write_bytes(contents[make])
    code, _, err = cli("predict", path, "-o", tmp_path / "out", "-q")
    assert code == 3
    (line,) = err.strip().splitlines()
    assert line.startswith("skipped:") and make in line
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_a_video_cut_in_its_data_keeps_what_could_be_read(cli, video, tmp_path):
    cut = tmp_path / "cut.mp4"
    whole = video.read_bytes()
    cut.write_bytes(whole[: int(len(whole) * 0.7)])
    code, said, err = cli("predict", cut, "-o", tmp_path / "out", "--save", "video,json")
    assert code == 3
    assert "cut.mp4: ends early" in err and "of 12 frames" in err
    images = json.loads((tmp_path / "out" / "cut.json").read_text())["images"]
    assert 0 < len(images) < 12 and f"{len(images)} frames" in said


def test_odd_picture_kinds_all_find_the_same_person(cli, photo, tmp_path):
    rgb = Image.fromarray(person_picture(photo))
    grey16 = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    folder = tmp_path / "kinds"
    folder.mkdir()
    rgb.save(folder / "rgb.png")
    rgb.convert("L").save(folder / "grey.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    rgb.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    rgb.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(grey16).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    rgb.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    code, _, err = cli(
        "predict", folder, "-o", tmp_path / "out", "--save", "jsonl", "--precision", "float32"
    )
    assert code == 0, err
    _, frames = read_records(tmp_path / "out" / "pictures.jsonl")
    found = {frame["name"]: frame for frame in frames}
    assert len(found) == 7
    truth = found["rgb.png"]["people"][0]["box"]
    for name, frame in found.items():
        assert (frame["width"], frame["height"]) == rgb.size, name
        assert frame["people"], name
        assert np.abs(np.subtract(frame["people"][0]["box"], truth)).max() < 0.2 * truth[3], name


def test_nobody_in_the_picture_is_a_result(cli, noise_picture, tmp_path):
    code, said, err = cli("predict", noise_picture, "-o", tmp_path / "out")
    assert code == 0, err
    assert "0 people" in said
    content = json.loads((tmp_path / "out" / "noise.json").read_text())
    assert len(content["images"]) == 1 and content["annotations"] == []


def test_existing_results_are_not_overwritten_without_force(cli, noise_picture, tmp_path):
    out = tmp_path / "out"
    assert cli("predict", noise_picture, "-o", out)[0] == 0
    before = (out / "noise.json").stat().st_mtime_ns
    code, _, err = cli("predict", noise_picture, "-o", out)
    assert code == 74 and "add --force to replace it" in err
    assert (out / "noise.json").stat().st_mtime_ns == before
    assert cli("predict", noise_picture, "-o", out, "--force")[0] == 0


def test_an_output_that_cannot_be_written_is_one_line(cli, noise_picture, tmp_path):
    (tmp_path / "taken").write_text("a file")
    code, _, err = cli("predict", noise_picture, "-o", tmp_path / "taken")
    assert code == 74
    (line,) = err.strip().splitlines()
    assert "taken" in line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gone.jpg"], "gone.jpg does not exist"),
        (["{tmp}/empty"], "holds no picture and no video"),
        (["{tmp}/*.png"], "matches no picture"),
        (["{noise}", "--save", "xml"], "--save xml: choose from image, video"),
        (["{noise}", "--model", "huge"], "model 'huge': neither a file nor one of"),
        (["{noise}", "--device", "npu7"], "device 'npu7' is not here"),
        (["{noise}", "--precision", "int2"], "precision 'int2' is not one of"),
        (["{noise}", "--model", "{noise}"], "damaged, or not a model made by humanpose export"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(cli, noise_picture, tmp_path, args, message):
    (tmp_path / "empty").mkdir()
    filled = [a.format(tmp=tmp_path, noise=noise_picture) for a in args]
    code, _, err = cli("predict", *filled, "-o", tmp_path / "out")
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("error:") and message in line


def test_quiet_says_nothing_and_max_people_limits(cli, photo, tmp_path):
    code, said, err = cli(
        "predict",
        photo,
        "-o",
        tmp_path,
        "-q",
        "--save",
        "json",
        "--detector-score",
        "0.01",
        "--max-people",
        "1",
    )
    assert (code, said, err) == (0, "", "")
    assert len(json.loads((tmp_path / f"{photo.stem}.json").read_text())["annotations"]) == 1


def test_models_and_info_tell_what_is_here(cli):
    code, said, _ = cli("models")
    assert code == 0 and "balanced: pose, net lite" in said and "licence of data" in said
    code, said, _ = cli("info")
    assert code == 0 and "openvino" in said and "auto runs it on openvino in" in said


@pytest.mark.parametrize(
    "verb", ["predict", "train", "evaluate", "export", "import", "models", "info"]
)
def test_help_of_every_verb(cli, verb):
    code, said, _ = cli(verb, "--help")
    assert code == 0 and f"humanpose {verb}" in said


def test_evaluate_scores_a_tiny_set(cli, tmp_path, photo):
    """Two annotated persons in COCO's shape, whose truth is what the network itself says."""
    from humanpose import PoseEstimator
    from humanpose.skeleton import COCO17, convert

    folder = tmp_path / "set" / "images"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(photo.read_bytes())
    image = person_picture(photo)
    box = [20.0, 10.0, image.shape[1] - 40.0, image.shape[0] - 20.0]
    estimator = PoseEstimator(precision="float32")
    (person,) = estimator.estimate(np.ascontiguousarray(image), np.array([box], np.float32))
    joints = convert(person.joints, person.skeleton, COCO17)
    flat = np.concatenate([joints, np.full((17, 1), 2)], 1).ravel().tolist()
    content = {
        "images": [{"id": 11, "file_name": "a.jpg"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 11,
                "num_keypoints": 17,
                "keypoints": flat,
                "bbox": box,
                "area": 9e3,
            }
        ],
    }
    (tmp_path / "set" / "person_keypoints.json").write_text(json.dumps(content))
    report = tmp_path / "report" / "scores.json"
    code, said, err = cli(
        "evaluate", "balanced", "--data", f"coco={tmp_path / 'set'}", "-q", "-o", report.parent
    )
    assert code == 0, err
    assert "mean OKS, boxes given " in said and " 1.0000 " in said
    scores = json.loads(report.read_text())["scores"]["coco"]["balanced"]
    assert scores["mean OKS, boxes given"]["value"] == pytest.approx(1)
    code, said, err = cli("evaluate", "person", "--data", f"coco={tmp_path / 'set'}", "-q")
    assert code == 0 and "recall, IoU 0.5, score >=" in said
    code, _, err = cli(
        "evaluate", "balanced", "--data", f"coco={tmp_path / 'set'}", "--split", "test"
    )
    assert code == 2 and "no samples in its 'test' part" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_video_early_with_every_file_complete(data, tmp_path, number, code):
    video = data / "videos" / "walkers.mp4"
    command = [sys.executable, "-m", "humanpose.cli.main", "predict", str(video)]
    command += ["--save", "jsonl,json,video", "-o", str(tmp_path), "-q"]
    child = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as CI may be, ignores the signal and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    part = tmp_path / "walkers.jsonl.part"
    end = time.monotonic() + 60
    while not (part.exists() and part.read_bytes().count(b"\n") > 30):
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    child.send_signal(number)
    _, said = child.communicate(timeout=20)
    assert child.returncode == code and said == "interrupted: results are complete up to here\n"
    assert {p.name for p in tmp_path.iterdir()} == {
        f"walkers.{kind}" for kind in ("mp4", "json", "jsonl")
    }
    _, frames = read_records(tmp_path / "walkers.jsonl")
    n = len(list(frames))
    assert 30 <= n < 1394
    assert len(json.loads((tmp_path / "walkers.json").read_text())["images"]) == n
    with av.open(str(tmp_path / "walkers.mp4")) as annotated:
        assert sum(1 for _ in annotated.decode(video=0)) == n


def test_a_full_disk_in_the_middle_of_a_video_is_one_line_and_no_thread_is_left(
    cli, video, tmp_path, monkeypatch
):
    from humanpose.errors import OutputError
    from humanpose.media.sinks.video import VideoSink

    written = []

    def write(self, frame):
        written.append(frame.index)
        if len(written) == 5:
            raise OutputError("walk.mp4: no space left on the disk")

    monkeypatch.setattr(VideoSink, "write", write)
    code, _, err = cli("predict", video, "-o", tmp_path / "out", "-q")
    assert code == 74
    assert err.strip() == "error: walk.mp4: no space left on the disk"
    assert not [t.name for t in threading.enumerate() if t.name in ("reader", "worker")]
    assert not [p for p in (tmp_path / "out").iterdir() if p.suffix != ".part"]
