"""Shifts are measured to a metre or two through clouds, changes and radiometric errors, or not at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from marstfn import scenes
from marstfn.consensus import pooled
from marstfn.observe import MARGIN, View
from marstfn.observe import landsat as observed
from marstfn.registration import LEAST_PIXELS, Measure, Refusal, measure
from marstfn.simulate import Simulation, Style
from marstfn.surveys import survey

SEEDS = (1, 2, 3)
SIDE = 240


def parcels(seed: int, side: int = SIDE) -> np.ndarray:
    """(side, side) numbers of parcels of about 110 m that lie on no lattice: edges that all meet the pixels alike would
    alias alike."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, side, (side * side // 120, 2))
    return cKDTree(centres).query(np.indices((side, side)).reshape(2, -1).T)[1].reshape(side, side)


def land(seed: int, side: int = SIDE) -> np.ndarray:
    """(6, side, side) reflectance at 10 m of parcels with some texture."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(size=(6, side * side // 120))
    texture = gaussian_filter(rng.normal(size=(6, side, side)), (0, 1.5, 1.5))
    return (0.2 + 0.03 * levels[:, parcels(seed, side)] + 0.03 * texture).astype(np.float32)


def views(seed: int, east: float, north: float) -> tuple[np.ndarray, np.ndarray]:
    """Landsat (6, h, w) that lies `east`, `north` metres off, and Sentinel-2 (6, 3h, 3w)."""
    rng = np.random.default_rng(seed)
    fine = land(seed, SIDE + 2 * MARGIN)
    gain, offset = rng.normal(1, 0.04, 6), rng.normal(0, 0.01, 6)
    view = View(9.0, east, north, tuple(gain), tuple(offset), noise=0.003)
    coarse, _ = observed(fine, view, rng)
    seen = gaussian_filter(fine, (0, 0.5, 0.5)) + rng.normal(0, 0.003, fine.shape).astype(np.float32)
    return coarse, seen[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def off(found: Measure | Refusal, east: float, north: float) -> float:
    assert isinstance(found, Measure), found
    return math.hypot(found.east - east, found.north - north)


@pytest.mark.parametrize(
    ("east", "north"), [(0.0, 0.0), (3.0, 0.0), (0.0, 3.0), (-7.0, 5.0), (12.0, -9.0), (-20.0, -20.0)]
)
def test_a_known_shift_is_found_with_its_signs(east, north):
    found = measure(*views(1, east, north))
    assert off(found, east, north) < 0.7
    assert found.error < 1


@pytest.mark.parametrize("epsg", [32650, 32750])
def test_simulated_passes_are_measured_through_clouds_and_harvest(epsg):
    """North and south of the equator: Landsat's own error less the reference's, the other way round, for a sensor that
    looks east of its place shows all things west of theirs."""
    errors = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        simulation = Simulation(100 + seed, 2022, epsg, Style.held_back(rng))
        y0 = 5_400_000 if epsg < 32700 else 4_600_020
        for case in survey(simulation, rng, 600_000, y0, (SIDE, SIDE), gaps=((1, 12), (13, 40))):
            found = measure(case.landsat, case.sentinel2)
            if isinstance(found, Refusal):
                continue
            errors.append(off(found, case.east, case.north))
    print(f"EPSG:{epsg}, {len(errors)} pairs: median {np.median(errors):.2f} m, largest {max(errors):.2f} m")
    assert len(errors) >= 4
    assert np.median(errors) < 1
    assert max(errors) < 2


def test_half_the_land_under_cloud_and_a_third_of_it_changed():
    coarse, fine = views(2, 6.0, -4.0)
    rng = np.random.default_rng(0)
    whole = parcels(2, SIDE + 2 * MARGIN)
    mown = (rng.random(whole.max() + 1) < 0.33)[whole][MARGIN:-MARGIN, MARGIN:-MARGIN]
    changed = mown[1::3, 1::3]
    coarse[:, changed] += rng.normal(0, 0.08, (6, 1)).astype(np.float32)
    fine[:, : SIDE // 2, 60:] = np.nan
    coarse[:, 50:, :20] = np.nan
    assert off(measure(coarse, fine), 6.0, -4.0) < 2


def test_what_a_mask_hides_tells_nothing():
    coarse, fine = views(3, 4.0, 4.0)
    coarse[:, 20:40, 30:50] = np.nan
    fine[:, 150:200, 20:90] = np.nan
    before = measure(coarse, fine)
    assert measure(coarse, fine) == before
    # Landsat's own pixels under Sentinel-2's hole may hold anything
    coarse[:, 50:66, 7:29] = 0.9
    assert measure(coarse, fine) == before


def test_refused_where_there_is_nothing_to_tell():
    coarse, fine = views(4, 5.0, 0.0)
    few = np.array(coarse)
    few[:, :, 12:] = np.nan
    few[:, 30:] = np.nan
    refusal = measure(few, fine)
    assert isinstance(refusal, Refusal)
    assert f"{LEAST_PIXELS} needed" in refusal.reason
    # still water, and another place altogether
    rng = np.random.default_rng(1)
    flat = [0.05 + rng.normal(0, 0.003, a.shape).astype(np.float32) for a in (coarse, fine)]
    assert isinstance(measure(*flat), Refusal)
    assert isinstance(measure(coarse, land(99)), Refusal)
    constant = [np.full_like(a, 0.1) for a in (coarse, fine)]
    assert isinstance(measure(*constant), Refusal)
    with pytest.raises(ValueError, match="3 x 3 times"):
        measure(coarse, fine[:, :-3])


def test_stripes_tell_one_direction_and_are_refused():
    stripes = np.tile(land(5)[:, :1], (1, SIDE, 1))
    coarse = stripes.reshape(6, SIDE // 3, 3, SIDE // 3, 3).mean((2, 4))
    assert isinstance(measure(coarse, stripes), Refusal)


def test_windows_agree_and_one_that_errs_is_outvoted():
    sure = [Measure(5.0 + d, -3.0 - d, (0.25, 0.0, 0.25), 5000, 0.9) for d in (-0.4, 0.0, 0.2, 0.2)]
    lost = Measure(38.0, 22.0, (0.25, 0.0, 0.25), 900, 0.4)
    shift = pooled([*sure, lost])
    assert math.hypot(shift.east - 5, shift.north + 3) < 0.5
    assert shift.apart[-1] > 35
    assert max(shift.apart[:-1]) < 1
    assert shift.windows == 5
    alone = pooled(sure[:1])
    assert (alone.east, alone.north, alone.error) == pytest.approx((4.6, -2.6, 0.5))


def test_windows_that_disagree_raise_the_error():
    near = [Measure(float(e), 0.0, (0.04, 0.0, 0.04), 5000, 0.9) for e in (2.0, 2.1, 1.9, 2.0)]
    torn = [Measure(float(e), 0.0, (0.04, 0.0, 0.04), 5000, 0.9) for e in (-4.0, 8.0, -5.0, 9.0)]
    assert pooled(near).error < 0.2
    assert pooled(torn).error > 1.5
    with pytest.raises(ValueError, match="no window"):
        pooled([])


def test_the_survey_knows_both_errors():
    simulation = Simulation(7, 2022, 32650, Style.default())
    rng = np.random.default_rng(7)
    case = next(iter(survey(simulation, rng, 600_000, 5_400_000, (60, 60), gaps=((0, 60),))))
    by_time = {a.time: a.conditions for a in simulation.acquisitions()}
    own, other = by_time[case.day], by_time[case.reference_day]
    assert case.east == pytest.approx(other.shift_x - own.shift_x)
    assert case.north == pytest.approx(other.shift_y - own.shift_y)
    same, _ = scenes.landsat(simulation, next(a for a in simulation.acquisitions() if a.time == case.day),
                             600_000, 5_400_000, (60, 60))  # fmt: skip
    np.testing.assert_array_equal(case.landsat, same)
