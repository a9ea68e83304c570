"""The simulated products: grids, optics, digital numbers and band-passes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from marstfn.bands import BANDS
from marstfn.simulate import Simulation, Style, spectra
from marstfn.simulate.optics import averaged, doubled, kernel, look

X0, Y0 = 500040, 5400000
SIMULATION = Simulation(5, 2024)
PASSES = SIMULATION.acquisitions()
LANDSAT = [a for a in PASSES if a.landsat]
SENTINEL = [a for a in PASSES if not a.landsat]


def clear(passes, haze=False):
    return [a for a in passes if a.conditions.cover == 0 and not a.conditions.gap and (haze or not a.conditions.haze)]


def cloudy(passes):
    return [a for a in passes if 0.3 < a.conditions.cover < 0.7]


def corner(acq, asset, x=X0, y=Y0):
    modulo = SIMULATION.assets(acq)[asset].corner_modulo
    return x + modulo, y + modulo


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_window_of_any_asset_is_the_window_of_a_larger_one(data):
    acq = data.draw(st.sampled_from([cloudy(LANDSAT)[0], cloudy(SENTINEL)[0], clear(SENTINEL)[0]]))
    asset = data.draw(st.sampled_from(sorted(SIMULATION.assets(acq))))
    x, y = corner(acq, asset)
    side = SIMULATION.assets(acq)[asset].resolution
    whole = SIMULATION.render(acq, asset, x, y, (40, 44))
    row, column = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))
    ny, nx = data.draw(st.integers(1, 40 - row)), data.draw(st.integers(1, 44 - column))
    part = SIMULATION.render(acq, asset, x + side * column, y - side * row, (ny, nx))
    np.testing.assert_array_equal(part, whole[row : row + ny, column : column + nx])


@pytest.mark.parametrize("number", range(3))
def test_windows_are_equal_in_any_style(number):
    rng = np.random.default_rng(number)
    style = replace((Style.varied, Style.held_back)[number % 2](rng), snow=0.5)
    simulation = Simulation(number, 2023, style=style)
    acq = next(
        a for a in simulation.acquisitions() if a.landsat and 0 < a.conditions.cover < 1 and not a.conditions.gap
    )
    for asset, x, y, side in (("nir08", X0 - 15, Y0 - 15, 30), ("pan", X0 - 7.5, Y0 - 7.5, 15)):
        whole = simulation.render(acq, asset, x, y, (30, 30))
        part = simulation.render(acq, asset, x + 7 * side, y - 11 * side, (9, 20))
        np.testing.assert_array_equal(part, whole[11:20, 7:27])
        assert whole.std() > 0


def test_threads_see_the_same_scene():
    acq = cloudy(SENTINEL)[0]
    assets = [a for a in SIMULATION.assets(acq) for _ in range(2)]
    alone = [SIMULATION.render(acq, a, X0 + 6000, Y0, (30, 30)) for a in assets]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda a: Simulation(5, 2024).render(acq, a, X0 + 6000, Y0, (30, 30)), assets))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_scene_in_pieces_equals_its_tiles():
    acq = cloudy(LANDSAT)[0]
    for asset in ("red", "qa_pixel", "pan"):
        side = SIMULATION.assets(acq)[asset].resolution
        x, y = corner(acq, asset)
        whole = SIMULATION.render(acq, asset, x, y, (6, 9000 // side))
        tiles = [SIMULATION.render(acq, asset, x + metres, y, (6, 1800 // side)) for metres in range(0, 9000, 1800)]
        np.testing.assert_array_equal(np.concatenate(tiles, axis=1), whole)


@pytest.mark.parametrize("acq", [LANDSAT[0], SENTINEL[0]], ids=["landsat", "sentinel"])
def test_half_a_pixel_off_the_grid_is_refused(acq):
    for asset, spec in SIMULATION.assets(acq).items():
        x, y = corner(acq, asset)
        SIMULATION.render(acq, asset, x, y, (2, 2))
        for dx, dy in ((spec.resolution / 2, 0), (0, spec.resolution / 2), (1, 0)):
            with pytest.raises(ValueError, match="not on the grid of"):
                SIMULATION.render(acq, asset, x + dx, y + dy, (2, 2))
    with pytest.raises(ValueError, match="empty"):
        SIMULATION.render(acq, "red", *corner(acq, "red"), (0, 4))
    with pytest.raises(ValueError, match=r"no asset 'B04'; it has blue"):
        SIMULATION.render(acq, "B04", X0, Y0, (2, 2))


def test_truth_and_projection_are_checked_too():
    with pytest.raises(ValueError, match="not on the grid of the truth"):
        SIMULATION.truth(date(2024, 6, 1), X0 + 5, Y0, (2, 2))
    with pytest.raises(ValueError, match="no UTM zone"):
        Simulation(1, 2024, 4326)


def test_grids_are_those_of_the_agencies():
    modulo = {name: (spec.resolution, spec.corner_modulo) for name, spec in SIMULATION.assets(LANDSAT[0]).items()}
    assert {modulo[b] for b in (*BANDS, "qa_pixel", "qa_radsat")} == {(30, 15.0)}
    assert modulo["pan"] == (15, 7.5)
    sentinel = SIMULATION.assets(SENTINEL[0])
    assert [sentinel[b].resolution for b in BANDS] == [10, 10, 10, 20, 20, 20]
    assert sentinel["scl"].resolution == 20
    assert {spec.corner_modulo for spec in sentinel.values()} == {0.0}


@pytest.mark.parametrize("acq", [clear(LANDSAT)[0], cloudy(LANDSAT)[0], clear(SENTINEL)[0], cloudy(SENTINEL)[0]])
def test_numbers_are_those_of_the_products(acq):
    for asset, spec in SIMULATION.assets(acq).items():
        numbers = SIMULATION.render(acq, asset, *corner(acq, asset), (50, 50))
        assert numbers.dtype == spec.dtype
        if asset in BANDS:
            rho = numbers * spec.scale + spec.offset
            assert rho.min() > -0.03
            assert rho.max() < 1.1
            assert not (numbers == spec.nodata).any()
        if asset == "pan":
            toa = (numbers * 2e-5 - 0.1) / np.sin(np.radians(acq.sun_elevation))
            assert 0.03 < toa.min() < toa.max() < 0.9
        if asset == "qa_radsat":
            assert not numbers.any()


def test_ground_outside_the_swath_is_nodata_in_every_asset():
    for passes, name, fill in ((LANDSAT, "qa_pixel", 1), (SENTINEL, "scl", 0)):
        acq = replace(passes[0], conditions=replace(passes[0].conditions, gap=True))
        side = SIMULATION.assets(acq)[name].resolution
        x, y = corner(acq, name)
        wide = SIMULATION.render(acq, name, x, y, (2, 36000 // side))
        missing = wide == fill
        assert 0.2 < missing.mean() < 0.45
        column = int(np.argmax(missing[0, 60:])) + 60
        for asset, spec in SIMULATION.assets(acq).items():
            if asset == "qa_radsat":
                continue
            ax, ay = corner(acq, asset)
            inside = SIMULATION.render(acq, asset, ax + (column + 3) // 2 * 2 * side + 240, ay, (4, 4))
            assert (inside == spec.nodata).all()


def test_landsat_numbers_follow_from_the_truth():
    for acq in clear(LANDSAT):
        fine = SIMULATION.truth(acq.time, X0 - 300, Y0 + 300, (240, 240))
        slope, intercept = spectra.OLI_FROM_MSI["sentinel-2a"]
        for b, name in enumerate(BANDS):
            rho = SIMULATION.render(acq, name, X0 - 15, Y0 - 15, (60, 60)) * 2.75e-5 - 0.2
            msi = (rho - intercept[b]) / slope[b]
            blurred = gaussian_filter(fine[b], SIMULATION.style.psf_oli / 10)
            # Landsat's centres are multiples of 30 m: corners of 10 m pixels
            corners = (blurred[:-1, :-1] + blurred[1:, :-1] + blurred[:-1, 1:] + blurred[1:, 1:]) / 4
            expected = corners[32 : 32 + 180 : 3, 29 : 29 + 180 : 3]
            assert np.corrcoef(expected.ravel(), msi.ravel())[0, 1] > 0.95, (acq.time, name)
            assert abs(msi.mean() / expected.mean() - 1) < (0.2 if b >= 4 else 0.16)


def test_sentinel_numbers_follow_from_the_truth():
    for acq in clear(SENTINEL)[:6]:
        fine = SIMULATION.truth(acq.time, X0, Y0, (120, 120))
        for b, name in enumerate(BANDS):
            side = SIMULATION.assets(acq)[name].resolution
            rho = SIMULATION.render(acq, name, X0, Y0, (1200 // side, 1200 // side)) * 1e-4 - 0.1
            expected = fine[b].reshape(1200 // side, side // 10, 1200 // side, side // 10).mean((1, 3))
            assert np.corrcoef(expected.ravel(), rho.ravel())[0, 1] > 0.95, (acq.time, name)


def exact(**changes) -> Simulation:
    """A simulation without noise, angle effect or radiometric error."""
    errors = (
        "noise_msi",
        "noise_oli",
        "noise_pan",
        "structure",
        "gain",
        "offset",
        "oli_swir",
        "shift_oli",
        "shift_msi",
    )
    return Simulation(5, 2024, style=Style(**{**dict.fromkeys(errors, 0.0), **changes}))


def offset_metres(reference: np.ndarray, image: np.ndarray, side: float) -> np.ndarray:
    """How far `image` shows things east and south of `reference`, by least squares on its gradient."""
    down, right = np.gradient(reference)
    a = np.stack([right.ravel(), down.ravel(), reference.ravel(), np.ones(reference.size)], axis=1)
    fit = np.linalg.lstsq(a, image.ravel(), rcond=None)[0]
    return -fit[:2] / fit[2] * side


@pytest.mark.parametrize("shift", [(0.0, 0.0), (6.0, -4.0)])
def test_pixels_lie_where_their_grid_says_and_shifts_move_them(shift):
    simulation = exact()
    for passes, asset, sigma in (
        (LANDSAT, "red", 12.0),
        (LANDSAT, "pan", 6.5),
        (SENTINEL, "red", 5.2),
        (SENTINEL, "nir08", 9.2),
    ):
        acq = clear(passes)[0]
        displaced = replace(acq.conditions, shift_x=shift[0], shift_y=shift[1], gain=(1.0,) * 6, offset=(0.0,) * 6)
        acq = replace(acq, conditions=displaced)
        side = simulation.assets(acq)[asset].resolution
        x, y = corner(acq, asset)
        n = 1800 // side
        image = simulation.render(acq, asset, x, y, (n, n)).astype(float)
        # the truth on 10 m pixels, blurred, and read by interpolation at the asset's own pixel centres
        fine = simulation.truth(acq.time, X0 - 600, Y0 + 600, (320, 320))
        band = fine[BANDS.index(asset)] if asset in BANDS else np.tensordot(spectra.PAN_WEIGHTS, fine[:3], 1)
        blurred = gaussian_filter(band, sigma / 10)
        rows = (Y0 + 600 - (y - (np.arange(n) + 0.5) * side)) / 10 - 0.5
        columns = (x + (np.arange(n) + 0.5) * side - (X0 - 600)) / 10 - 0.5
        there = _bilinear(blurred, rows - shift[1] / 10, columns + shift[0] / 10)
        assert np.abs(offset_metres(there, image, side)).max() < 0.7, (asset, side)
        # a sensor that looks too far east shows things too far west
        east, south = offset_metres(_bilinear(blurred, rows, columns), image, side)
        assert east == pytest.approx(-shift[0], abs=1.5), (asset, side)
        assert south == pytest.approx(shift[1], abs=1.5), (asset, side)


def _bilinear(image, rows, columns):
    r, c = np.floor(rows).astype(int), np.floor(columns).astype(int)
    fr, fc = (rows - r)[:, None], (columns - c)[None, :]
    top = image[np.ix_(r, c)] * (1 - fc) + image[np.ix_(r, c + 1)] * fc
    bottom = image[np.ix_(r + 1, c)] * (1 - fc) + image[np.ix_(r + 1, c + 1)] * fc
    return top * (1 - fr) + bottom * fr


def test_band_passes_are_inverted_exactly_by_the_published_coefficients():
    simulation = exact(greenness=0.0)
    acq = next(a for a in simulation.acquisitions() if a.landsat and a.conditions.cover == 0 and not a.conditions.haze)
    plain = replace(acq.conditions, gap=False, view=0.0)
    acq = replace(acq, conditions=plain)
    slope, intercept = spectra.OLI_FROM_MSI["sentinel-2a"]
    truth = simulation.truth(acq.time, X0 - 600, Y0 + 600, (240, 240)).mean((1, 2))
    for b, name in enumerate(BANDS):
        rho = simulation.render(acq, name, X0 - 615, Y0 + 615, (80, 80)) * 2.75e-5 - 0.2
        assert (rho.mean() - intercept[b]) / slope[b] == pytest.approx(truth[b], rel=0.01)


def test_pan_is_a_top_of_atmosphere_mixture_of_the_visible():
    acq = clear(LANDSAT)[0]
    pan = SIMULATION.render(acq, "pan", *corner(acq, "pan"), (120, 120))
    toa = (pan * 2e-5 - 0.1) / np.sin(np.radians(acq.sun_elevation))
    truth = SIMULATION.truth(acq.time, X0, Y0, (180, 180))
    mixture = np.tensordot(spectra.PAN_WEIGHTS, truth[:3], 1)
    c = acq.conditions
    assert spectra.PAN_WEIGHTS.sum() == pytest.approx(1)
    assert toa.mean() == pytest.approx(c.pan_path + c.pan_transmission * mixture.mean(), rel=0.05)
    # finer than the 30 m bands: it holds detail that a 30 m mean of it loses
    mean = toa.reshape(60, 2, 60, 2).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    assert (toa - mean).std() > 0.15 * toa.std()


def test_the_perfect_observation_is_closer_to_truth_than_any_pass():
    for acq in clear(SENTINEL, haze=True)[:5]:
        truth = SIMULATION.truth(acq.time, X0, Y0, (90, 90))
        best = SIMULATION.sentinel2(acq.time, X0, Y0, (90, 90))
        assert best.dtype == np.float32
        assert best.shape == truth.shape
        for b in range(3):
            seen = SIMULATION.render(acq, BANDS[b], X0, Y0, (90, 90)) * 1e-4 - 0.1
            assert np.sqrt(np.mean((best[b] - truth[b]) ** 2)) < np.sqrt(np.mean((seen - truth[b]) ** 2))


@settings(max_examples=60, deadline=None)
@given(sigma=st.floats(3, 20), shift=st.floats(-25, 25))
def test_a_kernel_keeps_all_energy_where_the_shift_says(sigma, shift):
    first, weights = kernel(sigma, shift)
    assert sum(weights) == 1.0
    assert min(weights) >= 0
    centres = (first + np.arange(len(weights)) + 0.5) * 5
    centroid = float(np.dot(centres, weights))
    assert centroid == pytest.approx(shift, abs=0.05)
    spread = float(np.dot((centres - centroid) ** 2, weights)) ** 0.5
    assert spread == pytest.approx((sigma**2 + 25 / 12) ** 0.5, rel=0.02)


def test_a_point_keeps_its_energy_and_its_place_through_the_optics():
    surface = np.zeros((120, 120), np.float32)
    surface[60, 50] = 1.0  # centre of this cell: 302.5 m down, 252.5 m right
    for step, sigma in ((2, 5.2), (4, 9.2), (6, 12.0)):
        n = 480 // (5 * step)
        seen = look(surface, 12 + step // 2, 12 + step // 2, step, (n, n), sigma, (0.0, 0.0))
        # a grid coarser than the PSF samples it unevenly; every position of the point together sees all of it
        assert seen.sum() * step**2 == pytest.approx(1.0, rel=0.25 if step == 6 else 0.12)
        rows = 60 + (np.arange(n) + 0.5) * 5 * step
        assert np.dot(seen.sum(1), rows) / seen.sum() == pytest.approx(302.5, abs=1.5)
        assert np.dot(seen.sum(0), rows) / seen.sum() == pytest.approx(252.5, abs=1.5)
    flat = np.full((120, 120), 0.25, np.float32)
    np.testing.assert_allclose(look(flat, 20, 20, 6, (12, 12), 12.0, (3.0, 1.0)), 0.25, rtol=1e-6)
    with pytest.raises(ValueError, match="larger margin"):
        look(flat, 2, 20, 6, (12, 12), 12.0, (0.0, 0.0))


def test_resampling_of_the_lattice():
    rng = np.random.default_rng(0)
    cells = rng.random((8, 12)).astype(np.float32)
    np.testing.assert_allclose(averaged(cells), cells.reshape(4, 2, 6, 2).mean((1, 3)), rtol=1e-6)
    ramp = np.add.outer(20.0 * np.arange(6), 20.0 * np.arange(5)).astype(np.float32)
    fine = doubled(ramp)
    expected = np.add.outer(10.0 * np.arange(12) - 5, 10.0 * np.arange(10) - 5)
    np.testing.assert_allclose(fine[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-4)
