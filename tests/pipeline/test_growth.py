"""A year in progress: what new scenes would change, and a series extended by them without reading the old ones."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipeline import cluster, cube, growth, ingest, job, request, status
from pipeline.errors import StoreError
from pipeline.events import Note
from pipeline.plan import Dropped
from pipeline.settings import Settings
from pipeline.store import FUSED, INPUTS, PLAN, Store
from pipeline.verify import verify
from tests.pipeline import small_store

DURING = datetime(2023, 7, 10, tzinfo=UTC).timestamp()


class Ear:
    def __init__(self) -> None:
        self.notes: list[Note] = []

    def __call__(self, event: Any) -> None:
        if isinstance(event, Note):
            self.notes.append(event)

    def said(self, kind: str) -> list[str]:
        return [n.text for n in self.notes if n.kind == kind]


# ---- what has changed


def items_of(plan: Any) -> dict[str, Any]:
    return {item.id: item for item in small_store.collection(plan.scenes)}


def test_new_withdrawn_and_altered_dates_are_told_by_sensor() -> None:
    old = small_store.plan()
    landsat, sentinel = old.of("landsat8"), old.of("sentinel2")
    kept = [s for s in old.scenes if s not in (landsat[-1], sentinel[0])]
    new = old.model_copy(update={"scenes": tuple(kept)})
    items, now = items_of(old), items_of(new)
    now[sentinel[3].items[0]].properties["updated"] = "2024-01-01T00:00:00Z"

    found = growth.changes(new, now, old, items)
    assert found.new == {"landsat8": (landsat[-1].day,), "sentinel2": (sentinel[0].day,)}
    assert found.altered == {"landsat8": (), "sentinel2": (sentinel[3].day,)}
    since = datetime(2023, 6, 1, tzinfo=UTC)
    assert found.text(since) == (
        "1 new Landsat date, 1 new Sentinel-2 date, 1 altered Sentinel-2 date since the plan of 2023-06-01"
    )
    assert growth.changes(old, items, new, now).gone == found.new
    same = growth.changes(old, items, old, items_of(old))
    assert not same
    assert same.text(since) == "nothing new since the plan of 2023-06-01"


def test_a_date_whose_radiometry_is_decided_otherwise_is_altered() -> None:
    old = small_store.plan()
    name = old.of("landsat8")[1].items[0]
    rule = old.radiometry[name].model_copy(update={"offset": 0.0})
    new = old.model_copy(update={"radiometry": {**old.radiometry, name: rule}})
    found = growth.changes(old, items_of(old), new, items_of(new))
    assert found.altered["landsat8"] == (old.of("landsat8")[1].day,)
    assert not found.altered["sentinel2"]


def test_what_is_left_out_makes_no_date_another() -> None:
    old = small_store.plan()
    new = old.model_copy(update={"dropped": (Dropped(item="x", why="tier RT"),)})
    assert not growth.changes(old, items_of(old), new, items_of(new))


@pytest.mark.parametrize(
    ("written", "last", "expected"),
    [
        (datetime(2023, 7, 1, tzinfo=UTC), None, True),
        (datetime(2024, 1, 29, tzinfo=UTC), None, True),
        (datetime(2024, 1, 30, tzinfo=UTC), None, False),
        (datetime(2023, 7, 1, tzinfo=UTC), date(2023, 5, 31), False),
    ],
)
def test_a_series_grows_until_late_scenes_have_come_in(written: datetime, last: date | None, expected: bool) -> None:
    assert growth.growing(small_store.plan(last=last), written) is expected


def test_the_current_year_may_be_asked_for() -> None:
    year = datetime.now(UTC).year
    asked = request.make(aoi="hailar", year=year, catalog="planetary-computer")
    assert (asked.first, asked.last) == (date(year, 1, 1), date(year, 12, 31))


# ---- the change of plan


def test_a_change_of_plan_comes_to_its_end_wherever_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    store, old = small_store.write(folder)
    new = old.model_copy(update={"name": "grown"})
    items = small_store.collection(new.scenes)
    inputs = {p.relative_to(folder): p.read_bytes() for p in (folder / INPUTS).rglob("*") if p.is_file()}

    steps = 0
    for stop in range(20):
        shutil.rmtree(folder)
        small_store.write(folder)
        left = [stop]

        def counted(name: str, left: list[int] = left) -> None:
            real = getattr(Store, name)

            def call(self: Store, *given: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return real(self, *given)

            patch.setattr(Store, name, call)

        with monkeypatch.context() as patch:
            for name in ("write", "move", "delete", "clear"):
                counted(name)
            try:
                growth.begin(store, new, items)
                ended = True
            except KeyboardInterrupt:
                ended = False
        decided = store.read(f"{growth.NEXT}/{PLAN}") is not None
        growth.settle(store)
        now = job.open_job(store)
        if ended or decided or growth.unfinished(store):
            assert now.plan == new
            assert growth.unfinished(store)
            assert not (folder / INPUTS).exists()
            kept = {p.relative_to(folder / growth.EARLIER): p.read_bytes()
                    for p in (folder / growth.EARLIER / INPUTS).rglob("*") if p.is_file()}  # fmt: skip
            assert kept == inputs
            assert Store(store.join(growth.EARLIER)).read(PLAN) == old.model_dump_json(indent=1).encode()
        else:
            assert now.plan == old
            assert (folder / INPUTS).exists()
        steps = stop
        if ended:
            break
    assert ended
    assert steps > 6


def test_nothing_is_taken_over_under_other_rules(tmp_path: Path) -> None:
    store, old = small_store.write(tmp_path / "store")
    new = old.model_copy(update={"name": "grown"})
    growth.begin(store, new, small_store.collection(new.scenes))
    found = growth.earlier(store, new, items_of(new), ingest.reading_rules)
    assert found is not None
    assert dict(found.places["sentinel2"]) == {k: k for k in range(len(old.of("sentinel2")))}
    tile = next(iter(new.grid.tiles()))
    assert found.of(tile, ingest.ingest_fingerprint(old, tile), cube.LANDSAT8)
    assert not found.of(tile, "another", cube.LANDSAT8)
    wider = new.model_copy(update={"options": new.options.model_copy(update={"mask_dilation": 60})})
    assert growth.earlier(store, wider, items_of(wider), ingest.reading_rules) is None


# ---- from end to end


@pytest.fixture(scope="module")
def client() -> Any:
    with cluster.connect(defaults=Settings()) as client:
        yield client


def ask(season: Any, catalog: str, store: Path, **extra: Any) -> request.Request:
    given = {"aoi": str(season.aoi), "year": 2023, "catalog": catalog, "store": str(store)}
    return request.make(**given | {"method": "additive", "threads": 1, "tile_px": 60, "end": "2023-07-20"} | extra)


def carried_out(found: job.Job, client: Any, ear: Ear) -> None:
    with job.alone(found.store):
        job.ingest(found, client, ear)
        job.harmonise(found, client, ear)
        job.fuse(found, client, ear)
        job.finish(found, ear)


def content(store: Path, name: str) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted((store / name).rglob("*")) if p.is_file()}


def western_half(season: Any, folder: Path) -> Path:
    """Two of the season's four tiles, one of which sees the other's inputs."""
    feature = json.loads(season.aoi.read_text())
    (west, east, north_east, north_west, _) = feature["geometry"]["coordinates"][0]
    inward = [
        [a + 0.49 * (b - a) for a, b in zip(*ends, strict=True)] for ends in ((west, east), (north_west, north_east))
    ]
    feature["geometry"]["coordinates"] = [[west, inward[0], inward[1], north_west, west]]
    path = folder / "half.geojson"
    path.write_text(json.dumps(feature))
    return path


@pytest.mark.server
def test_a_series_extended_is_equal_to_one_made_at_once_and_reads_only_what_is_new(
    season: Any, client: Any, server_factory: Any, tmp_path: Path
) -> None:
    wanted = {"aoi": str(western_half(season, tmp_path)), "method": "network", "start": "2023-05-20"}
    folder, late = tmp_path / "scenes", tmp_path / "late"
    shutil.copytree(season.folder, folder)
    # one day in the middle and all from July on come in later
    for path in sorted((folder / "items").rglob("*.json")):
        day = json.loads(path.read_text())["properties"]["datetime"][:10]
        if day >= "2023-07-01" or "2023-06-10" <= day < "2023-06-15":
            (late / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            path.rename(late / path.relative_to(folder))
    server = server_factory(folder)
    catalog, store = f"simulated@{server.url}", tmp_path / "grown"
    first = job.prepare(ask(season, catalog, store, **wanted))
    carried_out(first, client, Ear())
    old = {i for s in first.plan.scenes for i in (*s.items, *s.pan_items)}

    ear = Ear()
    job.prepare(ask(season, catalog, store, **wanted), ear)
    assert ear.said("update") == [], "a year long over is not asked for anew"
    shutil.copytree(late, folder, dirs_exist_ok=True)
    server.reload()
    os.utime(store / PLAN, (DURING, DURING))
    job.prepare(ask(season, catalog, store, **wanted), ear)
    (told,) = ear.said("update")
    assert re.match(r"\d new Landsat dates?, \d new Sentinel-2 dates since the plan of 2023-07-10; --update", told)

    before = content(store, FUSED)
    extended = job.prepare(ask(season, catalog, store, update=True, **wanted), ear)
    assert ear.said("update")[-1].startswith(told.partition(";")[0])
    new = {i for s in extended.plan.scenes for i in (*s.items, *s.pan_items)} - old
    assert new
    assert content(store, FUSED) == before, "the finished cube stays until the new one is begun"
    assert not status.read(extended.store).complete

    server.log.clear()
    carried_out(extended, client, ear)
    asked = {a.request.path for a in server.log.all() if "/data/" in a.request.path}
    hrefs = {i: {urlsplit(a.href).path for a in item.assets.values()} for i, item in extended.items.items()}
    assert {i for i, paths in hrefs.items() if paths & asked} == new
    assert not (store / growth.EARLIER).exists()
    assert not (store / growth.NEXT).exists()

    whole = tmp_path / "whole"
    with cube.open_cube(str(store)) as fused:
        days = {str(day)[:10] for day in fused.time.values[fused.source == "landsat-8 fused"]}
        by_network = fused.quality.sel(time=fused.source == "landsat-8 fused") == 2
        assert by_network.any(("y", "x")).sum() >= 3
        assert len(days) == 4
        assert len(extended.plan.tiles) == 2

    at_once = job.prepare(ask(season, catalog, whole, **wanted))
    assert at_once.plan == extended.plan
    carried_out(at_once, client, Ear())
    for name in (INPUTS, FUSED):
        assert content(store, name) == content(whole, name)
    report = verify(store)
    assert report.ok, report.findings

    job.prepare(ask(season, catalog, store, update=True, **wanted), ear)
    assert ear.said("update")[-1].startswith("nothing new since the plan of")


@pytest.mark.server
def test_an_update_of_another_request_is_refused(catalogue: Any, tmp_path: Path) -> None:
    store = tmp_path / "store"
    job.prepare(ask(catalogue, catalogue.catalog, store))
    with pytest.raises(StoreError, match="holds another plan: max_cloud"):
        job.prepare(ask(catalogue, catalogue.catalog, store, update=True, max_cloud=50))
