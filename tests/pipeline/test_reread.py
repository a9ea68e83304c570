"""Tiles that are read anew: what was made of other pixels is forgotten, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import harmonise, ledger, reread
from pipeline.errors import CubeError
from pipeline.grid import Grid
from pipeline.plan import Plan
from pipeline.store import Store
from tests.pipeline import small_store

ROWS = Grid(epsg=32651, left=300000, top=5460000, columns=10, rows=100, tile_px=60)
"""Ten tiles in a column: a window of one reaches into those beside it, not to the ends."""


@pytest.fixture
def written(tmp_path: Path) -> tuple[Plan, Store]:
    plan, store = small_store.plan(grid=ROWS), Store(str(tmp_path))
    plan = plan.model_copy(update={"aoi": _all_of(plan)})
    for tile in plan.tiles:
        for stage in ("ingest", "fuse"):
            ledger.write(store, ledger.Record(stage, tile.name, "f", {f"{stage}/{tile.name}": "1" * 64}))
    store.write(harmonise.NAME, b"{}")
    return plan, store


def _all_of(plan: Plan) -> dict[str, object]:
    box = plan.grid.geobox(60).geographic_extent.boundingbox
    ring = [[box.left, box.bottom], [box.right, box.bottom], [box.right, box.top], [box.left, box.top]]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def fused(plan: Plan, store: Store) -> list[str]:
    return [t.name for t in plan.tiles if ledger.read(store, "fuse", t.name) is not None]


def read_again(store: Store, tile: str, checksum: str) -> None:
    record = ledger.read(store, "ingest", tile)
    made = record or ledger.Record("ingest", tile, "f", {})
    ledger.write(store, replace(made, checksums={f"ingest/{tile}": checksum * 64}))


def test_the_same_pixels_leave_everything_as_it_was(written: tuple[Plan, Store]) -> None:
    plan, store = written
    every = fused(plan, store)
    assert len(every) == 10
    reread.begin(store, [plan.grid.tile(4, 0)])
    read_again(store, "r004c000", "1")
    assert reread.settle(plan, store) == ()
    assert fused(plan, store) == every
    assert store.read(harmonise.NAME) is not None
    assert store.read(reread.NAME) is None


@pytest.mark.parametrize("known", [True, False])
def test_other_pixels_cost_the_tiles_that_see_them_and_what_is_made_of_all(
    written: tuple[Plan, Store], known: bool
) -> None:
    """A record that was deleted tells nothing of what there was: then other pixels are assumed."""
    plan, store = written
    every = fused(plan, store)
    if not known:
        store.delete(ledger.name("ingest", "r004c000"))
    reread.begin(store, [plan.grid.tile(4, 0)])
    read_again(store, "r004c000", "2" if known else "1")
    assert reread.settle(plan, store) == ("r004c000",)
    assert [name for name in every if name not in fused(plan, store)] == ["r003c000", "r004c000", "r005c000"]
    assert store.read(harmonise.NAME) is None


def test_killed_in_between_it_is_not_forgotten(written: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = written
    reread.begin(store, [plan.grid.tile(4, 0)])
    read_again(store, "r004c000", "2")
    # a run that goes on finds the tile read, and another one to be read
    reread.begin(store, [plan.grid.tile(8, 0)])
    read_again(store, "r008c000", "2")
    deleted = Store.delete

    def killed(self: Store, name: str) -> None:
        if name.startswith("ledger/fuse"):
            raise KeyboardInterrupt
        deleted(self, name)

    monkeypatch.setattr(Store, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        reread.settle(plan, store)
    monkeypatch.undo()
    assert reread.settle(plan, store) == ("r004c000", "r008c000")
    assert fused(plan, store) == ["r000c000", "r001c000", "r002c000", "r006c000"]
    assert reread.settle(plan, store) == ()


def test_a_first_reading_notes_nothing(tmp_path: Path) -> None:
    plan, store = small_store.plan(), Store(str(tmp_path))
    reread.begin(store, list(plan.tiles))
    assert store.read(reread.NAME) is None
    assert reread.settle(plan, store) == ()


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_a_damaged_note_is_told(written: tuple[Plan, Store], content: bytes) -> None:
    plan, store = written
    store.write(reread.NAME, content)
    with pytest.raises(CubeError, match=r"reread\.json is damaged.*fused anew"):
        reread.settle(plan, store)
    store.write(reread.NAME, json.dumps({}).encode())
    assert reread.settle(plan, store) == ()
