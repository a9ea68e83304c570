"""Catalogues that stumble, over HTTP and for a whole year: the cube is that of a calm run, and the log counts why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipeline import access, cube, ingest, job, ledger, reader, request
from pipeline.demo.faults import Answered, Fault
from pipeline.demo.server import Remote
from pipeline.events import Note
from pipeline.ingest import REPEATED, TileResult, ingest_tile
from pipeline.ledger import Record
from pipeline.store import Store
from tests.conftest import Served, assert_same_cubes, whole_run

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

REFUSALS = (429, 503)


def every_third(path: str) -> list[Fault]:
    """Every third answer is a refusal, the one or the other in turn."""
    # of the five that the first rule lets pass, the second hits the third
    return [Fault(path, times=None, every=6, status=429), Fault(path, times=None, skip=-2, every=5, status=503)]


def once(served: Served, name: str, **fault: Any) -> list[Fault]:
    """The first GET of every file of that name (shell pattern) is hit: never two attempts at one of them."""
    files = [path.relative_to(served.folder) for path in (served.folder / "data").rglob(name)]
    return [Fault(f"/{path}", method="GET", **fault) for path in sorted(files)]


def refused(answers: tuple[Answered, ...], kind: str) -> tuple[int, int]:
    """Refusals and answers of all to requests for files or searches."""
    found = [answer.status for answer in answers if answer.request.path.endswith(kind)]
    return sum(status in REFUSALS for status in found), len(found)


def calm_record(calm: Path) -> Record:
    found = ledger.read(Store(str(calm)), "ingest", "r000c000")
    assert found is not None
    return found


def test_a_year_from_a_catalogue_that_stumbles(year, calm, tmp_path, monkeypatch):
    """Searched, read and fused to the end; what was repeated is told in the notes, the log and the ledger."""
    monkeypatch.setenv("MARSTFN_IO_THREADS", "64")  # they mostly wait
    year.server.faults.set(
        [
            *every_third("/search"),
            Fault("*.tif", times=None, every=30, status=503),
            *once(year, "B04.tif", truncate=3000),
            *once(year, "B11.tif", short=3000),
            Fault("*", times=None, every=100, latency=2.0),
        ]
    )
    told = whole_run(year, year.catalog, tmp_path / "store")
    answers = year.server.log.all()
    assert_same_cubes(tmp_path / "store", calm)
    searching, reading = [event for event in told if isinstance(event, Note) and event.kind == "retries"]
    host = urlsplit(year.url).netloc
    bad, total = refused(answers, "/search")
    assert bad == total // 3 >= 5
    assert searching.data == {host: bad}
    assert searching.text == f"{bad} requests had to be repeated: {bad} at {host}"
    assert refused(answers, ".tif")[0] > 20
    assert reading.data[host] > 20
    log = (tmp_path / "store" / "logs" / "run.log").read_text()
    assert f"retries: {reading.text}" in log
    record = ledger.read(Store(str(tmp_path / "store")), "ingest", "r000c000")
    assert record.stats[REPEATED] == reading.data
    assert REPEATED not in calm_record(calm).stats


@dataclass(frozen=True)
class Ingested:
    """The year's tile, ingested in this process, from a server of its own: GDAL remembers addresses."""

    result: TileResult
    record: Record
    server: Remote

    @property
    def repeats(self) -> int:
        return sum(self.result.repeats.values())


@pytest.fixture
def ingested(year, tmp_path, server_factory, monkeypatch) -> Callable[[list[Fault]], Ingested]:
    def run(faults: list[Fault]) -> Ingested:
        monkeypatch.setattr(ingest, "_threads", lambda: 48)  # they mostly wait
        server = server_factory(year.folder)
        asked = {"aoi": str(year.aoi), "year": 2023, "catalog": f"simulated@{server.url}", "store": str(tmp_path)}
        made = job.prepare(request.make(**asked, method="additive", tile_px=60))
        cube.create_inputs(made.plan, made.store)
        server.log.clear()
        server.faults.set(faults)
        (tile,) = made.plan.tiles
        result = ingest_tile(made.plan, made.store, tile, made.items)
        server.faults.set()
        record = ledger.read(made.store, "ingest", tile.name)
        assert record is not None
        assert record.stats.get(REPEATED, {}) == result.repeats
        return Ingested(result, record, server)

    return run


def test_every_third_answer_is_a_refusal(ingested, calm, monkeypatch):
    monkeypatch.setattr(access, "HTTP", {**access.HTTP, "GDAL_HTTP_RETRY_DELAY": "0.05"})
    monkeypatch.setattr(reader, "PAUSE", 0.05)
    done = ingested(every_third("*.tif"))
    bad, total = refused(done.server.log.all(), ".tif")
    assert bad == total // 3 > 300
    assert done.record.checksums == calm_record(calm).checksums
    # what GDAL repeats in the middle of a read, rasterio does not tell
    opening = [a for a in done.server.log.all() if (a.request.range or "bytes=0-").startswith("bytes=0-")]
    assert refused(tuple(opening), ".tif")[0] <= done.repeats <= bad
    assert set(done.result.repeats) == {urlsplit(done.server.url).netloc}


def test_connections_cut_in_the_middle_of_a_file(ingested, year, calm):
    done = ingested(once(year, "B04.tif", truncate=3000))
    cut = sum(a.sent == 3000 for a in done.server.log.all())
    assert cut == 73
    assert done.record.checksums == calm_record(calm).checksums
    assert 0 < done.repeats <= cut


def test_files_that_are_too_short_for_a_while(ingested, year, calm):
    done = ingested(once(year, "B11.tif", short=3000))
    assert done.record.checksums == calm_record(calm).checksums
    assert 0 < done.repeats <= 73


def test_answers_two_seconds_late(ingested, calm):
    done = ingested([Fault("*", times=None, every=100, latency=2.0)])
    assert done.record.checksums == calm_record(calm).checksums
    assert sum(a.seconds >= 2 for a in done.server.log.all()) >= 8
    assert done.repeats == 0


def test_connections_dropped_without_an_answer(ingested, year, calm):
    """libcurl itself repeats what was asked on a connection that had served before; such repeats nobody can count."""
    done = ingested(once(year, "B04.tif", drop=True))
    dropped = done.server.log.count("*.tif", status=0)
    assert dropped == 73
    assert done.record.checksums == calm_record(calm).checksums
    assert done.repeats <= dropped
