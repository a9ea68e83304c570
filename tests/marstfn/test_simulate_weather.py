"""The simulated year and its skies: passes, clouds, shadows, and masks that err as stated."""

import math
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest

from marstfn.simulate import Simulation, Style
from marstfn.simulate.phenology import snow_cover
from marstfn.simulate.year import sun

X0, Y0 = 500040, 5400000


@pytest.mark.parametrize("year", [2023, 2024])
@pytest.mark.parametrize("seed", range(6))
def test_the_calendar_is_that_of_the_satellites(seed, year):
    passes = Simulation(seed, year).acquisitions()
    assert passes == Simulation(seed, year).acquisitions()
    landsat = [a.time for a in passes if a.landsat]
    sentinel = [a for a in passes if not a.landsat]
    assert len(landsat) >= 22
    assert len(sentinel) >= 73
    assert {round((b - a) / timedelta(days=1)) for a, b in pairwise(landsat)} == {16}
    times = [a.time for a in sentinel]
    assert {round((b - a) / timedelta(days=1)) for a, b in pairwise(times)} == {5}
    assert {a.sensor for a in sentinel[0::2]} != {a.sensor for a in sentinel[1::2]}
    assert Counter(a.sensor for a in sentinel).most_common()[-1][1] >= 36
    assert len({a.scene_id for a in passes}) == len(passes)
    times = [a.time for a in passes]
    assert times == sorted(times)
    assert all(t.tzinfo is UTC and t.year == year for t in times)
    assert all(a.sun_elevation > 5 for a in passes)
    assert all(f"{a.time:%Y%m%d}" in a.scene_id for a in passes)


@pytest.mark.parametrize("epsg", [32601, 32631, 32660, 32733])
def test_passes_fall_in_the_morning_wherever_the_zone_lies(epsg):
    passes = Simulation(1, 2024, epsg).acquisitions()
    assert {a.time.year for a in passes} == {2024}
    middle = (6 * (epsg % 100) - 183) / 15
    local = [(a.time.hour + a.time.minute / 60 + middle) % 24 for a in passes]
    assert 10.3 < min(local) < max(local) < 10.9


def test_sun_stands_where_the_almanac_puts_it():
    # equinox noon: elevation is 90 degrees less the latitude, azimuth due south
    elevation, azimuth = sun(49.2, datetime(2024, 3, 21), 12.0)
    assert elevation == pytest.approx(40.8, abs=0.7)
    assert azimuth == pytest.approx(180, abs=0.1)
    morning, east = sun(49.2, datetime(2024, 6, 21), 9.0)
    assert 40 < morning < 55
    assert 90 < east < 130
    assert sun(49.2, datetime(2024, 12, 21), 10.5)[0] < 18


@pytest.mark.parametrize("seed", range(4))
def test_clouds_cover_a_third_to_three_fifths_of_the_year_over_a_small_area(seed):
    simulation = Simulation(seed, 2024)
    share = np.array([simulation.sky(a, X0, Y0, (50, 50), 60).cloudy.mean() for a in simulation.acquisitions()])
    assert 0.35 <= share.mean() <= 0.60
    assert (share < 0.01).sum() >= 20
    assert (share > 0.99).sum() >= 15
    landsat = np.array([a.landsat for a in simulation.acquisitions()])
    assert (share[landsat] < 0.1).sum() >= 5


def test_every_style_that_training_draws_is_35_to_60_percent_cloudy():
    rng = np.random.default_rng(2)
    for seed in range(3):
        simulation = Simulation(seed, 2023, style=Style.varied(rng))
        share = [simulation.sky(a, X0, Y0, (25, 25), 120).cloudy.mean() for a in simulation.acquisitions()]
        assert 0.35 <= np.mean(share) <= 0.60


@pytest.fixture(scope="module")
def skies():
    simulation = Simulation(1, 2024)
    partly = [a for a in simulation.acquisitions() if 0 < a.conditions.cover < 1]
    return simulation, [(a, simulation.sky(a, X0, Y0, (250, 250), 120)) for a in partly]


def test_cover_is_what_the_conditions_say(skies):
    _, views = skies
    expected = np.array([a.conditions.cover for a, _ in views])
    found = np.array([s.cloudy.mean() for _, s in views])
    assert abs(found.mean() - expected.mean()) < 0.05
    assert np.corrcoef(found, expected)[0, 1] > 0.9


def test_masks_err_at_the_stated_rates(skies):
    simulation, views = skies
    missed = sum((s.cloudy & ~s.says_cloud).sum() for _, s in views) / sum(s.cloudy.sum() for _, s in views)
    clear = [~s.cloudy & ~s.shaded for _, s in views]
    wrong = sum((s.says_cloud & c).sum() for (_, s), c in zip(views, clear, strict=True)) / sum(c.sum() for c in clear)
    assert missed == pytest.approx(simulation.style.omission, rel=0.2)
    assert wrong == pytest.approx(simulation.style.commission, rel=0.2)
    # what is missed is thin
    opacity = np.concatenate([s.cloud[s.cloudy & ~s.says_cloud] for _, s in views])
    assert np.median(opacity) < 0.6 * np.median(np.concatenate([s.cloud[s.cloudy] for _, s in views]))


def test_clouds_hang_together_over_kilometres(skies):
    _, views = skies
    for acq, above in views:
        if acq.conditions.kind == "stratus" and 0.3 < acq.conditions.cover < 0.7:
            depth = above.cloud - above.cloud.mean()
            near = (depth[:, 10:] * depth[:, :-10]).mean() / depth.var()  # 1.2 km apart
            assert near > 0.4


def test_shadows_fall_away_from_the_sun(skies):
    simulation, views = skies
    acq = next(a for a, _ in views if a.conditions.kind == "cumulus" and 0.2 < a.conditions.cover < 0.6)
    side = 30
    above = simulation.sky(acq, X0, Y0, (300, 300), side)
    reach = acq.conditions.cloud_height / math.tan(math.radians(acq.sun_elevation))
    azimuth = math.radians(acq.sun_azimuth)
    # a cloud at (row, column) shades the ground away from the sun
    down = round(reach * math.cos(azimuth) / side)
    right = round(-reach * math.sin(azimuth) / side)
    under = above.shaded | above.cloudy
    moved = np.zeros_like(under)
    rows = slice(max(down, 0), 300 + min(down, 0))
    columns = slice(max(right, 0), 300 + min(right, 0))
    moved[rows, columns] = above.cloudy[
        slice(max(-down, 0), 300 + min(-down, 0)), slice(max(-right, 0), 300 + min(-right, 0))
    ]
    inside = np.zeros_like(under)
    inside[rows, columns] = True
    assert above.shaded.mean() > 0.02
    assert under[moved & inside].mean() > 0.98
    # and nothing else is shaded
    assert not (above.shaded & inside & ~moved)[5:-5, 5:-5].mean() > 0.01


def test_quality_words_and_classes_say_what_the_mask_says(skies):
    simulation, views = skies
    landsat = next(a for a, _ in views if a.landsat and a.conditions.kind != "cirrus" and a.conditions.cover > 0.3)
    landsat = replace(landsat, conditions=replace(landsat.conditions, gap=False))
    qa = simulation.render(landsat, "qa_pixel", X0 - 15, Y0 - 15, (100, 100))
    above = simulation.sky(landsat, X0 - 15, Y0 - 15, (100, 100), 30)
    bit = {n: (qa >> n & 1).astype(bool) for n in range(16)}
    np.testing.assert_array_equal(bit[3], above.says_cloud)
    np.testing.assert_array_equal(bit[4], above.says_shadow & ~above.near_cloud)
    np.testing.assert_array_equal(bit[1], above.near_cloud)
    np.testing.assert_array_equal(bit[6], ~(above.says_cloud | above.near_cloud))
    assert not bit[0].any()
    assert (bit[8][bit[3]] & bit[9][bit[3]]).all()  # cloud of high confidence
    assert (bit[10][bit[4]] & bit[11][bit[4]]).all()
    sentinel = next(
        a for a, _ in views if not a.landsat and a.conditions.kind != "cirrus" and 0.2 < a.conditions.cover < 0.7
    )
    sentinel = replace(sentinel, conditions=replace(sentinel.conditions, gap=False))
    scl = simulation.render(sentinel, "scl", X0, Y0, (150, 150))
    above = simulation.sky(sentinel, X0, Y0, (150, 150), 20)
    np.testing.assert_array_equal(np.isin(scl, (8, 9)), above.says_cloud)
    assert set(np.unique(scl)) <= {2, 3, 4, 5, 6, 7, 8, 9}
    assert {4, 5} & set(np.unique(scl))


def test_cirrus_is_called_cirrus(skies):
    simulation, views = skies
    for sensor, asset in (("landsat-8", "qa_pixel"), ("sentinel-2a", "scl")):
        acq = next(a for a, _ in views if a.sensor == sensor)
        acq = replace(acq, conditions=replace(acq.conditions, kind="cirrus", cover=0.8, gap=False))
        corner = X0 + simulation.assets(acq)[asset].corner_modulo, Y0 + simulation.assets(acq)[asset].corner_modulo
        numbers = simulation.render(acq, asset, *corner, (60, 60))
        assert simulation.sky(acq, *corner, (60, 60), simulation.assets(acq)[asset].resolution).says_cloud.any()
        assert (numbers >> 2 & 1).any() if asset == "qa_pixel" else (numbers == 10).any()


def test_haze_brightens_the_blue_and_no_mask_knows():
    simulation = Simulation(1, 2024)
    acq = next(a for a in simulation.acquisitions() if a.landsat and a.conditions.cover == 0)
    thin = replace(acq, conditions=replace(acq.conditions, haze=0.0, gap=False))
    hazy = replace(acq, conditions=replace(acq.conditions, haze=0.2, gap=False))
    at = (X0 - 15, Y0 - 15, (60, 60))
    gains = [
        float((simulation.render(hazy, b, *at).astype(float) - simulation.render(thin, b, *at)).mean() * 2.75e-5)
        for b in ("blue", "green", "red", "swir22")
    ]
    assert gains[0] > 0.01
    assert gains[0] > gains[1] > gains[2] > gains[3] - 1e-3
    np.testing.assert_array_equal(simulation.render(hazy, "qa_pixel", *at), simulation.render(thin, "qa_pixel", *at))


def test_snow_lies_only_where_asked_for_and_only_in_winter():
    snowy = Style(snow=0.6)
    winter = [snow_cover(1, datetime(2024, 1, 1) + timedelta(d), snowy) for d in range(366)]
    assert max(winter[:60]) > 0.5
    assert max(winter[80:320]) == 0
    assert snow_cover(1, datetime(2024, 1, 10), Style.default()) == 0
    simulation = Simulation(1, 2024, style=snowy)
    acq = next(
        a
        for a in simulation.acquisitions()
        if not a.landsat and snow_cover(1, a.time.date(), snowy) > 0.6 and a.conditions.cover < 1
    )
    acq = replace(acq, conditions=replace(acq.conditions, cover=0.0, gap=False))
    assert (simulation.render(acq, "scl", X0, Y0, (60, 60)) == 11).mean() > 0.3


def test_scenes_differ_in_registration_and_radiometry_as_the_style_says():
    passes = [a for seed in range(8) for a in Simulation(seed, 2024).acquisitions()]
    style = Style.default()
    for landsat, shift in ((True, style.shift_oli), (False, style.shift_msi)):
        mine = [a.conditions for a in passes if a.landsat is landsat]
        assert np.std([c.shift_x for c in mine]) == pytest.approx(shift, rel=0.15)
        assert np.std([c.gain[0] for c in mine]) == pytest.approx(style.gain, rel=0.15)
        assert np.mean([c.gain[4] for c in mine]) == pytest.approx(1 + (style.oli_swir if landsat else 0), abs=0.005)
    assert 0.2 < np.mean([a.conditions.haze > 0 for a in passes]) < 0.4
