"""Many tiles: what is done for all of them at once equals what is done for each, and a long run loses none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geom import Geometry, box

from benchmarks import made, planning
from pipeline import fuse, ledger, pairing, tasks, workers
from pipeline.errors import CubeError
from pipeline.events import TileDone, TileFailed
from pipeline.fuse import fuse_fingerprint
from pipeline.grid import Grid
from pipeline.harmonise import Harmonisation
from pipeline.ingest import ingest_fingerprint
from pipeline.plan import fingerprint, joined
from pipeline.store import Store
from tests.pipeline import small_store

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Pretended:
    """A cluster of `slots` that ends a task when it is asked what has ended, and counts what it is given."""

    def __init__(self, slots: int) -> None:
        self.status = "running"
        self.slots, self.under_way, self.most, self.given, self.looks = slots, 0, 0, 0, 0

    def scheduler_info(self, n_workers: int = 0) -> dict[str, Any]:
        self.looks += 1
        return {"workers": {"a": {"resources": {"IO": self.slots}}}}

    def submit(self, function: Callable[..., Any], *arguments: Any, key: str, **kw: Any) -> Any:
        self.given += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return Ended(self, function, arguments)

    async def gather(self, futures: list[Any], asynchronous: bool) -> list[Any]:
        assert asynchronous
        return [future.result() for future in futures]

    def sync(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return asyncio.run(function(*arguments))

    def cancel(self, futures: list[Any], force: bool) -> None:
        self.under_way -= len(futures)


class Ended:
    """A future that has ended before anyone asks; once in a while it is lost first."""

    def __init__(self, cluster: Pretended, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.cluster, self.lost = cluster, cluster.given % 97 == 0
        try:
            self.value, self.error, self.status = function(*arguments), None, "finished"
        except ValueError as error:
            self.value, self.error, self.status = None, error, "error"

    def add_done_callback(self, heard: Callable[[Any], None]) -> None:
        heard(self)

    def done(self) -> bool:
        lost, self.lost = self.lost, False
        return not lost

    def result(self) -> Any:
        return self.value

    def exception(self, timeout: float) -> BaseException | None:
        return self.error

    def release(self) -> None:
        self.cluster.under_way -= 1


def test_two_thousand_tiles_with_failures_are_all_accounted_for_in_a_bounded_window() -> None:
    tiles = list(Grid(32650, 600_000, 5_400_000, 500, 400, 60).tiles())
    assert len(tiles) == 2000
    tried: dict[tuple[int, int], int] = {}

    def work(row: int, col: int) -> tuple[int, int]:
        tried[row, col] = tried.get((row, col), 0) + 1
        if (row + col) % 11 == 0 and (tried[row, col] == 1 or col % 5 == 0):
            raise ValueError(f"no {row}, {col}")
        return row, col

    heard: list[Any] = []
    cluster = Pretended(3)
    results, failed = tasks.map_tiles(
        cluster, "ingest", work, tiles, resource="IO", listener=heard.append  # type: ignore[arg-type]
    )  # fmt: skip
    hopeless = {t.name for t in tiles if (t.row + t.col) % 11 == 0 and t.col % 5 == 0}
    assert hopeless
    assert {f.tile for f in failed} == hopeless
    assert len(failed) == len(hopeless)
    assert sorted(results) == sorted((t.row, t.col) for t in tiles if t.name not in hopeless)
    assert sum(tried.values()) == cluster.given
    assert max(tried.values()) == 1 + tasks.RETRIES
    assert cluster.most == 3 + tasks.AHEAD
    assert cluster.under_way == 0
    assert sum(isinstance(e, TileDone) for e in heard) == len(results)
    assert sum(isinstance(e, TileFailed) for e in heard) == len(failed)
    assert cluster.looks < 50, "the workers are not looked at for every tile"


def test_a_window_grows_and_shrinks_with_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "LOOK", 0.0)
    cluster = Pretended(1)
    seen = []

    def work(row: int, col: int) -> None:
        cluster.slots = 5 if cluster.given < 30 else 1
        seen.append((cluster.given, cluster.under_way))

    tiles = list(Grid(32650, 600_000, 5_400_000, 100, 100, 60).tiles())
    tasks.map_tiles(cluster, "ingest", work, tiles, resource="IO", listener=lambda e: None)  # type: ignore[arg-type]
    assert max(n for at, n in seen if at < 30) == 5 + tasks.AHEAD
    assert max(n for at, n in seen if at > 45) == 1 + tasks.AHEAD


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_fingerprint_joined_from_parts_is_that_of_the_whole(value: dict[str, Any]) -> None:
    parts = {key: json.dumps(v, sort_keys=True, separators=(",", ":")) for key, v in value.items()}
    assert joined(parts) == fingerprint(value)


def test_what_tiles_share_is_hashed_once_and_never_for_another_plan() -> None:
    plan = small_store.plan()
    times = {s: [x.time for x in plan.of(s)] for s in ("landsat8", "sentinel2")}
    pairs = pairing.pair(times["landsat8"], times["sentinel2"], [0.5] * len(times["sentinel2"]), plan.options)
    other = plan.model_copy(update={"options": plan.options.model_copy(update={"stride": 30})})
    fits, moved = Harmonisation("a", True, ()), Harmonisation("b", True, ())
    tile = plan.tiles[0]
    cases = [(plan, fits, pairs, None), (other, fits, pairs, None), (plan, moved, pairs, None),
             (plan, fits, pairs[:-1], None), (plan, fits, pairs, ("copy",) * len(pairs))]  # fmt: skip
    found = []
    for case in (*cases, *cases[::-1]):
        fuse._last = None
        alone = fuse_fingerprint(case[0], tile, *case[1:])
        found.append(alone)
        # after another one was asked for
        fuse_fingerprint(*cases[0][:1], tile, *cases[0][1:])
        assert fuse_fingerprint(case[0], tile, *case[1:]) == alone
    assert len(set(found)) == len(cases)
    changing = list(pairs)
    before = fuse_fingerprint(plan, tile, fits, changing)
    changing.pop()
    assert fuse_fingerprint(plan, tile, fits, changing) != before
    assert [p.as_dict() for p in pairs] == [json.loads(json.dumps(asdict(p))) for p in pairs]


def test_the_tiles_of_an_area_are_those_that_each_meet_it() -> None:
    grid = Grid(32650, 600_000, 5_400_000, 93, 71, 60)
    corners = [(600_090, 5_399_950), (604_811, 5_398_002), (603_000, 5_396_400), (600_600, 5_396_400)]
    ring = [*corners, corners[0]]
    shapes = [Geometry({"type": "Polygon", "coordinates": [ring]}, "EPSG:32650"),
              box(600_600, 5_398_800, 601_200, 5_399_400, "EPSG:32650")]  # fmt: skip
    for area in shapes:
        expected = [t.name for t in grid.tiles() if t.geobox(60).extent.intersection(area).area > 0]
        assert [t.name for t in grid.tiles(area)] == expected
        assert 0 < len(expected) < len(list(grid.tiles()))


def test_a_plan_of_many_tiles_is_that_of_its_pieces(tmp_path: Path) -> None:
    """What is planned over the whole is planned over a quarter: the same lattice, scenes and rules."""
    whole_box = made.area(400, 480)
    catalog = made.catalogue(tmp_path, 120, whole_box)
    whole = planning.planned(tmp_path / "whole", catalog, whole_box).plan
    ring = whole_box["coordinates"][0]
    (west, south), (east, north) = ring[0], ring[2]
    pieces = []
    for k, (x, y) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        xs, ys = [west, (west + east) / 2, east], [south, (south + north) / 2, north]
        part = made._box(xs[x], ys[y], xs[x + 1], ys[y + 1])
        pieces.append(planning.planned(tmp_path / str(k), catalog, part).plan)
    assert len(whole.tiles) > 400
    assert all(p.grid.epsg == whole.grid.epsg for p in pieces)
    assert all((p.grid.left - whole.grid.left) % 60 == (p.grid.top - whole.grid.top) % 60 == 0 for p in pieces)
    assert min(p.grid.left for p in pieces) == whole.grid.left
    assert max(p.grid.top for p in pieces) == whole.grid.top
    used = {name for p in pieces for s in p.scenes for name in s.items}
    assert used == {name for s in whole.scenes for name in s.items}
    for piece in pieces:
        assert piece.radiometry.items() <= whole.radiometry.items()
        assert {s.day for s in piece.scenes} <= {s.day for s in whole.scenes}
    assert sum(len(p.tiles) for p in pieces) >= len(whole.tiles)


@pytest.fixture
def entered(tmp_path: Path) -> SimpleNamespace:
    """A store in whose ledger all tiles but two are: one lacks, one cannot be understood."""
    plan, store = small_store.plan(), Store(str(tmp_path))
    prints = {t.name: ingest_fingerprint(plan, t) for t in plan.tiles}
    planning.enter(store, plan, prints)
    return SimpleNamespace(plan=plan, store=store, prints=prints, names=list(prints))


def test_tiles_asked_for_together_are_those_asked_for_one_by_one(entered: Any) -> None:
    store, prints, names = entered.store, dict(entered.prints), entered.names
    store.delete(ledger.name("ingest", names[1]))
    store.write(ledger.name("ingest", names[2]), b"{")
    prints[names[3]] = "0" * 64
    alone = [name for name in names if not ledger.done(store, "ingest", name, prints[name], {})]
    assert alone == names[1:4]
    assert ledger.unfinished(store, "ingest", prints, {}) == alone
    found = list(ledger.each(store, "ingest", names))
    assert [type(r) for r in found] == [ledger.Record, type(None), CubeError, ledger.Record]
    assert found[0] == ledger.read(store, "ingest", names[0])
    with pytest.raises(CubeError, match=f"{names[1]} is not in the ledger"):
        workers.pairs(entered.plan, store)


def test_records_are_read_a_few_at_a_time_and_in_order(entered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "AHEAD", 3)
    read = []
    original = ledger.read

    def slow(store: Store, stage: ledger.Stage, tile: str) -> ledger.Record | None:
        read.append(tile)
        return original(store, stage, tile)

    monkeypatch.setattr(ledger, "read", slow)
    asked = ledger.each(entered.store, "ingest", entered.names * 3)
    first = next(asked)
    assert isinstance(first, ledger.Record)
    assert len(read) <= 3
    rest = [r.tile for r in asked if isinstance(r, ledger.Record)]
    assert [first.tile, *rest] == entered.names * 3


def test_a_fresh_run_reads_no_record_and_a_lost_shard_is_seen(entered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "read", lambda *a: pytest.fail("nothing is there to be read"))
    assert ledger.unfinished(entered.store, "fuse", entered.prints, {}) == entered.names
    monkeypatch.undo()
    name = entered.names[0]
    checksums = {"inputs.zarr/a": "1" * 64}
    ledger.write(entered.store, ledger.Record("ingest", name, entered.prints[name], checksums))
    assert ledger.unfinished(entered.store, "ingest", entered.prints, {}) == [name]
    assert ledger.unfinished(entered.store, "ingest", entered.prints, {"inputs.zarr/a": 5}) == []
