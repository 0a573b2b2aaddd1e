"""`humanpose evaluate` as a user calls it: tables, reports, several candidates on several sets."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import cv2
import h5py
import numpy as np
import pytest
from makers.evaluate import struct, structs
from scipy.io import savemat

CANDIDATES = ("newell.h5", "tompson.h5", "bearpaw-hg_s2_b1.mat")


def row(said: str, label: str) -> list[str]:
    """The cells of the table's row `label`."""
    (line,) = (line for line in said.splitlines() if re.match(rf"\s*{re.escape(label)}  ", line))
    return line.strip().removeprefix(label).split()


@pytest.fixture(scope="module")
def mpii_report(data, tmp_path_factory):
    """What the three published predictions give: (output, report folder)."""
    folder = tmp_path_factory.mktemp("report")
    files = [str(data / "mpii" / name) for name in CANDIDATES]
    command = [sys.executable, "-m", "humanpose.cli.main", "evaluate", *files, "-o", str(folder)]
    command += ["--against", f"mpii={data / 'mpii' / 'annotations_valid.mat'}"]
    command += ["--threshold", "0.5", "--threshold", "0.1", "--threshold", "0.11"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def test_the_table_of_several_candidates(mpii_report):
    said, _ = mpii_report
    assert "mpii validation: 2958 people in 2729 pictures" in said
    assert "newell, tompson, bearpaw-hg_s2_b1: matched by row" in said
    assert row(said, "matched, of 2958") == ["2958"] * 4
    assert row(said, "PCKh@0.5, 14 joints, %") == ["88.43", "82.32", "87.30", "16.77"]
    assert row(said, "PCKh@0.11, 14 joints, %")[:3] == ["25.44", "33.12", "28.08"]
    assert row(said, "Head")[:3] == ["96.83", "96.61", "96.74"]
    assert row(said, "Mean (mpii)")[:3] == ["88.43", "82.32", "87.30"]
    assert row(said, "head_top (2932)")[:3] == ["95.94", "95.50", "95.80"]
    low, high = map(float, row(said, "95 % interval")[0].split("-"))
    assert low < 88.43 < high and 0.5 < high - low < 2


class Page(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [value for name, value in attrs if name in ("src", "href", "action")]


def test_the_report_stands_alone_and_has_every_plot(mpii_report):
    _, folder = mpii_report
    kinds = ("curves", "errors", "joints", "swaps")
    plots = {f"mpii-{kind}.png" for kind in kinds}
    worst = {f"mpii-worst-{i}.jpg" for i in (1, 2, 3)}  # five pictures are at hand
    names = {path.name for path in folder.iterdir()}
    assert names == {"report.html", "scores.json"} | plots | worst
    for name in plots | worst:
        image = cv2.imread(str(folder / name))
        assert image is not None and image.std() > 5, name
    text = (folder / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.tags.count("img") == 7 and "script" not in page.tags
    assert all(target.startswith("data:image/") for target in page.targets)
    assert "http" not in re.sub(r'src="[^"]*"', "", text)
    assert "<td>88.43</td>" in text and "each joint at its mean place" in text
    assert "004645041.jpg, " in text and " of 1" in text


def test_the_json_holds_the_figures_in_full(mpii_report):
    _, folder = mpii_report
    content = json.loads((folder / "scores.json").read_text())
    assert content["format"] == "humanpose-scores/1" and content["command"][1] == "evaluate"
    newell = content["scores"]["mpii"]["newell"]["PCKh@0.5, 14 joints"]
    assert newell["value"] == pytest.approx(0.8842831, abs=1e-6)
    assert newell["count"]["right_ankle"] == 2115
    assert newell["per_joint"]["head_top"] == pytest.approx(0.959413, abs=1e-5)
    details = content["details"]["mpii"]["newell"]
    assert details["matched"] == 2958 and details["matching"] == "matched by row"
    assert details["groups"]["per_joint"]["Head"] == pytest.approx(0.96828, abs=1e-4)
    low, high = details["interval"]["value"]
    assert low < newell["value"] < high
    assert details["curve"]["within"][50] == pytest.approx(newell["value"])
    # Newell's coordinates are known to lie a few pixels to the lower right.
    x, y = details["median error x, y, px"]
    assert 2 < x < 6 and 2 < y < 6
    swapped, missed = (details[word]["value"] for word in ("swapped", "missed"))
    assert 0.01 < swapped < 0.05 < missed < 0.12
    assert len(content["candidates"]["newell"]["sha256"]) == 64
    assert "NaN" not in (folder / "scores.json").read_text()


def test_existing_reports_are_kept_unless_forced(cli, data, tmp_path):
    args = ["evaluate", data / "mpii" / "newell.h5", "-o", tmp_path, "--no-plots"]
    args += ["--against", f"mpii={data / 'mpii' / 'valid.h5'}", "-q"]
    code, said, err = cli(*args)
    assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "scores.json"}
    code, said, err = cli(*args)
    assert code == 74 and "report.html exists; add --force" in err and not said
    assert cli(*args, "--force")[0] == 0


def test_conventions_and_quirks_are_options(cli, data):
    args = ["evaluate", data / "mpii" / "newell.h5", "-q"]
    args += ["--against", f"mpii={data / 'mpii' / 'valid.h5'}"]
    code, said, _ = cli(*args, "--convention", "pytorch-pose", "--compat", "hrnet")
    assert code == 0 and "Mean = unweighted mean of the joints" in said
    assert row(said, "Mean (pytorch-pose)")[0] == "87.98" and row(said, "Head")[0] == "95.94"
    assert float(row(said, "PCKh@0.1 (hrnet: <= 0.11), 14 joints, %")[0]) > 24
    code, said, _ = cli(*args, "--compat", "student", "--score", "pcp", "--score", "ap")
    assert code == 0 and row(said, "PCKh@0.5 (student: < 0.49), 13 joints, %")[0] == "88.40"
    assert row(said, "PCP@0.5 strict, person-centric, 10 parts, %")
    assert "no truth in this set for: ap" in said
    for option, value, there in (
        ("--convention", "coco", "mpii, hrnet, pytorch-pose"),
        ("--compat", "matlab", "student, hrnet, cpm-flic"),
        ("--score", "map", "pckh, pck-torso, pck-box, pcp, oks, ap"),
        ("--format", "xml", "is not one of report, mpii-submission"),
        ("--threshold", "0", "above 0"),
    ):
        code, _, err = cli(*args, option, value)
        assert code == 2 and there in err and len(err.strip().splitlines()) == 1


def test_what_does_not_fit_is_said_in_one_line(cli, data, tmp_path):
    with h5py.File(tmp_path / "few.h5", "w") as file:
        file["preds"] = np.ones((7, 16, 2))
    against = ["--against", f"mpii={data / 'mpii' / 'valid.h5'}"]
    code, _, err = cli("evaluate", tmp_path / "few.h5", *against)
    assert code == 2 and "few.h5 has 7 rows, but 2958 persons are to be scored" in err
    code, _, err = cli("evaluate", tmp_path / "gone.h5", *against)
    assert code == 2 and "gone.h5: no such file" in err
    code, _, err = cli("evaluate", "nobody", *against)
    assert code == 2 and "nobody" in err
    code, _, err = cli("evaluate", tmp_path / "few.h5", *against, *against)
    assert code == 2 and "name each data set once" in err
    code, _, err = cli("evaluate", tmp_path / "few.h5", *against, "--format", "mpii-submission")
    assert code == 2 and "takes one candidate" in err


def test_perturbed_coco_results_score_as_pycocotools_does(cli, data, tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco").COCO
    coco_eval = pytest.importorskip("pycocotools.cocoeval").COCOeval
    content = json.loads((data / "coco" / "person_keypoints.json").read_text())
    rng = np.random.default_rng(2)
    images = [image for image in content["images"] if image["id"] % 11 == 0]
    known = {image["id"] for image in images}
    anns = [ann for ann in content["annotations"] if ann["image_id"] in known]
    for i, ann in enumerate(anns):
        if i % 20 < 2:  # a crowd, or a person without joints
            ann.update(iscrowd=int(i % 20 == 0), num_keypoints=0, keypoints=[0] * 51)
    dets = []
    for ann in anns:
        joints = np.array(ann["keypoints"], float).reshape(17, 3)
        joints[:, :2] += 5 + np.abs(rng.normal(0, 8, (17, 2)))  # never (0, 0), which is missing
        joints[:, 2] = 1
        dets.append({
            "image_id": ann["image_id"], "category_id": 1, "keypoints": joints.ravel().tolist(),
            "score": float(rng.random()),
        })  # fmt: skip
    (tmp_path / "found.json").write_text(json.dumps(dets))
    truth = {"images": images, "annotations": anns, "info": {},
             "categories": [{"id": 1, "name": "person"}]}  # fmt: skip
    (tmp_path / "person_keypoints.json").write_text(json.dumps({**truth, "categories": []}))
    code, said, err = cli(
        "evaluate", tmp_path / "found.json", "--against", f"coco={tmp_path}", "--score", "ap",
        "-o", tmp_path / "out", "--no-plots",
    )  # fmt: skip
    assert code == 0, err
    official = coco()
    official.dataset = truth
    official.createIndex()
    judge = coco_eval(official, official.loadRes(dets), "keypoints")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]["coco"]["found"]
    ours = [score["value"] for rule, score in scores.items() if rule.startswith("keypoint")]
    assert ours == pytest.approx(judge.stats, abs=1e-6)
    assert "mean OKS, matched by IoU >= 0.5, one to one" in said


def test_weights_and_predictions_of_them_stand_in_one_table(cli, data, tmp_path):
    """LSPET: `balanced` itself, and its own results read back, on a few pictures."""
    from humanpose import PoseEstimator
    from humanpose.data.readers import read
    from humanpose.results import header, to_line
    from humanpose.types import Frame

    estimator = PoseEstimator(precision="float32")
    people = [s for s in read("lspet", data / "lspet") if s.split == "validation"]
    lines = [header(estimator.skeleton, [], "lspet")]
    for i, sample in enumerate(people):
        (person,) = estimator.estimate(sample.picture, sample.box[None]) if i % 25 == 0 else (None,)
        image = np.zeros((1, 1, 3), np.uint8)
        found = () if person is None else (person,)
        lines.append(Frame(image, i, 0.0, sample.picture.name, found).to_dict())
    (tmp_path / "own.jsonl").write_bytes(b"".join(map(to_line, lines)))
    args = ["--against", f"lspet={data / 'lspet'}", "-q", "--score", "pckh"]
    code, said, err = cli("evaluate", tmp_path / "own.jsonl", *args, "-o", tmp_path / "out")
    assert code == 0, err
    assert "own: matched by IoU >= 0.5, one to one" in said
    matched = int(row(said, "matched, of 500")[0])
    assert 15 <= matched <= 20
    share = float(row(said, "PCK@0.2 torso, 12 limb joints, %")[0])
    assert 0.3 * matched / 5 < share < matched / 5  # all others are misses
    assert (tmp_path / "out" / "lspet-worst-1.jpg").is_file()
    assert row(said, "PCKh@0.5, 14 joints, %")


def test_the_submission_file_of_mpiis_test_set(cli, tmp_path):
    rectangle = struct(scale=1.0, objpos=struct(x=100.0, y=100.0))
    release = struct(
        annolist=structs(*(
            struct(image=struct(name=f"{i}.jpg"), annorect=structs(rectangle, rectangle))
            for i in range(3)
        )),
        img_train=np.array([[1, 0, 0]]),
        single_person=np.array([[np.array([[1]])]] * 3, object),
    )  # fmt: skip
    savemat(tmp_path / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    table = np.random.default_rng(0).uniform(10, 190, (4, 16, 2))
    with h5py.File(tmp_path / "found.h5", "w") as file:
        file["preds"] = table
    out = tmp_path / "pred_keypoints_mpii.mat"
    args = ["evaluate", tmp_path / "found.h5", "--against", f"mpii={tmp_path}", "--split", "test"]
    args += ["--format", "mpii-submission", "-o", out]
    code, said, err = cli(*args)
    assert code == 0, err
    assert "4 people predicted, 2 asked for by the test" in said
    from scipy.io import loadmat

    pred = loadmat(out, squeeze_me=True, struct_as_record=False)["pred"]
    point = pred[1].annorect[0].annopoints.point[3]
    assert (point.x, point.y, point.id) == pytest.approx((*table[2, 3], 3), abs=1e-3)
    code, _, err = cli(*args)
    assert code == 74 and "--force" in err


def test_cpms_predictions_of_flic_are_scored_as_its_release_does(cli, tmp_path):
    from makers.data import write_flic

    from humanpose.data.readers import read

    write_flic(tmp_path)
    (person,) = (s for s in read("flic", tmp_path, compat="cpm") if s.split == "test")
    found = (person.joints + 1).T[None].transpose(2, 1, 0)  # 9 x 2 x 1, counted from 1
    savemat(tmp_path / "cpm.mat", {"prediction_all": found})
    args = ["evaluate", tmp_path / "cpm.mat", "--against", f"flic={tmp_path}", "--split", "test"]
    code, said, err = cli(*args, "--compat", "cpm-flic")
    assert code == 0, err
    assert row(said, "PCK@0.2 predicted torso, 8 limb joints, %")[0] == "100.00"
    # The person is seen from behind: by her own left and right every limb is swapped.
    code, said, _ = cli(*args)
    assert float(row(said, "PCK@0.2 torso, 8 limb joints, %")[0]) < 100
