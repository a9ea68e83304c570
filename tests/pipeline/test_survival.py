"""What a run survives on a real cluster: workers and schedulers killed in the middle of a tile, disks that fill."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from flows import work
from pipeline import cluster, job, ledger, logs, request, room, workers
from pipeline.cluster import GPU, IO
from pipeline.demo.faults import Fault
from pipeline.errors import FullError, StoreError
from pipeline.events import TileDone
from pipeline.settings import Settings
from pipeline.store import FUSED, INPUTS, Store
from tests.pipeline.test_kill import arrays, half, records, same

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

SLOW = Fault("*.tif", times=None, every=3, latency=0.3)
"""Reading takes seconds, and leaves time to strike in its middle."""


@pytest.fixture(autouse=True)
def tile_by_tile(monkeypatch):
    """Of four tiles that are read together none is there before all are."""
    monkeypatch.setenv("MARSTFN_UNIT_MB", "0")


def asked(season, store: Path, **more):
    """The season in four tiles, fused without the network."""
    given = {"aoi": str(season.aoi), "year": 2023, "catalog": season.catalog, "store": str(store), "tile_px": 60}
    return request.make(**given, method="additive", threads=1, end="2023-07-10", **more)


def stages(made, client, told=None):
    """All stages, as a run does them."""
    hear = (lambda event: None) if told is None else told.append
    with job.alone(made.store):
        job.ingest(made, client, hear)
        job.harmonise(made, client, hear)
        job.fuse(made, client, hear)


def done(told: list, stage: str) -> list[str]:
    return [event.tile for event in told if isinstance(event, TileDone) and event.stage == stage]


@pytest.fixture(scope="module")
def client():
    with cluster.connect(defaults=Settings()) as client:
        yield client


@pytest.fixture(scope="module")
def undisturbed(season, client, tmp_path_factory):
    """The store of a run in which nothing went wrong."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    stages(job.prepare(asked(season, store)), client)
    return store


class Killer(threading.Thread):
    """Kills the process of a Dask worker by SIGKILL while it is in the middle of a tile of `stage`.

    It stops the process first and looks: only where the tile is still in its hands, some of its bytes are stored and
    the ledger does not know it, it is killed; else it goes on, and is watched further.
    """

    def __init__(self, client, worker: str, stage: str, store: Path, after: int) -> None:
        super().__init__(daemon=True)
        self.client, self.worker, self.stage, self.store, self.after = client, worker, stage, store, after
        self.cube = INPUTS if stage == "ingest" else FUSED
        self.finished: dict[str, bytes] = {}
        self.held: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            pid, before = self.pid(), self.shards()
            if pid and len(self.tiles()) >= self.after and self.holding():
                psutil.Process(pid).suspend()
                held = [t for t in self.holding() if t not in self.tiles()]
                if held and self.shards() > len(self.tiles()) * self.each():
                    self.held, self.finished = held, records(self.store)
                    os.kill(pid, signal.SIGKILL)
                    return
                psutil.Process(pid).resume()
            time.sleep(0.02 if self.shards() == before else 0.001)

    def pid(self) -> int | None:
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        address = next((a for a, w in workers.items() if w["name"] == self.worker), None)
        port = int(address.rsplit(":", 1)[1]) if address else 0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(c.laddr.port == port and c.status == "LISTEN" for c in process.net_connections()):
                    return process.pid
        return None

    def holding(self) -> list[str]:
        """Tiles of the stage that the scheduler has given to the worker."""
        keys = [str(key) for keys in self.client.processing().values() for key in keys]
        return [key.split("-")[1] for key in keys if key.startswith(f"{self.stage}-")]

    def tiles(self) -> list[str]:
        return [path.stem for path in (self.store / "ledger" / self.stage).glob("*.json")]

    def shards(self) -> int:
        return sum(1 for _ in (self.store / self.cube).rglob("c/*/*/*"))

    def each(self) -> int:
        """Shards of a finished tile."""
        found = [json.loads(p.read_text())["checksums"] for p in (self.store / "ledger" / self.stage).glob("*.json")]
        return max((sum(c != "absent" for c in sums.values()) for sums in found), default=0)

    def end(self) -> None:
        self.ended.set()
        self.join(30)


@pytest.mark.parametrize(("worker", "stage"), [("io0", "ingest"), ("gpu0", "fuse")])
def test_a_worker_killed_in_the_middle_of_a_tile_costs_that_tile(
    catalogue, client, undisturbed, tmp_path, worker, stage
):
    made = job.prepare(asked(catalogue, tmp_path / "store"))
    told = []
    if stage == "ingest":
        catalogue.server.faults.set([SLOW])
    else:
        with job.alone(made.store):
            job.ingest(made, client)
            job.harmonise(made, client)
    killer = Killer(client, worker, stage, tmp_path / "store", after=1)
    killer.start()
    stages(made, client, told)
    killer.end()
    assert killer.held, "the worker was never met in the middle of a tile"
    assert killer.finished
    after = records(tmp_path / "store")
    assert {name: after[name] for name in killer.finished} == killer.finished, "a finished tile was made again"
    assert set(killer.held) <= set(done(told, stage))
    assert same(arrays(tmp_path / "store"), arrays(undisturbed))


def test_a_task_given_to_a_second_worker_finds_its_tile_done(undisturbed):
    """A worker may die between the ledger and its answer: nobody can be sure to strike there, so the task is asked."""
    store, before = Store(str(undisturbed)), records(undisturbed)
    stamp = workers.stamped(store)
    for stage, result in (
        ("ingest", workers.ingest_one(0, 1, store.url, stamp)),
        ("fuse", workers.fuse_one(0, 1, store.url, stamp, "again")),
    ):
        record = ledger.read(store, stage, "r000c001")
        assert (result.stage, result.tile, result.seconds) == (stage, "r000c001", record.seconds)
    assert records(undisturbed) == before


# --- a scheduler of the user's own ------------------------------------------------------------------------------------


@contextlib.contextmanager
def scheduler(folder: Path):
    """A Dask scheduler, an I/O worker and a fusing worker, each a process: the scheduler and its address."""
    folder.mkdir()
    ready = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    base = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    head = subprocess.Popen([*base, "--no-dashboard", "--scheduler-file", str(ready)], **quiet)
    running = [head]
    try:
        until = time.monotonic() + 120
        while not (ready.exists() and ready.read_text().strip()):
            assert time.monotonic() < until
            time.sleep(0.05)
        address = json.loads(ready.read_text())["address"]
        for offered in (f"{IO}=1", f"{GPU}=1"):
            command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--host", "127.0.0.1"]
            more = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--resources", offered]
            running.append(subprocess.Popen([*command, *more], **quiet))
        yield head, address
    finally:
        # a worker whose scheduler is gone may wait for it for minutes before it heeds a signal
        for process in running:
            process.kill()
        for process in running:
            process.wait(30)


def test_a_killed_scheduler_ends_the_run_in_words_and_another_one_takes_it_up(
    catalogue, undisturbed, tmp_path, monkeypatch
):
    store = tmp_path / "store"
    monkeypatch.setattr(cluster, "PATIENCE", 60.0)
    catalogue.server.faults.set([SLOW])
    command = [sys.executable, "-m", "flows.cli", "run", str(catalogue.aoi), "--year", "2023", "--tile", "60"]
    command += ["--end", "2023-07-10", "--catalog", catalogue.catalog, "--store", str(store), "--threads", "1"]
    command += ["--method", "additive"]
    with scheduler(tmp_path / "first") as (head, address):
        cluster_of(address, patience=60)
        run = subprocess.Popen([*command, "--scheduler", address], stderr=subprocess.PIPE, text=True)
        while run.poll() is None and not records(store):
            time.sleep(0.05)
        head.kill()
        killed = time.monotonic()
        _, said = run.communicate(timeout=60)
    took = time.monotonic() - killed
    assert run.returncode == 1, said
    assert f"error: the Dask scheduler at {address} is gone" in said
    assert "Finished tiles are kept" in said
    assert "Traceback" not in said
    assert took < 60
    print(f"the run ended {took:.1f} s after its scheduler")
    before = records(store)  # the tile under way may have been finished: a worker ends when its task does
    assert 1 <= len(before) < 8
    catalogue.server.faults.set()
    with scheduler(tmp_path / "second") as (_, address):
        cluster_of(address, patience=60)
        again = subprocess.run([*command, "--scheduler", address], stderr=subprocess.PIPE, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    after = records(store)
    assert {name: after[name] for name in before} == before, "a finished tile was made again"
    assert same(arrays(store), arrays(undisturbed))


def cluster_of(address: str, patience: float) -> None:
    """Wait until the workers have come."""
    with cluster.connect(address, patience=patience) as client:
        until = time.monotonic() + patience
        while not (cluster.slots(client, IO) and cluster.slots(client, GPU)):
            assert time.monotonic() < until
            time.sleep(0.1)


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A file system of its own in memory, and how to resize it."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("only root on Linux can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], stderr=subprocess.PIPE, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def taken(folder: Path) -> int:
    """Bytes on a file system of 4096 byte blocks."""
    return sum(-(-p.stat().st_size // 4096) * 4096 for p in folder.rglob("*") if p.is_file())


def test_a_disk_that_fills_in_either_stage(catalogue, client, undisturbed, disk):
    """It is said at once, nothing half-made counts, and with more room the run goes on to the very same cube."""
    inputs, fused = taken(undisturbed / INPUTS), taken(undisturbed / FUSED)
    resize(disk, inputs // 2 + 200_000)
    store = disk / "store"
    made = job.prepare(asked(catalogue, store))
    told = []
    words = rf"tile r00.c00. cannot be stored: no room is left on the disk of {store} .*Make room there"
    with pytest.raises(FullError, match=words), job.alone(made.store):
        job.ingest(made, client, told.append)
    first = records(store)
    assert len(first) == len(done(told, "ingest")) < 4
    with pytest.raises(FullError, match="no room is left"):  # it still is
        stages(made, client)
    resize(disk, inputs + fused // 2 + 400_000)
    with pytest.raises(FullError, match=words):
        stages(made, client, told)
    second = records(store)
    assert {name: second[name] for name in first} == first, "a finished tile was made again"
    assert sorted(done(told, "ingest")) == sorted(t.name for t in made.plan.tiles)
    assert len(second) - 4 == len(done(told, "fuse")) < 4
    resize(disk, 2 * (inputs + fused) + 10_000_000)
    stages(made, client, told)
    third = records(store)
    assert {name: third[name] for name in second} == second, "a finished tile was made again"
    assert sorted(done(told, "fuse")) == sorted(t.name for t in made.plan.tiles)
    assert half(store) == 0
    assert same(arrays(store), arrays(undisturbed))


def test_what_a_full_disk_says_by_whoever_finds_out(tmp_path):
    store = Store(str(tmp_path))
    for error in (
        OSError(errno.ENOSPC, "No space left on device", "/data/x"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        StoreError("cannot write x: Generic LocalFileSystem error: No space left on device (os error 28); nothing"),
    ):
        with (
            pytest.raises(FullError, match=r"the plan cannot be stored.* free; .*Make room"),
            room.noticed(store, "the plan"),
        ):
            raise error
    with pytest.raises(PermissionError), room.noticed(store, "the plan"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(StoreError, match=r"^another run$"), room.noticed(store, "the plan"):
        raise StoreError("another run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_finds_no_room_is_silent(capfd):
    """The run itself says that the disk is full; its log neither ends it nor repeats a traceback for every line."""
    with logs.to_file(Path("/dev/full"), "run"):
        logging.getLogger("pipeline").info("a line that is lost")
    assert "Logging error" not in capfd.readouterr().err


def test_a_record_without_room_is_a_clear_error(tmp_path):
    """What is neither tile nor shard, such as a picture, is written by the run itself."""
    made = job.Job(SimpleNamespace(fingerprint="f", name="field", year=2023), Store(str(tmp_path)), {})
    with (
        pytest.raises(FullError, match="a record of this run cannot be stored"),
        work.begun(lambda hear: made, "run", lambda event: None),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "report" / "ndvi.png"))
    assert "no room is left" in (tmp_path / "logs" / "run.log").read_text()
