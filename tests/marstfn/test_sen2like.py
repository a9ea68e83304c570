"""Sen2Like's fusion: the processor's own order of steps, its kinship with the additive method, and holes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from marstfn.baselines import additive, degrade
from marstfn.baselines.sen2like import sen2like

seeds = st.integers(0, 2**32 - 1)


def scene(seed: int, rows: int = 18, cols: int = 24, bands: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    s2 = rng.uniform(0, 0.5, (bands, rows, cols)).astype(np.float32)
    return s2, rng.uniform(0, 0.5, (bands, rows // 3, cols // 3)).astype(np.float32)


@given(seeds)
@settings(max_examples=20)
def test_is_landsat_enlarged_and_the_high_pass_of_sentinel_2(seed: int) -> None:
    s2, landsat = scene(seed)
    for fine, coarse, made in zip(s2, landsat, sen2like(s2, landsat), strict=True):
        # the library and the defaults that the processor enlarges with, before anything is subtracted
        low = resize(fine.reshape(6, 3, 8, 3).mean((1, 3)), fine.shape, order=1)
        np.testing.assert_allclose(made, resize(coarse, fine.shape) + (fine - low), atol=1e-6)


def plain(s2: np.ndarray, landsat: np.ndarray) -> np.ndarray:
    """Pixel by pixel: linear between the four cell centres around, mirrored at the outermost."""
    rows, cols = landsat.shape[1:]

    def around(at: int, count: int) -> tuple[int, int, float]:
        place = (at - 1) / 3
        first = int(np.floor(place))
        return abs(first), count - 2 if first + 1 == count else first + 1, place - first

    out = np.empty_like(s2)
    for band in range(len(s2)):
        change = [
            [landsat[band, r, c] - s2[band, 3 * r : 3 * r + 3, 3 * c : 3 * c + 3].mean() for c in range(cols)]
            for r in range(rows)
        ]
        for y in range(s2.shape[1]):
            for x in range(s2.shape[2]):
                a, b, v = around(y, rows)
                c, d, u = around(x, cols)
                upper = (1 - u) * change[a][c] + u * change[a][d]
                lower = (1 - u) * change[b][c] + u * change[b][d]
                out[band, y, x] = s2[band, y, x] + (1 - v) * upper + v * lower
    return out


def test_agrees_with_a_plain_reading() -> None:
    s2, landsat = scene(1, 60, 60, 2)
    np.testing.assert_allclose(sen2like(s2, landsat), plain(s2, landsat), atol=1e-6)


@given(seeds)
@settings(max_examples=20)
def test_nothing_changes_where_nothing_changed(seed: int) -> None:
    s2, _ = scene(seed)
    assert abs(sen2like(s2, degrade(s2)) - s2).max() < 1e-6


@given(seeds, st.floats(-0.1, 0.1))
@settings(max_examples=20)
def test_follows_a_uniform_change(seed: int, change: float) -> None:
    s2, _ = scene(seed)
    np.testing.assert_allclose(sen2like(s2, degrade(s2) + np.float32(change)), s2 + np.float32(change), atol=1e-6)


@given(seeds)
@settings(max_examples=20)
def test_never_changes_by_more_than_landsat_saw(seed: int) -> None:
    s2, landsat = scene(seed)
    seen = landsat - degrade(s2)
    made = sen2like(s2, landsat) - s2
    for band in range(len(s2)):
        assert seen[band].min() - 1e-6 <= made[band].min()
        assert made[band].max() <= seen[band].max() + 1e-6


def test_differs_from_the_additive_method_in_how_change_is_spread_only() -> None:
    s2, _ = scene(2, 60, 60, 1)
    rows, cols = np.mgrid[:20, :20]
    slope = degrade(s2) + (0.004 * rows + 0.002 * cols).astype(np.float32)
    inner = np.s_[:, 9:-9, 9:-9]
    # the two kernels agree to 2 % of the step from cell to cell where change is a plane
    assert abs(sen2like(s2, slope) - additive(s2, slope))[inner].max() < 0.0004
    spot = degrade(s2)
    spot[0, 10, 10] += 0.1
    linear, cubic = sen2like(s2, spot) - s2, additive(s2, spot) - s2
    assert linear.min() > -1e-6  # no overshoot
    assert cubic.min() < -0.005
    assert linear[0, 31, 31] == pytest.approx(0.1, abs=1e-6)
    # to the next centres, or to those after them but for the centres themselves
    assert (abs(linear) > 1e-6).sum() == 5 * 5
    assert (abs(cubic) > 1e-6).sum() == 9 * 9


@given(seeds)
@settings(max_examples=10)
def test_bands_are_treated_alike_and_inputs_left_alone(seed: int) -> None:
    s2, landsat = scene(seed)
    before = s2.copy(), landsat.copy()
    s2.setflags(write=False)
    landsat.setflags(write=False)
    made = sen2like(s2, landsat)
    assert made.dtype == np.float32
    assert made.shape == s2.shape
    assert np.array_equal(sen2like(s2[[2, 0, 1]], landsat[[2, 0, 1]]), made[[2, 0, 1]])
    assert np.array_equal(sen2like(s2, landsat, np.full((1, 12, 16), 0.3, np.float32)), made)
    assert np.array_equal(before[0], s2)
    assert np.array_equal(before[1], landsat)


def test_holes_cost_no_other_pixel() -> None:
    s2, landsat = scene(3, 30, 30)
    holed, coarse = s2.copy(), landsat.copy()
    holed[0, 3:6, 3:6] = np.nan
    holed[1, 12, 12] = np.nan
    coarse[:, 7, 7] = np.nan
    empty = np.zeros((30, 30), bool)
    empty[3:6, 3:6] = empty[12, 12] = empty[21:24, 21:24] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = sen2like(holed, coarse)
    assert np.array_equal(np.isnan(made), np.broadcast_to(empty, made.shape))
    far = np.zeros((30, 30), bool)
    far[:, 27:] = far[27:] = True
    np.testing.assert_allclose(made[:, far], sen2like(s2, landsat)[:, far], atol=1e-6)
    # a uniform change is known beside a hole as well
    rise = degrade(s2) + np.float32(0.05)
    rise[:, 7, 7] = np.nan
    np.testing.assert_allclose(sen2like(s2, rise)[:, 18:21, 21:24], s2[:, 18:21, 21:24] + 0.05, atol=1e-6)


def test_nothing_known_constant_and_one_cell() -> None:
    flat, coarse = np.full((2, 12, 12), 0.3, np.float32), np.full((2, 4, 4), 0.35, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(sen2like(flat * np.nan, coarse)).all()
        assert np.isnan(sen2like(flat, coarse * np.nan)).all()
        np.testing.assert_allclose(sen2like(flat, coarse), 0.35, atol=1e-6)
        np.testing.assert_allclose(sen2like(flat[:, :3, :3], coarse[:, :1, :1]), 0.35, atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    s2, landsat = scene(4)
    with pytest.raises(ValueError, match="digital numbers"):
        sen2like(s2, landsat * 1e4)
    with pytest.raises(ValueError, match="not 3 times"):
        sen2like(s2[:, 3:], landsat)
