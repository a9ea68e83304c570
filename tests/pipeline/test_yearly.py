"""Cases out of a year's input cube: what is truth there, what is kept from the methods, and what is said where none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pystac
import pytest
from scipy.ndimage import gaussian_filter

from marstfn.bands import BANDS
from marstfn.baselines import degrade
from pipeline import cube, harmonise, items, ledger, sampling, workers, yearly
from pipeline.errors import CubeError, PlanError, StoreError
from pipeline.grid import Grid
from pipeline.harmonise import harmonise_fingerprint
from pipeline.ingest import ingest_fingerprint
from pipeline.plan import Options, Plan, Scene
from pipeline.shifts import SceneShift
from pipeline.store import INPUTS, ITEMS, PLAN, Store
from pipeline.yearly import Draw, cases

START = datetime(2023, 5, 1, 2, 50, tzinfo=UTC)
LANDSAT, SENTINEL2 = (10, 26, 42), (0, 5, 10, 20, 31, 42, 50)
"""Days; 10 and 42 have both sensors."""
BOTH = {0: 2, 2: 5}
"""Index of the Landsat date and of its Sentinel-2 day."""


def scene(sensor: str, day: int) -> Scene:
    time = START + timedelta(days=day, minutes=15 * (sensor == "sentinel2"))
    pan = (f"pan{day}",) if sensor == "landsat8" else ()
    return Scene(sensor=sensor, platform=sensor, time=time, day=time.date(), items=(f"{sensor}{day}",), pan_items=pan)  # type: ignore[arg-type]


def make_plan(cells: int = 36, landsat: tuple[int, ...] = LANDSAT, **options: object) -> Plan:
    scenes = [scene("landsat8", d) for d in landsat] + [scene("sentinel2", d) for d in SENTINEL2]
    grid = Grid(32650, 600_000, 5_400_000, cells, cells, 108)
    return Plan(
        name="field", aoi=grid.geobox(10).geographic_extent.json, aoi_source="t", year=2023, grid=grid,
        catalog="simulated@http://127.0.0.1:9", scenes=tuple(sorted(scenes, key=lambda s: s.time)), radiometry={},
        weights=(), items_sha256=items.sha256(pystac.ItemCollection([])), simulated=True,
        options=Options(**{"threads": 1, "bandpass": False} | options),  # type: ignore[arg-type]
    )  # fmt: skip


def truth(plan: Plan, days: tuple[int, ...]) -> np.ndarray:
    """(6, days, H, W) reflectance of fields that drift over textured ground."""
    rng = np.random.default_rng(5)
    ny, nx = plan.grid.shape(10)
    base = np.array([0.05, 0.08, 0.09, 0.25, 0.2, 0.15])[:, None, None, None]
    base = base + 0.03 * gaussian_filter(rng.standard_normal((6, 1, ny, nx)), (0, 0, 1, 1))
    fields = np.kron(rng.standard_normal((-(-ny // 15), -(-nx // 15))), np.ones((15, 15)))[:ny, :nx]
    season = np.sin(np.asarray(days) / 40)[:, None, None]
    return np.asarray((base + 0.02 * fields * season).clip(0.01, 0.9), np.float32)


def put(store: Store, group: str, days: slice | int, images: np.ndarray) -> None:
    for image, name in zip(images, BANDS, strict=True):
        cube.array(store, INPUTS, f"{group}/{name}", "r+")[days] = np.rint(image * 1e4).astype(np.int16)


def write(folder: Path, plan: Plan | None = None, shifts: tuple[SceneShift, ...] = ()) -> tuple[Store, Plan]:
    """Inputs without cloud, Landsat 4 % too dark, with the ledger and the fits that the run itself would make."""
    plan, store = plan or make_plan(), Store(str(folder))
    store.write(PLAN, plan.model_dump_json().encode())
    store.write(ITEMS, json.dumps({"type": "FeatureCollection", "features": []}).encode())
    cube.create_inputs(plan, store)
    for group in ("sentinel2", "landsat8"):
        cube.array(store, INPUTS, f"{group}/clear", "r+")[:] = 1
    put(store, "sentinel2", slice(None), truth(plan, SENTINEL2))
    days = tuple((s.day - START.date()).days for s in plan.of("landsat8"))
    land = truth(plan, days)
    put(store, "landsat8", slice(None), np.stack([degrade(b) for b in land]) * 0.96)
    pan = land[:3].mean(0)[:, ::3, ::3].repeat(2, 1).repeat(2, 2)
    cube.array(store, INPUTS, "landsat8_pan/pan", "r+")[:] = np.rint(pan * 1e4).astype(np.int16)
    enter(plan, store)
    fit(plan, store, shifts)
    return store, plan


def enter(plan: Plan, store: Store) -> None:
    for tile in plan.tiles:
        stats = {"sentinel2": [[1, 0, 0]] * len(SENTINEL2), "landsat8": [[1, 0, 0]] * len(plan.of("landsat8"))}
        ledger.write(store, ledger.Record("ingest", tile.name, ingest_fingerprint(plan, tile), {}, stats))


def fit(plan: Plan, store: Store, shifts: tuple[SceneShift, ...] = ()) -> None:
    identity = harmonise_fingerprint(plan, [ingest_fingerprint(plan, t) for t in plan.tiles])
    samples = [sampling.sample_tile(plan, store, t, 2000, shifts) for t in plan.tiles]
    harmonise.write(store, harmonise.fit_scenes(plan, samples, identity, shifts))


def test_the_truth_is_sentinel_2_of_the_same_day_and_no_reference(tmp_path: Path) -> None:
    store, plan = write(tmp_path)
    found = list(cases(store, Draw(windows=2, side=108)))
    assert len(found) == 4
    images = truth(plan, SENTINEL2)
    for case in found:
        assert case.simulated
        assert case.data == "simulated: simulated@http://127.0.0.1:9"
        assert case.group == ("field 2023, Sentinel-2 of the same day withheld, references at least 1 day away")
        day, _, window = case.name.partition(", ")
        index = {"2023-05-11": 0, "2023-06-12": 2}[day]
        row, col = int(window[1:4]) * 108, int(window[5:8]) * 108
        place = slice(row, row + 108), slice(col, col + 108)
        np.testing.assert_allclose(case.view.truth, images[:, BOTH[index]][:, *place], atol=6e-5)
        np.testing.assert_allclose(case.view.reference.before, images[:, BOTH[index] - 1][:, *place], atol=6e-5)
        np.testing.assert_allclose(case.view.reference.after, images[:, BOTH[index] + 1][:, *place], atol=6e-5)
        assert case.scored.all()
        assert np.isfinite(case.view.pan).all()
        # the fit of other days has taken most of the 4 % back
        target = degrade(case.view.truth)
        assert np.abs(case.view.landsat - target).mean() < 0.6 * np.abs(target * 0.96 - target).mean()


def test_what_methods_see_does_not_hang_on_the_truth(tmp_path: Path) -> None:
    store, plan = write(tmp_path)
    draw = Draw(windows=1, side=108)
    before = list(cases(store, draw))
    for day in BOTH.values():
        put(store, "sentinel2", day, truth(plan, SENTINEL2)[:, day] * 1.08)
    fit(plan, store)
    after = list(cases(store, draw))
    assert [c.name for c in after] == [c.name for c in before]
    fits = workers.harmonised(plan, store)
    for a, b in zip(before, after, strict=True):
        assert not np.array_equal(a.view.truth, b.view.truth)
        assert np.array_equal(a.view.landsat, b.view.landsat)
        assert np.array_equal(a.view.s2, b.view.s2)
    # the store's own fit does lean on that day, which is why another is made
    blind = yearly.without(plan, store, fits, draw, yearly.drawn(plan, draw))
    assert fits.scenes[0].bands[3].gain > blind.scenes[0].bands[3].gain + 0.005


def test_a_plan_that_keeps_its_references_apart_has_its_own_fits(tmp_path: Path) -> None:
    store, plan = write(tmp_path, make_plan(min_reference_days=1))
    fits = workers.harmonised(plan, store)
    assert yearly.without(plan, store, fits, Draw(), yearly.drawn(plan, Draw(side=108))) is fits


def test_references_can_be_kept_farther_away(tmp_path: Path) -> None:
    store, _ = write(tmp_path)
    for case in cases(store, Draw(windows=1, side=108, apart=9)):
        nearest = min(case.view.reference.days_before.min(), case.view.reference.days_after.min())
        assert nearest >= 9
        assert "at least 9 days away" in case.group


def test_reduced_has_every_date_and_landsat_as_its_truth(tmp_path: Path) -> None:
    store, plan = write(tmp_path)
    found = list(cases(store, Draw("reduced", windows=1, side=36)))
    assert len(found) == len(LANDSAT)
    fits = workers.harmonised(plan, store)
    for case in found:
        assert "reduced resolution" in case.group
        assert case.view.truth.shape == (6, 36, 36)
        assert case.view.landsat.shape == (6, 12, 12)
        assert case.view.pan.shape == (1, 24, 24)
        np.testing.assert_allclose(case.view.landsat, degrade(case.view.truth), atol=1e-6)
    raw = np.stack([cube.array(store, INPUTS, f"landsat8/{b}")[1] for b in BANDS]).astype(np.float32) * np.float32(1e-4)
    row, col = (int(found[1].name[k : k + 3]) * 36 for k in (13, 17))
    expected = fits.apply(raw, 1)[:, row : row + 36, col : col + 36]
    np.testing.assert_allclose(found[1].view.truth, expected, atol=1e-6)


def test_the_same_windows_come_at_every_call_and_others_with_another_seed(tmp_path: Path) -> None:
    store, plan = write(tmp_path)
    first, second = ([c.name for c in cases(store, Draw(windows=1, side=54))] for _ in range(2))
    assert first == second
    drawn = {yearly.drawn(plan, Draw(windows=1, side=54, seed=s))[0].name for s in range(6)}
    assert len(drawn) > 2


def test_holes_stay_holes_and_cloud_is_told(tmp_path: Path) -> None:
    store, _ = write(tmp_path)
    cube.array(store, INPUTS, "landsat8/clear", "r+")[0, :6, :6] = 2
    cube.array(store, INPUTS, "sentinel2/clear", "r+")[2, 60:66, 60:66] = 2
    found = {c.name: c for c in cases(store, Draw(windows=4, side=108))}
    case = found["2023-05-11, r000c000"]
    assert np.isnan(case.view.landsat[:, :6, :6]).all()
    assert np.isnan(case.view.pan[:, :12, :12]).all()
    assert np.isnan(case.view.truth[:, 60:66, 60:66]).all()
    assert (~case.scored).sum() == 18 * 18 + 36


def test_a_year_without_a_case_says_how_many_dates_fail_on_which_ground(tmp_path: Path) -> None:
    store, _ = write(tmp_path)
    clear = cube.array(store, INPUTS, "sentinel2/clear", "r+")
    clear[2] = 2
    cube.array(store, INPUTS, "landsat8/clear", "r+")[2] = 2
    message = (
        "none of 3 Landsat dates gives a case under the protocol cross-sensor in 4 windows: 1 without Sentinel-2 of "
        "the same day; 1 Landsat under cloud; 1 Sentinel-2 of the same day under cloud"
    )
    with pytest.raises(CubeError, match=message):
        list(cases(store, Draw(side=108)))
    clear[:] = 2
    with pytest.raises(CubeError, match="1 Landsat under cloud; 2 without a clear reference of another day"):
        list(cases(store, Draw("reduced", side=36)))


def test_unalike_land_and_rejected_dates_are_told(tmp_path: Path) -> None:
    reason = "30 m off"
    shifts = tuple(
        SceneShift(k, f"landsat8 {d}", "rejected" if k == 0 else "left", reason) for k, d in enumerate(LANDSAT)
    )
    store, plan = write(tmp_path, shifts=shifts)
    put(store, "sentinel2", 5, truth(plan, SENTINEL2)[:, 5] + 0.2)
    with pytest.raises(
        CubeError, match=r"1 without Sentinel-2 of the same day; 1 Landsat rejected .*; 1 Landsat and Sent"
    ):
        list(cases(store, Draw(side=108)))


def test_a_plan_smaller_than_a_window_gives_a_smaller_one(tmp_path: Path) -> None:
    store, _ = write(tmp_path, make_plan(cells=15))
    assert {c.view.truth.shape for c in cases(store, Draw())} == {(6, 90, 90)}
    assert {c.view.truth.shape for c in cases(store, Draw("reduced"))} == {(6, 30, 30)}
    with pytest.raises(PlanError, match=r"no window of .* lies within field, whose plane has 48 x 48 px"):
        yearly.drawn(make_plan(cells=8), Draw("reduced"))


def test_a_folder_without_a_plan_or_without_fits_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no plan\.json"):
        cases(Store(str(tmp_path / "empty")))
    store, _ = write(tmp_path / "made")
    (tmp_path / "made" / harmonise.NAME).unlink()
    with pytest.raises(CubeError, match="run the harmonise stage first"):
        cases(store)


@pytest.mark.parametrize("options", [{"windows": 0}, {"side": 100}, {"side": 12}, {"apart": 0}, {"protocol": "wald"}])
def test_draws_that_make_no_window_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(PlanError, match=r"give at least one window|protocol wald is unknown"):
        Draw(**options)  # type: ignore[arg-type]
