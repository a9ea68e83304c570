"""Adaptive scaling: a cluster that begins with no worker, starts them for tasks that wait and retires idle ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Nanny, Scheduler, SchedulerPlugin, SpecCluster

from flows import work
from pipeline import cluster, request, settings, status, verify
from pipeline.errors import ClusterError
from pipeline.events import TileDone
from pipeline.store import Store
from tests.conftest import Served, arrays
from tests.namespaces import until

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

END = "2023-06-08"
TILES = {f"r{r:03d}c{c:03d}" for r in range(2) for c in range(2)}

PRELOAD = '''
"""Writes down which worker makes which tile, and keeps it from its record while there is a file `hold`."""
import os, time
from pathlib import Path

HERE = Path(os.environ["HERE"])

def dask_setup(worker):
    from pipeline import ledger
    whole = ledger.write

    def note(kind, record):
        with (HERE / "journal").open("a") as file:
            file.write(f"{kind} {record.stage} {record.tile} {worker.name}\\n")

    def write(store, record):
        # all shards of the tile are there, its record is not; one that is retired here comes no further
        note("at", record)
        while record.stage == "fuse" and ((HERE / "hold").exists() or worker.status.name != "running"):
            time.sleep(0.02)
        whole(store, record)
        note("done", record)

    ledger.write = write
'''


class Roll(SchedulerPlugin):
    """Who came and who left, in order."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.left: list[str] = []

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self.came.append(worker)

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        self.left.append(worker)

    @property
    def present(self) -> set[str]:
        return set(self.came) - set(self.left)


@pytest.fixture
def elastic(tmp_path: Path) -> Iterator[tuple[SpecCluster, Roll]]:
    """A cluster without a worker. Each that it starts is a process that both reads and fuses."""
    (tmp_path / "preload.py").write_text(PRELOAD)
    options = {
        "host": cluster.LOOPBACK, "nthreads": 1, "resources": {cluster.IO: 1, cluster.GPU: 1}, "dashboard": False,
        "memory_limit": 0, "config": dict(cluster.CONFIG), "preload": [str(tmp_path / "preload.py")],
        "env": {"HERE": str(tmp_path), "OMP_NUM_THREADS": "1"}, "silence_logs": 50,
    }  # fmt: skip
    scheduler = {"cls": Scheduler, "options": {"host": cluster.LOOPBACK, "port": 0, "dashboard": False}}
    roll = Roll()
    with SpecCluster(
        workers={}, scheduler=scheduler, worker={"cls": Nanny, "options": options}, silence_logs=50
    ) as made:
        made.scheduler.add_plugin(roll)
        yield made, roll


def journal(folder: Path, kind: str, stage: str) -> list[tuple[str, str]]:
    """(tile, worker) of what was written down."""
    file = folder / "journal"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [(tile, worker) for k, s, tile, worker in lines if (k, s) == (kind, stage)]


def asked(served: Served, **extra: Any) -> request.Request:
    fixed = {"aoi": str(served.aoi), "year": 2023, "end": END, "catalog": served.catalog, "tile_px": 60}
    return request.make(method="additive", threads=1, **fixed | extra)


def test_a_run_from_no_worker_to_none_makes_the_cube_of_a_calm_one(elastic, catalogue, tmp_path, monkeypatch):
    """Each stage begins with no worker; in the last the one of two that is retired is in the middle of a tile."""
    monkeypatch.setenv("MARSTFN_UNIT_MB", "0")  # as many tasks as tiles
    work.work(asked(catalogue, store=str(tmp_path / "calm")), "calm", lambda event: None)
    calm = arrays(tmp_path / "calm")

    scaled, roll = elastic
    monkeypatch.setenv("MARSTFN_WORKER_PATIENCE", "90")
    scaled.adapt(minimum=0, maximum=2, interval="100ms", wait_count=2, target_duration="100ms")
    assert scaled.scheduler_address.startswith("tcp://127.0.0.1:")
    assert not roll.came
    (tmp_path / "hold").touch()
    events: list[Any] = []
    began_with: dict[str, int] = {}

    def step(name: str, stage: Callable[[], Any]) -> Any:
        if name != "plan":
            until(f"all workers to be retired before {name}", lambda: not roll.present)
            began_with[name] = len(roll.came)
        return stage()

    def fate() -> None:
        """Where both workers are in the middle of a tile, room for one."""
        until("two workers in tiles of the last stage", lambda: len(journal(tmp_path, "at", "fuse")) == 2)
        scaled.adapt(maximum=1)
        until("one of them to be retired", lambda: len(roll.present) == 1)
        (tmp_path / "hold").unlink()

    thread = threading.Thread(target=fate, daemon=True)
    thread.start()
    store = Store(str(tmp_path / "elastic"))
    summary = work.work(asked(catalogue, store=store.url, scheduler=scaled.scheduler_address), "far", events.append,
                        step=step)  # fmt: skip
    thread.join(10)
    assert not thread.is_alive()
    until("all workers to be retired after the run", lambda: not roll.present)
    print(f"{len(roll.came)} workers came and left; before each stage: {began_with}")

    assert summary.tiles == len(TILES)
    found = arrays(tmp_path / "elastic")
    assert found.keys() == calm.keys()
    for name in calm:
        np.testing.assert_array_equal(found[name], calm[name], err_msg=name)
    assert began_with["ingest"] > 0, "none was started for the connection's call"
    assert began_with["ingest"] < began_with["harmonise"] < began_with["fuse"] < len(roll.came)
    for stage in ("ingest", "fuse"):
        assert {tile for tile, _ in journal(tmp_path, "done", stage)} == TILES
        assert {e.tile for e in events if isinstance(e, TileDone) and e.stage == stage} == TILES
    held, stayed = journal(tmp_path, "at", "fuse")[:2], journal(tmp_path, "at", "fuse")[-1][1]
    ((lost, retired),) = [(tile, worker) for tile, worker in held if worker != stayed]
    assert (lost, stayed) in journal(tmp_path, "done", "fuse"), "the tile of the retired worker was not made anew"
    assert {tile for tile, worker in journal(tmp_path, "at", "fuse") if worker == retired} == {lost}
    assert sorted(tile for tile, worker in journal(tmp_path, "at", "fuse") if worker == stayed) == sorted(TILES)
    assert sorted(tile for tile, _ in journal(tmp_path, "at", "ingest")) == sorted(TILES)
    assert verify.verify(store).ok
    assert status.read(store).complete


def test_without_the_setting_or_without_anybody_to_start_them_it_is_refused(elastic):
    scaled, roll = elastic
    with (
        pytest.raises(ClusterError, match=r"0 worker\(s\).* within 1 s; .*MARSTFN_WORKER_PATIENCE"),
        cluster.connect(scaled.scheduler_address, patience=1),
    ):
        pass
    with (
        pytest.raises(ClusterError, match="within 3 s; nothing was computed"),
        cluster.connect(scaled.scheduler_address, patience=1, defaults=settings.load(worker_patience=3)),
    ):
        pass
    assert not roll.came
    assert not scaled.scheduler.tasks, "the call for a worker outlived its caller"
