"""What tasks send home when they fail, and what they make of a damaged store."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from pipeline import ledger, workers
from pipeline.errors import AssetError, CubeError, MarstfnError, StoreError
from pipeline.grid import Grid
from pipeline.store import Store
from tests.pipeline import small_store

TILE = Grid(32650, 600_000, 5_400_000, 12, 12, 60).tile(0, 0)


class Unpicklable(RuntimeError):
    """As those of GDAL are."""

    def __reduce__(self) -> str:
        raise pickle.PicklingError("not to be sent")


def chain(error: BaseException | None) -> list[BaseException]:
    out: list[BaseException] = []
    while error is not None:
        out.append(error)
        error = error.__cause__ or error.__context__
    return out


def clear() -> None:
    try:
        raise Unpicklable("CURL error")
    except Unpicklable as error:
        raise AssetError("asset 'red' is gone") from error


def unforeseen() -> None:
    raise Unpicklable("CURL error")


@pytest.mark.parametrize(
    ("work", "kind", "words"),
    [(clear, AssetError, "asset 'red' is gone"), (unforeseen, MarstfnError, "Unpicklable: CURL error")],
)
def test_errors_of_tasks_go_alone(work, kind, words) -> None:
    with pytest.raises(kind, match=words) as caught:
        workers._plainly(TILE, work)
    assert chain(caught.value) == [caught.value], "neither cause nor context, which may not be picklable"


def test_results_of_tasks_come_back() -> None:
    assert workers._plainly(TILE, lambda: 3) == 3


@pytest.mark.parametrize("content", [b"", b"[]", b'{"type": "FeatureCollection", "features": [{"id": "x'])
def test_damaged_items_are_named(tmp_path: Path, content: bytes) -> None:
    store, _ = small_store.write(tmp_path / "store")
    store.write("items.json", content)
    workers._opened.cache_clear()
    with pytest.raises(StoreError, match=r"items\.json is damaged.*Restore it from a copy"):
        workers.opened(store.url, "damaged")


def test_items_that_the_plan_was_not_made_from_are_refused(tmp_path: Path) -> None:
    store, _ = small_store.write(tmp_path / "store")
    found = json.loads(store.read("items.json") or b"")
    one, other = found["features"][:2]
    one["assets"], other["assets"] = {"B02": {"href": "http://h/another.tif"}}, one["assets"]
    store.write("items.json", json.dumps(found).encode())
    with pytest.raises(StoreError, match=r"items\.json holds other items than the plan was made from.*Restore"):
        workers.opened(store.url, "altered")


@pytest.mark.parametrize("told", [[[1, 2, 3]], [[1, 2]] * 12, [1] * 12, {"a": 1}])
def test_counts_of_other_dates_are_told_by_file(tmp_path: Path, told: object) -> None:
    store, plan = small_store.write(tmp_path / "store")
    name = ledger.name("ingest", "r001c000")
    record = json.loads(store.read(name) or b"")
    record["stats"]["sentinel2"] = told
    store.write(name, json.dumps(record).encode())
    with pytest.raises(CubeError, match=r"r001c000\.json counts other than 12 Sentinel-2 dates; delete it"):
        workers.pairs(plan, store)


def test_a_plan_of_another_format_is_no_damage(tmp_path: Path) -> None:
    Store(str(tmp_path)).write("plan.json", b'{"format": "0"}')
    Store(str(tmp_path)).write("items.json", b"{}")
    with pytest.raises(StoreError, match=r"format version '0'.*release that wrote it"):
        workers.opened(str(tmp_path), "of another format")
