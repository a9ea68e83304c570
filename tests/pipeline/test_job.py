"""The whole job over HTTP on a small season: complete, resumable, and careful with what is already there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from marstfn.bands import BANDS
from pipeline import cluster, cube, job, ledger, request
from pipeline.demo.faults import Fault
from pipeline.errors import CubeError, MarstfnError, StoreError
from pipeline.events import Note, StageDone, StageStarted, TileDone, TileFailed
from pipeline.settings import Settings
from pipeline.store import FUSED, Store
from pipeline.verify import verify
from tests.pipeline import small_store

pytestmark = pytest.mark.server


class Ear:
    """Keeps what a run says."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        self.events.append(event)

    def of(self, event, **fields):
        return [e for e in self.events if isinstance(e, event) and all(getattr(e, k) == v for k, v in fields.items())]


def ask(season, store: Path, **extra) -> request.Request:
    place = {"aoi": str(season.aoi), "year": 2023, "catalog": season.catalog, "store": str(store)}
    return request.make(**place | {"method": "additive", "threads": 1, "tile_px": 60} | extra)


def snapshot(store: Path, but: tuple[str, ...] = ()) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(store)): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in sorted(store.rglob("*"))
        if p.is_file() and not any(b in str(p) for b in but)
    }


@pytest.fixture(scope="module")
def client():
    with cluster.connect(defaults=Settings()) as client:
        yield client


@pytest.fixture
def fresh():
    """Workers of its own: GDAL remembers what a process has read, and its failures."""
    with cluster.connect(defaults=Settings()) as client:
        yield client


def stages(made: job.Job, client, ear) -> None:
    job.ingest(made, client, ear)
    job.harmonise(made, client, ear)
    job.fuse(made, client, ear)


@pytest.fixture(scope="module")
def finished(season, tmp_path_factory):
    """One run from end to end, with its own cluster."""
    store, ear = tmp_path_factory.mktemp("run") / "store", Ear()
    summary = job.run(ask(season, store), ear)
    return store, summary, ear


def test_a_run_ends_in_a_complete_cube_that_verifies(finished):
    store, summary, _ = finished
    assert summary.cube == str(store / FUSED)
    assert summary.tiles == 4
    with xr.open_zarr(summary.cube) as ds:
        assert ds.attrs["status"] == "complete"
        assert ds.attrs["simulated"] == "true"
        assert ds.sizes["time"] == summary.landsat_dates + summary.sentinel2_dates
        assert ds.sizes == {**ds.sizes, "y": 120, "x": 120}
        fused = ds.isel(time=(ds.source == "landsat-8 fused").compute())
        there = (fused.quality.isin([2, 3, 5])).values
        assert there.mean() > 0.2
        for band in BANDS:
            assert (np.isfinite(fused[band].values) == there).all()
    report = verify(summary.cube)
    assert report.ok, report.findings
    for name in summary.files:
        assert (store / name).stat().st_size > 0


def test_the_default_asks_the_gate_on_worker_processes(season, client, tmp_path):
    """An area this small has too little to say: the network stays, and the cube says why."""
    made = job.prepare(ask(season, tmp_path / "store", method="auto", end="2023-07-10", weights="marstfn-nopan"))
    ear = Ear()
    job.ingest(made, client, ear)
    job.harmonise(made, client, ear)
    decision = job.gate(made, client, ear)
    assert set(decision.methods) == {"network"}
    assert "the default stays" in decision.verdicts[0].reason
    (done,) = ear.of(StageDone, stage="gate")
    assert (done.done, done.failed) == (1, 0)
    job.fuse(made, client, ear)
    job.finish(made, ear)
    with xr.open_zarr(tmp_path / "store" / FUSED) as ds:
        assert ds.attrs["methods_used"] == ["network"]
        assert (ds.quality.values == 2).any()
    report = verify(tmp_path / "store")
    assert report.ok, report.findings


def test_a_run_tells_what_it_does(finished):
    _, _, ear = finished
    for stage in ("ingest", "harmonise", "fuse"):
        (started,) = ear.of(StageStarted, stage=stage)
        (done,) = ear.of(StageDone, stage=stage)
        assert (started.total, started.skipped, done.done, done.failed) == (4, 0, 4, 0)
        assert {e.tile for e in ear.of(TileDone, stage=stage)} == {"r000c000", "r000c001", "r001c000", "r001c001"}
    (dashboard,) = ear.of(Note, kind="dashboard")
    assert dashboard.text.startswith("http://127.0.0.1:")
    (pairs,) = ear.of(Note, kind="pairs")
    assert len(pairs.data) == len({p["label"] for p in pairs.data}) == 8
    assert {"read", "write", "check"} == set(ear.of(TileDone, stage="ingest")[0].timings)


def test_the_fused_dates_are_nearer_to_the_truth_than_landsat_alone(finished, season):
    """The frame is the truth's: over the pixels that were fused the method must beat the copied reference."""
    _, summary, _ = finished
    box = season.grid.geobox(10).boundingbox
    sums = np.zeros(2)
    ds = cube.open_cube(summary.cube)
    times = ds.time.values[ds.source.values == "landsat-8 fused"]
    for acq in season.simulation.acquisitions():
        stamp = np.datetime64(acq.time.replace(tzinfo=None), "ns")
        near = np.abs(times - stamp).min() if acq.landsat else None
        if near is None or near > np.timedelta64(2, "s"):
            continue
        date = ds.sel(time=stamp, method="nearest")
        truth = season.simulation.truth(acq.time, box.left, box.top, (120, 120))
        values = np.stack([date[b].values for b in BANDS])
        good = date.quality.values == 5
        sums += [np.square(values - truth)[:, good].sum(), 6 * good.sum()]
    rmse = np.sqrt(sums[0] / sums[1])
    print(f"additive on the small season: RMSE {rmse:.4f} over {sums[1] / 6:.0f} pixels, thin haze and missed cloud in")
    assert sums[1] > 100_000
    assert rmse < 0.06


def test_a_second_run_computes_nothing_and_changes_nothing(finished, season, client):
    store, _, _ = finished
    before = snapshot(store, (".lock",))
    season.server.log.clear()
    ear = Ear()
    made = job.prepare(ask(season, store), ear)
    stages(made, client, ear)
    assert [(e.stage, e.total, e.skipped) for e in ear.of(StageStarted)] == [
        ("ingest", 4, 4), ("harmonise", 4, 4), ("fuse", 4, 4),
    ]  # fmt: skip
    assert ear.of(TileDone) == []
    assert season.server.log.count() == 0
    assert snapshot(store, (".lock", "pairs.json")) == {k: v for k, v in before.items() if "pairs.json" not in k}
    assert cube.open_cube(str(store)).attrs["status"] == "complete"


def test_what_is_missing_from_the_ledger_is_made_again_and_nothing_else(finished, season, client):
    store, _, _ = finished
    place = Store(str(store))
    made = job.prepare(ask(season, store))
    old = ledger.read(place, "fuse", "r001c000")
    place.delete(ledger.name("fuse", "r001c000"))
    ear = Ear()
    stages(made, client, ear)
    assert [e.tile for e in ear.of(TileDone)] == ["r001c000"]
    new = ledger.read(place, "fuse", "r001c000")
    assert new.checksums == old.checksums
    assert cube.open_cube(str(store)).attrs["status"] == "in progress"
    job.finish(made)
    assert cube.open_cube(str(store)).attrs["status"] == "complete"


def test_pixels_that_were_wrong_leave_no_trace_once_they_are_read_again(finished, season, client, tmp_path):
    """A shard whose damage the codec does not see is fused from; deleting its tile's record undoes that, too."""
    copy = tmp_path / "store"
    shutil.copytree(finished[0], copy)
    place = Store(str(copy))
    names = [t.name for t in job.open_job(place).plan.tiles]
    before = {name: ledger.read(place, "fuse", name).checksums for name in names}
    ledger.clear(place, "fuse")
    place.delete("ledger/harmonise.json")
    wrong = cube.array(place, "inputs.zarr", "sentinel2/red", "r+")
    data = np.asarray(wrong[:, :60, :60])
    wrong[:, :60, :60] = np.where(data > 0, data + 700, data).astype(np.int16)
    ledger.write(place, ledger.read(place, "ingest", "r000c000"))  # as if of the same length: else it is seen at once
    made = job.prepare(ask(season, copy))
    stages(made, client, Ear())
    assert any(ledger.read(place, "fuse", name).checksums != before[name] for name in names)
    place.delete(ledger.name("ingest", "r000c000"))
    ear = Ear()
    stages(made, client, ear)
    assert "1 tiles hold other pixels than before (r000c000)" in ear.of(Note, kind="warning")[0].text
    assert {name: ledger.read(place, "fuse", name).checksums for name in names} == before
    job.finish(made)
    assert verify(str(copy)).ok


def test_killed_while_the_plan_changes_either_command_goes_on(season, tmp_path, monkeypatch):
    store = tmp_path / "store"
    made = job.prepare(ask(season, store))
    cube.create_inputs(made.plan, made.store)
    cube.create_fused(made.plan, made.store)  # a template, of which nothing is fused
    monkeypatch.setattr(job, "parsed", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        job.prepare(ask(season, store, method="linear"))
    monkeypatch.undo()
    for method in ("linear", "additive"):
        again = job.prepare(ask(season, store, method=method))
        assert again.plan.options.method == method
        assert cube.create_inputs(again.plan, again.store) is False
        assert cube.create_fused(again.plan, again.store) is True


def test_a_store_that_may_not_be_written_is_told(tmp_path):
    (tmp_path / ".lock").mkdir()  # as little to be opened as one on a disk that is read-only
    with (
        pytest.raises(StoreError, match=r"cannot write to .*nothing was read or changed.*--store"),
        job.alone(Store(str(tmp_path))),
    ):
        pass


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "bicubic"}, "method: the plan has additive, asked is bicubic"),
        ({"min_reference_days": 3}, "min_reference_days"),
        ({"tile_px": 120}, "tile_px"),
        ({"end": "2023-08-01"}, "last day"),
    ],
)
def test_a_store_with_another_plan_is_refused_by_parameter(finished, season, change, named):
    store, _, _ = finished
    before = snapshot(store)
    with pytest.raises(StoreError, match="--store") as caught:
        job.prepare(ask(season, store, **change))
    assert named in str(caught.value)
    assert snapshot(store) == before


def test_a_tile_that_cannot_be_read_is_named_and_the_rest_goes_on(catalogue, tmp_path, client, fresh):
    """An asset vanishes after half of the tiles: their work is kept, and the run goes on when it is back."""
    made = job.prepare(ask(catalogue, tmp_path))
    job.ingest(made, client)
    for name in ("r000c001", "r001c000"):
        made.store.delete(ledger.name("ingest", name))
    item = made.plan.of("sentinel2")[3].items[0]
    catalogue.server.faults.set([Fault(f"*{item}/B8A.tif", times=None, status=404)])
    ear = Ear()
    with pytest.raises(MarstfnError, match="2 of 4 tiles failed") as caught:
        job.ingest(made, fresh, ear)
    assert item in str(caught.value)
    assert "nir08" in str(caught.value)
    assert "kept" in str(caught.value)
    assert {e.tile for e in ear.of(TileFailed)} == {"r000c001", "r001c000"}
    assert ledger.read(made.store, "ingest", "r000c000") is not None
    with pytest.raises(MarstfnError, match="not in the ledger"):
        job.harmonise(made, client)
    catalogue.server.faults.set()
    ear = Ear()
    job.ingest(made, fresh, ear)
    assert {e.tile for e in ear.of(TileDone)} == {"r000c001", "r001c000"}


def test_a_server_that_stumbles_changes_no_pixel(finished, catalogue, tmp_path, fresh):
    reference, _, _ = finished
    stumbles = [Fault("*.tif", skip=40 * k, times=2, status=503) for k in range(1, 12)]
    catalogue.server.faults.set([*stumbles, Fault("*B11.tif", skip=5, times=1, drop=True)])
    made = job.prepare(ask(catalogue, tmp_path))
    job.ingest(made, fresh)
    for tile in made.plan.grid.tiles():
        here = ledger.read(made.store, "ingest", tile.name)
        there = ledger.read(Store(str(reference)), "ingest", tile.name)
        assert here.checksums == there.checksums
    assert catalogue.server.log.count("*.tif", status=503) >= 10


def test_two_runs_in_one_store_are_kept_apart(tmp_path):
    store = Store(str(tmp_path))
    (tmp_path / "fused.zarr").mkdir()
    (tmp_path / "fused.zarr" / "x.0123.partial").write_bytes(b"half")
    with (
        job.alone(store),
        pytest.raises(StoreError, match=r"another run \(process \d+\) is at work"),
        job.alone(store),
    ):
        pass
    assert not list(tmp_path.rglob("*.partial"))
    with job.alone(store):
        pass


def test_a_store_that_cannot_be_written_is_refused_before_the_search(season, tmp_path):
    (tmp_path / "file").write_text("")
    season.server.log.clear()
    with pytest.raises(StoreError, match=r"Choose a folder you may write to"):
        job.prepare(ask(season, tmp_path / "file" / "store"))
    assert season.server.log.count() == 0


def test_a_plan_of_another_format_is_refused(finished, season, tmp_path):
    store, _, _ = finished
    for name in ("plan.json", "items.json"):
        (tmp_path / name).write_bytes((store / name).read_bytes())
    text = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(text | {"format": "0"}))
    with pytest.raises(StoreError, match=r"format version '0'.*--store"):
        job.prepare(ask(season, tmp_path))


def test_a_failed_search_leaves_no_folder(season, tmp_path):
    with pytest.raises(MarstfnError, match="2018"):
        job.prepare(ask(season, tmp_path / "new", year=2018))
    assert not (tmp_path / "new").exists()


def test_a_store_is_planned_by_one_run_at_a_time(season, tmp_path):
    with job.alone(Store(str(tmp_path))), pytest.raises(StoreError, match="another run"):
        job.prepare(ask(season, tmp_path))
    assert not (tmp_path / "plan.json").exists()


def test_files_of_others_in_the_stores_folder_are_left_alone(season, tmp_path):
    (tmp_path / "probe").write_text("mine")
    (tmp_path / "thesis.partial").write_text("mine")
    (tmp_path / "items.json").write_text('{"my": "items"}')
    with pytest.raises(StoreError, match=r"items\.json is not a list of scenes .* Choose another --store"):
        job.prepare(ask(season, tmp_path))
    (tmp_path / "items.json").unlink()
    job.prepare(ask(season, tmp_path))
    assert (tmp_path / "probe").read_text() == (tmp_path / "thesis.partial").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"probe", "thesis.partial", "items.json", "plan.json", ".lock"}


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_tile_whose_shard_is_gone_or_cut_is_made_again(tmp_path, monkeypatch, damage):
    """The ledger alone says that all is done; what it names is looked for, too."""
    place, plan = small_store.write(tmp_path / "store")
    made = job.Job(plan, place, {i.id: i for i in small_store.collection(plan.scenes)})
    asked = {}
    monkeypatch.setattr(job, "reading", lambda client: "IO")
    monkeypatch.setattr("pipeline.cluster.described", lambda client: [])

    def map_tiles(client, name, function, todo, *rest, **keywords):
        asked[name] = [t.name for t in todo]
        return [], []

    monkeypatch.setattr(job, "map_tiles", map_tiles)
    for stage in (job.ingest, job.fuse):
        stage(made, None)
    assert asked == {"ingest": [], "fuse": []}
    for shard in ("inputs.zarr/landsat8/nir08/c/0/1/0", "fused.zarr/red/c/1/0/1"):
        path = tmp_path / "store" / shard
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
    for stage in (job.ingest, job.fuse):
        stage(made, None)
    assert asked == {"ingest": ["r001c000"], "fuse": ["r000c001"]}
    assert cube.open_cube(place.url).attrs["status"] == "in progress"
    with pytest.raises(CubeError, match=r"lacks 1 tiles \(r000c001"):
        job.finish(made)
