"""The fuse stage end to end beside its device alone. There is no GPU in it: a stand-in releases the interpreter and
waits as long as a network of so many pixels a second would; what is asked is how fast that may be."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks import ground
from benchmarks.measure import Figure, Table, at_least
from marstfn.baselines.degrade import Array
from pipeline import cluster, fuse, tasks
from pipeline.events import silent
from pipeline.fuse import fuse_tile
from pipeline.grid import Tile
from pipeline.harmonise import Harmonisation
from pipeline.plan import Plan, parsed
from pipeline.settings import Settings
from pipeline.store import PLAN, Store

SHARE = 0.85
PLAIN = Harmonisation("ground", False, ())
GROUPS = {"ahead": "reading and cutting", "behind": "blending, encoding and storing", "zarr": "decoding"}
"""Threads by the beginning of their names."""


@dataclass(eq=False)
class Device:
    """A stand-in for a network on a device of its own: one call at a time, `rate` pixels of patches a second."""

    rate: float
    _pixels: int = 0
    _free: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def pixels(self) -> float:
        """Done so far, of the call under way what its time amounts to."""
        return self._pixels - max(0.0, self._free - time.perf_counter()) * self.rate

    def __call__(self, s2: Array, landsat: Array, pan: Array | None, context: Array | None) -> Array:
        """(n, 6, p, p) as it came, later."""
        pixels = len(s2) * s2.shape[-1] ** 2
        with self._lock:
            now = time.perf_counter()
            # a sleep that took too long is the sleeper's loss only where the device then stood still
            self._free = max(self._free, now - 1e-3) + pixels / self.rate
            self._pixels += pixels
            time.sleep(max(0.0, self._free - now))
        return s2


@dataclass(frozen=True, slots=True)
class Taken:
    """What some seconds of the stage came to."""

    seconds: float
    pixels: float
    """Of patches."""
    cores: dict[str, float]
    """Busy cores by kind of thread, and of all."""

    @property
    def rate(self) -> float:
        """Pixels of patches a second."""
        return self.pixels / self.seconds


def tables(quick: bool) -> list[Table]:
    """The fastest stand-in that the stage keeps busy, the processor time a million pixels cost, and two workers."""
    with _ground(4, 60, 2) if quick else _ground(4, 480, 8) as store:
        # what is compiled at first use is no part of it
        staged(store, Device(1e9), 0.1)
        table = _one(store, 1.0 if quick else 12.0, quick)
    if quick:
        return [table]
    with _ground(2, 240, 4) as store:
        return [table, _several(store)]


@contextmanager
def _ground(tiles: int, side: int, dates: int) -> Iterator[Store]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = tempfile.mkdtemp(prefix="marstfn-stage-", dir=memory)
    try:
        store = Store(folder)
        plan = ground.plan(tiles, side, dates, 3, time_shard=2 * dates)
        store.write(PLAN, plan.model_dump_json().encode())
        ground.write(plan, store)
        yield store
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def _opened(url: str) -> Plan:
    data = Store(url).read(PLAN)
    assert data is not None
    return parsed(data, url)


def staged(store: Store, device: Device, seconds: float, slots: int = 2, *, apart: bool = True) -> Taken:
    """Tiles of the store through the stage in turn, `slots` at a time, for so many seconds in a steady state.

    Tiles of a run differ in cloud and end at different times. These are all alike: begun together they would end
    together for ever, and leave the device alone meanwhile. So the second begins half a tile later, if `apart`.
    """
    plan = _opened(store.url)
    pairs, tiles = ground.pairs(plan), _inner(plan)
    half = apart * _pixels(store) / device.rate / 2
    end = threading.Event()

    def work(slot: int) -> None:
        time.sleep(slot * half)
        # two tasks never make one tile: what a slot cycles through is its own
        mine = tiles[slot::slots]
        while not end.is_set():
            for tile in mine:
                fuse_tile(plan, store, tile, PLAIN, pairs, predicts={False: device})
                if end.is_set():
                    return

    with ThreadPoolExecutor(slots) as pool:
        running = [pool.submit(work, slot) for slot in range(slots)]
        time.sleep(min(2.0, seconds / 2) + half)
        meter = _Meter()
        start, before = time.perf_counter(), device.pixels()
        while time.perf_counter() - start < seconds and not any(r.done() for r in running):
            time.sleep(0.05)
            meter.look()
        taken = time.perf_counter() - start, device.pixels() - before, meter.cores()
        end.set()
        for done in running:
            done.result()
    return Taken(*taken)


def _inner(plan: Plan) -> list[Tile]:
    """Tiles that have neighbours all around, as nearly all of a large area have: they read of nine tiles."""
    rows, columns = plan.grid.tile_shape
    return [t for t in plan.grid.tiles() if 0 < t.row < rows - 1 and 0 < t.col < columns - 1]


@lru_cache(maxsize=1)
def _pixels(store: Store) -> float:
    """Of the patches of one tile."""
    plan, device = _opened(store.url), Device(1e9)
    fuse_tile(plan, store, _inner(plan)[0], PLAIN, ground.pairs(plan), predicts={False: device})
    return device.pixels()


def bare(device: Device, seconds: float, patches: int = 8) -> float:
    """Pixels a second of the device alone, called without a pause."""
    s2 = np.zeros((patches, 6, 60, 60), np.float32)
    start, before = time.perf_counter(), device.pixels()
    while time.perf_counter() - start < seconds:
        device(s2, s2, None, None)
    return (device.pixels() - before) / (time.perf_counter() - start)


class _Meter:
    """Processor time by kind of thread; threads come and go with the tiles, so it must look often."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start = time.perf_counter()
        self._all = time.process_time()
        self._last = self._threads()
        self._spent: defaultdict[str, float] = defaultdict(float)

    def look(self) -> None:
        now = self._threads()
        for name, seconds in now.items():
            self._spent[name[1]] += max(0.0, seconds - self._last.get(name, 0.0))
        self._last = now

    def cores(self) -> dict[str, float]:
        passed = time.perf_counter() - self._start
        whole = (time.process_time() - self._all) / passed
        out = {kind: self._spent[kind] / passed for kind in GROUPS.values()}
        return out | {"all": whole, "other": max(0.0, whole - sum(out.values()))}

    def _threads(self) -> dict[tuple[int, str], float]:
        names = {t.native_id: t.name for t in threading.enumerate()}
        out = {}
        for thread in self._process.threads():
            name = names.get(thread.id, "")
            kind = next((v for k, v in GROUPS.items() if name.startswith(k)), None)
            if kind is None and ("asyncio" in name or "zarr" in name):
                kind = GROUPS["zarr"]
            out[thread.id, kind or "other"] = thread.user_time + thread.system_time
        return out


def _one(store: Store, seconds: float, quick: bool) -> Table:
    """Rates up by steps of 1.6 until the stage no longer keeps up, then down between the last two."""
    rates: dict[float, tuple[float, Taken]] = {}

    def held(rate: float) -> bool:
        device = Device(rate)
        before = bare(device, seconds / 10)
        found = staged(store, device, seconds)
        alone = (before + bare(device, seconds / 10)) / 2
        rates[rate] = found.rate / alone, found
        return rates[rate][0] >= SHARE

    low, high = 0.0, 0.64e6
    while held(high) and high < 40e6 and not (quick and len(rates) >= 1):
        low, high = high, high * 1.6
    if low and not quick:
        for _ in range(2):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if held(middle) else (low, middle)
    kept = [rate for rate, (share, _) in rates.items() if share >= SHARE]
    best = max(kept, default=0.0)
    figures = [
        Figure(f"share of the bare device at {rate / 1e6:.2f} Mpx/s", (share,), "", f">= {SHARE}", share >= SHARE)
        for rate, (share, _) in sorted(rates.items())
    ]
    figures.append(Figure("fastest device kept busy", (best / 1e6,), "Mpx/s"))
    taken = max((t for _, t in rates.values()), key=lambda t: t.rate)
    figures.append(Figure("fastest the stage went", (taken.rate / 1e6,), "Mpx/s"))
    figures += [Figure(f"cores busy then: {kind}", (cores,)) for kind, cores in taken.cores.items()]
    per = taken.cores["all"] / (taken.rate / 1e6)
    figures.append(Figure("processor time of a million pixels", (per,), "core-s/Mpx"))
    figures.append(Figure("cores that a network of 20 Mpx/s would need beside it, by that", (20 * per,)))
    if not quick:
        one, two, together = (
            staged(store, Device(best or high), seconds, slots, apart=apart)
            for slots, apart in ((1, True), (2, True), (2, False))
        )
        figures.append(Figure("at that rate, two tiles at once over one at a time", (two.rate / one.rate,)))
        figures.append(Figure("at that rate, tiles in step over tiles half a tile apart", (together.rate / two.rate,)))
    plan = _opened(store.url)
    share = _pixels(store) / (len(plan.of("landsat8")) * plan.grid.tile_px**2)
    notes = (
        f"no GPU here: a stand-in that releases the interpreter and waits; {os.cpu_count()} cores; "
        f"{seconds:g} s a rate (60 s of GPU work are for a machine with one)",
        f"{len(_inner(plan))} tiles of {plan.grid.tile_px} px with neighbours all around, "
        f"{len(plan.of('landsat8'))} Landsat and "
        f"{len(plan.of('sentinel2'))} Sentinel-2 dates, 30 % cloud, in turn, two tiles at once; pixels are those of "
        f"patches, {share:.2f} of them a pixel of a Landsat date; every Sentinel-2 date is read, masked and encoded "
        "besides; the two "
        "begin half a tile apart, for tiles that are all alike would else end together throughout",
        f"{fuse.AHEAD} threads ahead of the network and {fuse.hands()} behind it, a tile",
    )
    return Table("Stage: the fastest device that does not wait", tuple(figures), notes)


_devices: dict[float, Device] = {}


def task(row: int, col: int, url: str, rate: float) -> float:
    """A tile on a worker with a device of its own; its pixels."""
    device = _devices.setdefault(rate, Device(rate))
    plan, before = _opened(url), device.pixels()
    fuse_tile(plan, Store(url), plan.grid.tile(row, col), PLAIN, ground.pairs(plan), predicts={False: device})
    return device.pixels() - before


def mapped(store: Store, workers: int, rate: float, rounds: int) -> float:
    """Pixels a second of all tiles `rounds` times over, by so many workers through the real scheduler."""
    tiles = list(_opened(store.url).grid.tiles())
    with cluster.connect(defaults=Settings(workers=workers, dashboard="127.0.0.1:0")) as client:
        names = [f"gpu{k}" for k in range(workers)]
        first = [
            client.submit(task, t.row, t.col, store.url, rate, workers=[n], resources={cluster.GPU: 1}, pure=False)
            for n, t in zip(names, tiles, strict=False)
        ]
        client.gather(first)  # imports and compiled code, once a worker
        pixels, start = 0.0, time.perf_counter()
        for _ in range(rounds):
            made, failed = tasks.map_tiles(
                client, "fuse", task, tiles, (store.url, rate), resource=cluster.GPU, listener=silent
            )
            assert not failed, failed
            pixels += sum(made)
        return pixels / (time.perf_counter() - start)


def _several(store: Store) -> Table:
    # so slow that two cores are not what limits two workers
    rate = 0.25e6
    plan = _opened(store.url)
    ones, twos = [], []
    for _ in range(2):
        ones.append(mapped(store, 1, rate, 1) / 1e6)
        twos.append(mapped(store, 2, rate, 1) / 1e6)
    scaled = tuple(b / a for a, b in zip(ones, twos, strict=True))
    return Table(
        "Stage: workers that each own a pretend device",
        (
            Figure("one worker", tuple(ones), "Mpx/s"),
            Figure("two workers", tuple(twos), "Mpx/s"),
            at_least("two over one", scaled, 1.7),
        ),
        (
            f"stand-ins of {rate / 1e6:g} Mpx/s in processes of their own, {len(list(plan.grid.tiles()))} tiles by "
            "map_tiles on the embedded cluster (resource GPU=1); nothing but the number of workers differs",
        ),
    )
