"""The embedded STAC API over real sockets, with the clients that users have: pystac-client, rasterio, odc-stac."""

import http.client
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pystac_client
import pytest
import rasterio
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from rasterio.transform import from_origin
from urllib3 import Retry

from pipeline.demo.faults import Fault, Request
from pipeline.demo.server import Remote, Server, serve, serve_here
from pipeline.errors import MarstfnError, StoreError

CORNER = (400_005.0, 4_999_995.0)
GDAL = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/http://127.0.0.1"}
Served = Server | Remote


def triangle(*corners: list[float]) -> dict[str, object]:
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


def square(west: float, south: float, side: float = 1.0) -> dict[str, object]:
    east, north = west + side, south + side
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def item(collection: str, number: int, day: str, west: float, south: float) -> dict[str, object]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"{collection}-{number:02d}",
        "collection": collection,
        "bbox": [west, south, west + 1, south + 1],
        "geometry": square(west, south),
        "properties": {"datetime": f"{day}T02:30:00Z", "proj:epsg": 32650},
        "links": [],
        "assets": {},
    }


def values() -> np.ndarray:
    return np.random.default_rng(7).integers(1, 60_000, (300, 400), dtype=np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 items `a` of successive months and longitudes, two `b`, one `pixels` with a real file."""
    root = tmp_path_factory.mktemp("served")
    (root / "catalog.json").write_text(
        json.dumps({"type": "Catalog", "stac_version": "1.0.0", "id": "t", "description": "d", "links": []})
    )
    days = [f"{2022 + n // 12}-{n % 12 + 1:02d}-15" for n in range(25)]
    items = [item("a", n, day, 100 + n, 40) for n, day in enumerate(days)]
    items += [item("b", 0, "2023-06-01", 179.5, -20), item("b", 1, "2023-06-02", 110, 40)]
    data = root / "data" / "pixels"
    data.mkdir(parents=True)
    with rasterio.open(
        data / "one.tif", "w", driver="COG", width=400, height=300, count=1, dtype="uint16", nodata=0, crs="EPSG:32650",
        transform=from_origin(*CORNER, 30, 30), blocksize=128, compress="deflate", overviews="none",
    ) as target:  # fmt: skip
        target.write(values(), 1)
    pixels = item("pixels", 0, "2023-06-03", 115, 44.5)
    pixels["assets"] = {"red": {"href": "data/pixels/one.tif", "type": "image/tiff; application=geotiff"}}
    for name in ("a", "b", "pixels"):
        target = root / "collections" / f"{name}.json"
        target.parent.mkdir(exist_ok=True)
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
        target.write_text(
            json.dumps(
                {"type": "Collection", "stac_version": "1.0.0", "id": name, "description": name, "license": "other",
                 "extent": extent, "links": []}
            )
        )  # fmt: skip
    for one in (*items, pixels):
        target = root / "items" / str(one["collection"]) / f"{one['id']}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(one))
    return root


@pytest.fixture
def server(folder: Path):
    """In threads of this process, and so without GDAL."""
    with serve_here(folder) as running:
        yield running


@pytest.fixture(scope="module")
def process(folder: Path):
    with serve(folder) as running:
        yield running


@pytest.fixture
def remote(process: Remote) -> Remote:
    process.faults.set()
    process.log.clear()
    return process


def ask(server: Served, method: str, path: str, body: object = None, headers: dict[str, str] | None = None):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    try:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, headers or {})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def found(server: Served, method: str = "POST", **query: object) -> list[str]:
    client = pystac_client.Client.open(server.url)
    return [one.id for one in client.search(method=method, **query).items()]


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_paging_gives_every_item_once_newest_first(server: Server, method: str) -> None:
    ids = found(server, method, collections=["a"], limit=4)
    assert ids == [f"a-{n:02d}" for n in reversed(range(25))]
    assert server.log.count("/search", method=method) == 7


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_last_page_may_promise_another_which_is_empty(folder: Path, method: str) -> None:
    with serve_here(folder, next_on_last_page=True) as server:
        _, page = ask(server, "POST", "/search", {"ids": ["b-00", "b-01"], "limit": 10})
        (link,) = [one for one in json.loads(page)["links"] if one["rel"] == "next"]
        _, after = ask(server, "POST", "/search", link["body"])
        assert len(json.loads(page)["features"]) == 2
        assert json.loads(after)["features"] == []
        assert not [one for one in json.loads(after)["links"] if one["rel"] == "next"]
        assert found(server, method, collections=["b"]) == ["b-01", "b-00"]


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"bbox": [109.5, 40.2, 111.5, 40.8]}, {"a-09", "a-10", "a-11", "b-01"}),
        ({"bbox": [109.5, 40.2, 111.5, 40.8], "collections": ["b"]}, {"b-01"}),
        ({"bbox": [170, -25, -175, -15]}, {"b-00"}),
        ({"intersects": {"type": "Point", "coordinates": [103.5, 40.5]}}, {"a-03"}),
        # the box of the first triangle meets a-04, the triangle does not
        ({"intersects": triangle([103.5, 40.9], [103.5, 40.5], [104.5, 41.9])}, {"a-03"}),
        ({"intersects": triangle([103.5, 41.5], [103.5, 40.5], [105.5, 41.5])}, {"a-03", "a-04"}),
        ({"datetime": "2022-02-15T02:30:00Z"}, {"a-01"}),
        ({"datetime": "2023-06"}, {"a-17", "b-00", "b-01", "pixels-00"}),
        ({"datetime": "2023-06-01/2023-06-02"}, {"b-00", "b-01"}),
        ({"datetime": "../2022-02-15"}, {"a-00", "a-01"}),
        ({"datetime": "2023-12-31T23:59:59Z/.."}, {"a-24"}),
        ({"ids": ["a-03", "b-01", "nowhere"]}, {"a-03", "b-01"}),
        ({"ids": ["a-03", "b-01"], "collections": ["a"]}, {"a-03"}),
        ({"collections": ["nothing"]}, set()),
    ],
)  # fmt: skip
def test_conditions(server: Server, method: str, query: dict[str, object], expected: set[str]) -> None:
    assert set(found(server, method, limit=3, **query)) == expected


def test_browsing_and_items_of_a_collection(server: Server) -> None:
    client = pystac_client.Client.open(server.url)
    assert {c.id for c in client.get_collections()} == {"a", "b", "pixels"}
    collection = client.get_collection("a")
    assert collection is not None
    assert len(list(collection.get_items())) == 25
    one = collection.get_item("a-07")
    assert one is not None
    assert one.get_self_href() == f"{server.url}/collections/a/items/a-07"
    with pytest.raises(APIError):
        list(client.search(collections=["a"], query={"eo:cloud_cover": {"lt": 10}}, limit=5).items())


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"filter": {"op": "=", "args": []}}, "not supported: filter"),
        ({"bbox": [0, 0, 1, 1], "intersects": square(0, 0)}, "exclude each other"),
        ({"bbox": [0, 0, 1]}, "bbox"),
        ({"bbox": [0, 5, 1, 1]}, "bbox"),
        ({"bbox": ["x", 0, 1, 1]}, "numbers"),
        ({"intersects": {"type": "Square"}}, "GeoJSON"),
        ({"datetime": "yesterday"}, "RFC 3339"),
        ({"datetime": "2023-02-01T00:00:00Z/2023-01-01T00:00:00Z"}, "before it begins"),
        ({"datetime": "../.."}, "no interval"),
        ({"limit": 0}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"collections": "a"}, "list of strings"),
        ({"token": "next:a:gone"}, "points at no item"),
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
    ],
)
def test_refused_searches_say_why(server: Server, body: object, says: str) -> None:
    answer, data = ask(server, "POST", "/search", body)
    assert answer.status == 400
    assert says in json.loads(data)["description"]


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/collections/none", "/collections/none/items", "/collections/a/items/none", "/data/none.tif",
     "/data/../catalog.json", "/data/%2e%2e/catalog.json", "/data/pixels"],
)  # fmt: skip
def test_nothing_there(server: Server, path: str) -> None:
    answer, data = ask(server, "GET", path)
    assert answer.status == 404
    assert "description" in json.loads(data)


def test_only_search_takes_post_and_bodies_are_bounded(server: Server) -> None:
    assert ask(server, "POST", "/collections", {})[0].status == 405
    assert ask(server, "POST", "/data/pixels/one.tif", {})[0].status == 405
    assert ask(server, "POST", "/search", b" " * (2 << 20))[0].status == 413


def test_byte_ranges(server: Server, folder: Path) -> None:
    whole = (folder / "data/pixels/one.tif").read_bytes()
    size = len(whole)
    for header, first, last in [
        ("bytes=0-15", 0, 15),
        ("bytes=100-", 100, size - 1),
        ("bytes=-7", size - 7, size - 1),
        (f"bytes=10-{size * 2}", 10, size - 1),
    ]:
        answer, data = ask(server, "GET", "/data/pixels/one.tif", headers={"Range": header})
        assert (answer.status, data) == (206, whole[first : last + 1])
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    for header in (f"bytes={size}-", "bytes=-0"):
        answer, data = ask(server, "GET", "/data/pixels/one.tif", headers={"Range": header})
        assert (answer.status, answer.headers["Content-Range"], data) == (416, f"bytes */{size}", b"")
    for header in ({}, {"Range": "bytes=5-2"}, {"Range": "bytes=0-1,4-5"}, {"Range": "lines=1-2"}):
        answer, data = ask(server, "GET", "/data/pixels/one.tif", headers=header)
        assert (answer.status, data) == (200, whole)
    answer, data = ask(server, "HEAD", "/data/pixels/one.tif")
    assert (answer.status, int(answer.headers["Content-Length"]), data) == (200, size, b"")
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_one_connection_serves_many_requests(server: Server) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    for path in ("/", "/nowhere", "/data/pixels/one.tif", "/collections"):
        connection.request("HEAD" if "data" in path else "GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.headers.get("Connection") != "close"
    assert connection.sock is not None
    connection.close()


def test_rasterio_reads_a_window_without_the_whole_file(remote: Remote, folder: Path) -> None:
    with rasterio.Env(**GDAL), rasterio.open(f"{remote.url}/data/pixels/one.tif") as source:
        assert (source.profile["blockxsize"], source.nodata) == (128, 0)
        part = source.read(1, window=((130, 140), (5, 9)))
    np.testing.assert_array_equal(part, values()[130:140, 5:9])
    answers = [a for a in remote.log.all() if a.request.path.endswith("one.tif")]
    assert {a.status for a in answers} <= {200, 206}
    assert sum(a.sent for a in answers) < (folder / "data/pixels/one.tif").stat().st_size / 2


def test_odc_stac_loads_what_was_written(remote: Remote) -> None:
    client = pystac_client.Client.open(remote.url)
    items = list(client.search(collections=["pixels"]).items())
    with rasterio.Env(**GDAL):
        box = odc.geo.geobox.GeoBox((300, 400), rasterio.Affine(30, 0, CORNER[0], 0, -30, CORNER[1]), "EPSG:32650")
        cube = odc.stac.load(items, bands=["red"], geobox=box, dtype="uint16", nodata=0, fail_on_error=True)
    np.testing.assert_array_equal(cube.red.values[0], values())


def test_many_clients_at_once(remote: Remote) -> None:
    def one(number: int) -> int:
        if number % 2:
            return len(found(remote, collections=["a"], limit=25))
        # without GDAL's option against side-cars: the hardest case for the client's process
        with rasterio.open(f"{remote.url}/data/pixels/one.tif?n={number}") as source:
            return int((source.read(1) == values()).sum())

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(one, range(48)))
    assert results == [120_000, 25] * 24


def test_faults_end_after_their_number_and_retries_get_through(server: Server) -> None:
    server.faults.set(
        [Fault("/search", times=2, status=503), Fault("/search", times=1, status=429, retry_after=0, method="POST")]
    )
    retry = Retry(total=5, backoff_factor=0, status_forcelist=[429, 503], allowed_methods=None)
    client = pystac_client.Client.open(server.url, stac_io=StacApiIO(max_retries=retry))
    assert len(list(client.search(collections=["a"]).items())) == 25
    statuses = [a.status for a in server.log.all() if a.request.path == "/search"]
    assert statuses == [503, 503, 429, 200, 200, 200]


def test_fault_skips_and_lasts(server: Server) -> None:
    server.faults.set([Fault("/data/*", skip=1, times=None, status=404)])
    assert [ask(server, "HEAD", "/data/pixels/one.tif")[0].status for _ in range(4)] == [200, 404, 404, 404]
    assert ask(server, "GET", "/")[0].status == 200
    server.faults.set()
    assert ask(server, "HEAD", "/data/pixels/one.tif")[0].status == 200


def test_fault_hits_every_third(server: Server) -> None:
    server.faults.set([Fault("/", every=3, times=2, status=503)])
    assert [ask(server, "GET", "/")[0].status for _ in range(9)] == [200, 200, 503, 200, 200, 503, 200, 200, 200]


def test_fault_of_a_query(server: Server) -> None:
    server.faults.set([Fault("*", query="*token=old*", times=None, skip=1, status=403)])
    old = [ask(server, "HEAD", "/data/pixels/one.tif?token=old")[0].status for _ in range(3)]
    assert old == [200, 403, 403]
    assert ask(server, "HEAD", "/data/pixels/one.tif?token=new")[0].status == 200


def test_file_that_seems_too_short(server: Server) -> None:
    server.faults.set([Fault("/data/*", short=100)])
    lengths = [ask(server, "HEAD", "/data/pixels/one.tif")[0].headers["Content-Length"] for _ in range(2)]
    assert lengths == ["100", str((server.folder / "data" / "pixels" / "one.tif").stat().st_size)]


def test_dropped_connection(server: Server) -> None:
    server.faults.add(Fault("/", drop=True))
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(server, "GET", "/")
    assert ask(server, "GET", "/")[0].status == 200
    assert [a.status for a in server.log.all()] == [0, 200]


def test_truncated_file_is_an_error_to_the_reader(remote: Remote) -> None:
    remote.faults.set([Fault("/data/*", times=None, truncate=100, method="GET")])
    answer_size = 16_384
    with pytest.raises(http.client.IncompleteRead):
        ask(remote, "GET", "/data/pixels/one.tif", headers={"Range": f"bytes=0-{answer_size - 1}"})
    assert remote.log.all()[-1].sent == 100
    with rasterio.Env(**GDAL), pytest.raises(rasterio.errors.RasterioIOError):  # noqa: SIM117
        with rasterio.open(f"{remote.url}/data/pixels/one.tif") as source:
            source.read(1)


def test_truncated_document(server: Server) -> None:
    server.faults.set([Fault("/collections", truncate=20)])
    with pytest.raises(http.client.IncompleteRead):
        ask(server, "GET", "/collections")


def test_latency(server: Server) -> None:
    server.faults.set([Fault("/", latency=0.3)])
    start = time.perf_counter()
    assert ask(server, "GET", "/")[0].status == 200
    assert time.perf_counter() - start >= 0.3
    start = time.perf_counter()
    ask(server, "GET", "/")
    assert time.perf_counter() - start < 0.3


def test_a_function_may_judge(folder: Path) -> None:
    def judge(request: Request) -> Fault | None:
        return Fault("*", status=500) if '"b"' in request.body else None

    with serve_here(folder, faults=judge) as server:
        assert ask(server, "POST", "/search", {"collections": ["b"]})[0].status == 500
        assert ask(server, "POST", "/search", {"collections": ["a"]})[0].status == 200


def test_reload_shows_new_items(folder: Path, server: Server) -> None:
    extra = folder / "items" / "b" / "b-99.json"
    extra.write_text(json.dumps(item("b", 99, "2023-07-01", 0, 0)))
    try:
        assert "b-99" not in found(server, collections=["b"])
        server.reload()
        assert found(server, collections=["b"])[0] == "b-99"
    finally:
        extra.unlink()


def test_items_are_valid_stac_with_absolute_hrefs(server: Server) -> None:
    _, data = ask(server, "GET", "/collections/pixels/items/pixels-00")
    one = pystac.Item.from_dict(json.loads(data))
    assert one.assets["red"].href == f"{server.url}/data/pixels/one.tif"
    assert {link.rel for link in one.links} == {"self", "root", "parent", "collection"}


def test_after_the_block_nothing_listens(folder: Path) -> None:
    with serve_here(folder) as server:
        held = socket.create_connection(server.server_address, timeout=5)
        held.sendall(b"HEAD / HTTP/1.1\r\n\r\n")
        assert held.recv(4096).startswith(b"HTTP/1.1 200")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(server.server_address, timeout=5)
    assert held.recv(1) == b""  # the connection a client held open is closed as well
    held.close()


def test_folder_that_is_no_catalogue_and_port_that_is_taken(folder: Path, tmp_path: Path) -> None:
    for start in (serve_here, serve):
        with pytest.raises(StoreError, match=r"holds no catalogue: .*catalog\.json.*Give the folder"), start(tmp_path):
            pass
    with serve_here(folder) as server:
        port = server.server_address[1]
        says = rf"did not start on port {port}.*Choose another port"
        with pytest.raises(MarstfnError, match=says), serve(folder, port=port):
            pass
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.demo.server", str(folder), "--port", str(port)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"cannot serve {folder} on port {port}: ")
    assert "Traceback" not in done.stderr


def test_a_process_takes_orders(folder: Path) -> None:
    with serve(folder, faults=[Fault("/", status=429, retry_after=3)], next_on_last_page=True) as server:
        answer, _ = ask(server, "GET", "/")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
        server.faults.add(Fault("/collections", status=500))
        assert [ask(server, "GET", "/collections")[0].status for _ in range(2)] == [500, 200]
        assert server.log.count("/coll*", status=500) == 1
        assert [(a.request.path, a.status) for a in server.log.all()][:2] == [("/", 429), ("/collections", 500)]
        server.log.clear()
        assert server.log.all() == ()
        server.reload()
        _, page = ask(server, "POST", "/search", {"ids": ["b-00"]})
        assert [link["rel"] for link in json.loads(page)["links"]] == ["self", "root", "next"]
        assert server.log.all()[0].request.body == '{"ids": ["b-00"]}'
    with pytest.raises((RuntimeError, OSError, ValueError)):
        server.log.all()


@pytest.mark.server
def test_process_prints_its_address_and_nothing_else(folder: Path) -> None:
    command = [sys.executable, "-m", "pipeline.demo.server", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert found_at(url) == 2
        process.terminate()
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")
    assert url.startswith("http://127.0.0.1:")


@pytest.mark.server
def test_process_ends_with_the_block_and_with_its_parent(folder: Path) -> None:
    with serve(folder) as server:
        assert found_at(server.url) == 2
    assert refused(server.url)
    parent = (
        "import os, sys\nfrom pipeline.demo.server import serve\n"
        "with serve(sys.argv[1]) as server:\n    print(server.url, flush=True)\n    os._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent, str(folder)], stdout=subprocess.PIPE, text=True, timeout=60)
    url = done.stdout.strip()
    assert url
    deadline = time.monotonic() + 10
    while not refused(url) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert refused(url)


def found_at(url: str) -> int:
    return len(list(pystac_client.Client.open(url).search(collections=["b"]).items()))


def refused(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return True
    return False
