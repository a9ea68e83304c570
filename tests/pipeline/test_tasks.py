"""Tiles on a real cluster: pinned by resource, bounded, retried, reported, cancelled."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import distributed
import psutil
import pytest

from pipeline import cluster, tasks
from pipeline.cluster import GPU, IO
from pipeline.errors import AssetError, ClusterError, CubeError
from pipeline.events import TileDone, TileFailed
from pipeline.grid import Grid
from pipeline.ingest import TileResult
from pipeline.settings import Settings

GRID = Grid(32650, 600_000, 5_400_000, 40, 30, 60)
TILES = list(GRID.tiles())
# the workers cannot import a test module: its functions travel whole
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def client():
    with cluster.connect(defaults=Settings()) as client:
        yield client


def note(row, col, folder, seconds=0.0):
    worker = distributed.get_worker()
    stamp = f"r{row:03d}c{col:03d}"
    with open(os.path.join(folder, "log"), "a") as file:  # noqa: PTH118, PTH123 - runs in the worker
        file.write(f"{stamp} {worker.name} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    time.sleep(seconds)
    return TileResult("fuse", stamp, seconds, {"read": 0.1})


def pinned(row, col, folder):
    cluster.require_gpu()
    return note(row, col, folder)


def fail_on(row, col, folder, kind, times):
    seen = os.path.join(folder, f"seen-{row}-{col}")  # noqa: PTH118
    count = len(open(seen).read()) if os.path.exists(seen) else 0  # noqa: PTH110, PTH123, SIM115
    with open(seen, "a") as file:  # noqa: PTH123
        file.write("x")
    if (row, col) == (0, 1) and count < times:
        raise kind(f"asset 'red' of item X is gone (attempt {count + 1})")
    return note(row, col, folder)


def lines(folder):
    return [line.split() for line in (folder / "log").read_text().splitlines()]


def test_gpu_tiles_run_on_gpu_workers_only_and_each_once(client, tmp_path):
    heard = []
    results, failed = tasks.map_tiles(
        client, "fuse", pinned, TILES, (str(tmp_path),), resource=GPU, listener=heard.append
    )
    seen = lines(tmp_path)
    assert {name for _, name, *_ in seen} == {"gpu0"}
    assert len({pid for *_, pid, _ in seen}) == 1
    assert sorted(t for t, *_ in seen) == sorted(t.name for t in TILES)
    assert len(results) == len(TILES)
    assert failed == []
    assert all(isinstance(e, TileDone) and e.timings == {"read": 0.1} for e in heard)


def test_a_fusing_task_on_an_io_worker_refuses(client, tmp_path):
    heard = []
    _, failed = tasks.map_tiles(
        client, "fuse", pinned, TILES[:2], (str(tmp_path),), resource=IO, listener=heard.append, retries=0
    )
    assert len(failed) == 2
    assert "offers no resource GPU" in failed[0].error
    assert not (tmp_path / "log").exists()


def ingesting(dask_scheduler):
    return [str(key) for key in dask_scheduler.tasks if str(key).startswith("ingest-")]


def test_a_window_of_slots_and_two(client, tmp_path):
    most = 0
    stop = threading.Event()

    def watch():
        nonlocal most
        while not stop.is_set():
            most = max(most, len(client.run_on_scheduler(ingesting)))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    keys = []
    tasks.map_tiles(
        client, "ingest", note, TILES[:12], (str(tmp_path), 0.1), resource=IO,
        listener=lambda e: keys.append(client.run_on_scheduler(ingesting)),
    )  # fmt: skip
    stop.set()
    watcher.join()
    assert 1 < most <= cluster.slots(client, IO) + tasks.AHEAD
    names = {k for batch in keys for k in batch}
    assert names
    assert all(k.startswith("ingest-r00") for k in names)
    assert {name for _, name, *_ in lines(tmp_path)} == {"io0"}


def test_a_tile_that_fails_is_tried_again_and_then_named(client, tmp_path):
    for times, done in ((1, True), (9, False)):
        folder = tmp_path / str(times)
        folder.mkdir()
        heard = []
        results, failed = tasks.map_tiles(
            client, "ingest", fail_on, TILES[:4], (str(folder), AssetError, times), resource=IO, listener=heard.append
        )
        tried = len((folder / "seen-0-1").read_text())
        assert tried == (2 if done else 1 + tasks.RETRIES)
        assert len(results) == (4 if done else 3)
        assert [f.tile for f in failed] == ([] if done else ["r000c001"])
        complaints = [e for e in heard if isinstance(e, TileFailed)]
        assert len(complaints) == (0 if done else 1)
        assert done or "asset 'red' of item X" in complaints[0].error


def test_what_cannot_be_cured_is_not_tried_again(client, tmp_path):
    _, failed = tasks.map_tiles(
        client, "ingest", fail_on, TILES[:3], (str(tmp_path), CubeError, 9), resource=IO, listener=lambda e: None
    )
    assert len(failed) == 1
    assert (tmp_path / "seen-0-1").read_text() == "x"


def test_an_interrupt_cancels_what_is_under_way(client, tmp_path):
    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tasks.map_tiles(client, "ingest", note, TILES, (str(tmp_path), 0.2), resource=IO, listener=interrupt)
    time.sleep(1)
    started = len(lines(tmp_path))
    time.sleep(1)
    assert len(lines(tmp_path)) == started <= cluster.slots(client, IO) + tasks.AHEAD + 1


def die_once(row, col, folder):
    if (row, col) == (0, 0) and not os.path.exists(os.path.join(folder, "died")):  # noqa: PTH110, PTH118
        open(os.path.join(folder, "died"), "w").close()  # noqa: PTH118, PTH123
        os._exit(9)
    return note(row, col, folder)


def test_a_worker_that_dies_is_replaced_and_its_tile_done(client, tmp_path):
    results, failed = tasks.map_tiles(
        client, "fuse", die_once, TILES[:3], (str(tmp_path),), resource=GPU, listener=lambda e: None
    )
    assert failed == []
    assert len(results) == 3


def test_everything_listens_on_loopback_only(client):
    here = psutil.Process()
    ports = [c for p in (here, *here.children(recursive=True)) for c in p.net_connections() if c.status == "LISTEN"]
    assert ports
    assert {c.laddr.ip for c in ports} == {"127.0.0.1"}
    assert client.dashboard_link.startswith("http://127.0.0.1:")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Linux tells what a process began with")
def test_workers_begin_with_what_their_allocator_and_their_threads_are_told(client):
    """What Dask sets in a process that runs already comes too late for glibc."""
    for began in client.run(Path("/proc/self/environ").read_bytes).values():
        for name, value in {**cluster.ALLOCATOR, **cluster.WAITING}.items():
            assert f"{name}={value}".encode() in began.split(b"\0")


def test_devices_are_pinned_one_a_process(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, GPU-abc")
    assert cluster.devices("cuda") == ["0", "GPU-abc"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(ClusterError, match="no CUDA device"):
        cluster.devices("cuda")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert cluster.devices("cpu", 2) == ["cpu0", "cpu1"]


def environment():
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_each_fusing_process_sees_its_own_device(monkeypatch):
    """Two pretended devices: two processes, each with one of them, and twice as many tiles at once."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with cluster.connect(device="cuda", defaults=Settings()) as client:
        seen = client.run(environment)
        named = {w["name"]: seen[a] for a, w in client.scheduler_info(n_workers=-1)["workers"].items()}
        assert named["gpu0"] == "3"
        assert named["gpu1"] == "5"
        assert cluster.slots(client, GPU) == 4


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler in a process of its own, with one worker that offers nothing."""
    base = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    ready = tmp_path / "scheduler.json"
    processes = [
        subprocess.Popen(
            [*base, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(ready)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
    ]  # fmt: skip
    while not ready.exists() or not ready.read_text():
        time.sleep(0.1)
    import json

    address = json.loads(ready.read_text())["address"]
    processes.append(_worker(address))
    yield address, processes
    for process in reversed(processes):
        process.terminate()
        process.wait(20)


def _worker(address, *extra):
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--host", "127.0.0.1", "--nthreads", "1"]
    return subprocess.Popen(
        [*command, "--no-nanny", "--no-dashboard", *extra], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_a_scheduler_without_gpu_workers_is_refused_in_seconds_and_served_once_there_is_one(scheduler, tmp_path):
    address, processes = scheduler
    began = time.monotonic()
    with (
        pytest.raises(ClusterError, match=f"dask worker {address} --nthreads 1 --resources GPU=1"),
        cluster.connect(address, patience=3),
    ):
        pass
    assert time.monotonic() - began < 10
    processes.append(_worker(address, "--resources", "GPU=1"))
    with cluster.connect(address, patience=20) as client:
        assert cluster.slots(client, GPU) == 1
        results, _ = tasks.map_tiles(
            client, "fuse", pinned, TILES[:2], (str(tmp_path),), resource=GPU, listener=lambda e: None
        )
        assert len(results) == 2


class Deadly:
    """A result that kills the worker that is asked for it: it has told that the tile is done."""

    def __reduce__(self):
        os._exit(1)


def deadly(row, col):
    return Deadly()


def test_a_worker_that_dies_with_its_result_does_not_hold_the_others_up(scheduler, tmp_path, monkeypatch):
    address, processes = scheduler
    processes.append(_worker(address, "--resources", "GPU=1"))
    monkeypatch.setattr(tasks, "FETCH", 1.0)
    monkeypatch.setattr(tasks, "IDLE", 3.0)
    with (
        cluster.connect(address, patience=20) as client,
        pytest.raises(ClusterError, match="no worker has offered the resource GPU for 3 s; 1 tiles are left"),
    ):
        tasks.map_tiles(client, "fuse", deadly, TILES[:1], (), resource=GPU, listener=lambda e: None)


def test_patience_for_workers_never_shortens_the_wait_for_one(client, monkeypatch):
    """A worker that died is started anew in seconds, and a short patience must not give the stage up before."""
    monkeypatch.setenv("MARSTFN_WORKER_PATIENCE", "0.1")
    monkeypatch.setattr(tasks, "IDLE", 2.0)
    with pytest.raises(ClusterError, match="no worker has offered the resource TPU for 2 s"):
        tasks.map_tiles(client, "fuse", pinned, TILES[:1], ("",), resource="TPU", listener=lambda e: None)


def test_nobody_at_the_address(tmp_path):
    began = time.monotonic()
    with (
        pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"),
        cluster.connect("tcp://127.0.0.1:9", patience=2),
    ):
        pass
    assert time.monotonic() - began < 10
    assert not list(Path(tmp_path).iterdir())
