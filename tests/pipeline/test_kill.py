"""Killed at any moment, a run goes on where it stopped and ends in the very cube of a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

from pipeline import job
from pipeline.store import FUSED, INPUTS, Store

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

RUN = r"""
import json, os, signal, sys

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def main(given, serial, fatal):
    os.environ["MARSTFN_UNIT_MB"] = "0"  # tile by tile, so that the dead leave some of them
    from pipeline import cluster, job, ledger, request, tasks
    from pipeline.events import StageStarted, TileDone, silent
    from pipeline.settings import Settings

    def say(event):
        if isinstance(event, (StageStarted, TileDone)):
            kind = "started" if isinstance(event, StageStarted) else "done"
            print(kind, event.stage, getattr(event, "tile", "-"), flush=True)

    def one_by_one(client, stage, function, tiles, arguments, *, resource, listener):
        results = []
        for tile in tiles:
            results.append(function(tile.row, tile.col, *arguments))
            listener(TileDone(stage, tile.name, 0.0))
        return results, []

    if fatal and fatal["where"] == "shard":
        # between the bytes of a shard and the name under which it is found
        from pipeline import shards
        whole, seen = shards._write, [0]

        def half():
            yield b"half a shard"
            die()

        def cut(path, pieces):
            if f"{fatal['cube']}/" in str(path) and "/c/" in str(path):
                seen[0] += 1
                pieces = half() if seen[0] == fatal["count"] else pieces
            whole(path, pieces)

        shards._write = cut
    if fatal and fatal["where"] == "ledger":
        before, stage = ledger.write, fatal["stage"]
        ledger.write = lambda store, record: die() if record.stage == stage else before(store, record)

    asked = request.make(**given)
    made = job.prepare(asked, say)
    with job.alone(made.store):
        if serial:
            job.map_tiles, cluster.slots, cluster.described = one_by_one, lambda *_: 1, lambda *_: []
            client = None
            job.ingest(made, client, say)
            job.harmonise(made, client, say)
            job.fuse(made, client, say)
        else:
            with cluster.connect(defaults=Settings()) as client:
                job.ingest(made, client, say)
                job.harmonise(made, client, say)
                job.fuse(made, client, say)
    print("finished - -", flush=True)

def nursery():
    # Import once, then fork a run for each line of orders: a run starts at once and is a process of its own
    import pipeline.fuse, pipeline.job
    print("ready - -", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                main(*json.loads(line))
                os._exit(0)
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
        print("born", child, "-", flush=True)
        _, status = os.waitpid(child, 0)
        print("ended", os.waitstatus_to_exitcode(status), "-", flush=True)

if __name__ == "__main__":
    if sys.argv[1:]:
        main(*(json.loads(a) for a in sys.argv[1:4]))
    else:
        nursery()
"""


class Runs:
    """Runs of one request, each in a process of its own."""

    def __init__(self, folder: Path, season, **extra):
        self.script = folder / "run.py"
        self.script.write_text(RUN)
        self.given = {"aoi": str(season.aoi), "year": 2023, "catalog": season.catalog, "tile_px": 60, "threads": 1}
        self.given |= {"method": "additive", "end": "2023-07-10"} | extra
        self.nursery: subprocess.Popen | None = None

    def __enter__(self):
        command = [sys.executable, "-W", "ignore", str(self.script)]
        self.nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.nursery.stdout.readline().startswith("ready")
        return self

    def __exit__(self, *error):
        self.nursery.stdin.close()
        self.nursery.wait(30)

    def arguments(self, store: Path, serial: bool, fatal: dict | None) -> list:
        return [self.given | {"store": str(store)}, serial, fatal]

    def run(self, store: Path, hear=None, fatal: dict | None = None) -> tuple[int, list[list[str]]]:
        """One run, tile after tile; its exit code and what it said. `hear(said, kill)` is called after each line."""
        self.nursery.stdin.write(json.dumps(self.arguments(store, True, fatal)) + "\n")
        self.nursery.stdin.flush()
        _, child, _ = self.nursery.stdout.readline().split()
        said = []
        for line in self.nursery.stdout:
            words = line.split()
            if words[0] == "ended":
                return int(words[1]), said
            said.append(words)
            if hear is not None:
                hear(said, lambda: os.kill(int(child), signal.SIGKILL))
        raise AssertionError("the nursery has ended")

    def whole(self, store: Path) -> list[list[str]]:
        """To the end; what it said."""
        code, said = self.run(store)
        assert code == 0
        assert said[-1][0] == "finished"
        return said

    def killed(self, store: Path, stage: str, done: int, delay: float) -> list[list[str]]:
        """SIGKILL `delay` seconds after `stage` has begun and `done` tiles of it are made, or when one more is."""
        moment = Moment(stage, done, delay)
        code, said = self.run(store, moment)
        moment.end()
        assert code == -signal.SIGKILL, f"the run ended before it could be killed: {said}"
        return said

    def fatal(self, store: Path, **fatal) -> list[list[str]]:
        """A run that kills itself at a chosen place."""
        code, said = self.run(store, fatal=fatal)
        assert code == -signal.SIGKILL, said
        return said

    def cluster(self, store: Path) -> subprocess.Popen:
        """A run with a cluster of its own."""
        arguments = [json.dumps(a) for a in self.arguments(store, False, None)]
        command = [sys.executable, "-W", "ignore", str(self.script), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


class Moment:
    """When a run is killed."""

    def __init__(self, stage: str, done: int, delay: float):
        self.stage, self.done, self.delay = stage, done, delay
        self.timer: threading.Timer | None = None

    def __call__(self, said: list[list[str]], kill) -> None:
        made = sum(kind == "done" and stage == self.stage for kind, stage, _ in said)
        begun = any(kind == "started" and stage == self.stage for kind, stage, _ in said)
        if begun and made >= self.done and self.timer is None:
            self.timer = threading.Timer(self.delay, kill)
            self.timer.start()
        if made > self.done:
            kill()

    def end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


def arrays(store: Path) -> dict[str, np.ndarray]:
    """Every array of both cubes, decoded."""
    out = {}
    for name in (INPUTS, FUSED):
        for path, node in zarr.open_group(str(store / name), mode="r").members(max_depth=None):
            if isinstance(node, zarr.Array):
                out[f"{name}/{path}"] = np.asarray(node[...])
    return out


def records(store: Path) -> dict[str, bytes]:
    """Ledger entries of tiles, with the time at which each was written."""
    return {str(p.relative_to(store)): p.read_bytes() for p in store.glob("ledger/*/*.json")}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    assert a.keys() == b.keys()
    for name, values in a.items():
        kind = values.dtype.kind
        equal = values == b[name] if kind not in "fO" else np.array_equal(values, b[name], equal_nan=kind == "f")
        assert np.all(equal), f"{name} differs in {np.mean(~np.asarray(equal)):.3%}"
    return True


def undisturbed(runs: Runs, store: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The cube of a run left alone, and how long a tile of each stage takes."""
    at: dict[str, list[float]] = {}
    code, _ = runs.run(store, lambda said, _: at.setdefault(said[-1][1], []).append(time.monotonic()))
    assert code == 0
    return arrays(store), {stage: (t[-1] - t[0]) / max(1, len(t) - 1) for stage, t in at.items()}


@pytest.fixture(scope="module")
def runs(season, tmp_path_factory):
    with Runs(tmp_path_factory.mktemp("runs"), season) as runs:
        yield runs


@pytest.fixture(scope="module")
def reference(runs, tmp_path_factory):
    return undisturbed(runs, tmp_path_factory.mktemp("reference"))


def test_twelve_kills_and_more_leave_no_trace(runs, reference, tmp_path):
    seed = int(os.environ.get("MARSTFN_KILL_SEED", random.SystemRandom().randrange(10**6)))
    chance = random.Random(seed)
    print(f"kill test: seed {seed} (MARSTFN_KILL_SEED repeats it)")
    expected, takes = reference
    store = tmp_path / "killed"
    moments = 0

    def survived(before: dict[str, bytes], said: list[list[str]], what: str) -> None:
        nonlocal moments
        moments += 1
        after = records(store)
        again = {f"ledger/{s}/{t}.json" for kind, s, t in said if kind == "done"} & set(before)
        assert not again, f"made again: {again}"
        assert {k: after[k] for k in before} == before, "a finished tile was written again"
        print(f"  kill {moments:2d}: {what}; {len(after)} tiles in the ledger, {half(store)} objects half-written")

    def kill(stage: str, done: int) -> None:
        delay = chance.uniform(0, takes[stage])
        before = records(store)
        said = runs.killed(store, stage, done, delay)
        survived(before, said, f"{stage}, {delay:.3f} s after tile {done}")

    # 4 tiles a stage, of which the kills at random may finish 3 at most
    for done in chance.sample([0, 0, 0, 1], 4):
        kill("ingest", done)
    before = records(store)
    said = runs.fatal(store, where="shard", cube="inputs.zarr", count=chance.randrange(1, 20))
    survived(before, said, "inside the write of an input shard")
    assert half(store) >= 1
    before = records(store)
    said = runs.fatal(store, where="ledger", stage="ingest")
    survived(before, said, "between the shards and the ledger, ingest")
    kill("ingest", 0)
    kill("harmonise", 0)
    for done in chance.sample([0, 0, 0, 1], 4):
        kill("fuse", done)
    before = records(store)
    said = runs.fatal(store, where="shard", cube="fused.zarr", count=chance.randrange(1, 8))
    survived(before, said, "inside the write of a fused shard")
    before = records(store)
    said = runs.fatal(store, where="ledger", stage="fuse")
    survived(before, said, "between the shards and the ledger, fuse")

    before = records(store)
    said = runs.whole(store)
    assert not {f"ledger/{s}/{t}.json" for kind, s, t in said if kind == "done"} & set(before)
    assert {k: v for k, v in records(store).items() if k in before} == before
    assert half(store) == 0, "half-written objects were not swept"
    assert moments >= 12
    assert same(arrays(store), expected)
    print(f"{moments} kills survived, all arrays of both cubes equal")


def half(store: Path) -> int:
    return len(list(store.rglob("*.partial")))


def test_a_killed_cluster_leaves_no_orphan_and_no_trace(runs, reference, tmp_path):
    """The real thing: the driver of an embedded cluster is killed in each stage; its workers die with it."""
    expected, takes = reference
    store = tmp_path / "killed"
    for stage in ("ingest", "fuse"):
        before, known = records(store), {p.pid for p in psutil.process_iter()}
        process = runs.cluster(store)
        moment, said = Moment(stage, 1, takes[stage] / 2), []
        for line in process.stdout:
            said.append(line.split())
            moment(said, process.kill)
        moment.end()
        assert process.wait() == -signal.SIGKILL, said
        assert {k: v for k, v in records(store).items() if k in before} == before
        until = time.monotonic() + 30
        while time.monotonic() < until and orphans(known):
            time.sleep(0.2)
        assert not orphans(known)
    process = runs.cluster(store)
    said = [line.split() for line in process.stdout]
    assert process.wait() == 0
    assert said[-1][0] == "finished"
    assert same(arrays(store), expected)


def orphans(known: set[int]) -> list[int]:
    """Worker processes born since whose parent is gone."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "ppid"])
        if process.pid not in known
        and process.info["ppid"] == 1
        and "multiprocessing" in " ".join(process.info["cmdline"] or ())
    ]


def test_the_lock_of_a_killed_run_is_free(runs, tmp_path):
    runs.killed(tmp_path / "store", "ingest", 0, 0.0)
    with job.alone(Store(str(tmp_path / "store"))):
        pass
