"""Repeats are counted by host alone, whoever repeats and in whatever thread."""

from __future__ import annotations

import logging
import threading
from datetime import date
from types import SimpleNamespace

import pytest
from urllib3.util.retry import RequestHistory

from pipeline import catalog
from pipeline.demo.faults import Fault
from pipeline.events import Note
from pipeline.profiles import resolve
from pipeline.retries import FILES, Repeats, added, told

GDAL = "CPLE_AppDefined in HTTP error code: 503 - https://x.example/a/b.tif?sig=geheim. Retrying again in 0.5 secs"


def warn(text: str = GDAL, logger: str = "rasterio._env") -> None:
    logging.getLogger(logger).warning(text)


def test_hosts_alone_are_kept():
    repeats = Repeats()
    repeats.add("https://user:word@a.example:8443/x?sig=geheim")
    repeats.add("s3://bucket/key.tif", 2)
    repeats.add("/disk/x.tif")
    assert repeats.counts == {FILES: 1, "a.example:8443": 1, "bucket": 2}


def test_gdals_own_repeats_count_in_the_thread_that_reads():
    here, there = Repeats(), Repeats()

    def read() -> None:
        with there.reading():
            warn()
            warn()

    with here.reading():
        other = threading.Thread(target=read)
        other.start()
        other.join()
        warn()
        warn("CPLE_AppDefined in something else")
    warn()
    assert here.counts == {"x.example": 1}
    assert there.counts == {"x.example": 2}


def test_what_gdal_repeats_in_the_middle_of_a_read_counts_and_silence_is_told_at_once(caplog):
    repeats, silent = Repeats(), []
    with repeats.reading(lambda *told: silent.append(told)):
        warn(GDAL.replace(" in ", ":"), "rasterio._err")
        warn(GDAL.replace("503", "0"))
        warn("CPLE_AppDefined:something else", "rasterio._err")
    assert repeats.counts == {"x.example": 2}
    assert silent == [("x.example", "no connection")]
    assert "geheim" not in caplog.text, "the address may hold a token"
    assert "something else" in caplog.text


def test_what_urllib3_repeated_counts_but_redirections_do_not():
    repeats = Repeats()
    history = (
        RequestHistory("POST", "/search", None, 503, None),
        RequestHistory("POST", "/search", OSError(), None, None),
        RequestHistory("GET", "/", None, 301, "/v1"),
    )
    raw = SimpleNamespace(retries=SimpleNamespace(history=history))
    repeats.answered(SimpleNamespace(raw=raw, url="http://a.example/search?token=geheim"), timeout=3)
    repeats.answered(SimpleNamespace(raw=None, url="http://a.example"))
    assert repeats.counts == {"a.example": 2}


def test_counts_are_added_and_told():
    total = added([{"b": 1}, {}, {"a": 2, "b": 3}])
    assert total == {"a": 2, "b": 4}
    assert told(total) == "6 requests had to be repeated: 2 at a, 4 at b"
    assert told({"a": 1}) == "1 request had to be repeated: 1 at a"


@pytest.mark.server
def test_a_search_tells_what_it_repeated(catalogue):
    catalogue.server.faults.set([Fault("/search", times=2, status=503), Fault("/", status=429)])
    heard: list[Note] = []
    patience = catalog.Patience(backoff=0.01)
    catalog.search(
        resolve(catalogue.catalog), (119.0, 49.0, 120.0, 50.0), date(2023, 5, 1), date(2023, 6, 30),
        patience=patience, listener=heard.append,
    )  # fmt: skip
    (note,) = [note for note in heard if note.kind == "retries"]
    assert list(note.data.values()) == [3]
    assert note.text.startswith("3 requests had to be repeated: 3 at 127.0.0.1:")
