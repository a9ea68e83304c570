"""Offsets judged by pixels: a simulated year whose flags lie, and honest ones that must raise no alarm."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.geom
import pystac
import pytest
from numpy.typing import NDArray

from marstfn.bands import BANDS
from marstfn.simulate import Simulation
from pipeline import audit, cube, job, overrides, planner
from pipeline import request as requests
from pipeline.events import Note
from pipeline.grid import Grid
from pipeline.plan import Plan, Radiometry, Scene
from pipeline.sensors import CLEAR, landsat_clear, sentinel2_clear, to_reflectance
from pipeline.store import INPUTS, Store
from tests.pipeline import small_store

SIDE = 48
"""Pixels of 10 m; a sample every 30 m."""
GRID = Grid(epsg=32650, left=697_200, top=5_455_200, columns=20, rows=20, tile_px=60)
Samples = tuple[NDArray[np.int16], NDArray[np.int16]]


@cache
def year(seed: int) -> tuple[Plan, Samples]:
    """A simulated year as it would be ingested: clouds that the masks miss, haze, noise, crops that are harvested."""
    simulation = Simulation(seed=seed, year=2023)
    scenes, found = [], {"sentinel2": [], "landsat8": []}
    rules = {}
    for acq in simulation.acquisitions():
        sensor = "landsat8" if acq.landsat else "sentinel2"
        specs = simulation.assets(acq)
        values = [_plane(simulation, acq, band, specs[band]) for band in BANDS]
        mask = _mask(simulation, acq, specs)
        stored = np.stack([np.rint(v * 1e4) for v in values])
        known = (mask == CLEAR) & np.isfinite(stored).all(0)
        found[sensor].append(np.where(known, stored, -9999).astype(np.int16).reshape(len(BANDS), -1))
        name = f"{acq.platform}-{acq.time:%Y%m%d}"
        scenes.append(_scene(sensor, acq.platform, acq.time, name))
        rules[name] = Radiometry(scale=1e-4, offset=-0.1, nodata=0, rule="processing baseline 05.09")
    plan = _plan(scenes, rules)
    order = [np.argsort([s.time for s in scenes if s.sensor == n], kind="stable") for n in found]
    parts = [np.stack(found[n])[o] for n, o in zip(found, order, strict=True)]
    return plan, (parts[0], parts[1])


def _plane(simulation: Simulation, acq: Any, key: str, spec: Any) -> NDArray[Any]:
    """(16, 16) the middle 10 m pixel of every 30 m; Landsat, whose corners lie 15 m off, at its own pixels."""
    left, top, n = 697_200.0, 5_455_200.0, SIDE * 10 // spec.resolution
    if spec.resolution == 30:
        left, top = left + 15, top - 15
    dn = simulation.render(acq, key, left, top, (n, n))
    if spec.dtype == "uint8" or key.startswith("qa"):
        return dn
    rule = Radiometry(scale=spec.scale, offset=spec.offset, nodata=spec.nodata, rule="")
    return _middles(to_reflectance(dn, rule), spec.resolution)


def _middles(values: NDArray[Any], resolution: int) -> NDArray[Any]:
    if resolution == 30:
        return values
    fine = np.repeat(np.repeat(values, resolution // 10, 0), resolution // 10, 1)
    return fine[1::3, 1::3]


def _mask(simulation: Simulation, acq: Any, specs: Any) -> NDArray[Any]:
    if acq.landsat:
        return landsat_clear(_plane(simulation, acq, "qa_pixel", specs["qa_pixel"]), resolution=30)
    clear = sentinel2_clear(_plane(simulation, acq, "scl", specs["scl"]), resolution=20)
    return _middles(clear, 20)


def _scene(sensor: str, platform: str, time: datetime, name: str) -> Scene:
    return Scene(sensor=sensor, platform=platform, time=time, day=time.date(), items=(name,))  # type: ignore[arg-type]


def _plan(scenes: list[Scene], rules: dict[str, Radiometry], **more: Any) -> Plan:
    return Plan(
        name="x", aoi={}, aoi_source="x", year=2023, grid=GRID, catalog="earth-search", items_sha256="0" * 64,
        scenes=tuple(sorted(scenes, key=lambda s: s.time)), radiometry=rules, weights=(), **more,
    )  # fmt: skip


def lying(samples: Samples, shifts: dict[int, float]) -> Samples:
    """The same year with these dates (of Sentinel-2) read with an offset that is off by so much."""
    sentinel2 = samples[0].copy()
    for k, shift in shifts.items():
        sentinel2[k][samples[0][k] != -9999] += np.int16(round(shift * 1e4))
    return sentinel2, samples[1]


def compared(samples: Samples, plan: Plan) -> list[int]:
    return [v.sentinel2 for v in audit.judge(plan, [samples], "x").verdicts if v.shift is not None]


@pytest.mark.parametrize("seed", [20, 3])
def test_an_honest_year_raises_no_alarm(seed: int) -> None:
    plan, samples = year(seed)
    found = audit.judge(plan, [samples], "x")
    assert len(compared(samples, plan)) >= 25
    assert [v for v in found.verdicts if v.wrong] == []
    assert len([v for v in found.landsat if v.shift is not None]) >= 10
    assert [v for v in found.landsat if v.wrong] == []
    assert found.warnings(plan) == ()
    # neither does it without Landsat, from the Sentinel-2 dates alone
    alone = audit.judge(plan, [(samples[0], np.full_like(samples[1], -9999))], "x")
    assert [v for v in alone.verdicts if v.wrong] == []


@pytest.mark.parametrize("shift", [0.1, -0.1])
def test_a_flag_that_lies_is_found_on_whichever_date_it_lies(shift: float) -> None:
    """But where the date itself stands off, by a cloud that no mask tells: it looks like neither then."""
    plan, samples = year(20)
    honest = {v.sentinel2: v.shift for v in audit.judge(plan, [samples], "x").verdicts if v.shift is not None}
    plain = [k for k, off in honest.items() if abs(off) < 0.03]
    assert len(plain) >= 0.9 * len(honest)
    for k in honest:
        verdicts = audit.judge(plan, [lying(samples, {k: shift})], "x").verdicts
        accused = [v.sentinel2 for v in verdicts if v.wrong]
        assert accused == [k] if k in plain else accused in ([], [k]), plan.of("sentinel2")[k].label
        assert verdicts[k].shift == pytest.approx(honest[k] + shift, abs=2e-4)  # both are rounded


def test_a_year_in_which_every_flag_lies_is_found_by_landsat() -> None:
    plan, samples = year(20)
    alike = dict.fromkeys(range(len(samples[0])), 0.1)
    found = audit.judge(plan, [lying(samples, alike)], "x").verdicts
    by_landsat = [v for v in found if v.basis == "landsat"]
    assert len(by_landsat) >= 20
    assert sum(v.wrong for v in by_landsat) >= 0.9 * len(by_landsat)


def test_every_third_flag_lies_and_the_others_are_not_accused() -> None:
    plan, samples = year(20)
    some = dict.fromkeys(range(0, len(samples[0]), 3), -0.1)
    lies = set(compared(samples, plan)) & set(some)
    wrong = {v.sentinel2 for v in audit.judge(plan, [lying(samples, some)], "x").verdicts if v.wrong}
    assert wrong <= lies
    assert len(wrong) >= 0.9 * len(lies)


def test_what_is_no_wrong_flag_is_not_taken_for_one() -> None:
    """Snow, green-up, half the offset, and a cloud that covers half the land."""
    plan, samples = year(20)
    (k, *_) = [v.sentinel2 for v in audit.judge(plan, [samples], "x").verdicts if v.pixels > 200]
    half = np.arange(samples[0].shape[2]) % 2 == 0
    changes = {
        "snow": ([0.5, 0.5, 0.5, 0.35, -0.1, -0.1], None),
        "green-up": ([-0.01, 0.0, -0.04, 0.15, -0.05, -0.08], None),
        "half": ([0.05] * 6, None),
        "twice": ([0.2] * 6, None),
        "cloud": ([0.2] * 6, half),
    }
    for name, (by_band, where) in changes.items():
        sentinel2 = samples[0].copy()
        there = (sentinel2[k, 0] != -9999) & (True if where is None else where)
        sentinel2[k][:, there] += np.rint(np.array(by_band) * 1e4).astype(np.int16)[:, None]
        assert not audit.judge(plan, [(sentinel2, samples[1])], "x").verdicts[k].wrong, name


@pytest.mark.parametrize("shift", [0.2, -0.2])
def test_a_landsat_date_without_its_offset_is_found_and_nobody_else_is_accused(shift: float) -> None:
    plan, (sentinel2, landsat) = year(20)
    honest = {v.sentinel2: v.shift for v in audit.judge(plan, [(sentinel2, landsat)], "x").landsat if v.pixels > 60}
    plain = [k for k, off in honest.items() if abs(off) < 0.025]
    assert len(plain) >= 5
    for k in plain:
        lies = landsat.copy()
        lies[k][landsat[k] != -9999] += np.int16(round(shift * 1e4))
        found = audit.judge(plan, [(sentinel2, lies)], "x")
        assert [v.sentinel2 for v in found.landsat if v.wrong] == [k]
        assert [v for v in found.verdicts if v.wrong] == []
    (text,) = found.warnings(plan)
    assert f"about 0.2 too {'bright' if shift > 0 else 'dark'} in all bands" in text
    assert "from the Sentinel-2 dates around it" in text
    assert f"={1e-4:g},{-0.1 - shift:g}" in text


@pytest.mark.parametrize("by_landsat", [True, False])
def test_of_a_mosaic_the_item_is_found(by_landsat: bool) -> None:
    """One of two items of a date lies; the date as a whole is uneven and says nothing."""
    plan, (sentinel2, landsat) = year(20)
    if not by_landsat:
        landsat = np.full_like(landsat, -9999)
    k = max(audit.judge(plan, [(sentinel2, landsat)], "x").verdicts, key=lambda v: v.pixels).sentinel2
    mosaic = plan.of("sentinel2")[k].model_copy(update={"items": ("A", "B")})
    rules = {**plan.radiometry, **dict.fromkeys("AB", Radiometry(scale=1e-4, offset=0.0, nodata=0, rule="flag"))}
    scenes = tuple(mosaic if s is plan.of("sentinel2")[k] else s for s in plan.scenes)
    plan = plan.model_copy(update={"scenes": scenes, "radiometry": rules})
    whose = np.full(sentinel2.shape[::2], -1, np.int8)
    whose[k] = np.arange(sentinel2.shape[2]) % 2
    for lying, name in ((None, ""), (0, "A"), (1, "B")):
        read = sentinel2.copy()
        if lying is not None:
            read[k, :, (whose[k] == lying) & (sentinel2[k, 0] != -9999)] += 1000
        found = audit.judge(plan, [(read, landsat)], "x", [whose])
        assert {v.item: v.wrong for v in found.items} == {"A": name == "A", "B": name == "B"}
        texts = found.warnings(plan)
        assert len(texts) == (lying is not None)
        assert all(f"item {name} is about 0.1 too bright" in t and f"{name}=0.0001,-0.1" in t for t in texts)
        assert (f"; {name}: offset wrong" in found.texts[mosaic.label]) is (lying is not None)


def test_a_sample_belongs_to_the_first_item_over_it() -> None:
    tile = GRID.tile(0, 1)
    box = tile.geobox(10)
    left, bottom, right, top = box.boundingbox

    def piece(name: str, west: float, east: float) -> pystac.Item:
        outline = odc.geo.geom.box(west, bottom - 99, east, top + 99, box.crs).to_crs("EPSG:4326")
        return pystac.Item(name, outline.json, None, datetime(2023, 5, 1, tzinfo=UTC), {})

    third = (right - left) / 3
    items = {"A": piece("A", left + third, left + 2 * third), "B": piece("B", left - 99, left + 2 * third)}
    scenes = [
        Scene(sensor="sentinel2", platform="s", time=datetime(2023, 5, d, tzinfo=UTC), day=date(2023, 5, d), items=i)
        for d, i in ((1, ("A", "B")), (6, ("A",)))
    ]
    found = audit.owners(_plan(scenes, {}), tile, items)
    assert found.shape == (2, 400)
    columns = found[0].reshape(20, 20)
    assert (columns == np.repeat([1, 0, -1], [7, 6, 7])).mean() > 0.9, "UTM's edges are not quite straight in degrees"
    assert (found[1] == -1).all(), "a date of one item is judged as a whole"


def small(offset: float, items: tuple[str, ...] = ("S2B_33UXP_20250302_0_L2A",)) -> tuple[Plan, Samples]:
    """Three dates of bare soil, the middle one read with `offset` off."""
    start = datetime(2023, 5, 1, tzinfo=UTC)
    scenes = [
        Scene(
            sensor="sentinel2", platform="sentinel-2b", time=start + timedelta(5 * k),
            day=date(2023, 5, 1) + timedelta(5 * k), items=items if k == 1 else (f"S{k}",),
        )
        for k in range(3)
    ]  # fmt: skip
    rule = Radiometry(scale=1e-4, offset=0.0, nodata=0, rule="boa_offset_applied is true")
    plan = _plan(scenes, {i: rule for s in scenes for i in s.items})
    rng = np.random.default_rng(1)
    soil = np.array([800, 1000, 1300, 1800, 2400, 2000])[None, :, None] + rng.integers(-150, 150, (3, 6, 200))
    soil[1] += round(offset * 1e4)
    return plan, (soil.astype(np.int16), np.empty((0, 6, 200), np.int16))


def test_the_warning_names_item_found_expected_and_remedy() -> None:
    plan, samples = small(0.1)
    (text,) = audit.judge(plan, [samples], "x").warnings(plan)
    for word in (
        "S2B_33UXP_20250302_0_L2A", "too bright", "offset 0 was used (boa_offset_applied is true)", "-0.1 is expected",
        "+0.1", "another --store", "--radiometry S2B_33UXP_20250302_0_L2A=0.0001,-0.1",
    ):  # fmt: skip
        assert word in text, word
    # and the remedy is what the parameter takes
    override = overrides.parse(text.rsplit("--radiometry ", 1)[1])
    assert (override.scale, override.offset) == (1e-4, -0.1)


def test_too_dark_and_several_items_of_one_date() -> None:
    plan, samples = small(-0.1, ("A", "B"))
    found = audit.judge(plan, [samples], "x")
    (text,) = found.warnings(plan)
    assert "one or more of A, B" in text
    assert "too dark" in text
    assert "--radiometry A=0.0001,0.1 --radiometry B=0.0001,0.1" in text
    assert found.verdicts[1].negative > 0.9
    assert "offset wrong" in found.verdicts[1].text


def test_too_little_clear_is_no_verdict() -> None:
    plan, (sentinel2, landsat) = small(0.1)
    sentinel2[1, :, 30:] = -9999
    verdict = audit.judge(plan, [(sentinel2, landsat)], "x").verdicts[1]
    assert (verdict.shift, verdict.wrong, verdict.pixels) == (None, False, 0)


def test_verdicts_are_kept(tmp_path: Any) -> None:
    plan, samples = small(0.1)
    found = audit.judge(plan, [samples], "fingerprint")
    store = Store(str(tmp_path))
    assert audit.read(store) is None
    audit.write(store, found)
    assert audit.read(store) == found


def test_both_sensors_are_sampled_at_the_same_places_and_where_clear(tmp_path: Any) -> None:
    store, plan = small_store.write(tmp_path)
    whole = {name: np.asarray(cube.array(store, INPUTS, name)[:]) for name in ("sentinel2/red", "sentinel2/clear")}
    whole |= {name: np.asarray(cube.array(store, INPUTS, name)[:]) for name in ("landsat8/red", "landsat8/clear")}
    tile = plan.grid.tile(0, 1)
    fine, coarse = audit.sample_tile(plan, store, tile)
    assert fine.shape == (len(plan.of("sentinel2")), 6, 400)
    assert coarse.shape == (len(plan.of("landsat8")), 6, 400)
    for name, found, middle, step in (("sentinel2", fine, 1, 3), ("landsat8", coarse, 0, 1)):
        roi = tile.roi(10 if name == "sentinel2" else 30)
        red, clear = (
            whole[f"{name}/{v}"][(slice(None), *roi)][:, middle::step, middle::step] for v in ("red", "clear")
        )
        want = np.where(clear == 1, red, -9999).reshape(len(found), -1)
        assert (found[:, 2] == want).all()
    assert (fine == -9999).any()
    assert len(audit.looked_at(list(range(30)))) == audit.TILES  # type: ignore[arg-type]


@pytest.mark.server
def test_a_run_warns_of_an_item_whose_flag_lies_and_its_table_says_so(catalogue: Any, tmp_path: Path) -> None:
    """One item of the served season is read with the offset of another processing."""
    base: dict[str, Any] = {"aoi": str(catalogue.aoi), "catalog": catalogue.catalog, "method": "bicubic", "year": 2023}
    honest, frozen = planner.make_plan(requests.make(**base))
    events: list[Any] = []
    seen = {i for s in honest.of("sentinel2") for i in s.items}
    item = min((i for i in frozen if i.id in seen), key=lambda i: i.properties["eo:cloud_cover"]).id
    request = requests.make(**base, store=str(tmp_path / "run"), radiometry=[f"{item}=0.0001,0"], registration=False)
    job.run(request, events.append)
    warnings = [e.text for e in events if isinstance(e, Note) and e.kind == "warning"]
    kept = audit.read(Store(str(tmp_path / "run")))
    assert kept is not None
    (mine,) = [v for v in kept.verdicts if v.label.endswith(str(next(s.day for s in honest.scenes if item in s.items)))]
    assert any(item in text and "too bright" in text for text in warnings)
    assert mine.shift == pytest.approx(0.1, abs=0.03)
    assert [v.label for v in kept.verdicts if v.wrong] == [mine.label]
    table = json.loads((tmp_path / "run/report/scenes.json").read_text())["sentinel2"]
    (row,) = [r for r in table if item in r["items"]]
    assert "given by the user" in row["radiometry"][0]
    assert "offset wrong" in row["audit"]
