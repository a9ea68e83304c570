"""Catalogues that stumble, over HTTP and for a whole year: the cube is that of a calm run, and the log counts why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipeline import access, cube, ingest, job, ledger, request
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


def refused(answers: tuple[Answered, ...]) -> int:
    return sum(answer.status in REFUSALS for answer in answers)


def unheard(answers: tuple[Answered, ...]) -> int:
    """What GDAL repeats in silence: a request in the middle of a file that was refused through all its repeats."""
    tries = int(access.HTTP["GDAL_HTTP_MAX_RETRY"]) + 1
    rows: Counter[tuple[str, str]] = Counter()
    count = 0
    for answer in answers:
        where = answer.request.path, answer.request.range or "bytes=0-"
        rows[where] = rows[where] + 1 if answer.status in REFUSALS else 0
        count += rows[where] == tries and not where[1].startswith("bytes=0-")
    return count


def calm_record(calm: Path) -> Record:
    found = ledger.read(Store(str(calm)), "ingest", "r000c000")
    assert found is not None
    return found


def test_a_year_of_which_every_third_answer_is_a_refusal(year, calm, tmp_path, monkeypatch):
    """The landing page, the collections, the search by POST, every file; the count told is the server's own."""
    monkeypatch.setenv("MARSTFN_IO_THREADS", "64")  # they mostly wait
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.1")
    year.server.faults.set(every_third("*"))
    told = whole_run(year, year.catalog, tmp_path / "store")
    answers = year.server.log.all()
    assert_same_cubes(tmp_path / "store", calm)
    searching, reading = [event for event in told if isinstance(event, Note) and event.kind == "retries"]
    host = urlsplit(year.url).netloc
    files = tuple(a for a in answers if a.request.path.startswith("/data/"))
    bad = refused(answers) - refused(files)
    assert refused(answers) == len(answers) // 3
    assert searching.data == {host: bad}
    assert searching.text == f"{bad} requests had to be repeated: {bad} at {host}"
    assert {a.request.method for a in answers if a.status in REFUSALS} == {"GET", "HEAD", "POST"}
    assert refused(files) > 500
    assert reading.data == {host: refused(files) - unheard(files)}
    log = (tmp_path / "store" / "logs" / "run.log").read_text()
    assert f"retries: {reading.text}" in log
    record = ledger.read(Store(str(tmp_path / "store")), "ingest", "r000c000")
    assert record.stats[REPEATED] == reading.data
    assert REPEATED not in calm_record(calm).stats


@dataclass(frozen=True)
class Ingested:
    """A tile, ingested in this process, from a server of its own: GDAL remembers addresses."""

    result: TileResult
    record: Record
    server: Remote

    @property
    def repeats(self) -> int:
        return sum(self.result.repeats.values())


@pytest.fixture
def ingested(year, tmp_path, server_factory, monkeypatch) -> Callable[..., Ingested]:
    def run(faults: list[Fault], **days: str) -> Ingested:
        monkeypatch.setattr(ingest, "_threads", lambda: 48)  # they mostly wait
        server = server_factory(year.folder)
        store = tmp_path / f"store{server.pid}"
        asked = {"aoi": str(year.aoi), "year": 2023, "catalog": f"simulated@{server.url}", "store": str(store), **days}
        server.faults.set([fault for fault in faults if not fault.path.endswith(".tif")])
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


def test_files_that_come_cut_short_and_not_at_all(ingested, year, calm):
    """A connection that ends in the middle of a file, a file too short for a while, a connection closed without a word.

    GDAL itself asks anew for what a cut connection did not bring, and libcurl for what was asked on a connection that
    had served before: such repeats nobody can count, and the count is a lower bound.
    """
    cut, short, dropped = "B04.tif", "B11.tif", "B8A.tif"
    done = ingested(
        [
            *once(year, cut, truncate=3000),
            *once(year, short, short=3000),
            *once(year, dropped, drop=True),
        ]
    )
    answers = done.server.log.all()
    hit = Counter(Path(a.request.path).name for a in answers if a.sent == 3000 or a.status == 0)
    assert hit[dropped] == 73
    assert min(hit[cut], hit[short]) >= 70  # of which a date or two has less to send
    assert done.record.checksums == calm_record(calm).checksums
    assert 0 < done.repeats <= hit[cut] + hit[short] + hit[dropped]


def test_every_answer_two_seconds_late(ingested, year):
    """Slow is not broken: nothing is asked for again."""
    days = {"start": "2023-06-08", "end": "2023-06-14"}
    calm = ingested([], **days)
    late = ingested([Fault("*", times=None, latency=2.0)], **days)
    assert late.record.checksums == calm.record.checksums
    assert min(answer.seconds for answer in late.server.log.all()) >= 2
    assert len(late.server.log.all()) == len(calm.server.log.all()) > 20
    assert late.repeats == 0
