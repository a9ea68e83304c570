"""Semivariograms against plain loops, and a known point model found again behind its block means."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from marstfn.baselines.variogram import Exponential, Grid, deconvolved, fitted, regularised, semivariogram

S = 3


def plain_semivariogram(image: np.ndarray, lag: int) -> float:
    rows, cols = image.shape
    squares = []
    for i in range(rows):
        for j in range(cols):
            for k, m in ((i + lag, j), (i, j + lag)):
                if k < rows and m < cols and not math.isnan(image[i, j] + image[k, m]):
                    squares.append((image[i, j] - image[k, m]) ** 2)
    return sum(squares) / len(squares) / 2 if squares else math.nan


def plain_regularised(reach: float, lag: int) -> float:
    def mean(apart: int) -> float:
        total = 0.0
        for i in range(S):
            for j in range(S):
                for k in range(S):
                    for m in range(S):
                        total += 1 - math.exp(-math.hypot(S * apart + k - i, m - j) / reach)
        return total / S**4

    return mean(lag) - mean(0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 9), st.floats(0, 0.9))
@settings(max_examples=40)
def test_semivariogram_is_that_of_plain_loops(seed: int, rows: int, cols: int, holes: float) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1, (2, rows, cols))
    image[rng.uniform(size=image.shape) < holes] = np.nan
    before = image.copy()
    found = semivariogram(image, 9)
    wanted = [[plain_semivariogram(band, lag) for lag in range(1, 10)] for band in image]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_array_equal(image, before)


def test_regularisation_is_that_of_plain_loops_over_all_pairs() -> None:
    ranges = (0.2, 1.7, 9.0, 400.0)
    wanted = [[plain_regularised(reach, lag) for lag in range(1, 6)] for reach in ranges]
    np.testing.assert_allclose(regularised(np.asarray(ranges), 5, S), wanted, rtol=1e-10)


@given(st.floats(1e-8, 10), st.floats(1, 90))
@settings(max_examples=40)
def test_fit_finds_an_exponential_again(sill: float, reach: float) -> None:
    model = fitted(Exponential(sill, reach)(S * np.arange(1.0, 21)), S)
    # a curve that has risen by the first lag says little of how fast
    assert model.range == pytest.approx(reach, rel=1e-3)
    assert model.sill == pytest.approx(sill, rel=1e-3)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_fit_is_no_worse_than_a_general_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    at = S * np.arange(1.0, 21)
    gamma = Exponential(1e-4, rng.uniform(2, 40))(at) * rng.uniform(0.8, 1.2, 20)
    gamma[rng.integers(20)] = np.nan
    known = np.isfinite(gamma)
    general, _ = curve_fit(
        lambda d, c, a: c * (1 - np.exp(-d / a)), at[known], gamma[known] * 1e4, p0=(1, 10), bounds=(1e-9, 1800)
    )
    theirs = Exponential(general[0] / 1e4, general[1])
    model = fitted(gamma, S)
    ours, others = (np.nansum((m(at) - gamma) ** 2) for m in (model, theirs))
    assert ours <= others * (1 + 1e-6)


@pytest.mark.parametrize(
    "gamma", [np.full(20, np.nan), np.zeros(20), np.where(np.arange(20) == 4, 0.1, np.nan)], ids=["none", "flat", "one"]
)
def test_without_a_curve_there_is_a_model_that_does_no_harm(gamma: np.ndarray) -> None:
    model = fitted(gamma, S)
    assert model == Exponential(0.0, 3.0)
    assert deconvolved(model, 20, S, Grid()) == Exponential(0.0, 3.0 * 0.6)


@pytest.mark.parametrize("gamma", [np.full(20, 2.0), np.arange(1.0, 21), np.arange(20.0, 0, -1)])
def test_curves_that_no_exponential_follows_stay_within_the_bounds(gamma: np.ndarray) -> None:
    model = fitted(gamma, S)
    assert 0.3 * (1 - 1e-9) <= model.range <= 30 * 60 * (1 + 1e-9)
    assert 0 < model.sill < 1e4


def test_deconvolution_takes_the_nearest_candidate() -> None:
    model, lags = Exponential(2e-4, 11.0), 20
    best, least = None, math.inf
    for i in range(1, 21):
        for j in range(1, 21):
            sill, reach = (1 + 0.1 * i) * model.sill, (0.5 + 0.1 * j) * model.range
            curve = sill * regularised(np.asarray([reach]), lags, S)[0]
            misfit = math.dist(curve, [model.sill * (1 - math.exp(-S * h / model.range)) for h in range(1, lags + 1)])
            if misfit < least:
                best, least = (sill, reach), misfit
    found = deconvolved(model, lags, S, Grid())
    assert (found.sill, found.range) == pytest.approx(best)


@pytest.mark.parametrize("reach", [4.0, 8.0, 15.0])
def test_a_known_point_model_is_found_again_behind_its_block_means(reach: float) -> None:
    # the curve of the blocks is known exactly; what remains is the step of the grid, and that blocks of an exponential
    # field are no exponential themselves
    curve = 5e-4 * regularised(np.asarray([reach]), 20, S)[0]
    coarse = fitted(curve, S)
    point = deconvolved(coarse, 20, S, Grid())
    assert point.sill == pytest.approx(5e-4, rel=0.12)
    assert point.range == pytest.approx(reach, rel=0.25)
    assert point.sill > coarse.sill
    off = np.abs(point.sill * regularised(np.asarray([point.range]), 20, S)[0] - curve).max()
    assert off < 0.05 * curve.max()


def test_a_simulated_fields_point_model_is_found_again_from_its_block_means() -> None:
    # periodic field of exponential covariance, by its spectrum
    side, sill, reach = 720, 4e-4, 6.0
    along = np.minimum(np.arange(side), side - np.arange(side))
    covariance = sill * np.exp(-np.hypot(along[:, None], along) / reach)
    spectrum = np.maximum(np.fft.fft2(covariance).real, 0)
    noise = np.random.default_rng(5).standard_normal((side, side))
    field = np.fft.ifft2(np.sqrt(spectrum) * np.fft.fft2(noise)).real
    blocks = field.reshape(side // S, S, side // S, S).mean((1, 3))
    coarse = fitted(semivariogram(blocks[None], 20)[0], S)
    point = deconvolved(coarse, 20, S, Grid())
    assert abs(point.sill / sill - 1) < 0.15
    assert abs(point.range / reach - 1) < 0.25
    assert coarse.sill < 0.9 * sill


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rate": -0.1}, {"sill_min": -1.0}])
def test_a_grid_without_candidates_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no candidate above 0"):
        Grid(**wrong)
