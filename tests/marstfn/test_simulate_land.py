"""The simulated land: one plane, whatever window of it is asked for."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marstfn.simulate import Simulation, Style
from marstfn.simulate.hashing import draw, key, mixed, normal, uniform
from marstfn.simulate.noise import field, fractal, quantile
from marstfn.simulate.parcels import divided
from marstfn.simulate.phenology import CROPS, crop_of, states

X0, Y0 = 500040, 5400000
SUMMER = date(2023, 7, 20)
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    """Truth of 90 x 100 px, to compare windows with."""
    return Simulation(3, 2023).truth(SUMMER, X0, Y0, (90, 100))


@QUICK
@given(row=st.integers(0, 80), column=st.integers(0, 90), ny=st.integers(1, 40), nx=st.integers(1, 40))
def test_a_window_is_the_window_of_a_larger_render(whole, row, column, ny, nx):
    ny, nx = min(ny, 90 - row), min(nx, 100 - column)
    part = Simulation(3, 2023).truth(SUMMER, X0 + 10 * column, Y0 - 10 * row, (ny, nx))
    np.testing.assert_array_equal(part, whole[:, row : row + ny, column : column + nx])


def test_a_scene_in_several_pieces_equals_its_tiles():
    simulation, shape = Simulation(3, 2023), (30, 810)  # more than two pieces wide
    scene = simulation.truth(SUMMER, X0, Y0, shape)
    tiles = [simulation.truth(SUMMER, X0 + 10 * c, Y0, (30, 90)) for c in range(0, 810, 90)]
    np.testing.assert_array_equal(np.concatenate(tiles, axis=2), scene)


def test_the_perfect_observation_does_not_depend_on_the_window_either():
    simulation = Simulation(3, 2023)
    scene = simulation.sentinel2(SUMMER, X0, Y0, (40, 40))
    for row, column in ((0, 0), (7, 13), (8, 12)):  # odd and even places on the 20 m grid
        part = simulation.sentinel2(SUMMER, X0 + 10 * column, Y0 - 10 * row, (20, 20))
        np.testing.assert_array_equal(part, scene[:, row : row + 20, column : column + 20])


def test_south_of_the_equator_and_west_of_zero_is_land_too():
    simulation = Simulation(3, 2023, 32733)
    scene = simulation.truth(SUMMER, -120, -60, (30, 30))
    assert np.isfinite(scene).all()
    np.testing.assert_array_equal(simulation.truth(SUMMER, -20, -160, (5, 5)), scene[:, 10:15, 10:15])


def test_another_process_without_vector_units_makes_the_same_land(whole):
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    vector = " ".join(f for f in __cpu_dispatch__ if __cpu_features__.get(f))
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": vector} if vector else dict(os.environ)
    code = (
        "import sys, datetime, numpy as np; from marstfn.simulate import Simulation;"
        f"t = Simulation(3, 2023).truth(datetime.date(2023, 7, 20), {X0}, {Y0}, (90, 100));"
        "sys.stdout.buffer.write(np.ascontiguousarray(t).tobytes())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, timeout=120, env=environment
    ).stdout
    np.testing.assert_array_equal(np.frombuffer(out, np.float32).reshape(whole.shape), whole)


def test_seeds_and_styles_make_different_land(whole):
    other = Simulation(4, 2023).truth(SUMMER, X0, Y0, (90, 100))
    assert abs(np.corrcoef(other[3].ravel(), whole[3].ravel())[0, 1]) < 0.2
    style = Style.varied(np.random.default_rng(1))
    assert not np.array_equal(Simulation(3, 2023, style=style).truth(SUMMER, X0, Y0, (90, 100)), whole)


def test_reflectance_is_that_of_farmland():
    scenes = np.stack(
        [Simulation(s, 2023).truth(date(2023, m, 15), X0, Y0, (120, 120)) for s in range(4) for m in (2, 5, 7, 10)]
    )
    assert scenes.dtype == np.float32
    assert scenes.min() > 0
    assert scenes.max() < 0.75
    red, nir = scenes[:, 2], scenes[:, 3]
    ndvi = (nir - red) / (nir + red)
    low, middle, high = np.quantile(ndvi, [0.05, 0.5, 0.95])
    assert 0.1 < low < 0.3 < middle < 0.8 < high < 0.93
    # median band by band within what clear Belgian farmland shows over a year
    typical = np.median(scenes, axis=(0, 2, 3))
    assert ((typical > [0.025, 0.05, 0.03, 0.2, 0.13, 0.08]) & (typical < [0.08, 0.1, 0.11, 0.4, 0.27, 0.2])).all()


def test_harvest_and_mowing_are_abrupt_and_growth_is_not():
    simulation, first = Simulation(3, 2023), date(2023, 4, 1)
    days = [simulation.truth(first + timedelta(d), X0, Y0, (30, 30)) for d in range(214)]
    ndvi = np.stack([(t[3] - t[2]) / (t[3] + t[2]) for t in days])
    step = np.diff(ndvi, axis=0)
    assert (step < -0.2).any(axis=0).mean() > 0.1  # within a day
    assert (step > 0.12).any(axis=0).mean() < 0.01  # nothing grows like that
    assert np.median(np.abs(step)) < 0.01


def test_a_parcel_has_one_harvest_and_keeps_its_crop_until_then():
    parcels = mixed(9, np.arange(3000))
    style = Style.default()
    crop = crop_of(parcels, 2023, style)
    green = np.stack([states(parcels, date(2023, 1, 1) + timedelta(d), style).green for d in range(240, 345)])
    beet = green[:, crop == CROPS.index("beet")]
    assert (np.diff(beet, axis=0) < -0.4).sum(axis=0).max() == 1
    shares = np.bincount(crop, minlength=len(CROPS)) / len(parcels)
    wheat, grass = CROPS.index("winter wheat"), CROPS.index("grassland")
    assert abs(shares[wheat] - style.crops[wheat]) < 0.04
    assert abs(shares[grass] - style.crops[grass]) < 0.04


def test_crops_rotate_but_the_year_turns_smoothly():
    parcels = mixed(9, np.arange(3000))
    style = Style.default()
    assert (crop_of(parcels, 2023, style) != crop_of(parcels, 2024, style)).mean() > 0.5
    old, new = (states(parcels, day, style) for day in (date(2023, 12, 31), date(2024, 1, 1)))
    jump = np.abs(new.green - old.green)
    assert np.median(jump) < 0.02
    assert (jump > 0.1).mean() < 0.03


def test_covers_are_shares():
    parcels = mixed(1, np.arange(2000))
    for doy in range(0, 365, 7):
        now = states(parcels, date(2023, 1, 1) + timedelta(doy), Style.default())
        assert now.green.min() >= 0
        assert now.dry.min() >= 0
        assert (now.green + now.dry).max() <= 1


def test_truth_takes_the_utc_day():
    simulation = Simulation(3, 2023)
    late = datetime(2023, 7, 21, 1, tzinfo=timezone(timedelta(hours=8)))
    same = datetime(2023, 7, 20, 17, tzinfo=UTC)
    np.testing.assert_array_equal(simulation.truth(late, X0, Y0, (6, 6)), simulation.truth(same, X0, Y0, (6, 6)))


def test_parcels_have_the_size_asked_for():
    x, y = 500000 + 5.0 * np.arange(800), 5400000 - 5.0 * np.arange(800)
    for size in (80.0, 240.0):
        division = divided(5, x, y, Style(parcel=size))
        _, counts = np.unique(division.parcel, return_counts=True)
        # the parcel that a random place lies in: borders cut some to slivers
        side = np.sqrt(np.average(counts, weights=counts)) * 5
        assert 0.8 < side / size < 1.8


def test_hashing_is_even_and_repeats_itself():
    u = uniform(mixed(7, np.arange(200)[:, None], np.arange(500)[None, :]))
    assert abs(u.mean() - 0.5) < 0.005
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(np.corrcoef(u[:, :-1].ravel(), u[:, 1:].ravel())[0, 1]) < 0.01
    z = normal(mixed(7, np.arange(100000)))
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.01
    assert key(1, "clouds") != key(2, "clouds") != key(2, "noise")
    # what a seed stands for is part of the format: these numbers may not change unnoticed
    assert mixed(1, np.arange(3)).tolist() == [4245456706, 3056294360, 816811397]
    assert (key(5, "rain"), key(-1, 2**40)) == (215177354, 3002299102)
    assert draw(5, "rain") == pytest.approx(0.40804672)


def test_fields_have_unit_variance_and_known_quantiles():
    x, y = 1300.0 * np.arange(300), -1700.0 * np.arange(300)
    f = field(3, x, y, 1000.0)
    assert abs(f.mean()) < 0.03
    assert abs(f.std() - 1) < 0.03
    weights = (1.0, 0.7, 0.3)
    g = fractal(3, x, y, (1000.0, 300.0, 90.0), weights)
    for p in (0.05, 0.5, 0.9):
        assert abs((g < quantile(weights, p)).mean() - p) < 0.02


@pytest.mark.parametrize(
    "wrong",
    [{"psf_oli": 0.0}, {"cloudiness": 47.0}, {"crops": (1.0,)}, {"parcel": 2.0}],
    ids=lambda w: next(iter(w)),
)
def test_a_style_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Style(**wrong)


def test_held_back_styles_lie_outside_the_training_ranges():
    from marstfn.simulate import HELD_BACK, VARIED

    rng = np.random.default_rng(0)
    for name, ranges in HELD_BACK.items():
        ((low, high),) = VARIED[name]
        assert all(b < low or a > high for a, b in ranges), name
        for _ in range(20):
            value = getattr(Style.held_back(rng), name)
            assert any(a <= value <= b for a, b in ranges)
            assert not low <= value <= high
    drawn = Style.varied(np.random.default_rng(4))
    assert drawn == Style.varied(np.random.default_rng(4)) != Style.varied(np.random.default_rng(5))
    assert VARIED["parcel"][0][0] <= drawn.parcel <= VARIED["parcel"][0][1]
    assert abs(sum(drawn.crops) - 1) < 0.01
