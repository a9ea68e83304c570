"""Landsat is brought to Sentinel-2 where the pair speaks for it, and left alone where the land has changed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from marstfn.bands import BANDS
from pipeline import cube, harmonise
from pipeline.errors import CubeError
from pipeline.grid import Grid
from pipeline.harmonise import Fit, Harmonisation, fit_scenes
from pipeline.lines import LEAST_PIXELS, line
from pipeline.plan import Options, Plan, Scene
from pipeline.sampling import sample_tile
from pipeline.store import INPUTS, Store

START = datetime(2023, 5, 1, 2, 50, tzinfo=UTC)
LANDSAT = (2, 18, 34, 50, 66)
SENTINEL2 = tuple(range(0, 75, 5))


def make_plan(landsat=LANDSAT, sentinel2=SENTINEL2, **options) -> Plan:
    days = [("landsat8", d) for d in landsat] + [("sentinel2", d) for d in sentinel2]
    scenes = [
        Scene(
            sensor=s, platform=s, time=START + timedelta(days=d, minutes=15 * (s == "sentinel2")),
            day=date(2023, 5, 1) + timedelta(days=d), items=(f"{s}{d}",),
        )
        for s, d in days
    ]  # fmt: skip
    return Plan(
        name="test", aoi={}, aoi_source="test", year=2023, grid=Grid(32650, 600_000, 5_400_000, 20, 20, 60),
        catalog="simulated@http://127.0.0.1:9", scenes=tuple(sorted(scenes, key=lambda s: s.time)), radiometry={},
        weights=(), options=Options(**{"bandpass": False} | options), items_sha256="0" * 64,
    )  # fmt: skip


class Land:
    """A landscape at 30 m that drifts with time, seen by both sensors with noise, Landsat with errors of its own."""

    def __init__(self, plan: Plan, gain, offset, *, drift: float = 0.0, jumps: dict[int, float] | None = None):
        rng = np.random.default_rng(7)
        shape = plan.grid.shape(30)
        parcels = rng.normal(size=(6, *(-(-n // 6) for n in shape)))
        base = 0.2 + 0.06 * np.repeat(np.repeat(parcels, 6, 1), 6, 2)[:, : shape[0], : shape[1]]
        slope = rng.normal(size=(6, 1, 1)) * drift
        self.plan, self.truth = plan, {}
        for s in plan.scenes:
            day = (s.time - START).days
            value = base + slope * day + (jumps or {}).get(day, 0.0) * (base > 0.2)
            self.truth[s.items[0]] = value
        self.landsat, self.sentinel2 = [], []
        for i, s in enumerate(plan.of("landsat8")):
            true = self.truth[s.items[0]]
            g, o = np.asarray(gain(i)).reshape(-1, 1, 1), np.asarray(offset(i)).reshape(-1, 1, 1)
            self.landsat.append((true - o) / g + rng.normal(size=true.shape) * 0.004)
        for s in plan.of("sentinel2"):
            fine = np.repeat(np.repeat(self.truth[s.items[0]], 3, 1), 3, 2)
            self.sentinel2.append(fine + rng.normal(size=fine.shape) * 0.012)

    def store(self, folder, clouds: dict[int, tuple[slice, slice]] | None = None) -> Store:
        store = Store(str(folder))
        cube.create_inputs(self.plan, store)
        for band, name in enumerate(BANDS):
            for group, data in (("landsat8", self.landsat), ("sentinel2", self.sentinel2)):
                cube.array(store, INPUTS, f"{group}/{name}", "r+")[:] = cube.pack(
                    np.stack([d[band] for d in data]).astype(np.float32)
                )
        for group, data in (("landsat8", self.landsat), ("sentinel2", self.sentinel2)):
            clear = np.ones((len(data), *data[0].shape[1:]), np.uint8)
            for index, roi in (clouds or {}).items() if group == "sentinel2" else ():
                clear[(index, *roi)] = 2
            cube.array(store, INPUTS, f"{group}/clear", "r+")[:] = clear
        return store

    def errors(self, found: Harmonisation) -> tuple[float, float]:
        """RMSE of Landsat against the truth before and after, all dates and bands."""
        before, after = [], []
        for i, s in enumerate(self.plan.of("landsat8")):
            true = self.truth[s.items[0]]
            before.append(self.landsat[i] - true)
            after.append(found.apply(self.landsat[i].astype(np.float32), i) - true)
        return tuple(float(np.sqrt(np.mean(np.square(v)))) for v in (before, after))  # type: ignore[return-value]


def harmonised(land: Land, folder, **clouds) -> Harmonisation:
    store = land.store(folder, **clouds)
    samples = [sample_tile(land.plan, store, t, 1500) for t in land.plan.grid.tiles()]
    return fit_scenes(land.plan, samples, "id")


def test_errors_of_a_sensor_are_taken_out(tmp_path):
    gains = np.array([1.06, 1.0, 0.97, 1.03, 1.08, 0.95])
    land = Land(make_plan(), lambda i: gains, lambda i: [0.01, 0, -0.008, 0.005, 0.012, -0.01], drift=2e-4)
    found = harmonised(land, tmp_path)
    before, after = land.errors(found)
    print(f"Landsat against the truth: {before:.4f} before, {after:.4f} after")
    assert after < 0.6 * before
    assert after < 0.006
    assert {f.source for s in found.scenes for f in s.bands} == {"scene"}


def test_a_perfect_sensor_is_left_as_it_is(tmp_path):
    land = Land(make_plan(), lambda i: np.ones(6), lambda i: np.zeros(6), drift=2e-4)
    found = harmonised(land, tmp_path)
    assert max(abs(f.gain - 1) for s in found.scenes for f in s.bands) < 0.01
    before, after = land.errors(found)
    assert after < 1.05 * before


def test_an_event_on_the_land_is_not_taken_for_calibration(tmp_path):
    """Rain darkens half of the land on one Landsat date: the change stays in, the year's mean is applied."""
    land = Land(make_plan(), lambda i: np.ones(6), lambda i: np.zeros(6), jumps={34: -0.08})
    found = harmonised(land, tmp_path)
    changed = found.scenes[2].bands
    assert all(f.source == "year" for f in changed)
    assert all(f.reason for f in changed)
    raw, after = land.landsat[2].astype(np.float32), found.apply(land.landsat[2].astype(np.float32), 2)
    assert np.abs(after - raw).max() < 0.01


def test_one_date_is_drawn_towards_the_year_as_far_as_the_land_moved(tmp_path):
    """One date reads 3 % high. On still land most of it is seen; on land that moves fast it is not trusted."""
    taken = []
    for drift in (0.0, 4e-3):
        land = Land(make_plan(), lambda i: np.full(6, 1.03 if i == 2 else 1.0), lambda i: np.zeros(6), drift=drift)
        found = harmonised(land, tmp_path / str(drift))
        taken.append(np.mean([f.gain * 0.2 + f.offset - 0.2 for f in found.scenes[2].bands]) / 0.006)
    still, moving = taken
    assert 0.4 < still < 1.05
    assert moving < still


def test_few_pixels_are_refused_and_the_reason_says_so(tmp_path):
    land = Land(make_plan((2,)), lambda i: np.full(6, 1.05), lambda i: np.zeros(6))
    everywhere = (slice(None), slice(None))
    corner = (slice(12, None), slice(None))
    clouds = dict.fromkeys(range(len(SENTINEL2)), everywhere) | {0: corner, 1: corner}
    found = harmonised(land, tmp_path, clouds=clouds)
    (scene,) = found.scenes
    assert all(f.source == "none" and not f.applied for f in scene.bands)
    assert f"{LEAST_PIXELS} needed" in scene.bands[0].reason
    raw = land.landsat[0].astype(np.float32)
    assert (found.apply(raw, 0) == raw).all()


def test_the_day_that_must_not_be_the_reference_does_not_leak_in(tmp_path):
    """With min_reference_days 1 the same-day Sentinel-2 may hold anything: the fits do not change by a bit."""
    plan = make_plan((5, 20, 36), min_reference_days=1)
    outs = []
    for value in (None, 0.9):
        land = Land(plan, lambda i: np.full(6, 1.04), lambda i: np.full(6, 0.005), drift=2e-4)
        if value is not None:
            for i in (1, 4):  # days 5 and 20: seen by Landsat as well
                land.sentinel2[i][:] = value
        outs.append(harmonised(land, tmp_path / str(value)))
    assert outs[0] == outs[1]
    free = Land(make_plan((5, 20, 36)), lambda i: np.full(6, 1.04), lambda i: np.full(6, 0.005), drift=2e-4)
    assert harmonised(free, tmp_path / "free") != outs[0]


def test_noise_on_both_sides_does_not_flatten_the_gain():
    rng = np.random.default_rng(3)
    truth = rng.normal(0.2, 0.02, 4000)
    x = truth + rng.normal(0, 0.01, 4000)
    y = 1.05 * truth - 0.01 + rng.normal(0, 0.01, 4000)
    least_squares = np.polyfit(x, y, 1)[0]
    fitted = line(x, y)
    assert least_squares < 0.9
    assert abs(fitted.gain - 1.05) < 0.03
    assert abs(fitted.shift) < 0.002


def test_pixels_that_changed_are_trimmed():
    rng = np.random.default_rng(4)
    x = rng.normal(0.2, 0.03, 3000)
    y = 1.04 * x + 0.004 + rng.normal(0, 0.003, 3000)
    y[:600] -= 0.1
    fitted = line(x, y)
    assert abs(fitted.gain - 1.04) < 0.01
    assert abs(fitted.offset - 0.004) < 0.002
    assert 2300 < fitted.pixels <= 2400


def test_bandpass_comes_first_and_can_be_switched_off():
    oli = np.full((6, 2, 2), 0.2, np.float32)
    plain = Harmonisation("x", False, ())
    assert (plain.apply(oli, 0) == oli).all()
    shifted = Harmonisation("x", True, ()).apply(oli, 0)
    assert shifted[0, 0, 0] == pytest.approx((0.2 + 0.004) / 0.9778, abs=1e-5)
    fits = tuple(Fit(1.1, 0.01, "scene", "") for _ in BANDS)
    both = Harmonisation("x", True, (harmonise.SceneFit(0, "x", fits),)).apply(oli, 0)
    np.testing.assert_allclose(both, shifted * 1.1 + 0.01, rtol=1e-5)


def test_fits_come_back_from_the_store_as_they_were(tmp_path):
    land = Land(make_plan(), lambda i: np.full(6, 1.03), lambda i: np.zeros(6))
    found = harmonised(land, tmp_path)
    store = Store(str(tmp_path))
    harmonise.write(store, found)
    assert harmonise.read(store) == found
    store.write(harmonise.NAME, b"{")
    with pytest.raises(CubeError, match=r"harmonise.json.*delete it"):
        harmonise.read(store)


def test_without_the_check_only_the_bandpass_is_left():
    assert fit_scenes(make_plan(scene_check=False, bandpass=True), [], "id") == Harmonisation("id", True, ())
