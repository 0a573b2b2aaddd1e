import numpy as np
import pytest

from humanpose.data.augment import Augmentation, cut_off, generator, random_crop, random_pixels
from humanpose.geometry import crop_of_box

BOX = np.array([10, 10, 60, 80], np.float32)
STRONG = Augmentation(
    scale=(0.5, 2.0), rotation=90, shift=0.2, flip=0.5, colour=1.0, degrade=0.5, occlude=0.5
)


def drawn(rules: Augmentation, epoch: int, sample: int) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(7, epoch, sample)
    crop, _ = random_crop(crop_of_box(BOX, (48, 64)), rules, rng)
    image = np.full((64, 48, 3), 90, np.uint8)
    image[20:40] = [200, 30, 60]
    return crop.matrix, random_pixels(image, rules, rng)


def test_randomness_is_a_function_of_seed_epoch_and_sample():
    first, again = drawn(STRONG, 2, 11), drawn(STRONG, 2, 11)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    seen = {drawn(STRONG, e, s)[0].tobytes() for e in range(5) for s in range(40)}
    assert len(seen) == 200


def test_everything_off_changes_nothing():
    crop = crop_of_box(BOX, (48, 64))
    same, flipped = random_crop(crop, Augmentation(), generator(0, 0, 0))
    assert np.allclose(same.matrix, crop.matrix) and not flipped
    image = np.arange(64 * 48 * 3, dtype=np.uint8).reshape(64, 48, 3)
    assert (random_pixels(image, Augmentation(), generator(0, 0, 0)) == image).all()


@pytest.mark.parametrize(
    "rules",
    [
        Augmentation(scale=(0.5, 2.0)),
        Augmentation(rotation=90, rotation_chance=1),
        Augmentation(shift=0.3),
        Augmentation(flip=1.0),
    ],
)
def test_each_geometric_part_does_something(rules):
    plain = crop_of_box(BOX, (48, 64)).matrix
    assert any(not np.allclose(drawn(rules, 0, i)[0], plain) for i in range(3))


@pytest.mark.parametrize(
    "rules",
    [
        Augmentation(colour=1.0),
        Augmentation(degrade=1.0),
        Augmentation(occlude=1.0),
        Augmentation(dark=1.0),
    ],
)
def test_each_pixel_part_does_something_and_keeps_the_input(rules):
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    before = image.copy()
    outs = [random_pixels(image, rules, generator(0, 0, i)) for i in range(4)]
    assert any((out != image).any() for out in outs) and (image == before).all()
    assert all(out.shape == image.shape and out.dtype == np.uint8 for out in outs)


def test_the_dark_is_dark_and_noisy():
    image = np.full((64, 48, 3), 200, np.uint8)
    means = [random_pixels(image, Augmentation(dark=1), generator(0, 0, i)) for i in range(40)]
    assert all(18 < out.mean() < 105 and 0.5 < out.std() < 6 for out in means)
    assert np.ptp([out.mean() for out in means]) > 50


def test_a_picture_that_ends_in_the_crop_has_no_joints_beyond():
    grid = np.stack(np.meshgrid(np.arange(48), np.arange(64)), -1).reshape(-1, 2).astype(np.float32)
    sides = set()
    for i in range(40):
        image = np.full((64, 48, 3), 90, np.uint8)
        out, joints = cut_off(image, grid, (1, 2, 3), generator(0, 0, i))
        gone = (out == (1, 2, 3)).all(-1)
        assert (image == 90).all() and ((out == 90).all(-1) ^ gone).all()
        assert 0.08 < gone.mean() < 0.52
        # A joint on each pixel: those on what is gone, and no others, are far away.
        assert ((joints < -1000).all(-1) == gone.ravel()).all()
        assert (joints[~gone.ravel()] == grid[~gone.ravel()]).all()
        sides.add(tuple(np.argwhere(gone).mean(0) < (31.5, 23.5)))
    assert len(sides) >= 3


def test_colour_of_strength_zero_is_near_identity_and_strength_one_is_bounded():
    grey = np.full((8, 8, 3), 128, np.uint8)
    outs = [random_pixels(grey, Augmentation(colour=1.0), generator(0, 0, i)) for i in range(50)]
    means = np.array([out.mean() for out in outs])
    assert means.std() > 5 and means.min() > 60 and means.max() < 200
