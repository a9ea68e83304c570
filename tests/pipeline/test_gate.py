"""The gate on a store: places within the area, small answers, a decision that is kept and shapes what is fused."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pystac
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from scipy.ndimage import gaussian_filter

from marstfn.bands import BANDS
from marstfn.baselines import additive, degrade
from marstfn.gate import NAMES, QUARTERS
from marstfn.methods import Method
from pipeline import cluster, cube, gate, harmonise, items, job, ledger, workers
from pipeline.errors import CubeError
from pipeline.events import Note, StageDone
from pipeline.grid import Grid
from pipeline.harmonise import Harmonisation
from pipeline.ingest import ingest_fingerprint
from pipeline.pairing import Pair, pair
from pipeline.plan import Options, Plan, Scene, WeightsRef
from pipeline.store import FUSED, INPUTS, ITEMS, PLAN, Store
from pipeline.verify import verify

START = datetime(2023, 1, 2, 2, 50, tzinfo=UTC)
LANDSAT, SENTINEL2 = range(4, 340, 16), range(0, 350, 9)
PLAIN = Harmonisation("plain", False, ())


def scene(sensor: str, day: int) -> Scene:
    time = START + timedelta(days=day, minutes=15 * (sensor == "sentinel2"))
    platform = "landsat-8" if sensor == "landsat8" else "sentinel-2a"
    return Scene(sensor=sensor, platform=platform, time=time, day=date(2023, 1, 2) + timedelta(days=day),
                 items=(f"{sensor}{day}",))  # fmt: skip


def make_plan(cells: int = 60, rows: int | None = None, **options: object) -> Plan:
    scenes = [scene("landsat8", d) for d in LANDSAT] + [scene("sentinel2", d) for d in SENTINEL2]
    grid = Grid(32650, 600_000, 5_400_000, cells, rows or cells, 180)
    box = grid.geobox(10).geographic_extent.json
    return Plan(
        name="t", aoi=box, aoi_source="t", year=2023, grid=grid, catalog="simulated@http://127.0.0.1:9",
        scenes=tuple(sorted(scenes, key=lambda s: s.time)), radiometry={}, weights=(),
        items_sha256=items.sha256(pystac.ItemCollection([])),
        options=Options(**{"method": "auto", "threads": 1, "scene_check": False, "bandpass": False} | options),
        simulated=True,
    )  # fmt: skip


def truth(plan: Plan, days: range) -> np.ndarray:
    """Land whose texture stays, while fields drift through the year: (6, days, H, W) reflectance."""
    rng = np.random.default_rng(5)
    ny, nx = plan.grid.shape(10)
    base = 0.15 + 0.03 * gaussian_filter(rng.standard_normal((6, 1, ny, nx)), (0, 0, 1, 1))
    fields = np.kron(rng.standard_normal((-(-ny // 15), -(-nx // 15))), np.ones((15, 15)))[:ny, :nx]
    season = np.sin(np.asarray(days) / 40)[:, None, None]
    return (base + 0.05 * fields * season).clip(0.01, 0.9).astype(np.float32)


def write(folder: Path, plan: Plan, haze: float = 0.0) -> tuple[Store, tuple[Pair, ...]]:
    """Inputs without cloud, Landsat off by up to `haze` from date to date, with their ledger."""
    store = Store(str(folder))
    store.write(PLAN, plan.model_dump_json().encode())
    store.write(ITEMS, json.dumps({"type": "FeatureCollection", "features": []}).encode())
    cube.create_inputs(plan, store)
    rng = np.random.default_rng(1)
    for group, days in (("sentinel2", SENTINEL2), ("landsat8", LANDSAT)):
        cube.array(store, INPUTS, f"{group}/clear", "r+")[:] = 1
        images = truth(plan, days)
        if group == "landsat8":
            off = rng.normal(0, haze, (1, len(days), 1, 1)) + rng.normal(0, 0.002, (6, len(days), 1, 1))
            images = np.stack([degrade(image) for image in images]) + off
        for image, name in zip(images, BANDS, strict=True):
            cube.array(store, INPUTS, f"{group}/{name}", "r+")[:] = np.rint(image * 1e4).astype(np.int16)
    for tile in plan.tiles:
        stats = {"sentinel2": [[1, 0, 0]] * len(SENTINEL2), "landsat8": [[1, 0, 0]] * len(LANDSAT)}
        ledger.write(store, ledger.Record("ingest", tile.name, ingest_fingerprint(plan, tile), {}, stats))
    times = {s: [x.time for x in plan.of(s)] for s in ("landsat8", "sentinel2")}
    return store, pair(times["landsat8"], times["sentinel2"], [1.0] * len(SENTINEL2), plan.options)


def good(s2, landsat, pan, context=None):
    """A network that is the additive method to the last bit."""
    return np.stack([additive(a, b) for a, b in zip(s2, landsat, strict=True)])


def bad(s2, landsat, pan, context=None):
    """A network that sees parcels where there are none."""
    waves = np.sin(np.arange(s2.shape[-1], dtype=np.float32) / 3) * np.float32(0.05)
    return good(s2, landsat, pan) + waves


def sentinel2_alone(s2, landsat, pan, context=None):
    return np.array(s2)


def decided(folder: Path, plan: Plan, network: Method, haze: float = 0.0) -> gate.Decision:
    store, found = write(folder, plan, haze)
    offered = {False: network}
    judged = [gate.judge_place(plan, store, place, PLAIN, found, offered) for place in gate.places(plan)]
    assert max(len(pickle.dumps(j)) for j in judged) < 50_000
    return gate.decide(plan, judged, "x")


def test_a_network_as_good_as_its_rivals_stays_and_a_bad_one_goes(tmp_path: Path) -> None:
    plan = make_plan(rows=30)
    kept = decided(tmp_path / "good", plan, Method("network", good, "between"))
    assert set(kept.methods) == {"network"}
    assert kept.patches == 2 * len(LANDSAT) + 2 * sum(d % 9 in (0, 1, 8) for d in LANDSAT)
    lost = decided(tmp_path / "bad", plan, Method("network", bad, "between"))
    assert set(lost.methods) == {"additive-linear"}
    assert [v.season for v in lost.verdicts] == ["year", *QUARTERS]
    for verdict in lost.verdicts:
        assert verdict.decided is not None
        assert verdict.reported is not None
        for half in (verdict.decided, verdict.reported):
            assert set(half.rmse) == set(NAMES)
            assert half.rmse["network"] > 2 * half.rmse["additive-linear"]
            assert half.against["additive-linear"].high < 0
    assert "additive-linear in January-March, April-June" in lost.text


def test_errors_of_landsat_that_its_own_truth_shares_are_seen_by_sentinel_2(tmp_path: Path) -> None:
    """Landsat a few per cent off: at reduced scale whoever follows it looks best; the days beside say otherwise."""
    network = Method("network", sentinel2_alone, "between")
    kept = decided(tmp_path / "near", make_plan(rows=30), network, haze=0.03)
    assert set(kept.methods) == {"network"}
    year = kept.verdicts[0]
    assert "neighbouring days" in year.reason
    assert year.decided is not None
    assert year.decided.against["additive-linear"].high < 0
    # days that must not be references are no judges either
    blind = decided(tmp_path / "blind", make_plan(rows=30, min_reference_days=2), network, haze=0.03)
    assert all(v.near == (None, None) for v in blind.verdicts)
    assert set(blind.methods) == {"network"}
    assert "no Sentinel-2 of a neighbouring day can confirm it" in blind.verdicts[0].reason


def test_a_small_area_has_too_little_to_say_and_keeps_the_default(tmp_path: Path) -> None:
    plan = make_plan(10)
    assert [p.shape(10) for p in gate.places(plan)] == [(54, 54)]
    found = decided(tmp_path, plan, Method("network", bad, "between"))
    assert set(found.methods) == {"network"}
    assert "too little to judge by: the default stays" in found.verdicts[0].reason
    assert gate.rows(found)[0]["network"] == ""


def test_patches_too_small_to_be_judged_keep_the_default(tmp_path: Path) -> None:
    plan = make_plan(rows=30)
    tiny = WeightsRef(source="tiny", sha256="0" * 64, pan=False, patch=12)
    plan = plan.model_copy(update={"weights": (tiny,)})
    assert gate.places(plan) == ()
    assert set(gate.decide(plan, [], "x").methods) == {"network"}


def test_places_are_few_whole_and_inside_what_is_fused() -> None:
    plan = make_plan(300)
    found = gate.places(plan)
    assert len(found) == gate.PLACES
    assert found == gate.places(plan)
    assert {p.shape(10) for p in found} == {(180, 180)}
    inside = Grid(plan.grid.epsg, 605_000 // 60 * 60, 5_393_000 // 60 * 60, 50, 50).geobox(10).geographic_extent.json
    part = plan.model_copy(update={"aoi": inside})
    some = gate.places(part)
    assert 0 < len(some) < gate.PLACES
    assert all(set(plan.grid.under(p)) <= set(part.tiles) for p in some)
    assert gate.share(plan, 16 * len(LANDSAT)) < 0.02


def test_a_decision_is_kept_and_read_again(tmp_path: Path) -> None:
    found = decided(tmp_path, make_plan(rows=30), Method("network", bad, "between"))
    store = Store(str(tmp_path))
    gate.write(store, found)
    assert gate.read(store) == found
    store.write(gate.NAME, b'{"methods": 3}')
    with pytest.raises(CubeError, match=r"gate.json cannot be read"):
        gate.read(store)


def test_a_forced_method_asks_nobody(tmp_path: Path) -> None:
    plan = make_plan(method="linear")
    assert workers.decided(plan, Store(str(tmp_path)), PLAIN, ()).methods == ("linear",) * len(LANDSAT)
    with pytest.raises(CubeError, match="run the gate stage first"):
        workers.decided(make_plan(), Store(str(tmp_path)), PLAIN, ())


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=1, resources={cluster.GPU: 1}, dashboard_address=None
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


def test_the_stage_runs_on_the_cluster_and_the_cube_tells_what_was_used(tmp_path, client, monkeypatch) -> None:
    plan = make_plan(rows=30)
    store, _ = write(tmp_path, plan)
    network = {False: Method("network", bad, "between")}
    monkeypatch.setattr(gate, "methods", lambda plan, name: network if name == "network" else METHODS(plan, name))
    made = job.Job(plan, store, {})
    job.harmonise(made, client)
    heard: list = []
    first = job.gate(made, client, heard.append)
    (done,) = [e for e in heard if isinstance(e, StageDone)]
    assert (done.stage, done.done, done.failed) == ("gate", 2, 0)
    (note,) = [e for e in heard if isinstance(e, Note) and e.kind == "gate"]
    assert "additive-linear" in note.text
    assert "% of the year's" in note.text
    assert [row["season"] for row in note.data] == ["year", *QUARTERS]
    heard.clear()
    assert job.gate(made, client, heard.append) == first, "the second time it is read"
    assert [e.done for e in heard if isinstance(e, StageDone)] == [2]
    job.fuse(made, client)
    job.finish(made)
    with xr.open_zarr(store.join(FUSED)) as ds:
        assert ds.attrs["status"] == "complete"
        assert ds.attrs["method"] == "auto"
        assert ds.attrs["methods_used"] == ["additive-linear"]
        assert [row["method"] for row in ds.attrs["gate"]] == ["additive-linear"] * 5
        landsat = (ds.source == "landsat-8 fused").values
        assert set(np.unique(ds.quality.values[landsat])) == {5}
    report = json.loads(store.read("report/scenes.json") or b"")
    assert {row["method"] for row in report["landsat"]} == {"additive-linear"}
    found = [f for f in verify(tmp_path).findings if "ledger/ingest" not in f.where and "items" not in f.where]
    assert found == []
    # another choice is another cube: tiles that were fused by the old one are made again
    gate.write(store, dataclasses.replace(first, methods=("linear",) * len(LANDSAT)))
    assert any("fingerprint" in f.what for f in verify(tmp_path).findings)
    assert harmonise.read(store) is not None


METHODS = gate.methods
