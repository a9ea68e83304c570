"""Settings belong to the opening of one asset: a bucket whose reader pays and a public one, read at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.env import getenv, hasenv

from pipeline import profiles
from pipeline.access import Access
from pipeline.reader import Asset, _Reader
from pipeline.retries import Repeats


class Bucket:
    """One object store: serves a file by ranges and remembers the headers of every request."""

    def __init__(self, data: bytes) -> None:
        seen: list[dict[str, str]] = []
        late: dict[str, int] = {}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                seen.append({key.lower(): value for key, value in self.headers.items()} | {"path": self.path})
                if late.get(self.path, 0) > 0:
                    late[self.path] -= 1
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                low, high, status = 0, len(data), 200
                if "Range" in self.headers:
                    first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                    low, high, status = int(first), min(len(data), int(last) + 1), 206
                self.send_response(status)
                self.send_header("Content-Length", str(high - low))
                if status == 206:
                    self.send_header("Content-Range", f"bytes {low}-{high - 1}/{len(data)}")
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data[low:high])

        self.seen, self.late = seen, late
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def place(self) -> dict[str, str]:
        host = f"127.0.0.1:{self.server.server_address[1]}"
        return {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_REGION": "us-west-2"}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


BOX = GeoBox((32, 32), Affine(30, 0, 600_000, 0, -30, 5_400_000), "EPSG:32650")


@pytest.fixture
def buckets(tmp_path: Path) -> Iterator[tuple[Bucket, Bucket]]:
    both = []
    for number in (7, 9):
        path = tmp_path / f"{number}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=32, width=32, count=1, dtype="uint8", crs="EPSG:32650",
            transform=BOX.transform, nodata=0,
        ) as out:  # fmt: skip
            out.write(np.full((1, 32, 32), number, np.uint8))
        both.append(Bucket(path.read_bytes()))
    yield both[0], both[1]
    for bucket in both:
        bucket.close()


def read(access: Access, href: str) -> int:
    class Config:
        resampling, fill_value, dtype = "nearest", 0, "uint8"

    _, pixels = _Reader(Asset("item", "blue", href, 0, None, access), "tile r000c000", Repeats()).read(Config(), BOX)
    assert (pixels == pixels[0, 0]).all()
    return int(pixels[0, 0])


@pytest.mark.server
def test_requester_pays_and_unsigned_in_one_run_never_leak_into_each_other(
    buckets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHEUSER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-user")
    monkeypatch.setenv("AWS_S3_ENDPOINT", "127.0.0.1:1")  # meant for a third catalogue
    paying, public = buckets
    access = {
        7: Access({**paying.place, "AWS_REQUEST_PAYER": "requester", "AWS_NO_SIGN_REQUEST": "NO"}),
        9: Access({**public.place, "AWS_NO_SIGN_REQUEST": "YES"}),
    }
    # other names each time: GDAL answers from what it remembers
    jobs = [(number, f"s3://bucket/{number}-{k}.tif") for k in range(16) for number in (7, 9)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: read(access[job[0]], job[1]), jobs))
    assert found == [number for number, _ in jobs]
    assert len(paying.seen) >= 16
    assert len(public.seen) >= 16
    for request in paying.seen:
        assert request["x-amz-request-payer"] == "requester"
        assert "AKIDOFTHEUSER" in request["authorization"]
        assert "/7-" in request["path"]
    for request in public.seen:
        assert "x-amz-request-payer" not in request
        assert "authorization" not in request
        assert "/9-" in request["path"]


@pytest.mark.server
def test_keys_of_two_stores_come_from_variables_of_their_own(buckets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFAWS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-aws")
    monkeypatch.setenv("CDSE_S3_ACCESS_KEY", "KEYOFCDSE")
    monkeypatch.setenv("CDSE_S3_SECRET_KEY", "secret-of-cdse")
    aws, cdse = buckets
    product = profiles.PROFILES["cdse"].product("sentinel2")
    assert product is not None
    signed = {"AWS_NO_SIGN_REQUEST": "NO"}
    access = {7: Access({**aws.place, **signed}), 9: Access({**cdse.place, **signed}, keys=product.access.keys)}
    jobs = [(number, f"s3://keys/{number}-{k}.tif") for k in range(8) for number in (9, 7)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda job: read(access[job[0]], job[1]), jobs)) == [number for number, _ in jobs]
    assert {request["authorization"].split("Credential=")[1].split("/")[0] for request in aws.seen} == {"AKIDOFAWS"}
    assert {request["authorization"].split("Credential=")[1].split("/")[0] for request in cdse.seen} == {"KEYOFCDSE"}
    assert "secret" not in repr(access)


@pytest.mark.server
def test_what_a_bucket_did_not_have_a_moment_ago_is_asked_for_anew(
    buckets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.reader.PAUSE", 0.01)
    public, _ = buckets
    public.late["/late/a.tif"] = 1
    assert read(Access({**public.place, "AWS_NO_SIGN_REQUEST": "YES"}), "s3://late/a.tif") == 7


def test_outside_the_opening_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    access = Access({"AWS_REQUEST_PAYER": "requester"}, keys={"AWS_ACCESS_KEY_ID": "MY_KEY"})

    def left() -> tuple[Any, ...]:
        with access.opened():
            inside = getenv()
        after = getenv() if hasenv() else {}
        return inside["AWS_REQUEST_PAYER"], inside["AWS_ACCESS_KEY_ID"], set(after) & {*inside} - {"RASTERIO_ENV"}

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(left).result() == ("requester", "k", set())
    assert left() == ("requester", "k", set())


def test_only_blobs_of_planetary_computer_are_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    import planetary_computer

    asked: list[str] = []

    def fake(href: str) -> str:
        asked.append(href)
        return href + "?sig=x"

    patience: list[int] = []
    monkeypatch.setattr(planetary_computer, "sign_url", fake)
    monkeypatch.setattr(planetary_computer.sas, "get_token", lambda *where, retry_total: patience.append(retry_total))
    blob = "https://landsateuwest.blob.core.windows.net/landsat-c2/B2.TIF"
    signing = profiles.PROFILES["planetary-computer"].products[0].access
    assert signing.sign(blob) == blob + "?sig=x"
    for href in (
        "http://127.0.0.1:8000/a.tif",
        "https://example.org/blob.core.windows.net/a.tif",
        "/data/a.tif",
        "s3://b/a",
    ):
        assert signing.sign(href) == href
    others = [p.access for profile in profiles.PROFILES.values() for p in profile.products]
    assert [a.sign(blob) for a in others if a.signing == "none"] == [blob] * (len(others) - 2)
    assert asked == [blob]
    assert patience == [1], "its own ten attempts would be minutes of silence"
