"""ATPRK: what its weights and its result must hold, and the method again in plain loops."""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.optimize import least_squares

from marstfn.baselines import degrade, upsample
from marstfn.baselines.atprk import RIDGE, atprk, coefficients, down, response, weights
from marstfn.baselines.variogram import Exponential

S = 3
SIGMA = 1.5
"""Of the Gaussian, in fine pixels."""


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def land(seed: int, side: int = 60, bands: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sentinel-2, Landsat and pan of a smooth land that has changed in between."""
    rng = np.random.default_rng(seed)
    mixing = rng.uniform(0.2, 1, (bands, 4))
    ground = np.stack([gaussian_filter(rng.standard_normal((side, side)), w, mode="wrap") * w for w in (1, 2, 4, 8)])
    then = 0.2 + 0.02 * np.tensordot(mixing, ground, 1)
    now = 0.25 + 0.02 * np.tensordot(mixing, ground * np.asarray((1, 0.8, 1.2, -0.5))[:, None, None], 1)
    pan = upsample(now.mean(0, keepdims=True).astype(np.float32), 2).reshape(1, side * 2 // 3, 3, side * 2 // 3, 3)
    landsat = degrade(now.astype(np.float32), 10.0) + rng.normal(0, 1e-3, (bands, side // S, side // S))
    return then.astype(np.float32), landsat.astype(np.float32), pan.mean((2, 4)).astype(np.float32)


# ---- in plain loops


def plain_response(psf: str) -> dict[tuple[int, int], float]:
    """Weight of the fine pixel that lies (i, j) from the middle of the coarse one."""
    if psf == "square":
        return {(i, j): 1 / 9 if max(abs(i), abs(j)) <= 1 else 0.0 for i in range(-4, 5) for j in range(-4, 5)}
    raw = {(i, j): math.exp(-(i * i + j * j) / (2 * SIGMA**2)) for i in range(-4, 5) for j in range(-4, 5)}
    total = sum(raw.values())
    return {at: v / total for at, v in raw.items()}


def plain_down(image: np.ndarray, h: dict[tuple[int, int], float]) -> tuple[np.ndarray, np.ndarray]:
    """Through the response, by what is known; and the share of the response that is."""
    rows, cols = image.shape
    out, share = np.zeros((2, rows // S, cols // S))
    for i in range(rows // S):
        for j in range(cols // S):
            for (up, left), weight in h.items():
                row, col = min(max(S * i + 1 + up, 0), rows - 1), min(max(S * j + 1 + left, 0), cols - 1)
                if not math.isnan(image[row, col]):
                    out[i, j] += weight * float(image[row, col])
                    share[i, j] += weight
    return np.divide(out, share, out=np.full_like(out, np.nan), where=share > 0), share


def plain_nearest(image: np.ndarray, row: int, col: int) -> float:
    rows, cols = image.shape
    known = [(i, j) for i in range(rows) for j in range(cols) if not math.isnan(image[i, j])]
    return float(image[min(known, key=lambda at: math.hypot(at[0] - row, at[1] - col))])


def plain_model(residual: np.ndarray, lags: int) -> tuple[float, float]:
    """Semivariogram, fit and deconvolution -> sill and range of the point model."""
    gamma = [plain_semivariance(residual, lag) for lag in range(1, lags + 1)]
    at, unit = S * np.arange(1.0, lags + 1), max(gamma)
    fits = [
        least_squares(
            lambda p: p[0] * (1 - np.exp(-at / p[1])) - np.asarray(gamma) / unit,
            (1, start),
            bounds=((0, 0.3), (np.inf, 1800)),
            xtol=1e-14,
            ftol=1e-14,
            gtol=1e-14,
        )
        for start in (1.0, 5.0, 30.0)
    ]
    c, a = min(fits, key=lambda f: float(f.cost)).x
    wanted = [c * (1 - math.exp(-d / a)) for d in at]
    best, least = (c, a), math.inf
    for j in range(1, 21):
        reach = (0.5 + 0.1 * j) * a
        curve = [plain_blocks(lag, reach) - plain_blocks(0, reach) for lag in range(1, lags + 1)]
        for i in range(1, 21):
            sill = (1 + 0.1 * i) * c
            misfit = math.dist([sill * v for v in curve], wanted)
            if misfit < least:
                best, least = (sill, reach), misfit
    return best[0] * unit, best[1]


def plain_semivariance(image: np.ndarray, lag: int) -> float:
    rows, cols = image.shape
    pairs = [(image[i, j], image[i, j + lag]) for i in range(rows) for j in range(cols - lag)]
    pairs += [(image[i, j], image[i + lag, j]) for i in range(rows - lag) for j in range(cols)]
    squares = [float(one - other) ** 2 for one, other in pairs if not math.isnan(one + other)]
    return sum(squares) / len(squares) / 2


def plain_blocks(lag: int, reach: float) -> float:
    """Mean semivariance of the pixel pairs of two coarse pixels, for a sill of 1."""
    places = [(i, j) for i in range(S) for j in range(S)]
    return sum(1 - math.exp(-math.hypot(S * lag + k - i, m - j) / reach) for i, j in places for k, m in places) / S**4


def plain_weights(sill: float, reach: float, h: dict[tuple[int, int], float]) -> np.ndarray:
    """(9, 9): a row for every place in a coarse pixel, a column for every neighbour."""
    used = [(at, w) for at, w in h.items() if w]
    neighbours = [(S * i, S * j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    memory: dict[tuple[int, int], float] = {}

    def gamma(i: int, j: int) -> float:
        if (i, j) not in memory:
            memory[i, j] = sill * (1 - math.exp(-math.hypot(i, j) / reach))
        return memory[i, j]

    system = np.zeros((10, 10))
    system[:9, 9] = system[9, :9] = 1
    for a, (top, left) in enumerate(neighbours):
        for b, (upper, first) in enumerate(neighbours):
            for (i, j), w in used:
                for (k, m), v in used:
                    system[a, b] += w * v * gamma(top + i - upper - k, left + j - first - m)
    rows = []
    for place in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
        target = np.ones(10)
        for a, (top, left) in enumerate(neighbours):
            target[a] = sum(w * gamma(top + i - place[0], left + j - place[1]) for (i, j), w in used)
        rows.append(np.linalg.solve(system, target)[:9])
    return np.asarray(rows)


def plain_atprk(s2: np.ndarray, landsat: np.ndarray, psf: str, scheme: str) -> np.ndarray:
    h = plain_response(psf)
    bands, height, width = s2.shape
    coarse = [plain_down(x, h)[0] for x in s2]
    share = plain_down(s2[0], h)[1]
    used = (share >= 0.5) & ~np.isnan(landsat[0])
    out = np.zeros(s2.shape)
    for b in range(bands):
        chosen = list(range(bands))
        if scheme == "selected":
            chosen = [max(chosen, key=lambda p: float(np.corrcoef(coarse[p][used], landsat[b][used])[0, 1]))]
        design = np.stack([np.ones(used.sum())] + [coarse[p][used] for p in chosen], 1)
        root = np.sqrt(share[used])
        a = np.linalg.lstsq(design * root[:, None], landsat[b][used].astype(float) * root, rcond=None)[0]
        trend = a[0] + sum(a[1 + k] * s2[p].astype(float) for k, p in enumerate(chosen))
        residual = np.where(used, landsat[b] - plain_down(trend, h)[0], np.nan)
        table = plain_weights(*plain_model(residual, min(20, height // S - 1)), h)
        nearest = [[plain_nearest(residual, i, j) for j in range(width // S)] for i in range(height // S)]
        for row in range(height):
            for col in range(width):
                total = 0.0
                for k, weight in enumerate(table[3 * (row % S) + col % S]):
                    i = min(max(row // S + k // 3 - 1, 0), height // S - 1)
                    j = min(max(col // S + k % 3 - 1, 0), width // S - 1)
                    total += weight * nearest[i][j]
                unseen = math.isnan(landsat[b, row // S, col // S])
                out[b, row, col] = math.nan if unseen else trend[row, col] + total
    return out


@pytest.mark.parametrize(
    ("psf", "scheme"), [("gaussian", "all"), ("square", "selected")], ids=["gaussian, all", "square, selected"]
)
def test_result_is_that_of_plain_loops(psf: str, scheme: str) -> None:
    s2, landsat, _ = land(11, bands=2)
    found = atprk(s2, landsat, psf=psf, scheme=scheme, lags=19)  # type: ignore[arg-type]
    wanted = plain_atprk(s2, landsat, psf, scheme)
    assert abs(found - wanted).max() < 2e-7
    assert abs(wanted - s2).max() > 0.02


def test_result_with_holes_is_that_of_plain_loops() -> None:
    s2, landsat, _ = land(13, bands=2)
    # strips along the edges, of which no cell has two nearest ones, and a pixel
    s2[:, :, :17] = np.nan
    s2[:, 30, 40] = np.nan
    landsat[:, :, 18:] = np.nan
    found, wanted = atprk(s2, landsat, lags=19), plain_atprk(s2, landsat, "gaussian", "all")
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    assert np.nanmax(abs(found - wanted)) < 2e-7


def test_response_is_that_of_plain_loops() -> None:
    s2, _, _ = land(2, side=24)
    for psf in ("gaussian", "square"):
        found = down(s2, response(psf, SIGMA, 1))  # type: ignore[arg-type]
        np.testing.assert_allclose(found[1], plain_down(s2[1], plain_response(psf))[0], rtol=1e-12)
    np.testing.assert_allclose(down(s2, response("square", SIGMA, 1)), degrade(s2), rtol=1e-6)


# ---- the weights


@given(st.floats(0.05, 2000), st.sampled_from(["gaussian", "square"]), st.floats(0.3, 3), st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_weights_of_every_place_sum_to_one(reach: float, psf: str, sigma: float, window: int) -> None:
    table = weights(Exponential(1.0, reach), response(psf, sigma, window))  # type: ignore[arg-type]
    assert table.shape == (9, (2 * window + 1) ** 2)
    assert abs(table.sum(1) - 1).max() < 1e-9
    # places that are each other's mirror image have mirrored weights
    assert abs(table[::-1, ::-1] - table).max() < 1e-6


@given(st.floats(0.05, 2000), st.integers(1, 2))
@settings(max_examples=30, deadline=None)
def test_places_of_a_square_response_mean_their_own_pixel(reach: float, window: int) -> None:
    table = weights(Exponential(1.0, reach), response("square", 1.0, window))
    own = np.zeros((2 * window + 1) ** 2)
    own[len(own) // 2] = 1
    assert abs(table.mean(0) - own).max() < 1e-9


def test_weights_do_not_depend_on_the_sill() -> None:
    taps = response("gaussian", SIGMA, 1)
    assert np.array_equal(weights(Exponential(1e-6, 7.0), taps), weights(Exponential(3.0, 7.0), taps))


# ---- the regression


@given(st.integers(0, 2**32 - 1), st.floats(0, 2))
@settings(max_examples=30, deadline=None)
def test_coefficients_are_those_of_the_penalised_least_squares(seed: int, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(0.2, 0.1, (4, 50)), rng.normal(0.3, 0.1, (2, 50))
    weight = rng.integers(1, 4, 50)
    found = coefficients(x, z, weight.astype(float), ridge)
    # a weight of 3 is a cell seen 3 times; rows that pull the standardised coefficients to 0 are the penalty
    x, z = np.repeat(x, weight, 1), np.repeat(z, weight, 1)
    standard = (x - x.mean(1)[:, None]) / x.std(1)[:, None]
    design = np.vstack([standard.T, math.sqrt(weight.sum() * ridge) * np.eye(4)])
    for a, band in zip(found, z, strict=True):
        wanted = np.linalg.lstsq(design, np.append(band - band.mean(), np.zeros(4)), rcond=None)[0]
        np.testing.assert_allclose(a[1:] * x.std(1), wanted, atol=1e-10)
        assert a[0] + a[1:] @ x.mean(1) == pytest.approx(band.mean())


def test_covariates_that_say_nothing_or_the_same_are_borne() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0.2, 0.1, (1, 80))
    same = np.concatenate([x, np.full((1, 80), 0.4), x])
    a = coefficients(same, 0.1 + 2 * x, np.ones(80))[0]
    np.testing.assert_allclose(a, (0.1, 1, 0, 1), atol=1e-9)


# ---- the result


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_with_a_square_response_the_mean_of_a_cell_is_landsat(seed: int) -> None:
    s2, landsat, pan = land(seed, side=36)
    for sharp in (None, pan):
        assert abs(degrade(atprk(s2, landsat, sharp, psf="square")) - landsat).max() < 1e-6


@given(st.integers(0, 2**32 - 1), st.floats(-0.2, 0.4))
@settings(max_examples=10, deadline=None)
def test_a_constant_on_landsat_is_one_on_the_result(seed: int, change: float) -> None:
    s2, landsat, pan = land(seed, side=36)
    for sharp in (None, pan):
        plain, moved = (atprk(s2, image, sharp) for image in (landsat, landsat + np.float32(change)))
        assert abs(moved - plain - np.float32(change)).max() < 2e-6


@given(st.integers(0, 2**32 - 1), st.sampled_from(["all", "selected"]))
@settings(max_examples=10, deadline=None)
def test_bands_are_treated_alike(seed: int, scheme: str) -> None:
    s2, landsat, pan = land(seed, side=36, bands=6)
    order = np.random.default_rng(seed).permutation(6)
    for sharp in (None, pan):
        straight, mixed = (
            atprk(s2[o], landsat[o], sharp, scheme=scheme)  # type: ignore[arg-type]
            for o in (np.arange(6), order)
        )
        assert np.array_equal(straight[order], mixed)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["gaussian", "square"]))
@settings(max_examples=10, deadline=None)
def test_a_combination_of_the_references_bands_is_given_back(seed: int, psf: str) -> None:
    s2, _, _ = land(seed, side=48)
    mixing = np.random.default_rng(seed).uniform(-0.5, 1, (3, 3))
    now = 0.1 + np.tensordot(mixing, s2.astype(float), 1)
    landsat = down(now, response(psf, SIGMA, 1)).astype(np.float32)  # type: ignore[arg-type]
    assert abs(atprk(s2, landsat, psf=psf, valid=(-9, 9)) - now).max() < 1e-5  # type: ignore[arg-type]


def test_a_better_covariate_makes_a_better_result() -> None:
    # the reference of the day itself against one that has nothing to do with the land
    s2, _, _ = land(8)
    landsat = degrade(s2, 10.0)
    other, _, _ = land(9)
    errors = [np.sqrt(np.mean((atprk(reference, landsat) - s2) ** 2)) for reference in (s2, other)]
    bicubic = np.sqrt(np.mean((upsample(landsat) - s2) ** 2))
    assert errors[0] < 0.5 * errors[1]
    assert errors[0] < 0.5 * bicubic


def test_pan_carries_a_change_that_landsat_cannot_resolve() -> None:
    s2, landsat, _ = land(4)
    now = np.array(s2)
    rng = np.random.default_rng(1)
    for row, col in rng.integers(2, 56, (60, 2)):
        now[:, row : row + 2, col : col + 2] += 0.1
    landsat = degrade(now)
    fine = upsample(now.mean(0, keepdims=True), 2)
    pan = fine.reshape(1, 40, 3, 40, 3).mean((2, 4))
    without, with_pan = (np.sqrt(np.mean((atprk(s2, landsat, sharp) - now) ** 2)) for sharp in (None, pan))
    assert with_pan < without


def test_pan_is_regularised_unless_told_otherwise() -> None:
    s2, landsat, pan = land(14)
    assert np.array_equal(atprk(s2, landsat, pan), atprk(s2, landsat, pan, ridge=RIDGE))
    assert np.array_equal(atprk(s2, landsat), atprk(s2, landsat, ridge=0.0))
    assert not np.array_equal(atprk(s2, landsat, pan), atprk(s2, landsat, pan, ridge=0.0))
    assert not np.array_equal(atprk(s2, landsat), atprk(s2, landsat, ridge=RIDGE))


@pytest.mark.parametrize("seed", [15, 16, 17])
def test_regularisation_saves_a_pan_that_repeats_the_reference(seed: int) -> None:
    # nothing has changed but light, and Landsat sees sharper than the response assumes: least squares put the
    # difference down to that between pan and the sum of the bands, which at 10 m is another one
    s2, _, _ = land(seed)
    rng = np.random.default_rng(seed)
    now = (1.1 * s2 + 0.02).astype(np.float32)
    landsat = (degrade(now) + rng.normal(0, 1e-3, (3, 20, 20))).astype(np.float32)
    pan = upsample(now.mean(0, keepdims=True), 2).reshape(1, 40, 3, 40, 3).mean((2, 4))
    pan = (pan + rng.normal(0, 5e-4, pan.shape)).astype(np.float32)
    shrunk, free, without = (
        np.sqrt(np.mean((image - now) ** 2))
        for image in (atprk(s2, landsat, pan), atprk(s2, landsat, pan, ridge=0.0), atprk(s2, landsat))
    )
    assert free > without > shrunk
    assert shrunk < 0.92 * free


# ---- holes


def test_holes_stay_where_they_are_and_stay_out_of_the_rest() -> None:
    s2, landsat, _ = land(5, side=90)
    cut, clouded = s2.copy(), landsat.copy()
    cut[1, 30:45, 30:45] = np.nan
    cut[:, 4, 50] = np.nan
    clouded[2, 20:24, 3:9] = np.nan
    found, whole = atprk(cut, clouded), atprk(s2, landsat)
    empty = np.isnan(cut).any(0) | np.repeat(np.repeat(np.isnan(clouded).any(0), 3, 0), 3, 1)
    assert np.array_equal(np.isnan(found), np.broadcast_to(empty, found.shape))
    # the regression is a little another one, and next to holes some neighbours are
    near = np.abs(found - whole)[:, ~empty]
    change = np.abs(whole - s2)[:, ~empty]
    assert near.max() < 0.5 * change.max()
    assert np.median(near) < 0.02 * np.median(change)


def test_what_lies_under_holes_counts_for_nothing() -> None:
    s2, landsat, pan = land(6)
    hole, cloud = np.zeros((60, 60), bool), np.zeros((20, 20), bool)
    hole[10:22, 30:41], cloud[15:, :4] = True, True
    images = []
    for value in (0.9, 0.02):
        cut, clouded = s2.copy(), landsat.copy()
        cut[:2, hole], clouded[:2, cloud] = value, value
        cut[2, hole], clouded[2, cloud] = np.nan, np.nan
        images.append(atprk(cut, clouded, pan))
    np.testing.assert_array_equal(*images)


def test_a_hole_in_pan_costs_pan_and_not_the_pixel() -> None:
    s2, landsat, pan = land(7, side=90)
    torn = pan.copy()
    torn[0, 20:36, 10:40] = np.nan
    found = atprk(s2, landsat, torn)
    assert np.isfinite(found).all()
    without, with_pan = atprk(s2, landsat), atprk(s2, landsat, pan)
    inside = np.s_[:, 33:51, 18:57]
    assert np.array_equal(found[inside], without[inside])
    away = np.s_[:, 66:]
    assert abs(found[away] - with_pan[away]).max() < 0.1 * abs(without[away] - with_pan[away]).max()
    assert np.array_equal(atprk(s2, landsat, np.full_like(pan, np.nan)), without)
    # a pan of which too little is left for a regression is none
    torn[:, :, 5:] = np.nan
    assert np.array_equal(
        atprk(s2[:, :30, :30], landsat[:, :10, :10], torn[:, :20, :20]), atprk(s2[:, :30, :30], landsat[:, :10, :10])
    )


@pytest.mark.parametrize("gone", ["s2", "landsat", "both"])
def test_all_unknown_is_all_unknown(gone: str) -> None:
    s2, landsat, pan = land(1, side=24)
    nothing = np.full_like
    out = atprk(
        s2 if gone == "landsat" else nothing(s2, np.nan), landsat if gone == "s2" else nothing(landsat, np.nan), pan
    )
    assert out.shape == s2.shape
    assert np.isnan(out).all()


@pytest.mark.parametrize("known", [1, 2, 5, 14])
@pytest.mark.parametrize("with_pan", [False, True])
def test_a_few_known_cells_are_sharpened_without_a_regression_they_cannot_carry(known: int, with_pan: bool) -> None:
    s2, landsat, pan = land(12, side=30)
    few = np.full_like(landsat, np.nan)
    few.reshape(3, -1)[:, :known] = landsat.reshape(3, -1)[:, :known]
    out = atprk(s2, few, pan if with_pan else None, psf="square")
    filled = np.isfinite(degrade(out))
    assert np.array_equal(filled, np.isfinite(few))
    assert abs(degrade(out) - few)[filled].max() < 1e-6


def test_a_regression_needs_cells_and_takes_the_best_covariate_first() -> None:
    s2, landsat, _ = land(12, side=30)
    other, _, _ = land(16, side=30)
    for known, used in ((9, 0), (10, 1), (19, 1), (20, 3)):
        few = np.full_like(landsat, np.nan)
        few.reshape(3, -1)[:, :known] = landsat.reshape(3, -1)[:, :known]
        one = few.copy()
        one[1:] = one[:1]
        straight, changed = atprk(s2, one), atprk(np.concatenate([s2[:1], other[1:]]), one)
        selected = atprk(s2, one, scheme="selected")
        assert np.array_equal(straight, atprk(other, one), equal_nan=True) == (used == 0)
        assert np.array_equal(straight, selected, equal_nan=True) == (used < 3)
        assert used < 3 or not np.array_equal(straight, changed, equal_nan=True)


def test_constant_images_are_borne() -> None:
    s2, landsat, pan = (
        np.full(shape, v, np.float32) for shape, v in (((6, 24, 24), 0.2), ((6, 8, 8), 0.3), ((1, 16, 16), 0.1))
    )
    assert abs(atprk(s2, landsat) - 0.3).max() < 1e-6
    assert abs(atprk(s2, landsat, pan) - 0.3).max() < 1e-6
    varied, changed, sharp = land(3, side=24, bands=6)
    assert abs(atprk(varied, landsat, sharp) - 0.3).max() < 1e-6
    kept = atprk(s2, changed, pan, psf="square")
    assert abs(degrade(kept) - changed).max() < 1e-6


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 3, 30), (2, 6, 6)])
def test_small_and_narrow_images_are_borne(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    bands, rows, cols = shape
    s2, landsat = rng.uniform(0, 0.5, shape), rng.uniform(0, 0.5, (bands, rows // 3, cols // 3))
    out = atprk(s2.astype(np.float32), landsat.astype(np.float32), psf="square", valid=(-9, 9))
    assert abs(degrade(out) - landsat).max() < 1e-6


def test_same_inputs_same_bits_and_inputs_unwritten() -> None:
    images = land(10)
    before = [image.copy() for image in images]
    first, second = atprk(*images), atprk(*images)
    assert first.dtype == np.float32
    assert np.array_equal(first, second)
    for image, copy in zip(images, before, strict=True):
        assert np.array_equal(image, copy)
        assert not np.shares_memory(first, image)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"psf": "airy"}, "psf 'airy'"),
        ({"scheme": "best"}, "scheme 'best'"),
        ({"window": 0}, "window 0"),
        ({"lags": 1}, "lags 1"),
        ({"ridge": -1.0}, "ridge -1.0"),
        ({"sigma": 0.0}, "sigma 0.0"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, object], message: str) -> None:
    s2, landsat, _ = land(1, side=24)
    with pytest.raises(ValueError, match=message):
        atprk(s2, landsat, **wrong)  # type: ignore[arg-type]


def test_digital_numbers_are_refused() -> None:
    s2, landsat, _ = land(1, side=24)
    with pytest.raises(ValueError, match="digital numbers"):
        atprk(s2 * 10_000, landsat)


def test_what_goes_astray_is_held_within_what_the_products_can_hold() -> None:
    s2, landsat, _ = land(5, side=24)
    wild = atprk(s2 * np.float32(3), landsat * np.float32(2), valid=(0.1, 0.2))
    assert wild.min() >= np.float32(0.1)
    assert wild.max() <= np.float32(0.2)


def test_a_mirror_image_adds_no_cells_to_the_regression() -> None:
    """A small area is continued by its mirror image to fill a window; its few cells are not more for it."""
    s2, landsat, _ = land(6, side=12)
    mirrored = [np.pad(a, ((0, 0), (0, 7 * a.shape[1]), (0, 7 * a.shape[2])), mode="symmetric") for a in (s2, landsat)]
    # all bands have four coefficients here: 16 cells are too few for them at 5 cells each, and stay so
    alone, wide = atprk(s2, landsat, psf="square", lags=3), atprk(*mirrored, psf="square", lags=3)
    one = atprk(s2, landsat, psf="square", lags=3, scheme="selected")
    assert np.array_equal(alone, one)
    all_of = atprk(*mirrored, psf="square", lags=3, scheme="selected")
    assert np.array_equal(wide, all_of)
