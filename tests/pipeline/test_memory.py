"""The bound of a worker's memory: what it grows with, and whom it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline import cluster, job, memory, outlook, units
from pipeline.cluster import GPU, IO
from pipeline.errors import ClusterError
from pipeline.grid import Grid
from pipeline.plan import Options, Plan
from pipeline.settings import Settings
from pipeline.store import Store
from tests.pipeline import small_store

WIDE = Grid(32650, 0, 6_000_000, 660, 660, 480)
GB = 1_000_000_000


def plan_of(side: int = 480, columns: int = 660, **options: Any) -> Plan:
    grid = Grid(32650, 0, 6_000_000, columns, columns, side)
    return small_store.plan(grid=grid, options=Options(**options))


def worker(limit: int, **resources: int) -> dict[str, Any]:
    return {"name": "+".join(resources), "memory_limit": limit, "resources": resources}


@pytest.mark.parametrize("bound", [memory.reading, memory.fusing])
def test_a_bound_grows_with_the_tile_and_neither_with_the_area_nor_with_the_year(bound: Any) -> None:
    small, large = bound(plan_of(240)).total, bound(plan_of(480)).total
    assert small < large < bound(plan_of(960)).total
    assert bound(plan_of(480, columns=8000)).total == large
    # a plane smaller than its tile costs what it has
    assert bound(plan_of(480, columns=30)).total < bound(plan_of(240)).total
    year = plan_of(480, time_shard=6)
    assert len(year.scenes) > 2 * 6
    twice = year.model_copy(update={"scenes": (*year.scenes, *year.scenes)})
    assert bound(twice).total == bound(year).total
    assert bound(plan_of(480, time_shard=3)).total < bound(year).total


def test_peaks_that_were_measured_lie_under_the_bound() -> None:
    # 48 dates of noise in a store, the shipped weights without pan, batches of 8 and one thread
    for side, peak in ((480, 1283), (240, 909)):
        grid = Grid(32650, 0, 6_000_000, 660, 660, side)
        bound = memory.fusing_of(grid, 48, 8, context=True, blocks=1).megabytes
        assert peak <= bound <= 1.35 * peak
    one, eight = (memory.fusing_of(WIDE, 48, batch).megabytes for batch in (1, 8))
    assert one < eight
    assert memory.fusing_of(WIDE, 48, 1, 120).total > memory.fusing_of(WIDE, 48, 1, 60).total
    assert memory.fusing_of(WIDE, 48, 1, context=True).megabytes > one


def test_reading_takes_what_its_unit_takes_for_each_that_is_read_at_once() -> None:
    plan = plan_of(240)
    one, two = (memory.reading(plan, slots=slots, side=4) for slots in (1, 2))
    # the threads are shared
    assert two.total - one.total == pytest.approx(memory.SLACK * (one.work["unit"] + one.work["encoding"]), rel=1e-3)
    assert one.work["unit"] == units.unit_bytes(plan, 4, threads=0) > memory.reading(plan).work["unit"]


def test_a_plan_tells_the_bound() -> None:
    plan = small_store.plan()
    told = outlook.outlook(plan)
    assert (told.worker_mb, told.reader_mb) == (
        memory.fusing(plan).megabytes,
        memory.reading(plan, slots=cluster.SLOTS, side=units.side(plan, 1e6 * Settings().unit_mb)).megabytes,
    )
    line = next(line for line in told.lines() if "memory" in line)
    assert "at most" in line
    assert f"{told.worker_mb:.0f} MB fusing, {told.reader_mb:.0f} MB reading" in line


def test_a_worker_with_too_little_is_refused_with_figures_and_remedies() -> None:
    plan = plan_of(480)
    need = memory.fusing(plan).megabytes
    with pytest.raises(ClusterError) as refused:
        memory.require(plan, [worker(4 * GB, IO=2), worker(GB, GPU=1)])
    assert f"{need:,.0f} MB in stage fuse" in str(refused.value)
    for word in ("worker GPU", "1,000 MB", "--tile (240)", "--memory-limit", "--batch"):
        assert word in str(refused.value)
    with pytest.raises(ClusterError, match="stage ingest, 2 at once"):
        memory.require(plan, [worker(GB // 2, IO=2), worker(4 * GB, GPU=1)])
    with pytest.raises(ClusterError, match="with a smaller --batch") as refused:
        memory.require(plan_of(60), [worker(GB // 4, GPU=1)])
    assert "--tile" not in str(refused.value), "there is none smaller"


def test_enough_no_limit_and_workers_of_other_uses_are_let_be() -> None:
    plan = plan_of(480)
    memory.require(plan, [worker(4 * GB, IO=2), worker(4 * GB, GPU=1)])
    memory.require(plan, [worker(0, IO=2), worker(0, GPU=1)])
    memory.require(plan, [worker(4 * GB, GPU=1), worker(1, OTHER=1)])
    # the limit is that at which Dask ends it, not the one it is given
    need = memory.fusing(plan).total
    memory.require(plan, [worker(4 * GB, IO=1), worker(int(need / memory.KILLED) + 1, GPU=1)])
    with pytest.raises(ClusterError):
        memory.require(plan, [worker(4 * GB, IO=1), worker(need, GPU=1)])


def test_without_reading_workers_the_fusing_ones_read() -> None:
    plan = plan_of(480)
    with pytest.raises(ClusterError, match="stage ingest"):
        memory.require(plan, [worker(3 * GB, GPU=1)], threads=1000)


def test_a_stage_refuses_before_it_writes_or_submits_anything(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job.Job(plan_of(480), Store(str(tmp_path / "store")), {})

    def never(*args: Any, **kw: Any) -> None:
        raise AssertionError("a tile was submitted")

    monkeypatch.setattr(job, "map_tiles", never)
    with cluster.connect(defaults=Settings(memory_limit="600MB")) as client:
        for stage in (job.ingest, job.fuse):
            with pytest.raises(ClusterError, match=r"memory limit 600 MB.*nothing was read"):
                stage(made, client)
        assert cluster.slots(client, IO) >= 1
        assert cluster.slots(client, GPU) == 1
    assert not list(tmp_path.iterdir())
