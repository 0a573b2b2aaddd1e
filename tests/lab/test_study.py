"""Studies: what is claimed of a network, runs and their rows, the floors, the page."""

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from humanpose import nets
from humanpose.data.targets import Targets
from humanpose.errors import InputError
from humanpose.evaluate.metrics.diagnosis import difference, mean_interval
from humanpose.lab.baselines import baseline_scores
from humanpose.lab.study import Point, Row, add_rows, ours, read_rows
from humanpose.lab.study_page import Findings, table
from humanpose.lab.study_plan import Study, broken_claims, fingerprint, nonlinearity
from humanpose.lab.training import network_of, read_sets
from humanpose.train.config import load_yaml

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SIZE = (64, 64)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Seventy-seven dark pictures with a bright square about every joint, all in one place."""
    root, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    (root / "images").mkdir()
    images, annotations = [], []
    for number in range(1, 78):
        image = rng.integers(0, 30, (64, 64, 3), np.uint8)
        x, y = rng.integers(12, 52, 2)
        image[y - 4 : y + 5, x - 4 : x + 5] = 255
        name = f"{number}.png"
        (root / "images" / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
        images.append({"id": number, "file_name": name})
        annotations.append({
            "id": number, "image_id": number, "num_keypoints": 17, "area": 900.0, "iscrowd": 0,
            "keypoints": [float(x), float(y), 2] * 17, "bbox": [4, 4, 56, 56],
        })  # fmt: skip
    content = {"images": images, "annotations": annotations}
    (root / "person_keypoints.json").write_text(json.dumps(content))
    return root


def plan(people: Path, **changes: object) -> dict[str, object]:
    """A small study of two variants and two seeds."""
    return {
        "name": "small", "score": "coco", "seeds": [0, 1],
        "recipe": {
            "task": "pose", "net": "hrnet-w32", "options": {"width": 2}, "input": list(SIZE),
            "data": [f"coco={people}"], "persons": 40, "targets": "hrnet", "sigma": 1,
            "loss": "mse", "epochs": 3, "batch": 8, "lr": 1e-3, "warmup": 0, "ema": 0,
            "precision": "32-true", "workers": 0, "threads": 1, "log_every": 1, "loggers": ["csv"],
        },
        "variants": {
            "bn": {"about": "as it is", "holds": ["normalised", "not linear"]},
            "wild": {
                "about": "a rate that no net survives",
                "set": {"options.norm": "none", "lr": 1e30},
                "holds": ["not normalised", "activated"],
            },
        },
    } | changes  # fmt: skip


def written(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("options", "true"),
    [
        ({}, {"normalised", "activated", "not linear"}),
        ({"norm": "none"}, {"not normalised", "activated", "not linear"}),
        ({"norm": "group"}, {"normalised", "activated", "not linear"}),
        ({"activation": "identity"}, {"normalised", "not activated", "linear"}),
        ({"norm": "none", "activation": "identity"}, {"not normalised", "not activated", "linear"}),
    ],
)
def test_claims_tell_what_a_network_is_made_of(options, true):
    torch.manual_seed(0)
    net = nets.create("hrnet-w32", joints=3, width=2, **options)
    every = ["normalised", "not normalised", "activated", "not activated", "linear", "not linear"]
    assert set(every) - set(broken_claims(net, every, SIZE)) == true


def test_one_forgotten_activation_is_noticed():
    """The fault that the original study may have had: the change did not reach the whole net."""
    torch.manual_seed(0)
    net = nets.create("hrnet-w32", joints=3, width=2, norm="none", activation="identity")
    assert nonlinearity(net, SIZE) < 1e-9
    net.stage4[2].relu = torch.nn.ReLU()
    assert nonlinearity(net, SIZE) > 1e-2
    assert broken_claims(net, ["linear", "not activated"], SIZE) == ["linear", "not activated"]
    # A dead net gives the same output for every picture: it cannot be told from a linear one.
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    assert broken_claims(net, ["not linear"], SIZE, trained=True) == []


def test_activations_that_are_no_modules_are_seen_too():
    """CPM calls relu as a function."""
    torch.manual_seed(0)
    net = nets.create("cpm-centermap", joints=3, stages=2, init="xavier")
    claims = ["activated", "not activated", "not normalised", "not linear", "linear"]
    assert broken_claims(net, claims, (64, 64)) == ["not activated", "linear"]


def test_baselines_of_a_network_with_a_background(people):
    values = {"net": "cpm-centermap", "options": {"stages": 2}, "targets": "cpm", "loss": "cpm"}
    base = plan(people)
    study = Study.model_validate(base | {"recipe": base["recipe"] | values | {"sigma": 1.0}})
    recipe = study.training("bn", 0).model_copy(update={"options": {"stages": 2}})
    sets = read_sets(recipe)
    _, spec = network_of(recipe, sets)
    parts = {s: [x for x in sets["coco"] if x.split == s] for s in ("train", "validation")}
    found = baseline_scores(parts["validation"], spec, parts["train"], Targets("cpm", 1.0))
    assert found["linear map of the picture"] > 1.2 * found["constant predictor"]  # cells of 8 px


def test_a_run_that_fails_costs_the_others_nothing(people, tmp_path, cli):
    """Its folder is a file here."""
    recipe, folder = written(tmp_path / "small.yaml", plan(people)), tmp_path / "out"
    study = load_yaml(recipe, (), Study)
    key = fingerprint(study.training("bn", 0))
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / f"bn-0-{key}").write_text("in the way")
    code, out, _ = cli("study", recipe, "-o", folder, "--jobs", "1", "--only", "bn")
    assert code != 0 and "bn, seed 0: failed" in out and "(1 of 2)" in out
    assert [row.seed for row in read_rows(folder / "runs.csv", Row)] == [1]


def test_a_run_counts_once_and_a_diverged_one_by_its_name(people, tmp_path):
    """Rows of two sittings may be put together by hand."""
    study = Study.model_validate(plan(people))
    found = [
        Row(fingerprint(study.training("bn", seed)), "bn", seed, ended, last, 0.4, 0.1, 0, 9, 9, 9)
        for seed, ended, last in ((0, "", 0.2), (0, "", 0.2), (1, "step 9: lost", math.nan))
    ]
    add_rows(tmp_path / "runs.csv", found)
    rows, _ = ours(study, tmp_path)
    assert [row.seed for row in rows] == [0, 1]
    more = [replace(rows[0], seed=2, last=0.3), *rows]
    (line,) = table(Findings(study, more, [], []))
    assert line[1][:3] == ["3 (1 diverged)", "25.0 ± 7.1", "-38.5 to 88.5"]


def test_a_study_runs_its_rest_and_reports(people, tmp_path, cli):
    recipe, folder = written(tmp_path / "small.yaml", plan(people)), tmp_path / "out"
    command = ("study", recipe, "-o", folder, "--jobs", "2")
    code, out, err = cli(*command, "--set", "seeds=[0]")
    assert code == 0, err
    assert "0 of 2 runs are done" in out and "no finite gradient 10 times" in out
    code, out, err = cli(*command)
    assert code == 0, err
    assert "2 of 4 runs are done" in out and out.count("(4 of 4)") == 1

    study = load_yaml(recipe, (), Study)
    rows, points = ours(study, folder)
    assert sorted((row.variant, row.seed) for row in rows) == [
        (name, seed) for name in ("bn", "wild") for seed in (0, 1)
    ]
    for row in rows:
        path = [p for p in points if (p.variant, p.seed) == (row.variant, row.seed)]
        if row.variant == "bn":
            assert [p.epoch for p in path] == [1.0, 2.0, 3.0] and row.ended == ""
            assert row.last == path[-1].score and row.best == max(p.score for p in path)
            assert 0 <= row.fine <= 1 and 0 <= row.dead <= 1 and row.rate > 0
            assert row.parameters > 100_000 and row.multiplies > 1e6
            assert all(p.loss > 0 and p.grad_norm > 0 for p in path)
        else:
            assert "no finite gradient" in row.ended and math.isnan(row.last)
    table = (folder / "table.md").read_text("utf-8")
    assert "| bn | 2 |" in table and "| wild | 2 (2 diverged) | none |" in table
    assert "| constant predictor |" in table and "| linear map of the picture |" in table
    page = (folder / "study.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 3 and 'src="http' not in page
    assert {p.name for p in folder.glob("*.png")} == {"overlay.png", "bn.png", "wild.png"}

    before = (folder / "runs.csv").read_bytes()
    code, out, _ = cli(*command)
    assert code == 0 and "4 of 4 runs are done" in out
    assert (folder / "runs.csv").read_bytes() == before
    # Another recipe is another experiment; its rows do not mix with these.
    other = study.model_copy(update={"recipe": study.recipe | {"lr": 2e-3}})
    rows, points = ours(other, folder)  # "wild" has a rate of its own
    assert {entry.variant for entry in [*rows, *points]} == {"wild"}


def test_points_without_a_row_do_not_count(people, tmp_path):
    """What a kill between the two files leaves."""
    study = Study.model_validate(plan(people))
    key = fingerprint(study.training("bn", 0))
    (tmp_path / "curves.csv").write_text(
        f"recipe,variant,seed,epoch,score,loss,grad_norm\n{key},bn,0,1.0,0.5,0.1,0.2\n"
    )
    assert ours(study, tmp_path) == ([], [])
    assert read_rows(tmp_path / "curves.csv", Point) == [Point(key, "bn", 0, 1.0, 0.5, 0.1, 0.2)]
    (tmp_path / "runs.csv").write_text("recipe,variant\nx,bn\n")
    with pytest.raises(InputError, match=r"runs\.csv: not rows of a study"):
        read_rows(tmp_path / "runs.csv", Row)


def test_only_what_counts_is_in_the_fingerprint(people):
    study = Study.model_validate(plan(people))
    one = study.training("bn", 0)
    same = one.model_copy(update={"seed": 1, "workers": 3, "threads": 2})
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(one.model_copy(update={"lr": 2e-3}))
    assert fingerprint(one) != fingerprint(study.training("wild", 0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": "lspet"}, "data set 'lspet' is not in data"),
        ({"seeds": [1, 1]}, "a seed is named twice"),
        ({"variants": {"a": {"about": "", "holds": ["fast"]}}}, "holds 'fast'"),
        (
            {"variants": {"a": {"about": "", "set": {"lr.x": 1}}}},
            "variant a: lr.x: lr has no parts",
        ),
        ({"variants": {"a": {"about": "", "set": {"rate": 1}}}}, "variant a: rate: Extra inputs"),
        (
            {"variants": {"a": {"about": "", "holds": ["linear", "not normalised"]}}},
            "variant a: 'linear', 'not normalised' does not hold of its network",
        ),
    ],
)
def test_a_wrong_study_is_one_line(people, tmp_path, cli, changes, said):
    recipe = written(tmp_path / "s.yaml", plan(people, **changes))
    code, _, err = cli("study", recipe, "-o", tmp_path / "out")
    assert code == 2 and said in err and err.count("\n") == 1
    assert not (tmp_path / "out" / "runs.csv").exists()


def test_an_unknown_variant_is_named(people, tmp_path, cli):
    recipe = written(tmp_path / "s.yaml", plan(people))
    code, _, err = cli("study", recipe, "-o", tmp_path / "out", "--only", "bn,bm")
    assert code == 2 and "no variant 'bm'; there are: bn, wild" in err


def test_baselines(people):
    """Where a bright square is the joint, a linear map finds it better than a constant does."""
    recipe = Study.model_validate(plan(people)).training("bn", 0)
    sets = read_sets(recipe)
    _, spec = network_of(recipe, sets)
    parts = {s: [x for x in sets["coco"] if x.split == s] for s in ("train", "validation")}
    found = baseline_scores(parts["validation"], spec, parts["train"], Targets("hrnet", 1.0))
    constant, linear = found.values()
    assert constant < 0.25 and linear > 1.5 * constant


def test_intervals_equal_scipys():
    a, b = [0.31, 0.35, 0.30], [0.22, 0.29, 0.26, 0.25]
    expected = stats.t.interval(0.95, 2, np.mean(a), stats.sem(a))
    assert mean_interval(a) == pytest.approx(expected)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert difference(a, b) == pytest.approx((welch.low, welch.high))
    assert all(map(math.isnan, mean_interval([0.3]) + difference([0.3], b)))
    assert difference([0.5, 0.5], [0.2, 0.2]) == pytest.approx((0.3, 0.3))


def test_the_replication_is_well_formed():
    study = load_yaml(RECIPES / "ablation_hrnet.yaml", (), Study)
    for name, variant in study.variants.items():
        recipe = study.training(name, 0)
        torch.manual_seed(0)
        net = nets.create(recipe.net, joints=14, **recipe.options)
        assert variant.holds and broken_claims(net, variant.holds, recipe.input) == []
