"""Where the work is done: an embedded cluster on loopback, or a scheduler that is already there."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, get_worker
from distributed.comm import CommClosedError
from distributed.system import MEMORY_LIMIT

from pipeline import encryption
from pipeline.errors import ClusterError, MarstfnError
from pipeline.settings import Settings

log = logging.getLogger(__name__)

IO, GPU = "IO", "GPU"
"""Dask resources: what a worker that reads offers, and what a worker with a device offers, GPU or not."""
SLOTS = 2
"""Tiles read at once by the embedded I/O worker: while one waits at a barrier the other keeps the threads busy."""
TILES = {"cuda": 2, "mps": 2}
"""Tiles fused at once on one device, by its kind, else one: one is encoded while the next is read, and the
device takes one call at a time. Where the processor is the network, it is busy anyway."""
LOOPBACK = "127.0.0.1"
PATIENCE = 8.0
"""Seconds in which an existing scheduler must answer and show its workers."""

ALLOCATOR: Mapping[str, str] = {
    # 24 threads would have up to 16 heaps on two processors, none of which gives back what another could use
    "MALLOC_ARENA_MAX": "2",
    # glibc keeps up to a quarter of a megabyte by thread for the next request: filled over hundreds of tiles, so that
    # a worker seems to grow; to do without cost no time (tiles of 60 px, three runs each in turn)
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
    # Dask trims from 64 kB on, and so has glibc map 128 kB and more anew each time: memory that the system must clear
    # at every call of the network, 97 in place of 130 to 150 kpx/s on two cores (60 px, batches of 2), and in reading:
    # a tile of 480 px and 32 dates took 4.8 in place of 3.3 s (three runs each in turn)
    "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
}
"""What glibc reads once, when a process begins: later, as the rest of a worker's environment, it comes too late."""
WAITING: Mapping[str, str] = {
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "3000",
}
"""How the network's threads wait for each other, thousands of times a second. Asleep at once they wake too late (71
kpx/s on two idle cores, 42 beside another job); awake for as long as libgomp would have them they starve on a core that
is shared (145, and 5); like this it is 132, and 39."""

CONFIG: Mapping[str, Any] = {
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in {**ALLOCATOR, **WAITING}.items()},
    # tiles are large and results tiny: nothing is worth spilling, moving or computing in two places
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    # GDAL and torch hold the interpreter for seconds at a time; a busy worker is not a dead one
    "distributed.scheduler.worker-ttl": "30 minutes",
    "distributed.worker.daemon": True,
    # a fork of a process that has used an object store hangs
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.comm.timeouts.tcp": "120s",
    # nobody asks these ports from afar
    "distributed.diagnostics.nvml": False,
}


@contextmanager
def connect(
    address: str | None = None,
    *,
    device: str = "cpu",
    defaults: Settings | None = None,
    patience: float = PATIENCE,
) -> Iterator[Client]:
    """A client to the scheduler at `address`, or to a cluster on loopback that lives as long as the context.

    The embedded cluster has one process that reads (resource IO) and one process a device that fuses (resource GPU,
    a thread and a unit of it for each of TILES); without a GPU the processor is the device. Raises ClusterError within
    seconds where the scheduler at `address` does not answer, is reached over a network without TLS or with the wrong
    certificates, or where no worker offers the resource GPU; with Settings.worker_patience one is called for and
    waited for that long.
    """
    chosen = defaults or Settings()
    with dask.config.set(dict(CONFIG)):
        if address is not None:
            yield from _existing(address, patience, chosen)
        else:
            encryption.allowed_dashboard(chosen.dashboard, chosen)
            yield from _embedded(device, chosen)


def require_gpu() -> None:
    """Raise ClusterError where this runs on a Dask worker that does not offer the resource GPU."""
    try:
        worker = get_worker()
    except ValueError:  # not on a worker at all: a script or a test drives the tile itself
        return
    if not worker.state.total_resources.get(GPU):
        raise ClusterError(
            f"a fusing task was placed on worker {worker.name}, which offers no resource {GPU}; "
            "its tile is not written. Submit it through pipeline.tasks.map_tiles with the resource"
        )


def require_scheduler(client: Client) -> None:
    """Raise ClusterError where the connection to the scheduler is lost, and with it what was under way."""
    if client.status != "running":
        raise _lost(client)


def slots(client: Client, resource: str) -> int:
    """How many tasks that ask for one unit of `resource` can run at once, now.

    Raises ClusterError where the scheduler is lost.
    """
    return int(sum(w["resources"].get(resource, 0) for w in described(client)))


def described(client: Client) -> list[Mapping[str, Any]]:
    """The workers there are now, as the scheduler describes them: name, resources, memory_limit (0: none), ...

    Raises ClusterError where the scheduler is lost.
    """
    try:
        return list(client.scheduler_info(n_workers=-1)["workers"].values())
    except CommClosedError as error:
        raise _lost(client) from error


def _lost(client: Client) -> ClusterError:
    address = getattr(client.scheduler, "address", "an unknown address")
    return ClusterError(
        f"the Dask scheduler at {address} is gone: the connection to it is lost, and with it the tiles under way. "
        "Finished tiles are kept. Start a scheduler and its workers anew (dask scheduler, dask worker) and run the "
        "same command again with its address (--scheduler), or without one for an embedded cluster"
    )


def devices(kind: str, workers: int = 1) -> Sequence[str]:
    """One entry a fusing process: values of CUDA_VISIBLE_DEVICES, or `workers` names where there is no CUDA."""
    if kind != "cuda":
        return [f"{kind}{i}" for i in range(workers)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = [v.strip() for v in visible.split(",") if v.strip() and v.strip() != "-1"]
    else:
        found = _installed()
    if not found:
        raise ClusterError(
            "the plan asks for CUDA and this machine shows no CUDA device (nvidia-smi -L, CUDA_VISIBLE_DEVICES); "
            "nothing was started. Use --device cpu with another --store, or a scheduler with GPU workers (--scheduler)"
        )
    return found


def _installed() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=False)
    return [str(i) for i, line in enumerate(x for x in listed.stdout.splitlines() if x.startswith("GPU "))]


def _embedded(device: str, chosen: Settings) -> Iterator[Client]:
    names = devices(device, chosen.workers)
    limit: Any = MEMORY_LIMIT // (len(names) + 1) if chosen.memory_limit == "auto" else chosen.memory_limit
    common: dict[str, Any] = {"host": LOOPBACK, "memory_limit": limit, "dashboard": False, "config": dict(CONFIG)}
    # what fails in a task comes home with its future; a heartbeat that misses a closing scheduler is no error
    common["silence_logs"] = logging.CRITICAL
    env = {
        "GDAL_CACHEMAX": "64",
        "MARSTFN_IO_THREADS": str(chosen.io_threads),
    }
    slots_io = max(SLOTS, min(4, (os.cpu_count() or 1) // 4))
    specs: dict[str, Any] = {
        "io0": {
            "cls": Nanny,
            "options": {**common, "name": "io0", "nthreads": slots_io, "resources": {IO: slots_io}, "env": env},
        }
    }
    for index, name in enumerate(names):
        pin = {"CUDA_VISIBLE_DEVICES": name} if device == "cuda" else {}
        tiles = TILES.get(device, 1)
        offer = {"nthreads": tiles, "resources": {GPU: tiles}}
        options = {**common, **offer, "name": f"gpu{index}", "env": {**env, **pin}}
        specs[f"gpu{index}"] = {"cls": Nanny, "options": options}
    scheduler = {
        "cls": Scheduler,
        "options": {"host": LOOPBACK, "port": 0, "dashboard": True, "dashboard_address": chosen.dashboard},
    }
    try:
        cluster = SpecCluster(workers=specs, scheduler=scheduler, silence_logs=logging.ERROR, name="marstfn")
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(
            f"the embedded cluster did not start: {error}; nothing was computed. Close what holds the port of the "
            f"dashboard ({chosen.dashboard}) or memory, or name a scheduler that runs (--scheduler)"
        ) from error
    try:
        with Client(cluster, set_as_default=False) as client:
            # torch takes seconds to import: let the fusing workers do it while tiles are still being read
            fusing = [name for name in specs if name != "io0"]
            warming = [client.submit(_warm, pure=False, key=f"import-torch-{n}", workers=[n]) for n in fusing]
            yield client
            del warming
    finally:
        cluster.close(timeout=10)


def _warm() -> None:
    import pipeline.fuse  # noqa: F401


def _existing(address: str, patience: float, chosen: Settings) -> Iterator[Client]:
    encryption.allowed(address, chosen)
    credentials = encryption.security(address, chosen)
    encryption.greet(address, credentials, patience)
    try:
        client = Client(address, timeout=patience, set_as_default=False, security=credentials)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} within {patience:g} s ({error}); nothing was computed. "
            "Start one (dask scheduler), correct --scheduler, or leave it out for an embedded cluster"
        ) from error
    with client:
        _await_workers(client, address, patience, chosen.worker_patience)
        try:
            yield client
        except MarstfnError:
            raise
        except CommClosedError as error:
            raise _lost(client) from error
        except Exception:
            require_scheduler(client)  # whatever else a lost scheduler makes of a call, it is said in words
            raise
        finally:
            if client.status != "running":
                _close_unheard(client)


def _close_unheard(client: Client) -> None:
    """Close a client that has lost its scheduler, without the tracebacks of its vain attempts to find it again."""
    loggers = [logging.getLogger(f"distributed.{name}") for name in ("client", "utils")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        client.close(timeout=5)
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _await_workers(client: Client, address: str, patience: float, wanted: float | None) -> None:
    """Raise ClusterError unless a worker for fusing shows up in `patience` seconds, or, called for, in `wanted`."""
    # Who starts workers on demand (Dask's Adaptive) does so outside of the scheduler, which knows nothing of it: only
    # the user can tell such a scheduler from one whose workers were forgotten. What it goes by are tasks that wait.
    call = None if wanted is None else client.submit(int, key=f"call-{uuid.uuid4().hex[:6]}", resources={GPU: 1})
    patience = max(patience, wanted or 0.0)
    until = time.monotonic() + patience
    remedy = "let MARSTFN_WORKER_PATIENCE say for how many seconds they are waited for"
    if wanted is not None:
        remedy = "see in its log why it did not, or let MARSTFN_WORKER_PATIENCE be longer"
        log.info("scheduler %s: waiting up to %g s for a worker with the resource %s", address, patience, GPU)
    while True:
        workers = described(client)
        if any(w["resources"].get(GPU) for w in workers):
            if call is not None:
                call.release()
            return
        if time.monotonic() > until:
            secured = " --tls-ca-file ... --tls-cert ... --tls-key ..." if address.startswith("tls://") else ""
            raise ClusterError(
                f"the scheduler at {address} has {len(workers)} worker(s) and none offers the resource {GPU}, which "
                f"fusing needs, within {patience:g} s; nothing was computed. Start one a device, with or without a "
                f"GPU: dask worker {address} --nthreads 1 --resources {GPU}=1{secured}. If something starts "
                f"them when tasks wait (adaptive scaling), {remedy}"
            )
        time.sleep(0.3)
