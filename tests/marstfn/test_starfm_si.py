"""STARFM from two images: what it simulates, what follows from it, and a plain reading of the whole."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from marstfn.baselines import additive, bicubic, copy, degrade
from marstfn.baselines.holes import degraded, enlarged
from marstfn.baselines.starfm import starfm
from marstfn.baselines.starfm_si import starfm_si

seeds = st.integers(0, 2**32 - 1)


def scene(seed: int, side: int = 30, bands: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1, C2 and the truth F2: fields with texture, of which each changes by its own amount."""
    rng = np.random.default_rng(seed)
    cells = (bands, side // 15, side // 15)
    fields, change = (np.kron(rng.uniform(a, b, cells), np.ones((15, 15))) for a, b in ((0.05, 0.4), (-0.05, 0.1)))
    s2 = (fields + rng.normal(0, 0.01, fields.shape)).astype(np.float32)
    truth = (s2 + change).astype(np.float32)
    return s2, degrade(truth), truth


def plain(s2: np.ndarray, landsat: np.ndarray, half: int = 15, classes: float = 4) -> np.ndarray:
    """One band with the defaults, pixel by pixel."""
    height, width = s2.shape[1:]
    fine = s2[0].astype(float)
    small = np.array(
        [[[np.mean(fine[y : y + 3, x : x + 3]) for x in range(0, width, 3)] for y in range(0, height, 3)]], np.float32
    )
    then = enlarged(small)
    change = (enlarged(landsat) - then)[0].astype(float)
    spectral, passed = abs(fine - then[0].astype(float)), abs(change)
    out = np.empty(fine.shape, np.float32)
    sigma = 0.005 * np.sqrt(2)
    for y in range(height):
        for x in range(width):
            top, left = max(0, y - half), max(0, x - half)
            box = np.s_[top : min(height, y + half + 1), left : min(width, x + half + 1)]
            f, s, t = fine[box], spectral[box], passed[box]
            like = abs(f - fine[y, x]) <= 2 * f.std() / classes
            good = like & ((s < spectral[y, x] + sigma) | (t < passed[y, x] + sigma))
            rows, cols = np.mgrid[box]
            far = 1 + np.hypot(rows - y, cols - x) / half
            weight = good / (np.log(s * 1e4 + 2) * np.log(t * 1e4 + 2) * far)
            out[y, x] = (weight * (f + change[box])).sum() / weight.sum()
    return out[None]


def test_agrees_with_a_plain_reading() -> None:
    s2, landsat, _ = scene(1, 60, 1)
    np.testing.assert_allclose(starfm_si(s2, landsat), plain(s2, landsat), atol=1e-6, rtol=0)


def test_is_starfm_with_the_coarse_image_simulated() -> None:
    s2, landsat, _ = scene(2)
    assert np.array_equal(starfm_si(s2, landsat), starfm(s2, landsat, coarse_then=degrade(s2)))
    blurred = starfm_si(s2, landsat, psf=12.0, window=9, classes=8, weights="product", temporal=False)
    as_starfm = {"window": 9, "classes": 8, "weights": "product", "temporal": False}
    assert np.array_equal(blurred, starfm(s2, landsat, coarse_then=degrade(s2, 12.0), **as_starfm))  # type: ignore[arg-type]
    assert not np.array_equal(blurred, starfm_si(s2, landsat, window=9, classes=8, weights="product", temporal=False))


def test_every_parameter_of_starfm_is_handed_on() -> None:
    s2, landsat, _ = scene(3)
    ours, theirs = (inspect.signature(f).parameters for f in (starfm_si, starfm))
    assert {k: p.default for k, p in ours.items() if k not in ("psf", "regression")} == {
        k: p.default for k, p in theirs.items() if k != "coarse_then"
    }
    other: dict[str, Any] = {
        "window": 9,
        "classes": 12,
        "weights": "product",
        "temporal": False,
        "strict": True,
        "spread": "image",
        "fine_uncertainty": 0.05,
        "coarse_uncertainty": 0.05,
        "distance": 2.0,
        "scale": 100.0,
    }
    assert set(other) == set(theirs) - {"s2", "landsat", "pan", "coarse_then", "threads"}
    for name, value in other.items():
        expected = starfm(s2, landsat, coarse_then=degrade(s2), **{name: value})
        assert np.array_equal(starfm_si(s2, landsat, **{name: value}), expected), name
        assert not np.array_equal(expected, starfm_si(s2, landsat)), name


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_without_change_a_pixel_stays_within_the_likeness_of_its_neighbours(seed: int) -> None:
    s2, _, _ = scene(seed)
    made = starfm_si(s2, degrade(s2), spread="image")
    for band in range(2):
        assert abs(made - s2)[band].max() <= 2 * float(s2[band].astype(float).std()) / 4 + 1e-6
    # with classes without number only the pixel itself is alike
    np.testing.assert_allclose(starfm_si(s2, degrade(s2), classes=1e9), s2, atol=1e-6)


@given(seeds, st.floats(-0.04, 0.04))
@settings(max_examples=10, deadline=None)
def test_a_uniform_change_is_followed(seed: int, change: float) -> None:
    s2, _, _ = scene(seed)
    still, moved = (starfm_si(s2, degrade(s2) + np.float32(c)) for c in (0, change))
    # an equal T everywhere weighs and filters nothing
    np.testing.assert_allclose(moved - still, change, atol=1e-5)


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_bands_are_treated_alike_and_inputs_left_alone(seed: int) -> None:
    s2, landsat, _ = scene(seed, bands=3)
    before = s2.copy(), landsat.copy()
    s2.setflags(write=False)
    landsat.setflags(write=False)
    made = starfm_si(s2, landsat)
    assert made.dtype == np.float32
    assert made.shape == s2.shape
    assert np.array_equal(starfm_si(s2[[2, 0, 1]], landsat[[2, 0, 1]]), made[[2, 0, 1]])
    assert np.array_equal(starfm_si(s2[1:2], landsat[1:2]), made[1:2])
    assert np.array_equal(before[0], s2)
    assert np.array_equal(before[1], landsat)


def test_threads_change_no_bit() -> None:
    s2, landsat, _ = scene(4, 60, 3)
    assert starfm_si(s2, landsat, threads=1).tobytes() == starfm_si(s2, landsat, threads=2).tobytes()


def test_where_like_pixels_change_alike_it_beats_either_sensor_and_the_noise_of_landsat() -> None:
    rng = np.random.default_rng(5)
    kinds = np.kron(rng.integers(0, 3, (9, 9)), np.ones((7, 7), int))[:60, :60]
    s2 = (np.array([0.08, 0.2, 0.35])[kinds][None] + rng.normal(0, 0.002, (1, 60, 60))).astype(np.float32)
    truth = (s2 + np.array([0.02, -0.05, 0.08])[kinds]).astype(np.float32)
    noisy = degrade(truth) + rng.normal(0, 0.01, (1, 20, 20)).astype(np.float32)

    def rmse(image: np.ndarray) -> float:
        return float(np.sqrt(((image - truth) ** 2).mean()))

    made = rmse(starfm_si(s2, noisy))
    assert made < 0.5 * rmse(bicubic(s2, noisy))
    assert made < 0.5 * rmse(copy(s2, noisy))
    assert made < 0.9 * rmse(additive(s2, noisy))


def test_regression_takes_the_sensors_apart_and_the_season_with_them() -> None:
    s2, _, _ = scene(6, 60, 2)
    other_sensor = 0.9 * degrade(s2) + np.float32(0.03)
    same_frame = starfm_si(s2, other_sensor, regression=True)
    np.testing.assert_allclose(same_frame, starfm_si(s2, degrade(s2)), atol=0.01)
    assert abs((same_frame - s2).mean()) < 0.1 * abs((starfm_si(s2, other_sensor) - s2).mean())
    # a change of the whole scene cannot be told from a difference of sensors
    season = degrade(s2) + np.float32(0.05)
    assert abs((starfm_si(s2, season, regression=True) - s2).mean()) < 1e-3
    assert (starfm_si(s2, season) - s2).mean() == pytest.approx(0.05, abs=5e-3)


def test_regression_of_what_has_no_spread_is_the_mean_difference() -> None:
    flat, coarse = np.full((2, 12, 12), 0.3, np.float32), np.full((2, 4, 4), 0.35, np.float32)
    coarse[0, 0, 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = starfm_si(flat, coarse, regression=True)
        np.testing.assert_allclose(made[:, 3:], 0.3, atol=1e-6)
        nothing = np.full_like(flat, np.nan)
        assert np.isnan(starfm_si(nothing, coarse, regression=True)).all()


def test_holes_nothing_known_and_constant() -> None:
    s2, landsat, _ = scene(7)
    s2[0, 3:7, 3:7] = np.nan
    landsat[:, 8, 8] = np.nan
    empty = np.zeros((30, 30), bool)
    empty[3:7, 3:7] = empty[24:27, 24:27] = True
    flat, coarse = np.full((2, 12, 12), 0.3, np.float32), np.full((2, 4, 4), 0.35, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({}, {"psf": 12.0}, {"spread": "image"}, {"regression": True}):
            made = starfm_si(s2, landsat, **options)  # type: ignore[arg-type]
            assert np.array_equal(np.isnan(made), np.broadcast_to(empty, made.shape))
        np.testing.assert_allclose(starfm_si(flat, coarse), 0.35, atol=1e-6)
        assert np.isnan(starfm_si(flat * np.nan, coarse)).all()
        assert np.isnan(starfm_si(flat, coarse * np.nan)).all()


def test_a_cell_seen_in_part_goes_by_the_part() -> None:
    s2 = gaussian_filter(np.random.default_rng(8).normal(0.3, 0.1, (1, 30, 30)), (0, 3, 3)).astype(np.float32)
    landsat = degrade(s2) + np.float32(0.02)
    s2[:, 12:14, 12:14] = np.nan
    then = degraded(s2)
    assert then[0, 4, 4] == pytest.approx(np.nanmean(s2[0, 12:15, 12:15]), abs=1e-7)
    assert np.array_equal(starfm_si(s2, landsat), starfm(s2, landsat, coarse_then=then), equal_nan=True)


def test_what_cannot_be_is_refused() -> None:
    s2, landsat, _ = scene(9)
    with pytest.raises(ValueError, match="digital numbers"):
        starfm_si(s2 * 1e4, landsat)
    with pytest.raises(ValueError, match="not 3 times"):
        starfm_si(s2, landsat[:, :9])
    with pytest.raises(ValueError, match="odd"):
        starfm_si(s2, landsat, window=8)
    with pytest.raises(ValueError, match="negative"):
        starfm_si(s2, landsat, psf=-1.0)
