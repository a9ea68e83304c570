"""A Landsat scene beside its place is moved, one far off is masked, and the cube says what was done."""

from __future__ import annotations

import dataclasses
from datetime import date
from functools import lru_cache

import numpy as np
import pystac
import pytest
import xarray as xr

from marstfn import scenes
from marstfn.bands import BANDS
from marstfn.registration import Measure, Refusal
from marstfn.simulate import Acquisition, Simulation, Style
from pipeline import checks, cube, harmonise, items, job, ledger, publish, registration, workers
from pipeline.fuse import fuse_tile
from pipeline.grid import Grid
from pipeline.harmonise import Harmonisation, fit_scenes
from pipeline.ingest import ingest_fingerprint
from pipeline.pairing import pair
from pipeline.plan import Options, Plan, Scene
from pipeline.registered import Registered
from pipeline.shifts import SceneShift
from pipeline.store import FUSED, INPUTS, ITEMS, PLAN, Store

GRID = Grid(32650, 600_000, 5_400_000, 40, 40, 240)
QUIET = Style(
    cloudiness=0.2, shift_msi=0.01, shift_oli=0.01, gain=0.0, offset=0.0, oli_swir=0.0, greenness=0.0, structure=0.0,
    haze=0.0, gaps=0.0, omission=0.0,
)  # fmt: skip
SIMULATION = Simulation(36, 2022, 32650, QUIET)


@lru_cache
def passes() -> tuple[tuple[Acquisition, ...], tuple[Acquisition, ...]]:
    """Two clear Landsat passes of the summer with Sentinel-2 a day off, and Sentinel-2 within six days of them."""
    every = [a for a in SIMULATION.acquisitions() if 6 <= a.time.month <= 8 and a.cloud_cover < 10]

    def away(a: Acquisition, b: Acquisition) -> int:
        return abs((a.time.date() - b.time.date()).days)

    others = [a for a in every if not a.landsat]
    landsat = [a for a in every if a.landsat and any(away(a, b) == 1 for b in others)][:2]
    return tuple(landsat), tuple(a for a in others if any(away(a, b) <= 6 for b in landsat))


def make_plan(grid: Grid = GRID, pan: bool = False, **options: object) -> Plan:
    landsat, sentinel2 = passes()
    made = [
        Scene(
            sensor="landsat8" if a.landsat else "sentinel2", platform=a.sensor, time=a.time, day=a.time.date(),
            items=(a.scene_id,), pan_items=(f"{a.scene_id}-pan",) if pan and a.landsat else (),
        )
        for a in sorted([*landsat, *sentinel2], key=lambda a: a.time)
    ]  # fmt: skip
    return Plan(
        name="test", aoi={"type": "Polygon", "coordinates": [ring(grid)]}, aoi_source="test", year=2022, grid=grid,
        catalog="simulated@http://127.0.0.1:9", scenes=tuple(made), radiometry={}, weights=(),
        options=Options(**{"method": "additive", "threads": 1, "bandpass": False} | options),
        items_sha256=items.sha256(pystac.ItemCollection([])), simulated=True,
    )  # fmt: skip


def ring(grid: Grid) -> list[list[float]]:
    box = grid.geobox(60).geographic_extent.buffer(0.01).boundingbox
    xs, ys = (box.left, box.right), (box.bottom, box.top)
    return [[xs[i], ys[j]] for i, j in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]


def shifted(acq: Acquisition, east: float, north: float) -> Acquisition:
    """The pass with what it shows displaced: it looks the other way."""
    conditions = dataclasses.replace(acq.conditions, shift_x=-east, shift_y=-north)
    return dataclasses.replace(acq, conditions=conditions)


@lru_cache
def landsat_image(k: int, east: float, north: float) -> tuple[np.ndarray, np.ndarray]:
    return scenes.landsat(SIMULATION, shifted(passes()[0][k], east, north), GRID.left, GRID.top, GRID.shape(10))


@lru_cache
def sentinel2_image(k: int) -> np.ndarray:
    return scenes.sentinel2(SIMULATION, passes()[1][k], GRID.left, GRID.top, GRID.shape(10))


def filled(folder, plan: Plan, *shifts: tuple[float, float]) -> Store:
    """A store with the inputs of the plan, its Landsat dates displaced by `shifts` (east, north)."""
    store = Store(str(folder))
    cube.create_inputs(plan, store)
    coarse = [landsat_image(k, *s) for k, s in enumerate(shifts)]
    planes = {
        "landsat8": [c for c, _ in coarse],
        "sentinel2": [sentinel2_image(k) for k in range(len(passes()[1]))],
    }
    for group, images in planes.items():
        for band, name in enumerate(BANDS):
            cube.array(store, INPUTS, f"{group}/{name}", "r+")[:] = cube.pack(np.stack([i[band] for i in images]))
        clear = np.stack([np.where(np.isnan(i[0]), 2, 1) for i in images]).astype(np.uint8)
        cube.array(store, INPUTS, f"{group}/clear", "r+")[:] = clear
    if plan.has_pan:
        cube.array(store, INPUTS, "landsat8_pan/pan", "r+")[:] = cube.pack(np.stack([p[0] for _, p in coarse]))
    return store


def measured(plan: Plan, store: Store) -> tuple[SceneShift, ...]:
    found = [registration.measure_tile(plan, store, plan.grid.tile(*at)) for at in registration.windows(plan)]
    return registration.decide(plan, found)


def fused(plan: Plan, store: Store, shifts: tuple[SceneShift, ...]) -> dict[str, np.ndarray]:
    cube.create_fused(plan, store)
    times = {s: [x.time for x in plan.of(s)] for s in ("landsat8", "sentinel2")}
    pairs = pair(times["landsat8"], times["sentinel2"], [1.0] * len(times["sentinel2"]), plan.options)
    cube.set_shifts(plan, store, shifts)
    for tile in plan.grid.tiles():
        fuse_tile(plan, store, tile, Harmonisation("x", False, (), shifts), pairs)
    return {n: np.asarray(cube.array(store, FUSED, n)[:]) for n in (*BANDS, "quality")}


def rmse(plan: Plan, out: dict[str, np.ndarray], index: int) -> float:
    """Of a Landsat date against what a perfect Sentinel-2 would have seen that day."""
    scene = plan.of("landsat8")[index]
    k = plan.scenes.index(scene)
    truth = SIMULATION.sentinel2(scene.time, plan.grid.left, plan.grid.top, plan.grid.shape(10))
    made = np.stack([out[n][k] for n in BANDS]) * 1e-4
    return float(np.sqrt(np.mean((made - truth)[:, np.isin(out["quality"][k], cube.FUSED_PIXELS)] ** 2)))


def shift(index: int, decision: str, east: float = 0.0, north: float = 0.0) -> SceneShift:
    return SceneShift(index, f"scene {index}", decision, "because", east, north, 0.3, 4000, 1)  # type: ignore[arg-type]


def test_a_scene_8_m_off_is_measured_moved_and_fused_better(tmp_path):
    plan = make_plan()
    store = filled(tmp_path / "one", plan, (0.3, 0.2), (6.4, -4.8))
    straight, off = measured(plan, store)
    assert straight.decision == "left"
    assert off.decision == "corrected"
    assert np.hypot(off.east - 6.4, off.north + 4.8) < 1
    assert off.error < 1
    raw = fused(plan, store, ())
    moved = fused(plan, filled(tmp_path / "two", plan, (0.3, 0.2), (6.4, -4.8)), (straight, off))
    clean = fused(plan, filled(tmp_path / "three", plan, (0.3, 0.2), (0.0, 0.0)), ())
    before, after, without = (rmse(plan, out, 1) for out in (raw, moved, clean))
    print(f"RMSE of the additive method: {before:.5f} as it lay, {after:.5f} moved, {without:.5f} never off")
    assert without < before
    assert after - without < 0.15 * (before - without)
    # the other date was left alone, to the bit
    k = plan.scenes.index(plan.of("landsat8")[0])
    assert all((raw[n][k] == moved[n][k]).all() for n in raw)


@pytest.mark.parametrize("south", [False, True])
def test_signs_are_of_the_map_on_both_sides_of_the_equator(south, tmp_path):
    """East is to higher columns, north to lower rows, whatever the zone counts from."""
    grid = dataclasses.replace(GRID, epsg=32750) if south else GRID
    store = filled(tmp_path, make_plan(grid), (9.0, 0.0), (0.0, 9.0))
    east, north = measured(make_plan(grid), store)
    assert (east.east, east.north) == pytest.approx((9, 0), abs=1)
    assert (north.east, north.north) == pytest.approx((0, 9), abs=1)


def test_a_scene_far_off_is_masked_from_the_measure_to_the_report(tmp_path, monkeypatch, caplog):
    plan = make_plan()
    store = filled(tmp_path, plan, (0.0, 0.0), (26.0, 14.0))
    store.write(PLAN, plan.model_dump_json().encode())
    store.write(ITEMS, b'{"type": "FeatureCollection", "features": []}')
    days = len(plan.of("sentinel2"))
    for tile in plan.tiles:
        stats = {"sentinel2": [[100, 0, 0]] * days}
        ledger.write(store, ledger.Record("ingest", tile.name, ingest_fingerprint(plan, tile), {}, stats))

    def here(client, stage, function, tiles, arguments, **_):
        return [function(t.row, t.col, *arguments) for t in tiles], []

    monkeypatch.setattr(job, "map_tiles", here)
    monkeypatch.setattr(job, "reading", lambda client: "IO")
    events = []
    made = job.Job(plan, store, {})
    monkeypatch.setattr("pipeline.cluster.described", lambda client: [])
    with caplog.at_level("INFO"):
        result = job.harmonise(made, None, events.append)
        job.fuse(made, None, events.append)
    good, bad = result.shifts
    assert (good.decision, bad.decision) == ("left", "rejected")
    assert "beyond 15 m" in bad.reason
    told = [e.text for e in events if getattr(e, "kind", "") == "warning"]
    assert len(told) == 1
    assert bad.label in told[0]
    assert bad.label in caplog.text
    assert harmonise.read(store) == result
    assert workers.harmonised(plan, store) == result
    ds = xr.open_zarr(store.zarr(FUSED))
    at = {s.items: k for k, s in enumerate(plan.scenes)}
    kept, masked = (at[s.items] for s in plan.of("landsat8"))
    assert set(np.unique(ds.quality[masked])) == {4}
    assert np.isnan(ds.blue[masked]).all()
    assert np.isin(ds.quality[kept].values, cube.FUSED_PIXELS).any()
    assert ds.shift_east.attrs["units"] == "m"
    assert ds.shift_east.dtype == np.float32
    assert ds.blue.shift_east[masked] == pytest.approx(26, abs=1.5)
    assert ds.shift_north[masked] == pytest.approx(14, abs=1.5)
    assert str(ds.registration[masked].values).startswith("rejected: ")
    others = [k for k in range(len(plan.scenes)) if k not in (kept, masked)]
    assert np.isnan(ds.shift_east[others]).all()
    assert set(ds.registration[others].values.tolist()) == {""}
    landsat, _ = publish.rows(plan, publish.tally(store, plan), result)
    assert landsat[1].registration == bad.text
    assert landsat[1].shift_east == bad.east
    assert landsat[1].masked_percent == 100
    assert "shift_east" in publish.scenes_csv(landsat).splitlines()[0]
    # a second run measures nothing again
    events.clear()
    assert job.harmonise(made, None, events.append) == result
    assert not [e for e in events if getattr(e, "stage", "") == "register"]


def test_tiles_show_no_border_where_a_date_is_moved(tmp_path):
    outs = []
    for side in (60, 240):
        plan = make_plan(dataclasses.replace(GRID, tile_px=side), stride=42)
        shifts = (shift(0, "corrected", 9.0, -7.0), shift(1, "corrected", -3.3, 12.0))
        outs.append(fused(plan, filled(tmp_path / str(side), plan, (9.0, -7.0), (0.0, 0.0)), shifts))
    for name, values in outs[0].items():
        assert (values == outs[1][name]).all(), name


def test_a_window_reads_as_the_whole_does_and_keeps_the_mask(tmp_path):
    plan = make_plan(pan=True)
    store = filled(tmp_path, plan, (5.0, 5.0), (0.0, 0.0))
    mask = cube.array(store, INPUTS, "landsat8/clear", "r+")
    mask[0, 20:30, 20:40] = 2
    shifts = (shift(0, "corrected", 5.0, 5.0), shift(1, "left", 1.0, 0.0))
    whole = Registered(plan, store, plan.grid.window, shifts)
    part = plan.grid.window.padded(-12)
    cut = Registered(plan, store, part, shifts)
    plain = Registered(plan, store, part)
    for index in (0, 1):
        (rows, cols), (sharp_rows, sharp_cols) = part.roi(30), part.roi(15)
        np.testing.assert_array_equal(cut.clear(index), whole.clear(index)[rows, cols])
        np.testing.assert_array_equal(cut.reflectance(index), whole.reflectance(index)[:, rows, cols])
        np.testing.assert_array_equal(cut.pan(index), whole.pan(index)[:, sharp_rows, sharp_cols])
        clear = cut.clear(index) == 1
        assert (np.isfinite(cut.reflectance(index)[0]) == clear).all()
        assert (np.isfinite(cut.pan(index)[0]) == np.repeat(np.repeat(clear, 2, 0), 2, 1)).all()
    np.testing.assert_array_equal(cut.reflectance(1), plain.reflectance(1))
    assert np.nanmax(np.abs(cut.reflectance(0) - plain.reflectance(0))) > 0.01


def found(east: float, north: float, error: float = 0.5, pixels: int = 3000) -> Measure:
    return Measure(east, north, (error**2, 0.0, error**2), pixels, 0.9)


@pytest.mark.parametrize(
    ("said", "decision", "why"),
    [
        ([found(1.2, 1.0)], "left", "1.6 m"),
        ([found(3.0, 0.0, 2.0)], "left", "standard error 2.0 m"),
        ([found(3.0, 0.0)], "corrected", "3.0 m"),
        ([found(14.8, 0.0)], "corrected", "14.8 m"),
        ([found(15.8, 0.0)], "corrected", "15.8 m"),
        ([found(17.0, 0.0)], "rejected", "beyond 15 m"),
        ([found(40.0, 0.0, 0.5, 600)], "unmeasured", "600 pixels of 2000 needed"),
        ([found(8.0, 0.0, 4.0)], "unmeasured", "standard error 4.0 m"),
        ([Refusal("12 pixels"), Refusal("12 pixels"), Refusal("fog")], "unmeasured", "12 pixels"),
        ([], "unmeasured", "no window"),
        ([found(*p) for p in ((30, 0), (-30, 0), (0, 30), (0, -30), (0, 0))], "rejected", "80% of 5 windows"),
        ([found(5.0, 1.0), found(5.2, 0.8), found(4.9, 1.1), Refusal("fog")], "corrected", "5.1 m"),
        ([found(5.0, 1.0), found(5.2, 0.8), found(4.9, 1.1), found(-40, 20)], "corrected", "5.1 m"),
    ],
)
def test_decisions_are_bounded_and_say_why(said, decision, why):
    plan = make_plan()
    shifts = registration.decide(plan, [{0: s} for s in said])
    assert len(shifts) == 2
    assert shifts[0].decision == decision, shifts[0]
    assert why in shifts[0].reason
    assert shifts[1].decision == "unmeasured"
    assert (shifts[0].off is not None) == (decision == "corrected")


@pytest.mark.parametrize("tile_px", [60, 240, 480, 1440])
def test_windows_are_few_large_enough_and_apart(tile_px):
    plan = make_plan(Grid(32650, 600_000, 5_400_000, 640, 320, tile_px))
    chosen = registration.windows(plan)
    assert 6 <= len(chosen) <= registration.WINDOWS
    taken = np.zeros((320, 640), int)
    for (row, col), window in chosen.items():
        taken[window.row0 : window.row1, window.col0 : window.col1] += 1
        assert 40 <= window.row1 - window.row0 <= 120
        assert 40 <= window.col1 - window.col0 <= 120
        assert plan.grid.tile(row, col) in plan.tiles
    assert taken.max() == 1


def test_a_small_area_is_one_window():
    plan = make_plan(dataclasses.replace(GRID, tile_px=60))
    (window,) = registration.windows(plan).values()
    assert window == plan.grid.window


def test_the_fingerprint_follows_the_option_and_the_bounds(monkeypatch):
    plan = make_plan()
    base = harmonise.harmonise_fingerprint(plan, ["a"])
    assert harmonise.harmonise_fingerprint(make_plan(registration=False), ["a"]) != base
    monkeypatch.setattr(registration, "LEAST_SHIFT", 3.0)
    assert harmonise.harmonise_fingerprint(plan, ["a"]) != base


def test_shifts_come_back_from_the_store_and_wrong_ones_in_the_cube_are_told(tmp_path):
    plan, store = make_plan(), Store(str(tmp_path))
    shifts = (shift(0, "corrected", 3.0, 4.0), SceneShift(1, "scene 1", "unmeasured", "fog"))
    kept = fit_scenes(plan, [], "id", shifts)
    harmonise.write(store, kept)
    assert harmonise.read(store) == kept
    cube.create_fused(plan, store)
    cube.set_shifts(plan, store, shifts)
    expected = cube.shift_values(plan, shifts)

    def told() -> list[str]:
        with xr.open_zarr(store.zarr(FUSED)) as ds:
            return [str(f) for f in checks.registration(FUSED, {n: ds[n].values for n in expected}, expected)]

    assert told() == []
    cube.array(store, FUSED, "shift_east", "r+")[:] = 7.0
    assert len(told()) == 1
    assert "shift_east" in told()[0]
    cube.set_shifts(plan, store, shifts)
    assert told() == []
    assert isinstance(plan.scenes[0].day, date)
