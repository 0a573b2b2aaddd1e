import numpy as np
import pytest

from humanpose.skeleton import (
    BODY19,
    COCO17,
    CPM14,
    FLIC9,
    LSP14,
    MPII16,
    SKELETONS,
    Skeleton,
    convert,
    convert_scores,
    joint_map,
)

# Tables of the reference systems, written down by hand: CPM i <- MPII, LSP i -> MPII slot.
CPM_FROM_MPII = [9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5]
LSP_TO_MPII = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]


def numbered(skeleton: Skeleton) -> np.ndarray:
    """(J, 2) joints whose x is their row."""
    n = len(skeleton.joints)
    return np.stack([np.arange(n), 100 + np.arange(n)], -1).astype(np.float32)


def test_joint_counts_and_orders_are_the_data_sets():
    counts = {name: len(s.joints) for name, s in SKELETONS.items()}
    assert counts == {
        "mpii16": 16, "lsp14": 14, "cpm14": 14, "flic9": 9, "coco17": 17, "body19": 19,
        "hand21": 21,
    }  # fmt: skip
    assert MPII16.joints[:3] == ("right_ankle", "right_knee", "right_hip")
    assert BODY19.joints[:17] == COCO17.joints and BODY19.joints[17:] == ("neck", "head_top")


def test_mpii_to_cpm_is_the_published_table():
    moved = convert(numbered(MPII16), MPII16, CPM14)
    assert moved[:, 0].tolist() == CPM_FROM_MPII


def test_lsp_to_mpii_is_the_published_table_and_leaves_the_rest_missing():
    moved = convert(numbered(LSP14), LSP14, MPII16)
    assert [moved[slot, 0] for slot in LSP_TO_MPII] == list(range(14))
    assert np.isnan(moved[[6, 7]]).all()  # pelvis and thorax


def test_pelvis_and_thorax_are_derived_only_on_request():
    joints = numbered(LSP14)
    derived = convert(joints, LSP14, MPII16, derive=True)
    hips = (joints[LSP14.index("left_hip")] + joints[LSP14.index("right_hip")]) / 2
    assert np.allclose(derived[MPII16.index("pelvis")], hips)


def test_flic_head_is_the_nose():
    assert joint_map(FLIC9, COCO17)[COCO17.index("nose")] == FLIC9.index("head")


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_flip_is_its_own_inverse_and_swaps_names(skeleton: Skeleton):
    index = skeleton.flip_index
    assert (index[index] == np.arange(len(index))).all()
    for i, name in enumerate(skeleton.joints):
        swapped = name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert skeleton.joints[index[i]] == swapped


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_to_dict_and_back(skeleton: Skeleton):
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton


def test_from_dict_refuses_a_limb_to_nowhere():
    value = COCO17.to_dict()
    value["limbs"].append([0, 17])
    with pytest.raises(ValueError, match="beyond 17"):
        Skeleton.from_dict(value)


def test_convert_keeps_leading_axes_and_unknown_scores_are_zero():
    joints = np.broadcast_to(numbered(COCO17), (2, 3, 17, 2))
    assert convert(joints, COCO17, BODY19).shape == (2, 3, 19, 2)
    scores = convert_scores(np.ones((2, 17), np.float32), COCO17, BODY19)
    assert (scores[:, :17] == 1).all() and (scores[:, 17:] == 0).all()
