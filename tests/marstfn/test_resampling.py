"""Moving an image by a part of a pixel keeps it sharp, keeps to its mask, and knows east from west."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from marstfn.observe import MARGIN, View, landsat
from marstfn.resampling import REACH, moved


def smooth(seed: int = 0, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.2 + 0.3 * gaussian_filter(rng.normal(size=(2, *shape)), (0, 1.5, 1.5))).astype(np.float32)


def test_no_shift_is_no_resampling():
    image = smooth()
    image[:, 3, 4] = np.nan
    np.testing.assert_array_equal(moved(image, 0.0, 0.0, 30), image)


def test_a_whole_pixel_is_a_copy_of_its_neighbour():
    image = smooth()
    np.testing.assert_array_equal(moved(image, 30.0, 0.0, 30)[:, :, 1:], image[:, :, :-1])
    np.testing.assert_array_equal(moved(image, 0.0, 30.0, 30)[:, :-1], image[:, 1:])


@pytest.mark.parametrize(("east", "north"), [(8.0, 0.0), (0.0, -8.0), (-12.0, 5.0), (15.0, 15.0)])
def test_there_and_back_is_nearly_where_it_was(east, north):
    image = smooth()
    back = moved(moved(image, east, north, 30), -east, -north, 30)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert np.abs(back - image)[inner].max() < 0.01 * np.ptp(image)


def test_what_a_second_resampling_costs_in_sharpness():
    """Landsat 8 m off, moved back, against Landsat never off: closer than half of what the shift had done, and within a
    few per cent as sharp."""
    rng = np.random.default_rng(3)
    side = 240 + 2 * MARGIN
    fine = (0.2 + 0.05 * np.sign(gaussian_filter(rng.normal(size=(6, side, side)), (0, 4, 4)))).astype(np.float32)
    clean, shifted = (
        [a.astype(np.float32) for a in landsat(fine, View(9.0, e, n, noise=0.0), np.random.default_rng(0))]
        for e, n in ((0.0, 0.0), (6.0, -5.0))
    )
    inner = (slice(None), slice(6, -6), slice(6, -6))
    for k, resolution in ((0, 30), (1, 15)):
        back = moved(shifted[k], -6.0, 5.0, resolution)
        before, after = (float(np.sqrt(np.mean((a - clean[k])[inner] ** 2))) for a in (shifted[k], back))
        edges = [float(np.sqrt(np.mean(np.diff(a[inner], axis=2) ** 2))) for a in (clean[k], back)]
        loss = 100 * (1 - edges[1] / edges[0])
        print(f"{resolution} m: {before:.4f} before, {after:.4f} after; {loss:.1f} % less sharp")
        assert after < 0.4 * before
        assert edges[1] > 0.93 * edges[0]


def test_nothing_leaks_out_of_a_mask_and_no_known_pixel_is_lost():
    image = smooth()
    hidden = np.zeros(image.shape[1:], bool)
    hidden[10:14, 20:30] = True
    hidden[25, 25] = True
    hidden[:, -1] = True
    outs = []
    for value in (np.nan, 5.0):
        # what stands under a mask is not seen: NaN and anything else made NaN are the same
        seen = np.where(hidden, value, image)
        seen[:, hidden] = np.nan
        outs.append(moved(seen.astype(np.float32), 9.0, -14.0, 30))
    np.testing.assert_array_equal(outs[0], outs[1])
    assert (np.isnan(outs[0][0]) == hidden).all()
    spare = outs[0][:, ~hidden]
    assert spare.min() >= image.min() - 0.02
    assert spare.max() <= image.max() + 0.02
    far = moved(image, 9.0, -14.0, 30)
    untouched = ~np.asarray(gaussian_filter(hidden.astype(float), 2) > 0)
    untouched[:, -5:] = False
    inner = np.zeros_like(untouched)
    inner[4:-4, 4:-4] = True
    np.testing.assert_array_equal(outs[0][:, untouched & inner], far[:, untouched & inner])


def test_where_the_image_is_cut_changes_no_pixel_beyond_the_kernel():
    image = smooth()
    image[:, 17, 22] = np.nan
    whole = moved(image, 11.0, 7.0, 30)
    part = moved(image[:, 5:33, 9:41], 11.0, 7.0, 30)
    edge = REACH + 1
    np.testing.assert_array_equal(part[:, edge:-edge, edge:-edge], whole[:, 5:33, 9:41][:, edge:-edge, edge:-edge])


def test_a_pixel_among_unknown_ones_keeps_its_value():
    image = np.full((1, 9, 9), np.nan, np.float32)
    image[0, 4, 4] = 0.3
    assert moved(image, 29.0, 0.0, 30)[0, 4, 4] == np.float32(0.3)
    assert moved(image, 14.0, -14.0, 30)[0, 4, 4] == pytest.approx(0.3)
