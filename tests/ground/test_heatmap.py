import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from humanpose import heatmap

W, H = 48, 64


def round_trip(x: float, y: float, rule: str, sigma: float) -> float:
    """Distance in cells between a joint and its decoded target map."""
    cells = np.array([[[x, y], [y / 2, x]]], np.float32)  # two joints, batch of one
    maps = heatmap.encode(cells, (H, W), sigma=sigma)
    found, scores = heatmap.decode(maps, rule)
    assert found.shape == (1, 2, 2) and scores.shape == (1, 2)
    return float(np.linalg.norm(found[0, 0] - cells[0, 0]))


positions = {
    "x": st.floats(0, W - 1),
    "y": st.floats(0, H - 1),
    "sigma": st.floats(1.0, 3.0),
}


@given(**positions)
def test_dark_finds_the_joint_to_a_twentieth_of_a_cell_everywhere(x, y, sigma):
    assert round_trip(x, y, "dark", sigma) < 0.05


@given(x=st.floats(1, W - 2), y=st.floats(1, H - 2), sigma=st.floats(1.0, 3.0))
def test_quarter_offset_stays_within_three_tenths_per_axis(x, y, sigma):
    cells = np.array([[[x, y]]], np.float32)
    found, _ = heatmap.decode(heatmap.encode(cells, (H, W), sigma=sigma), "quarter")
    inside = (np.rint(cells) >= 1).all() and (np.rint(cells) <= [W - 2, H - 2]).all()
    assert np.abs(found - cells).max() < (0.3 if inside else 0.51)


@given(**positions)
def test_argmax_is_the_nearest_cell(x, y, sigma):
    assert round_trip(x, y, "argmax", sigma) <= np.hypot(0.5, 0.5) + 1e-3


@pytest.mark.parametrize("lead", [(1, 1), (2, 3), (3, 3), ()])
@pytest.mark.parametrize("rule", heatmap.DECODERS)
def test_decode_keeps_leading_axes(lead, rule):
    maps = np.zeros((*lead, 5, 7), np.float32)
    maps[..., 3, 4] = 0.7
    cells, scores = heatmap.decode(maps, rule)
    assert cells.shape == (*lead, 2)
    assert (np.rint(cells) == [4, 3]).all()  # x then y
    assert np.allclose(scores, 0.7)


def test_quarter_step_goes_to_the_higher_neighbour_and_not_on_the_rim():
    maps = np.zeros((2, 5, 7), np.float32)
    maps[:, 2, 3], maps[0, 2, 4], maps[0, 1, 3] = 1, 0.5, 0.5
    maps[1, 2, 3], maps[1, 0, 0] = 0, 1
    maps[1, 0, 1] = 0.9
    cells, _ = heatmap.decode(maps, "quarter")
    assert cells.tolist() == [[3.25, 1.75], [0, 0]]


def test_flat_map_stays_on_a_cell():
    cells, _ = heatmap.decode(np.full((1, 5, 7), 0.2, np.float32), "dark")
    assert np.isfinite(cells).all()


def test_missing_joint_makes_an_empty_map():
    maps = heatmap.encode(np.array([[np.nan, np.nan], [1.0, 2.0]], np.float32), (5, 7), sigma=1)
    assert maps[0].max() == 0 and maps[1, 2, 1] == 1


@pytest.mark.parametrize(("grid", "first"), [("corner", 0.0), ("centre", 1.5)])
def test_grid_says_where_cell_zero_lies(grid, first):
    assert heatmap.to_pixels(np.zeros(2, np.float32), 4, grid).tolist() == [first, first]
    points = np.array([[0.0, 7.25], [100.5, 3.0]], np.float32)
    there = heatmap.to_pixels(heatmap.to_cells(points, 4, grid), 4, grid)
    assert np.allclose(there, points, atol=1e-5)


def test_unknown_rule_is_named():
    with pytest.raises(ValueError, match="'soft' is not one of"):
        heatmap.decode(np.zeros((1, 5, 5), np.float32), "soft")


@pytest.mark.parametrize(("grid", "axis"), [("corner", 94.0), ("centre", 95.5)])
def test_mirror_axis_maps_the_grid_onto_itself(grid, axis):
    """48 cells at stride 4 in a crop of 192: "centre" mirrors about the crop's middle."""
    assert heatmap.mirror_axis(48, 4, grid) == axis
    cells = np.stack([np.arange(48), np.zeros(48)], -1).astype(np.float32)
    x = heatmap.to_pixels(cells, 4, grid)[:, 0]
    assert np.allclose(2 * axis - x, x[::-1])
