"""Whole runs through outages of their object store (moto, not Amazon's): the cubes are those of a quiet day."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import job, request, status, verify
from pipeline.store import FUSED, INPUTS, Store
from tests import servers
from tests.conftest import Served
from tests.front import Front

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

BUCKET = "outages"
SECONDS = float(os.environ.get("MARSTFN_OUTAGE", "3"))
"""Of each outage. A minute was tried by hand (MARSTFN_OUTAGE=60)."""
END = "2023-06-08"
BEGINS = {
    "ingest": r"/inputs\.zarr/landsat8/red/c/0",
    "harmonise": r"/ledger/harmonise",
    "gate": r"/ledger/gate",
    "fuse": r"/fused\.zarr/red/c/0/0/1",
    "finish": r"/fused\.stac\.json",
}
"""With which object put to the store an outage begins in each stage."""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with servers.moto(tmp_path_factory.mktemp("moto") / "log") as endpoint, Front(endpoint).running() as front:
        servers.bucket(endpoint, BUCKET, {})
        yield front


@pytest.fixture(scope="module")
def quiet(season: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every shard of both cubes of a run into a folder."""
    store = Store(str(tmp_path_factory.mktemp("quiet") / "store"))
    asked = {"aoi": str(season.aoi), "year": 2023, "end": END, "catalog": season.catalog, "tile_px": 60}
    job.run(request.make(**asked, store=store.url))
    return shards(store)


def shards(store: Store) -> dict[str, bytes]:
    names = [name for cube in (INPUTS, FUSED) for name in store.names(cube) if "/c/" in name]
    return {name: store.read(name) or b"" for name in names}


def typed(served: Served, store: Store, front: Front, state: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`marstfn run` into the store behind `front`, in a process of its own."""
    given = {"--year": "2023", "--end": END, "--catalog": served.catalog, "--store": store.url, "--tile": "60"}
    command = [sys.executable, "-m", "flows.cli", "run", str(served.aoi), *(x for pair in given.items() for x in pair)]
    there = os.environ | front.env | {"XDG_STATE_HOME": str(state)} | env
    return subprocess.run(command, env=there, capture_output=True, text=True, timeout=800, check=False)


@pytest.fixture
def store(front: Front, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    for name, value in front.env.items():
        monkeypatch.setenv(name, value)
    return Store(f"s3://{BUCKET}/{request.node.name}")


def test_a_run_through_an_outage_in_each_stage_ends_as_on_a_quiet_day(catalogue, front, store, quiet, tmp_path):
    before, refused = front.outages, front.refused
    front.at = dict.fromkeys(BEGINS.values(), SECONDS)
    began = time.monotonic()
    done = typed(catalogue, store, front, tmp_path)
    print(f"{time.monotonic() - began:.0f} s, {front.refused - refused} requests refused\n{done.stdout}{done.stderr}")
    assert done.returncode == 0, done.stderr
    assert front.at == {}
    assert front.outages - before == len(BEGINS)
    assert front.refused - refused > len(BEGINS)
    assert shards(store) == quiet
    assert verify.verify(store).ok
    assert status.read(store).complete


def test_a_run_that_has_waited_long_enough_fails_in_words_and_the_next_goes_on(
    catalogue, front, store, quiet, tmp_path
):
    front.at = {r"/ledger/fuse/r000c001\.json": math.inf}
    began = time.monotonic()
    done = typed(catalogue, store, front, tmp_path, MARSTFN_STORE_PATIENCE="2")
    print(f"{time.monotonic() - began:.0f} s\n{done.stdout}{done.stderr}")
    front.away.clear()
    assert done.returncode == 1
    assert "503" in done.stderr
    assert "Traceback" not in done.stderr
    assert "the same command goes on from here" in done.stderr.splitlines()[-1]
    kept = store.read("ledger/fuse/r000c000.json")
    assert kept is not None
    assert not status.read(store).complete

    began = time.monotonic()
    done = typed(catalogue, store, front, tmp_path)
    print(f"{time.monotonic() - began:.0f} s\n{done.stdout}{done.stderr}")
    assert done.returncode == 0, done.stderr
    assert store.read("ledger/fuse/r000c000.json") == kept, "a finished tile was made again"
    assert shards(store) == quiet
    assert verify.verify(store).ok
    assert status.read(store).complete
