"""A server that goes silent is told once, waited for within bounds, and asked again when it may be back."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import distributed
import numpy as np
import pytest
import rasterio
from affine import Affine

from pipeline import access, hosts, logs, reader
from pipeline.errors import AssetError
from pipeline.events import Event, Note
from pipeline.grid import Grid
from pipeline.hosts import Hosts
from pipeline.retries import Repeats

GRID = Grid(32650, 600_000, 5_400_000, 4, 4, 60)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def dead() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def asset(href: str) -> reader._Reader:
    return reader._Reader(reader.Asset("S2A_X", "red", href, 0, None), "tile r000c000", Repeats())


def read(href: str) -> np.ndarray:
    cfg = SimpleNamespace(resampling="nearest", fill_value=0, dtype="uint16")
    return asset(href).read(cfg, GRID.geobox(10))[1]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PAUSE", 0.001)


def test_an_outage_is_told_once_and_again_after_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    known = Hosts()
    for _ in range(3):
        known.failed("a.example", "CURL error: refused")
    known.failed("b.example", "HTTP response code: 503")
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["waiting for a.example", "waiting for b.example"]
    assert "CURL error: refused; it is tried again for up to 75 s, then tiles fail" in caplog.text
    known.answered("a.example")
    known.failed("a.example", "CURL error: refused")
    assert len([r for r in caplog.records if "a.example" in r.getMessage() and r.levelno == logging.WARNING]) == 2


def test_a_silent_server_is_given_up_in_time_and_probed_now_and_then() -> None:
    clock = Clock()
    known = Hosts(clock)
    known.failed("a.example", "CURL error: refused")
    clock.now = 89
    assert known.given_up("a.example") is None
    known.failed("a.example", "CURL error: refused")
    clock.now = 91
    why = known.given_up("a.example")
    assert why is not None
    assert "a.example has not answered for 91 s: CURL error: refused" in why
    assert known.given_up("b.example") is None
    clock.now = 100
    assert known.given_up("a.example") is None, "it may be back"
    assert known.given_up("a.example") is not None, "one attempt is enough"
    known.answered("a.example")
    assert known.given_up("a.example") is None


@pytest.mark.parametrize(
    ("reason", "is_silence"),
    [
        ("CURL error: Failed to connect to 127.0.0.1 port 1", True),
        ("HTTP response code: 503", True),
        ("HTTP response code: 429", True),
        ("HTTP response code: 404", False),
        ("'x.tif' not recognized as being in a supported file format", False),
    ],
)
def test_what_counts_as_silence(reason: str, is_silence: bool) -> None:
    assert hosts.silent(reason) is is_silence


@pytest.mark.usefixtures("quick")
def test_a_dead_server_is_tried_within_bounds_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host, tried = dead(), []
    monkeypatch.setattr(reader, "HOSTS", Hosts())
    opened = rasterio.open
    monkeypatch.setattr(reader.rasterio, "open", lambda *a, **k: tried.append(a) or opened(*a, **k))
    with pytest.raises(AssetError, match=rf"'red' of item S2A_X.*tile r000c000.*{host}.*run the same command again"):
        read(f"http://{host}/x.tif")
    assert len(tried) == reader.TRIES
    assert caplog.text.count(f"waiting for {host}") == 1


@pytest.fixture
def hole() -> Iterator[str]:
    """Host and port that take no connection and refuse none: what a firewall makes of a server."""
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):  # its queue is full then
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        yield f"127.0.0.1:{deaf.getsockname()[1]}"


@pytest.mark.usefixtures("quick")
def test_a_server_that_takes_no_connection_is_told_at_the_first_and_given_up_in_time(
    hole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL alone would ask five times in every attempt, each as long as a connection may take to come about."""
    asked: list[str] = []
    told: list[int] = []
    clock = Clock()

    class Watched(Hosts):
        def failed(self, host: str, reason: str) -> None:
            assert host == hole
            clock.now += 10  # what one try takes by the real settings
            told.append(len(asked))
            super().failed(host, reason)

    opened = rasterio.open
    monkeypatch.setattr(reader.rasterio, "open", lambda *a, **k: asked.append(a) or opened(*a, **k))
    monkeypatch.setattr(reader, "HOSTS", Watched(clock))
    quick = {"GDAL_HTTP_CONNECTTIMEOUT": "1", "GDAL_HTTP_RETRY_DELAY": "0.01"}
    monkeypatch.setattr(access, "HTTP", {**access.HTTP, **quick})
    with pytest.raises(AssetError, match=f"{hole}.*(timed out|has not answered)"):
        read(f"http://{hole}/x.tif")
    assert told[0] == 1, "told during the first attempt"
    assert len(told) <= 10
    assert told.count(1) == int(access.HTTP["GDAL_HTTP_MAX_RETRY"]) + 1
    assert set(Counter(told[5:]).values()) == {1}, "known to be silent, it is asked once in an attempt"
    assert clock.now <= 100


@pytest.mark.usefixtures("quick")
def test_a_server_given_up_is_not_asked_by_every_asset(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, tried = Clock(), []
    known = Hosts(clock)
    known.failed("127.0.0.1:9", "CURL error: refused")
    clock.now = 95
    assert known.given_up("127.0.0.1:9") is None, "the one probe"
    monkeypatch.setattr(reader, "HOSTS", known)
    monkeypatch.setattr(reader.rasterio, "open", lambda *a, **k: tried.append(a))
    with pytest.raises(AssetError, match="has not answered for 95 s"):
        read("http://127.0.0.1:9/x.tif")
    assert tried == []


@pytest.mark.usefixtures("quick")
def test_a_file_that_is_no_raster_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reader, "HOSTS", Hosts())
    (tmp_path / "x.tif").write_bytes(b"no raster")
    with pytest.raises(AssetError, match="not recognized"):
        read(str(tmp_path / "x.tif"))
    assert "waiting" not in caplog.text


@pytest.mark.usefixtures("quick")
def test_a_server_that_comes_back_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    box = GRID.geobox(10).boundingbox
    profile = {"driver": "GTiff", "height": 24, "width": 24, "count": 1, "dtype": "uint16", "crs": "EPSG:32650"}
    with rasterio.open(tmp_path / "x.tif", "w", **profile, transform=Affine(10, 0, box.left, 0, -10, box.top)) as file:
        file.write(np.full((24, 24), 7, np.uint16), 1)
    opened, tried = rasterio.open, []

    def stumbling(href: str, **keywords: object) -> object:
        tried.append(href)
        if len(tried) < reader.TRIES:
            raise rasterio.errors.RasterioIOError("CURL error: Recv failure: Connection reset by peer")
        return opened(tmp_path / "x.tif", **keywords)

    caplog.set_level(logging.INFO, "pipeline.hosts")
    monkeypatch.setattr(reader, "HOSTS", Hosts())
    monkeypatch.setattr(reader.rasterio, "open", stumbling)
    assert (read("http://a.example/x.tif") == 7).all()
    assert tried == ["http://a.example/x.tif"] * reader.TRIES
    assert "a.example answers again" in caplog.text


def test_what_a_worker_waits_for_is_announced_once() -> None:
    """From a thread of its own in another process, as assets are read."""
    heard: list[Event] = []

    def wait_for_a_host() -> None:
        thread = threading.Thread(target=lambda: Hosts().failed("a.example", "CURL error: refused"))
        thread.start()
        thread.join()

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        hosts.announced(heard.append),
    ):
        logs.forward(client)
        for _ in range(2):
            client.submit(wait_for_a_host, pure=False).result(timeout=60)
        until = time.monotonic() + 20
        while not heard and time.monotonic() < until:
            time.sleep(0.05)
    (note,) = heard
    assert isinstance(note, Note)
    assert note.kind == "warning"
    assert note.text.startswith("waiting for a.example: CURL error: refused")
