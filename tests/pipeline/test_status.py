"""How far a run has come, from records written by hand."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import cube, job, ledger, status
from pipeline.errors import StoreError
from pipeline.ledger import Record
from pipeline.store import Store
from tests.pipeline import small_store

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def records(*minutes: float) -> list[Record]:
    return [
        Record("fuse", f"r000c{k:03d}", "f", {}, seconds=10.0 + k, written=(START + timedelta(minutes=m)).isoformat())
        for k, m in enumerate(minutes)
    ]


def test_rate_and_time_left() -> None:
    state = status.stage_state("fuse", 10, records(0, 2, 4, 6))
    assert state.per_hour == pytest.approx(30)
    assert state.left == timedelta(minutes=12)
    assert state.last == START + timedelta(minutes=6)
    assert state.seconds_per_tile == 12.0
    assert state.line == "fuse      4 of 10 tiles, 30 an hour, about 12 min left"


def test_the_order_of_records_does_not_matter() -> None:
    assert status.stage_state("fuse", 10, records(0, 2, 4, 6)[::-1]).per_hour == pytest.approx(30)


def test_an_interruption_long_ago_is_forgotten() -> None:
    before, after = [0.0, 1.0, 2.0], [5000.0 + k for k in range(status.RECENT)]
    assert status.stage_state("fuse", 100, records(*before, *after)).per_hour == pytest.approx(60)


def test_too_little_for_a_rate() -> None:
    state = status.stage_state("ingest", 9, [])
    assert state.per_hour is None
    assert state.left is None
    assert state.line == "ingest    0 of 9 tiles"


def test_a_first_tile_tells_its_own_time() -> None:
    state = status.stage_state("ingest", 9, records(0.0))
    assert state.per_hour == pytest.approx(360)
    assert state.left == timedelta(seconds=80)


def test_a_first_wave_of_workers_is_not_taken_for_the_rate() -> None:
    # four workers, 100 s a tile, all done within three seconds: by the stamps alone 3600 an hour
    wave = [
        replace(r, seconds=100.0, written=(START + timedelta(seconds=k)).isoformat())
        for k, r in enumerate(records(0, 0, 0, 0))
    ]
    state = status.stage_state("fuse", 100, wave)
    assert state.workers == 4
    assert state.per_hour == pytest.approx(144)
    assert state.line == "fuse      4 of 100 tiles, 144 an hour by 4 at once, about 40 min left"


def test_two_workers_out_of_step_are_two_and_tell_twice_the_rate() -> None:
    made = [replace(r, seconds=60.0) for r in records(*(k / 2 for k in range(30)))]
    state = status.stage_state("fuse", 100, made)
    assert state.workers == 2
    assert state.per_hour == pytest.approx(120)


def test_an_interruption_is_no_work() -> None:
    state = status.stage_state("fuse", 100, records(0, 1, 2, 3, 600, 601, 602))
    assert state.per_hour == pytest.approx(60)


@pytest.mark.parametrize(
    ("ago", "seconds", "said"),
    [
        (timedelta(seconds=40), 30.0, "the last tile was finished 40 s ago: it may be alive"),
        (timedelta(minutes=20), 30.0, "it looks dead: the last tile was finished 20 min ago, and one takes 30 s"),
        (timedelta(minutes=20), 900.0, "the last tile was finished 20 min ago: it may be alive"),
        (timedelta(hours=5), 900.0, "it looks dead: the last tile was finished 5 h ago, and one takes 15 min"),
    ],
)
def test_a_run_is_judged_by_its_last_tile(ago: timedelta, seconds: float, said: str) -> None:
    stage = status.stage_state("fuse", 9, [replace(records(0)[0], seconds=seconds)])
    assert status.alive([stage], None, False, START + ago) == said
    assert status.alive([stage], 77, True, START + ago).startswith("at work (process 77); the last tile")
    gone = status.alive([stage], 77, False, START + ago)
    assert gone == said if "dead" in said else "process 77, which made it, is no longer at work here" in gone
    assert status.alive([status.stage_state("fuse", 9, [])], None, False, START) == ""


def test_a_run_at_work_holds_its_store(tmp_path: Path) -> None:
    store, _ = small_store.write(tmp_path, status="in progress")
    assert job.LOCK == status.LOCK
    assert status.holder(store) == (None, False)
    with job.alone(store):
        assert status.holder(store) == (os.getpid(), True)
        told = status.read(store).lines
        assert any(line.startswith(f"  run       at work (process {os.getpid()})") for line in told)
        assert told[-1] == "  cube      in progress", "the same command would be refused now"
    assert status.holder(store)[1] is False
    assert status.read(store, datetime.now(UTC) + timedelta(days=1)).life.startswith("it looks dead")
    # what a process left that is gone
    (tmp_path / status.LOCK).write_text("process 999999999")
    assert status.holder(store) == (999999999, False)


def test_nothing_is_left_of_a_finished_stage() -> None:
    state = status.stage_state("fuse", 2, records(0, 1))
    assert state.left == timedelta(0)
    assert state.line == "fuse      2 of 2 tiles"


def test_hours_are_told_as_hours() -> None:
    assert status.stage_state("fuse", 184, records(0, 2, 4, 6)).line.endswith("30 an hour, about 6 h left")


def test_a_finished_store(tmp_path: Path) -> None:
    store, plan = small_store.write(tmp_path)
    state = status.read(store)
    assert state.complete
    assert [(s.stage, s.done, s.total) for s in state.stages] == [("ingest", 4, 4), ("fuse", 4, 4)]
    assert state.plan == plan
    assert state.lines[0] == f"small 2023: 18 dates, {store.url}"
    assert state.lines[-1] == f"  cube      complete: {store.join('fused.zarr')}"
    store.write("ledger/harmonise.json", b"{}")
    names = [line.split()[0] for line in status.read(store).lines[1:]]
    assert names[:2] == ["ingest", "harmonise"]
    assert names[-2:] == ["fuse", "cube"]
    assert "  harmonise done" in status.read(store).lines


def test_tiles_beyond_the_area_are_not_waited_for(tmp_path: Path) -> None:
    (west, south), _, (east, north), _, _ = small_store.LON_LAT
    corner = [[west, south], [west + 0.3 * (east - west), south], [west, south + 0.3 * (north - south)], [west, south]]
    plan = small_store.plan(aoi={"type": "Polygon", "coordinates": [corner]})
    assert 0 < len(plan.tiles) < len(list(plan.grid.tiles()))
    store, _ = small_store.write(tmp_path, plan)
    for tile in plan.grid.tiles():
        if tile.name not in {t.name for t in plan.tiles}:
            for stage in status.STAGES:
                store.delete(ledger.name(stage, tile.name))
    state = status.read(store)
    assert state.complete
    assert [s.total for s in state.stages] == [len(plan.tiles)] * 2


def test_a_store_half_way(tmp_path: Path) -> None:
    store, _ = small_store.write(tmp_path, status="in progress")
    (tmp_path / "ledger/fuse/r001c001.json").unlink()
    (tmp_path / "ledger/fuse/r001c000.json").write_text("{")
    (tmp_path / "ledger/fuse/r077c000.json").write_text('{"format": "1"}')  # no tile of the plan
    state = status.read(store)
    fuse = state.stages[1]
    assert not state.complete
    assert (fuse.done, fuse.total, fuse.unreadable) == (2, 4, ("r001c000",))
    assert "1 unreadable records (r001c000)" in fuse.line
    assert state.lines[-1] == "  cube      in progress; run the same command again to go on"


def test_complete_means_status_and_tiles(tmp_path: Path) -> None:
    store, _ = small_store.write(tmp_path)
    (tmp_path / "ledger/ingest/r000c000.json").unlink()
    assert not status.read(store).complete


def test_a_run_that_has_only_a_plan(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("plan.json", small_store.plan().model_dump_json().encode())
    state = status.read(store)
    assert state.cube is None
    assert "not begun" in state.lines[-1]
    cube.create_fused(state.plan, store)
    assert status.read(store).cube == "in progress"


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no folder"):
        status.read(Store(str(tmp_path / "nowhere")))
    with pytest.raises(StoreError, match="no run was begun there"):
        status.read(Store(str(tmp_path)))
    (tmp_path / "plan.json").write_text('{"format": "1"}')
    with pytest.raises(StoreError, match=r"plan\.json has format version '1'.*reads '3'.*release that wrote it"):
        status.read(Store(str(tmp_path)))


@pytest.mark.parametrize("content", [b"", b'{"format": "3", "na', b"[]", b'{"format": "3"}'])
def test_a_damaged_plan_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"plan\.json is damaged.*Restore it from a copy"):
        status.read(Store(str(tmp_path)))


def test_damaged_metadata_of_the_cube_are_told_with_the_remedy(tmp_path: Path) -> None:
    store, plan = small_store.write(tmp_path / "store")
    for name, ask in (
        ("fused.zarr", lambda: status.read(store)),
        ("inputs.zarr", lambda: cube.create_inputs(plan, store)),
    ):
        path = tmp_path / "store" / name / "zarr.json"
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(StoreError, match=rf"{name} is damaged.*Delete the folder {name} and run again"):
            ask()
