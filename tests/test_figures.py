"""The figures that cards and README state, taken again on the real data."""

import json

import pytest

from humanpose.infer import catalog
from humanpose.infer.runtime import read_spec


def test_the_dancer_is_found_in_nearly_every_frame(cli, data, tmp_path):
    code, said, err = cli(
        "predict", data / "videos" / "dance.mp4", "--save", "json", "-o", tmp_path
    )
    assert code == 0, err
    content = json.loads((tmp_path / "dance.json").read_text())
    assert len(content["images"]) == 545 and "545 frames" in said
    assert len({a["image_id"] for a in content["annotations"]}) >= 0.99 * 545


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(catalog.installed()))
def test_the_shipped_weights_score_what_their_description_says(
    cli, data, tmp_path, name, monkeypatch
):
    """Persons' recall is stated with places to ignore, which cost AP only: recall must agree."""
    spec = read_spec(catalog.weights_path(name))
    sets = sorted({rule.split()[0] for rule in spec.scores})
    for entry in sets:
        folder = "mpii_small" if entry == "mpii" else entry
        args = ["--against", f"{entry}={data / folder}", "-q", "-o", tmp_path / entry]
        code, _, err = cli("evaluate", name, *args)
        assert code == 0, err
        found = json.loads((tmp_path / entry / "scores.json").read_text())["scores"][entry]
        (found,) = (found[label] for label in found if label != "floor")
        for rule, score in found.items():
            if not rule.startswith("AP"):
                assert score["value"] == pytest.approx(spec.scores[f"{entry} {rule}"], abs=2e-3), (
                    rule
                )


@pytest.mark.slow
def test_the_bars_of_the_first_release_hold():
    pose, person = (read_spec(catalog.weights_path(name)).scores for name in ("balanced", "person"))
    assert pose["lspet PCK@0.2 torso, 12 limb joints"] >= 0.50
    assert pose["coco mean OKS, boxes given"] >= 0.48
    (recall,) = (v for k, v in person.items() if k.startswith("coco recall"))
    assert recall >= 0.70
