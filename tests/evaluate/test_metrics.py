import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.evaluate import pck_box, pck_torso

from humanpose.evaluate.metrics.diagnosis import (
    bootstrap,
    constant_predictor,
    interval,
    reliability,
    swaps_and_misses,
)
from humanpose.evaluate.metrics.pck import (
    LIMB_JOINTS,
    THRESHOLDS,
    box_size,
    in_groups,
    normalised,
    pckh,
    pckh_auc,
    scored_joints,
    unweighted,
)
from humanpose.evaluate.metrics.pcp import observer_centric, parts_of, pcp
from humanpose.skeleton import COCO17, CPM14, LSP14, MPII16, Skeleton, convert


def people(n: int = 4, skeleton=LSP14, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    joints = rng.uniform(0, 200, (n, len(skeleton.joints), 2)).astype(np.float32)
    joints[:, skeleton.index("left_shoulder")] = (100, 50)
    joints[:, skeleton.index("right_hip")] = (100, 150)  # torso of 100 px: 0.2 is 20 px
    return joints


def test_pck_by_hand():
    truth = people(2)
    found = truth.copy()
    found[0, LSP14.index("left_wrist")] += (20, 0)  # exactly on the threshold: a hit
    found[1, LSP14.index("left_wrist")] += (20.1, 0)  # beyond it
    found[0, LSP14.index("right_knee")] = np.nan  # missing: a miss
    found[0, LSP14.index("neck")] = 1e6  # not a limb joint
    truth[1, LSP14.index("right_ankle")] = np.nan  # not annotated: not counted
    score = pck_torso(found, truth, LSP14)
    assert score.rule == "PCK@0.2 torso, 12 limb joints"
    assert score.value == pytest.approx((23 - 2) / 23)
    assert score.per_joint[LSP14.index("left_wrist")] == 0.5
    assert score.per_joint[LSP14.index("neck")] == 0.5
    assert score.count[LSP14.index("right_ankle")] == 1


def test_persons_without_torso_or_with_a_tiny_one_are_left_out():
    truth = people(3)
    truth[0, LSP14.index("right_hip")] = np.nan
    truth[1, LSP14.index("right_hip")] = truth[1, LSP14.index("left_shoulder")] + 2
    score = pck_torso(truth, truth, LSP14)
    assert score.count.max() == 1 and score.value == 1
    assert np.isnan(pck_torso(truth[:2], truth[:2], LSP14).value)


@given(move=st.floats(-1000, 1000), seed=st.integers(0, 50))
def test_pck_does_not_care_about_place_scale_or_order_of_joints(move, seed):
    truth = people(5, seed=seed)
    found = truth + np.random.default_rng(seed).normal(0, 15, truth.shape).astype(np.float32)
    base = pck_torso(found, truth, LSP14).value
    # Doubling is exact in floating point, a shift is not: the threshold may lie just on a joint.
    assert pck_torso(found * 2, truth * 2, LSP14).value == base
    assert pck_torso(found + move, truth + move, LSP14).value == pytest.approx(base, abs=0.02)
    there = convert(found, LSP14, MPII16), convert(truth, LSP14, MPII16)
    assert pck_torso(*there, MPII16).value == base


def test_pck_grows_with_the_threshold():
    truth = people(20)
    found = truth + np.random.default_rng(3).normal(0, 20, truth.shape).astype(np.float32)
    values = [pck_torso(found, truth, LSP14, threshold=t).value for t in (0.05, 0.1, 0.2, 0.5)]
    assert values == sorted(values) and values[0] < values[-1]


# Computed once from the public files by evalMPII's rules, exact annotations, percent.
COLUMNS = (
    "Head", "head_top", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "UBody", "Total",
    "unweighted", "@0.2", "@0.1", "@0.11", "AUC", "student",
)  # fmt: skip
PUBLISHED = {
    "tompson.h5": (96.61, 95.50, 92.71, 83.36, 76.74, 81.93, 73.32, 65.40, 84.29, 82.32, 81.44,
                   58.36, 28.96, 33.12, 55.76, 82.48),
    "newell.h5": (96.83, 95.94, 95.19, 89.14, 84.17, 86.97, 83.20, 80.40, 89.52, 88.43, 87.98,
                  57.09, 21.59, 25.44, 56.49, 88.41),
    "bearpaw-hg_s2_b1.mat": (96.74, 95.80, 94.57, 88.12, 83.31, 86.26, 80.88, 77.47, 88.68, 87.30,
                             86.76, 60.02, 23.91, 28.08, 57.38, 87.35),
}  # fmt: skip
PER_JOINT = {  # MPII order without pelvis and thorax
    "tompson.h5": (65.15, 73.40, 82.00, 81.86, 73.24, 65.64, 97.71, 95.50, 76.40, 83.37, 92.15,
                   93.27, 83.36, 77.07),
    "newell.h5": (80.71, 83.58, 87.12, 86.81, 82.81, 80.08, 97.71, 95.94, 83.50, 89.10, 94.67,
                  95.72, 89.19, 84.84),
    "bearpaw-hg_s2_b1.mat": (77.97, 80.76, 86.54, 85.98, 80.99, 76.97, 97.68, 95.80, 83.61, 88.18,
                             94.43, 94.70, 88.06, 83.02),
}  # fmt: skip
COUNTS = (2115, 2485, 2889, 2888, 2478, 2119, 2932, 2932, 2928, 2935, 2944, 2944, 2932, 2909)


@pytest.fixture(scope="module")
def mpii(data):
    """(joints, head sizes, samples) of the exact annotations and of valid.h5."""
    from humanpose.data.readers import read

    sets = {}
    for name in ("annotations_valid.mat", "valid.h5"):
        samples = read("mpii", data / "mpii" / name)
        joints = np.stack([sample.joints for sample in samples])
        sets[name] = joints, np.array([sample.head_size for sample in samples]), samples
    return sets


def every_column(found, truth, head) -> dict[str, float]:
    distance = normalised(found, truth, head)
    names = scored_joints(MPII16)
    total = pckh(distance, MPII16)
    groups = in_groups(total, names)
    fine = {t: pckh(distance, MPII16, threshold=t).value for t in (0.2, 0.1, 0.11)}
    values = dict(zip(groups.joints, groups.per_joint, strict=True)) | {
        "head_top": total.per_joint[MPII16.index("head_top")],
        "Total": total.value,
        "unweighted": unweighted(total, names).value,
        "AUC": pckh_auc(distance, MPII16).value,
        "student": pckh(distance, MPII16, compat="student").value,
        **{f"@{t:g}": value for t, value in fine.items()},
    }
    assert pckh(distance, MPII16, threshold=0.1, compat="hrnet").value == fine[0.11]
    return {name: 100 * float(values[name]) for name in COLUMNS}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_predictions_give_the_published_figures(mpii, data, name):
    from humanpose.evaluate.predictions import read_predictions

    found = read_predictions(data / "mpii" / name).joints
    truth, head, _ = mpii["annotations_valid.mat"]
    exact = every_column(found, truth, head)
    assert list(exact.values()) == pytest.approx(PUBLISHED[name], abs=0.01)
    total = pckh(normalised(found, truth, head), MPII16)
    rows = [MPII16.index(joint) for joint in scored_joints(MPII16)]
    assert 100 * total.per_joint[rows] == pytest.approx(PER_JOINT[name], abs=0.01)
    assert tuple(total.count[rows]) == COUNTS
    # valid.h5 holds head top and neck cut to whole pixels: the joints agree to 0.1 at 0.5.
    truth, head, _ = mpii["valid.h5"]
    rough = pckh(normalised(found, truth, head), MPII16)
    assert 100 * rough.per_joint[rows] == pytest.approx(PER_JOINT[name], abs=0.1)
    assert 100 * rough.value == pytest.approx(exact["Total"], abs=0.01)


def test_the_conventions_name_head_and_mean_differently(mpii, data):
    from humanpose.evaluate.predictions import read_predictions

    truth, head, _ = mpii["annotations_valid.mat"]
    found = read_predictions(data / "mpii" / "newell.h5").joints
    total, names = pckh(normalised(found, truth, head), MPII16), scored_joints(MPII16)
    told = {kind: in_groups(total, names, convention=kind) for kind in
            ("mpii", "hrnet", "pytorch-pose")}  # fmt: skip
    heads = {kind: round(100 * each.per_joint[0], 2) for kind, each in told.items()}
    assert heads == {"mpii": 96.83, "hrnet": 95.94, "pytorch-pose": 95.94}
    means = {kind: round(100 * each.value, 2) for kind, each in told.items()}
    assert means == {"mpii": 88.43, "hrnet": 88.43, "pytorch-pose": 87.98}
    assert "Mean = unweighted" in told["pytorch-pose"].rule
    with pytest.raises(ValueError, match="no convention 'coco'"):
        in_groups(total, names, convention="coco")


def test_a_predictor_that_looks_at_nothing_is_the_documented_floor(mpii):
    truth, head, samples = mpii["annotations_valid.mat"]
    centre = np.stack([sample.centre for sample in samples])
    scale = np.array([200 * sample.scale for sample in samples])
    found = constant_predictor(truth, centre, scale)
    assert pckh(normalised(found, truth, head), MPII16).value == pytest.approx(0.168, abs=5e-4)


def test_student_and_hrnet_quirks_by_hand():
    truth = people(1, MPII16)
    found = truth.copy()
    found[0, MPII16.index("left_wrist")] += 1e6
    found[0, MPII16.index("left_knee"), 0] += 49  # head size 100: 0.49 is no hit for him
    found[0, MPII16.index("left_elbow"), 0] += 10.5
    distance = normalised(found, truth, np.array([100.0]))
    student = pckh(distance, MPII16, compat="student")
    assert student.rule == "PCKh@0.5 (student: < 0.49), 13 joints"
    assert student.value == pytest.approx(12 / 13)
    assert pckh(distance, MPII16).value == pytest.approx(13 / 14)
    fine = pckh(distance, MPII16, threshold=0.1, compat="hrnet")
    assert fine.rule == "PCKh@0.1 (hrnet: <= 0.11), 14 joints"
    assert fine.value == pytest.approx(12 / 14)
    assert pckh(distance, MPII16, threshold=0.1).value == pytest.approx(11 / 14)
    assert pckh(distance, MPII16, threshold=0.2, compat="hrnet").rule.startswith("PCKh@0.2, ")


def test_cpms_flic_scorer_takes_the_predicted_torso():
    truth = people(1)
    found = truth.copy()
    found[0, LSP14.index("left_shoulder")] = (100, -50)  # the predicted torso is 200 px long
    found[0, LSP14.index("left_wrist")] += (30, 0)
    assert pck_torso(found, truth, LSP14).value == pytest.approx(10 / 12)
    quirk = pck_torso(found, truth, LSP14, compat="cpm-flic")
    assert quirk.rule == "PCK@0.2 predicted torso, 12 limb joints"
    assert quirk.value == pytest.approx(11 / 12)


def test_a_person_without_a_head_size_is_not_counted():
    truth = people(3, MPII16)
    distance = normalised(truth, truth, np.array([10.0, 0.0, np.nan]))
    assert pckh(distance, MPII16).count.max() == 1
    assert np.isnan(pckh(distance[1:], MPII16).value)


def test_box_pck_by_hand():
    truth = np.full((1, 14, 2), np.nan, np.float32)
    truth[0, :3] = [(0, 0), (100, 20), (50, 10)]
    assert box_size(truth) == 100
    found = truth.copy()
    found[0, 0] += (20, 0)
    found[0, 1] += (20.5, 0)
    score = pck_box(found, truth, LSP14)
    assert score.rule == "PCK@0.2 joint box, 3 joints" and score.value == pytest.approx(2 / 3)
    assert np.isnan(box_size(np.full((1, 14, 2), np.nan, np.float32))).all()


def test_pcp_by_hand():
    truth = people(1)
    knee, ankle = LSP14.index("left_knee"), LSP14.index("left_ankle")
    truth[0, knee], truth[0, ankle] = (0, 0), (100, 0)
    found = truth.copy()
    found[0, ankle] += (0, 60)  # one end is off by 0.6 of the limb, on average 0.3
    strict, loose = (pcp(found, truth, LSP14, strict=kind) for kind in (True, False))
    part = strict.joints.index("left_lower_leg")
    assert strict.rule == "PCP@0.5 strict, person-centric, 10 parts"
    assert strict.per_joint[part] == 0 and loose.per_joint[part] == 1
    assert strict.value == pytest.approx(0.9) and loose.value == 1
    found[0, ankle] = np.nan
    assert pcp(found, truth, LSP14, strict=False).per_joint[part] == 0
    truth[0, ankle] = np.nan
    assert pcp(found, truth, LSP14).count[part] == 0
    assert len(parts_of(MPII16)) == 10 and "head" not in parts_of(COCO17)


def test_a_mirrored_prediction_is_right_for_the_observer_only():
    truth = people(40, seed=3)
    found = truth[:, LSP14.flip_index]
    assert pcp(found, truth, LSP14).value < 0.6
    assert pcp(found, truth, LSP14, observer=True).value == 1
    sides = observer_centric(truth, LSP14)
    left, right = (sides[:, LSP14.index(f"{side}_hip"), 0] for side in ("left", "right"))
    assert (left <= right).all()


def test_swaps_and_misses_by_hand():
    truth = np.full((1, 14, 2), np.nan, np.float32)
    for i, name in enumerate(("left_knee", "right_knee", "left_hip", "neck")):
        truth[0, LSP14.index(name)] = (100 * i, 0)
    found = truth.copy()
    found[0, LSP14.index("left_knee")] = truth[0, LSP14.index("right_knee")]
    found[0, LSP14.index("left_hip")] = np.nan
    found[0, LSP14.index("neck")] = truth[0, LSP14.index("left_hip")]
    own, other = (normalised(found, each, np.array([100.0])) for each in
                  (truth, truth[:, LSP14.flip_index]))  # fmt: skip
    swapped, missed = swaps_and_misses(own, other, LSP14, threshold=0.2, names=LSP14.joints)
    assert swapped.per_joint[LSP14.index("left_knee")] == 1 and swapped.value == pytest.approx(
        1 / 3
    )
    assert missed.per_joint[LSP14.index("left_hip")] == 1
    assert missed.per_joint[LSP14.index("left_knee")] == 0 and missed.value == 0.5
    assert swapped.count[LSP14.index("neck")] == 0


SCORES = {
    "pckh": lambda f, t, s: pckh(normalised(f, t, np.full(len(t), 25.0)), s, names=LIMB_JOINTS),
    "torso": pck_torso,
    "box": pck_box,
    "strict": pcp,
    "loose": lambda f, t, s: pcp(f, t, s, strict=False),
}


@pytest.mark.parametrize("name", SCORES)
@settings(max_examples=25, deadline=None)
@given(
    move=st.tuples(st.integers(-500, 500), st.integers(-500, 500)),
    factor=st.sampled_from([0.25, 0.5, 2.0, 8.0]),
    seed=st.integers(0, 10_000),
)
def test_scores_do_not_care_about_place_order_and_what_is_missing(name, move, factor, seed):
    rng = np.random.default_rng(seed)
    score = SCORES[name]
    # Whole and half pixels, so that shifting is exact.
    truth = np.round(people(6, seed=seed))
    found = truth + np.round(rng.normal(0, 15, truth.shape)).astype(np.float32)
    base = score(found, truth, LSP14)
    moved = [points + np.array(move, np.float32) for points in (found, truth)]
    assert score(*moved, LSP14).value == base.value
    if name != "pckh":  # whose unit stays
        assert score(found * factor, truth * factor, LSP14).value == base.value
    # Another order of the people, another order of the joints.
    people_order, order = rng.permutation(6), rng.permutation(14)
    assert score(found[people_order], truth[people_order], LSP14).value == base.value
    joints = tuple(LSP14.joints[i] for i in order)
    other = Skeleton("other", joints, (), ())
    again = score(found[:, order], truth[:, order], other)
    assert again.value == base.value and again.rule == base.rule
    # A joint that is not predicted is a miss; one that is not annotated is not there.
    lost = found.copy()
    lost[rng.random(found.shape[:2]) < 0.3] = np.nan
    assert score(lost, truth, LSP14).value <= base.value
    gone = truth.copy()
    keep = [LSP14.index("left_shoulder"), LSP14.index("right_hip")]
    gone[:, [i for i in range(14) if i not in keep and rng.random() < 0.5]] = np.nan
    fewer = score(found, gone, LSP14)
    assert (fewer.count <= base.count).all()
    if name in ("torso", "pckh"):
        both = fewer.count > 0
        assert np.array_equal(fewer.per_joint[both], base.per_joint[both])


@given(seed=st.integers(0, 1000), low=st.floats(0.01, 1), more=st.floats(0, 1))
def test_a_wider_threshold_never_loses_a_hit(seed, low, more):
    truth = people(5, seed=seed)
    noise = np.random.default_rng(seed).normal(0, 20, truth.shape)
    found = truth + noise.astype(np.float32)
    for score in (pck_torso, pck_box, pcp):
        narrow, wide = (score(found, truth, LSP14, threshold=t) for t in (low, low + more))
        assert narrow.value <= wide.value
        assert (np.nan_to_num(narrow.per_joint) <= np.nan_to_num(wide.per_joint)).all()


def test_joints_that_a_skeleton_lacks_are_not_counted_and_the_rule_says_how_many():
    truth = people(3, MPII16)
    found = convert(convert(truth, MPII16, CPM14), CPM14, MPII16)
    assert np.isnan(found[:, MPII16.index("pelvis")]).all()
    score = pckh(normalised(found, truth, np.full(3, 20.0)), MPII16)
    assert score.rule == "PCKh@0.5, 14 joints" and score.value == 1
    groups = in_groups(score, scored_joints(MPII16))
    assert groups.joints[-1] == "UBody" and groups.count[-1] == 18
    few = truth.copy()
    few[:, MPII16.index("head_top")] = np.nan
    assert np.isnan(in_groups(pckh(normalised(found, few, np.full(3, 20.0)), MPII16),
                              scored_joints(MPII16)).per_joint[0])  # fmt: skip


def test_the_area_under_a_straight_line_is_a_half():
    # One joint at each of evalMPII's thresholds: PCKh rises evenly from 1/51 to 1.
    distance = np.tile(THRESHOLDS[:, None], (1, 16))
    assert pckh_auc(distance, MPII16).value == pytest.approx((1 + 1 / 51) / 2)
    assert pckh_auc(np.full((3, 16), np.inf), MPII16).value == 0


def test_intervals_have_the_width_of_the_binomial_and_grow_with_pictures_of_many():
    rng = np.random.default_rng(1)
    n, p = 2000, 0.7
    right = (rng.random((n, 1)) < p).astype(float)
    counted = np.ones((n, 1))
    low, high = interval(bootstrap(right, counted, range(n)))[:, 0]
    width = 2 * 1.96 * np.sqrt(p * (1 - p) / n)
    assert low < right.mean() < high
    assert high - low == pytest.approx(width, rel=0.1)
    # Ten people to a picture who are all right or all wrong: the width is that of 200 pictures.
    alike = np.repeat(right[:200], 10, axis=0)
    low, high = interval(bootstrap(alike, counted, np.repeat(np.arange(200), 10).tolist()))[:, 0]
    assert high - low == pytest.approx(width * np.sqrt(10), rel=0.15)
    again = bootstrap(alike, counted, np.repeat(np.arange(200), 10).tolist())
    assert np.array_equal(interval(again)[:, 0], [low, high])
    assert np.isnan(interval(bootstrap(right, 0 * counted, range(n)))).all()


def test_limb_joints_are_twelve():
    assert len(set(LIMB_JOINTS)) == 12


def test_reliability_by_hand():
    """Two bins: three joints of 0.25, one right; two of 0.95, both right; one never annotated."""
    scores = np.float32([[0.25, 0.25, 0.25], [0.95, 0.95, 0.1], [np.nan, np.nan, np.nan]])
    distance = np.array([[0.1, 0.9, np.inf], [0.2, 0.0, np.nan], [0.1, 0.1, 0.1]])
    fit = reliability(scores, distance, 0.2)
    assert fit is not None
    assert fit.count.tolist() == [0, 0, 3, 0, 0, 0, 0, 0, 0, 2]
    assert fit.right[[2, 9]] == pytest.approx([1 / 3, 1])
    assert fit.score[[2, 9]] == pytest.approx([0.25, 0.95])
    assert fit.error == pytest.approx((3 * (1 / 3 - 0.25) + 2 * 0.05) / 5)
    assert fit.medians == pytest.approx((0.95, 0.25, 0.1))
    # Each joint by itself: (one right at 0.25, one at 0.95), (wrong, right), (wrong, no truth).
    assert fit.each == pytest.approx([(0.75 + 0.05) / 2, (0.25 + 0.05) / 2, 0.25])
    assert reliability(scores[2:], distance[2:], 0.2) is None
    unseen = reliability(scores[1:2], distance[1:2], 0.2)
    assert unseen is not None and np.isnan(unseen.each).tolist() == [False, False, True]


def test_scores_that_are_chances_have_no_calibration_error():
    rng = np.random.default_rng(0)
    chance = rng.uniform(size=(40_000, 5)).astype(np.float32)
    distance = np.where(rng.uniform(size=chance.shape) < chance, 0.0, 1.0)
    fit, sure = reliability(chance, distance, 0.5), reliability(chance**2, distance, 0.5)
    assert fit is not None and sure is not None
    assert fit.error < 0.01 < 0.15 < sure.error  # E|u - u^2| = 1/6
