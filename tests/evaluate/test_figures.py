"""The figures that cards and README state, taken again on the real data."""

import json

import pytest

from humanpose.infer.runtime import PRESETS, installed, read_spec, weights_path


def test_the_dancer_is_found_in_nearly_every_frame(cli, data, tmp_path):
    code, said, err = cli(
        "predict", data / "videos" / "dance.mp4", "--save", "json", "-o", tmp_path
    )
    assert code == 0, err
    content = json.loads((tmp_path / "dance.json").read_text())
    assert len(content["images"]) == 545 and "545 frames" in said
    assert len({a["image_id"] for a in content["annotations"]}) >= 0.99 * 545


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*installed()} - {*PRESETS}))
def test_the_shipped_weights_score_what_their_description_says(
    cli, data, tmp_path, name, monkeypatch
):
    """Persons' recall is stated with places to ignore, which cost AP only: recall must agree."""
    spec = read_spec(weights_path(name))
    sets = sorted({rule.split()[0] for rule in spec.scores})
    for entry in sets:
        folder = "mpii_small" if entry == "mpii" else entry
        args = ["--against", f"{entry}={data / folder}", "-q", "-o", tmp_path / entry]
        if spec.task == "pose":
            args += ["--tta", "none"]
        code, _, err = cli("evaluate", name, *args)
        assert code == 0, err
        found = json.loads((tmp_path / entry / "scores.json").read_text())["scores"][entry]
        (found,) = (found[label] for label in found if label != "floor")
        stated = {
            rule.removeprefix(f"{entry} "): value
            for rule, value in spec.scores.items()
            if rule.startswith(f"{entry} ")
        }
        for rule, value in stated.items():
            if not rule.startswith("AP"):
                assert found[rule]["value"] == pytest.approx(value, abs=2e-3), rule


@pytest.mark.slow
def test_the_pose_networks_are_above_their_peers():
    """MoveNet's and SimplePose's figures on the same persons: docs/peers.md."""
    fast, balanced = (read_spec(weights_path(n)).scores for n in ("fast", "balanced"))
    for rule, peers, gained in (
        ("lspet PCK@0.2 torso, 12 limb joints", 0.547, 0.005),
        ("coco mean OKS, boxes given", 0.578, 0.03),
        ("mpii PCKh@0.5, 14 joints", 0.808, 0.005),
    ):
        assert fast[rule] > peers and balanced[rule] > fast[rule] + gained
    assert balanced["coco mean OKS, boxes given"] > 0.693  # SimplePose's, trained on all of COCO


@pytest.mark.slow
def test_the_person_network_reaches_its_bars():
    scores = read_spec(weights_path("person")).scores
    (recall,) = (v for k, v in scores.items() if k.startswith("coco recall"))
    (precision,) = (v for k, v in scores.items() if k.startswith("coco AP"))
    assert recall >= 0.85 and precision >= 0.80
    (recall,) = (v for k, v in scores.items() if k.startswith("lspet recall"))
    assert recall >= 0.92
