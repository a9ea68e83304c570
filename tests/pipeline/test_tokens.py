"""Tokens that run out while a tile is read: a new one is fetched, the tile is whole, and no token is written down.

The hosts are those of Planetary Computer's storage, reached through a proxy that is the demo's server; the tokens come
from an endpoint on loopback through Planetary Computer's own package, cache included.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from planetary_computer import sas
from planetary_computer.settings import Settings

from marstfn.bands import BANDS
from pipeline import cube, ingest, ledger, logs
from pipeline.access import Access
from pipeline.demo.faults import Fault
from pipeline.demo.raster import File, Raster, write, write_json
from pipeline.demo.server import Remote, serve
from pipeline.errors import AssetError
from pipeline.grid import Grid
from pipeline.plan import Options, Plan, Radiometry, Scene
from pipeline.products import CATALOG
from pipeline.store import INPUTS, Store

GRID = Grid(32613, 600_000, 4_000_020, 10, 10, 60)
SIDE = 1000
"""Pixels of a file: more than comes with its header."""

PROFILE = """
name = "tokened"
url = "http://127.0.0.1:9"
[gdal]
GDAL_HTTP_PROXY = "{proxy}"
[[collections]]
role = "sentinel2"
collection = "s2"
family = "sentinel-2-l2a"
mask = "scl"
signing = "planetary-computer"
assets = {{ blue = "blue", green = "green", red = "red", nir08 = "nir08", swir16 = "swir16", swir22 = "swir22" }}
"""


class Tokens:
    """An endpoint that gives one token after another, as long-lived as its clock says; `given` in order."""

    def __init__(self) -> None:
        given: list[str] = []
        asked: list[str] = []
        names: list[str] = []
        guard = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                with guard:
                    name = names.pop(0) if len(names) > 1 else names[0]
                    given.append(name)
                    asked.append(self.path)
                expiry = (datetime.now(UTC) + timedelta(minutes=45)).strftime("%Y-%m-%dT%H:%M:%SZ")
                body = json.dumps({"msft:expiry": expiry, "token": f"sv=1&token={name}&sig=GEHEIM"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.given, self.asked, self.names = given, asked, names
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/token"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tokens]:
    """The endpoint, and Planetary Computer's package pointed at it with an empty cache."""
    endpoint = Tokens()
    monkeypatch.setenv("PC_SDK_SAS_URL", endpoint.url)
    monkeypatch.setattr("pipeline.reader.PAUSE", 0.01)
    monkeypatch.setattr(sas, "TOKEN_CACHE", {})
    Settings.get.cache_clear()
    yield endpoint
    Settings.get.cache_clear()
    endpoint.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """Six bands and a mask of one scene, as a proxy to any host."""
    folder = tmp_path_factory.mktemp("blobs")
    write_json(folder / "catalog.json", {"type": "Catalog", "id": "blobs", "stac_version": "1.0.0", "description": ""})
    rng = np.random.default_rng(5)
    for band in BANDS:
        # noise, which does not compress
        values = rng.integers(1100, 9000, (SIDE, SIDE)).astype(np.uint16)
        write(
            File(folder / f"data/c/{band}.tif", Raster(32613, 599_000, 4_001_020, 10, (SIDE, SIDE)), "uint16", 0),
            values,
        )
    scl = File(
        folder / "data/c/scl.tif", Raster(32613, 599_000, 4_001_020, 20, (SIDE // 2, SIDE // 2)), "uint8", 0, False
    )
    write(scl, np.full(scl.raster.shape, 4, np.uint8))
    with serve(folder) as server:
        yield server


@pytest.fixture
def server(files: Remote) -> Iterator[Remote]:
    files.faults.set()
    files.log.clear()
    yield files
    files.faults.set()


Ingest = Callable[[str], Path]


@pytest.fixture
def ingested(server: Remote, tokens: Tokens, tmp_path: Path) -> Ingest:
    """Read the tile from a storage account of that name (GDAL remembers files by address) into a store of that name."""
    profile = tmp_path / "tokened.toml"
    profile.write_text(PROFILE.format(proxy=server.url))

    def run(account: str) -> Path:
        time = datetime(2023, 5, 1, tzinfo=UTC)
        box = GRID.geobox(10).geographic_extent
        bounds = list(box.boundingbox.bbox)
        item = pystac.Item("S", box.json, bounds, time, {CATALOG: "tokened"}, collection="s2")
        for key in (*BANDS, "scl"):
            href = f"http://{account}.blob.core.windows.net/data/c/{key}.tif"
            item.add_asset(key, pystac.Asset(href))
        scene = Scene(
            sensor="sentinel2", platform="sentinel-2a", time=time, day=date(2023, 5, 1), items=("S",),
        )  # fmt: skip
        plan = Plan(
            name="test", aoi={}, aoi_source="test", year=2023, grid=GRID, catalog=str(profile), scenes=(scene,),
            radiometry={"S": Radiometry(scale=1e-4, offset=-0.1, nodata=0, rule="test")}, weights=(),
            options=Options(mask_dilation=0), items_sha256="0" * 64,
        )  # fmt: skip
        folder = tmp_path / account
        store = Store(str(folder))
        store.write("plan.json", plan.model_dump_json().encode())
        cube.create_inputs(plan, store)
        with logs.to_file(folder / "logs" / "run.log", account, logging.DEBUG):
            ingest.ingest_tile(plan, store, plan.grid.tile(0, 0), {"S": item})
        return folder

    return run


def pixels(store: Path) -> dict[str, np.ndarray]:
    return {n: np.asarray(cube.array(Store(str(store)), INPUTS, f"sentinel2/{n}")[:]) for n in (*BANDS, "clear")}


def assert_nothing_of_a_token_in(folder: Path) -> None:
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert {"plan.json", "run.log"} <= {path.name for path in written}
    for path in written:
        text = path.read_bytes()
        assert not any(word in text for word in (b"GEHEIM", b"token=", b"sig=")), path


@pytest.fixture
def calm(ingested: Ingest, tokens: Tokens) -> dict[str, np.ndarray]:
    tokens.names[:] = ["calm"]
    return pixels(ingested("calm"))


@pytest.mark.server
@pytest.mark.parametrize("answered", range(0, 24, 3))
def test_tokens_that_expire_mid_run_are_renewed(
    answered: int, calm: dict[str, np.ndarray], ingested: Ingest, tokens: Tokens, server: Remote
) -> None:
    """After so many answers the old token is refused: at an opening, in the middle of a file, for several threads."""
    tokens.names[:] = ["old", "new"]
    server.faults.set([Fault("*.tif", query="*token=old*", times=None, skip=answered, status=403)])
    server.log.clear()
    store = ingested(f"mid{answered}")
    found = pixels(store)
    for name, values in calm.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert (found["blue"] != cube.FILL).all()
    queries = [a.request.query for a in server.log.all()]
    assert server.log.count(status=403) >= 1
    assert any("token=new" in query for query in queries)
    assert tokens.given[-2:] == ["old", "new"], "threads that were refused together share one new token"
    record = ledger.read(Store(str(store)), "ingest", GRID.tile(0, 0).name)
    assert record is not None
    (count,) = record.stats[ingest.REPEATED].values()
    assert count >= 1
    assert_nothing_of_a_token_in(store)


@pytest.mark.server
def test_a_renewal_is_no_failure_of_the_file(
    ingested: Ingest, tokens: Tokens, server: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one attempt only, the file is read all the same, though two tokens are refused."""
    monkeypatch.setattr("pipeline.reader.TRIES_READING", 1)
    tokens.names[:] = ["old1", "old2", "new"]
    server.faults.set([Fault("*.tif", query="*token=old*", times=None, status=403)])
    assert (pixels(ingested("patient"))["red"] != cube.FILL).all()
    assert tokens.given == ["old1", "old2", "new"]


@pytest.mark.server
@pytest.mark.parametrize("answered", [1, 2])
def test_a_refusal_after_the_opening_is_no_failure_of_the_file_either(
    answered: int, ingested: Ingest, tokens: Tokens, server: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL then says nothing of a refusal: the file is of no known format, or short."""
    monkeypatch.setattr("pipeline.reader.TRIES_READING", 1)
    tokens.names[:] = ["old", "new"]
    server.faults.set([Fault("*/red.tif", query="*token=old*", times=None, skip=answered, status=403)])
    assert (pixels(ingested(f"late{answered}"))["red"] != cube.FILL).all()
    assert tokens.given == ["old", "new"]


@pytest.mark.server
def test_what_is_refused_with_every_token_fails_in_the_end(
    ingested: Ingest, tokens: Tokens, server: Remote, tmp_path: Path
) -> None:
    tokens.names[:] = ["any"]
    server.faults.set([Fault("*/red.tif", times=None, status=403)])
    with pytest.raises(AssetError, match=r"'red' of item S .*tile r000c000.*403") as caught:
        ingested("closed")
    told = "".join(_formatted(caught.value))
    assert "GEHEIM" not in told
    assert "token=" not in told
    assert ledger.read(Store(str(tmp_path / "closed")), "ingest", GRID.tile(0, 0).name) is None
    assert_nothing_of_a_token_in(tmp_path / "closed")


@pytest.mark.server
def test_a_file_that_breaks_off_is_told_without_the_token(
    ingested: Ingest, tokens: Tokens, server: Remote, tmp_path: Path
) -> None:
    """GDAL names the file of a failed read by its last part, query and all."""
    tokens.names[:] = ["any"]
    server.faults.set([Fault("*/red.tif", times=None, short=100_000)])
    with pytest.raises(AssetError, match=r"'red' of item S") as caught:
        ingested("broken")
    told = "".join(_formatted(caught.value))
    assert "red.tif, band 1" in told
    assert "GEHEIM" not in told
    assert "token=" not in told
    assert_nothing_of_a_token_in(tmp_path / "broken")


def _formatted(error: BaseException) -> list[str]:
    import traceback

    return traceback.format_exception(error)


def test_only_the_token_that_was_refused_is_forgotten(tokens: Tokens) -> None:
    tokens.names[:] = ["one", "two", "three"]
    access = Access(signing="planetary-computer")
    first = access.sign("https://a.blob.core.windows.net/c/x.tif")
    other = access.sign("https://b.blob.core.windows.net/c/x.tif")
    assert first.endswith("token=one&sig=GEHEIM")
    access.refused(first)
    renewed = access.sign("https://a.blob.core.windows.net/c/x.tif")
    assert "token=three" in renewed
    access.refused(first)  # another thread that comes late
    assert access.sign("https://a.blob.core.windows.net/c/x.tif") == renewed
    assert access.sign("https://b.blob.core.windows.net/c/x.tif") == other
    Access().refused(first)
    assert tokens.asked == ["/token/a/c", "/token/b/c", "/token/a/c"]
