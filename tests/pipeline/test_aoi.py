"""Areas of interest: every way to give one, and every way to give a wrong one."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import shapely

from pipeline import aoi
from pipeline.errors import AOIError
from pipeline.grid import Grid

RING = [[119.6, 49.1], [119.7, 49.1], [119.7, 49.2], [119.6, 49.2], [119.6, 49.1]]
SQUARE: dict[str, Any] = {"type": "Polygon", "coordinates": [RING]}


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def write(folder: Path, name: str, document: Any) -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


# ---- what is read


def test_a_polygon_from_a_path_relative_to_base(tmp_path: Path) -> None:
    write(tmp_path, "field 7.geojson", SQUARE)
    area = aoi.read("field 7.geojson", base=tmp_path)
    assert area.name == "field-7"
    assert area.folder == tmp_path
    assert area.source == str(tmp_path / "field 7.geojson")
    assert area.polygon.crs == "EPSG:4326"
    assert area.geojson == SQUARE
    # 0.1 degree squared near 49.15 N: 7.29 km x 11.12 km
    assert area.km2 == pytest.approx(7.294 * 11.121, rel=2e-3)


def test_a_byte_order_mark_and_a_third_coordinate_do_no_harm(tmp_path: Path) -> None:
    high = {"type": "Polygon", "coordinates": [[[*p, 700.0] for p in RING]]}
    path = tmp_path / "a.geojson"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(high).encode())
    assert aoi.read(path).geojson == SQUARE


@pytest.mark.parametrize("text", [False, True])
def test_inline_geojson_as_object_or_text(text: bool) -> None:
    document = feature(SQUARE, name="Barga plain")
    area = aoi.read(json.dumps(document) if text else document)
    assert (area.name, area.source, area.folder) == ("Barga-plain", "inline", None)
    assert area.polygon.geom.equals(shapely.Polygon(RING))


def test_features_are_united_and_holes_kept() -> None:
    hole = [[119.64, 49.14], [119.64, 49.16], [119.66, 49.16], [119.66, 49.14], [119.64, 49.14]]
    east = [[x + 0.05, y] for x, y in RING]
    away = [[[x + 0.5, y] for x, y in RING]]
    document = {
        "type": "FeatureCollection",
        "features": [
            feature({"type": "Polygon", "coordinates": [RING, hole]}),
            feature(None),
            feature(
                {"type": "GeometryCollection", "geometries": [{"type": "MultiPolygon", "coordinates": [[east], away]}]}
            ),
        ],
    }
    geometry = aoi.read(document).polygon.geom
    parts = [shapely.Polygon(RING, [hole]), shapely.Polygon(east), shapely.Polygon(away[0])]
    assert geometry.geom_type == "MultiPolygon"
    assert geometry.equals(shapely.union_all(parts))
    assert not geometry.contains(shapely.Point(119.645, 49.15)), "the hole is where only the first feature lies"


@pytest.mark.parametrize("name", ["EPSG:4326", "urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "CRS84"])
def test_a_crs_member_that_says_wgs84_is_accepted(name: str) -> None:
    assert aoi.read({**SQUARE, "crs": {"type": "name", "properties": {"name": name}}}).geojson == SQUARE


@pytest.mark.parametrize(
    ("name", "cells", "epsg", "lon", "lat"), [("hailar", 660, 32650, 119.7, 49.2), ("dezhou", 495, 32650, 116.3, 37.4)]
)
def test_bundled_squares_cover_exactly_their_cells(
    name: str, cells: int, epsg: int, lon: float, lat: float, tmp_path: Path
) -> None:
    for given in (name, f"{name}.geojson"):
        area = aoi.read(given, base=tmp_path)
        assert (area.name, area.folder) == (name, None)
        grid = Grid.covering(area.polygon)
        assert (grid.epsg, grid.columns, grid.rows) == (epsg, cells, cells)
        assert area.polygon.geom.contains(shapely.Point(lon, lat))
        assert area.km2 == pytest.approx((cells * 0.06) ** 2, rel=2e-3)
    document = json.loads((Path(aoi.__file__).parent / "aois" / f"{name}.geojson").read_text())
    assert document["properties"]["approximate"] is True


def test_a_file_in_the_callers_folder_wins_over_the_bundled_one_and_the_log_says_which(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="pipeline.aoi")
    bundled = aoi.read("hailar.geojson", base=tmp_path)
    assert caplog.messages == [
        f"area of interest: the bundled hailar.geojson (there is no file {tmp_path / 'hailar.geojson'})"
    ]
    caplog.clear()
    write(tmp_path, "hailar.geojson", SQUARE)
    own = aoi.read("hailar.geojson", base=tmp_path)
    assert caplog.messages == [f"area of interest: the file {tmp_path / 'hailar.geojson'}"]
    assert own.geojson == SQUARE
    assert bundled.source == "bundled hailar.geojson"
    assert own.source == str(tmp_path / "hailar.geojson")
    assert aoi.read("hailar", base=tmp_path).source == str(tmp_path / "hailar.geojson")
    (tmp_path / "dezhou").mkdir()
    assert aoi.read("dezhou", base=tmp_path).source == "bundled dezhou.geojson", "a folder is not the caller's file"


# ---- what is refused: each message names what, where and the remedy

SHIFTED = [[x + 60.35, y] for x, y in RING]  # 179.95 to 180.05
BAD: dict[str, tuple[Any, list[str]]] = {
    "truncated": ('{"type": "Polygon", "coordinates": [[[119', ["bad.geojson", "not JSON", "line 1", "Polygon"]),
    "nothing in it": ("  \n", ["bad.geojson", "is empty", "Polygon or MultiPolygon"]),
    "a list": ([1, 2], ["bad.geojson", "not GeoJSON", "list"]),
    "another object": ({"hello": 1}, ["bad.geojson", "not GeoJSON", "None"]),
    "TopoJSON": ({"type": "Topology", "objects": {}}, ["TopoJSON", "convert"]),
    "Esri JSON": ({"rings": [RING]}, ["Esri JSON", "convert"]),
    "no feature": ({"type": "FeatureCollection", "features": []}, ["is empty", "no geometry"]),
    "features missing": ({"type": "FeatureCollection"}, ["without features"]),
    "null geometry": (feature(None), ["is empty", "no geometry"]),
    "no coordinates": ({"type": "Polygon", "coordinates": []}, ["is empty", "without coordinates"]),
    "coordinates missing": ({"type": "MultiPolygon"}, ["is empty", "without coordinates"]),
    "empty ring": ({"type": "Polygon", "coordinates": [[]]}, ["rings of [longitude, latitude]"]),
    "text in a ring": ({"type": "Polygon", "coordinates": [[["a", "b"]] * 4]}, ["rings of [longitude, latitude]"]),
    "a flat ring": ({"type": "Polygon", "coordinates": RING}, ["rings of [longitude, latitude]"]),
    "two positions": ({"type": "Polygon", "coordinates": [RING[:2]]}, ["not a polygon", "give a GeoJSON"]),
    "point": ({"type": "Point", "coordinates": [119.7, 49.2]}, ["bad.geojson", "Point", "no area", "give a GeoJSON"]),
    "line": (feature({"type": "LineString", "coordinates": RING}), ["LineString", "no area", "give a GeoJSON Polygon"]),
    "a point among polygons": (
        {"type": "FeatureCollection", "features": [feature(SQUARE), feature({"type": "Point", "coordinates": [1, 2]})]},
        ["feature 1", "Point", "no area"],
    ),
    "self-crossing": (
        {"type": "Polygon", "coordinates": [[RING[0], RING[2], RING[1], RING[3], RING[0]]]},
        ["crosses itself", "longitude 119.65", "latitude 49.15", "Redraw"],
    ),
    "collapsed": ({"type": "Polygon", "coordinates": [[[119.6, 49.1]] * 4]}, ["not a valid polygon", "Redraw"]),
    "swapped": (
        {"type": "Polygon", "coordinates": [[[y, x] for x, y in RING]]},
        ["[49.1, 119.6]", "latitude 119.6", "swapped", "[longitude, latitude]"],
    ),
    "metres": (
        {"type": "Polygon", "coordinates": [[[x * 5e3, y * 1e5] for x, y in RING]]},
        ["out of range", "metres of a projected system", "degrees"],
    ),
    "out of range": (
        {"type": "Polygon", "coordinates": [[[x + 100, y + 100] for x, y in RING]]},
        ["out of range", "149.1"],
    ),
    "beyond 180": ({"type": "Polygon", "coordinates": [SHIFTED]}, ["180.05", "antimeridian", "Cut it at 180"]),
    "over the antimeridian": (
        {"type": "Polygon", "coordinates": [[[x if x <= 180 else x - 360, y] for x, y in SHIFTED]]},
        ["antimeridian", "179.95", "Cut it at 180"],
    ),
    "both sides of it": (
        {"type": "MultiPolygon", "coordinates": [[[[x + d, y] for x, y in RING]] for d in (60.2, -299.6)]},
        ["antimeridian", "Cut it at 180"],
    ),
    "polar": ({"type": "Polygon", "coordinates": [[[x, y + 36] for x, y in RING]]}, ["85.2", "outside UTM", "Cut it"]),
    "too large": (
        {"type": "Polygon", "coordinates": [[[110, 45], [115, 45], [115, 50], [110, 50], [110, 45]]]},
        ["km2", "limit of 60,000", "parts", "MARSTFN_AOI_MAX_KM2"],
    ),
    "far apart": (
        {"type": "MultiPolygon", "coordinates": [[RING], [[[x - 30, y - 20] for x, y in RING]]]},
        ["far apart", "one by one"],
    ),
    "other system": (
        {**SQUARE, "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32650"}}},
        ["EPSG::32650", "WGS 84", "ogr2ogr"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_place_and_remedy(name: str, tmp_path: Path) -> None:
    document, words = BAD[name]
    path = write(tmp_path, "bad.geojson", document)
    with pytest.raises(AOIError) as caught:
        aoi.read(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message, message
    assert "\n" not in message


def test_binary_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    path.write_bytes(b"II*\x00\xff\xfe\xfd")
    with pytest.raises(AOIError, match=r"map\.tif is not JSON text"):
        aoi.read(path)


def test_deep_nesting_is_refused_not_crashed_on(tmp_path: Path) -> None:
    path = write(tmp_path, "deep.geojson", "[" * 200_000 + "]" * 200_000)
    with pytest.raises(AOIError, match="deep"):
        aoi.read(path)


def test_a_missing_file_names_the_path_looked_at_and_the_bundled_names(tmp_path: Path) -> None:
    with pytest.raises(AOIError) as caught:
        aoi.read("halair.geojson", base=tmp_path)
    for word in (str(tmp_path / "halair.geojson"), "dezhou, hailar", "Correct the path"):
        assert word in str(caught.value)


def test_a_folder_is_not_an_area(tmp_path: Path) -> None:
    with pytest.raises(AOIError, match="is a folder"):
        aoi.read(tmp_path)


def test_empty_text_is_not_an_area() -> None:
    with pytest.raises(AOIError, match="empty text"):
        aoi.read(" ")


def test_limits_can_be_set(tmp_path: Path) -> None:
    with pytest.raises(AOIError, match=r"measures 81 km2, more than the limit of 50 km2"):
        aoi.read(SQUARE, max_km2=50)
    path = write(tmp_path, "a.geojson", SQUARE)
    with pytest.raises(AOIError, match="MARSTFN_AOI_MAX_BYTES"):
        aoi.read(path, max_bytes=20)
    with pytest.raises(AOIError, match="MARSTFN_AOI_MAX_BYTES"):
        aoi.read(json.dumps(SQUARE), max_bytes=20)


# ---- over HTTP


class Files(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/slow"):
            time.sleep(2.0)
        if self.path.startswith("/drip"):
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
                time.sleep(0.2)
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        body = json.dumps(SQUARE).encode()
        try:
            # no Content-Length: only counting what arrives can cap it
            for _ in range(2000 if self.path.startswith("/endless") else 1):
                self.wfile.write(body)
        except OSError:
            return  # the client has seen enough


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_is_fetched(url: str) -> None:
    area = aoi.read(f"{url}/fields/north.geojson?version=2")
    assert (area.name, area.folder) == ("north", None)
    assert area.source == f"{url}/fields/north.geojson", "a query may be a secret, by whatever name"
    assert area.geojson == SQUARE


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/missing.geojson", ["404", "browser"]),
        ("/endless.geojson", ["bytes, more than the limit of 50,000", "MARSTFN_AOI_MAX_BYTES"]),
        ("/drip.geojson", ["no answer within 0.5 s", "give the path"]),
        ("/slow.geojson", ["no answer within 0.5 s", "give the path"]),
    ],
)
def test_a_url_that_fails_says_how(url: str, path: str, words: list[str]) -> None:
    begun = time.monotonic()
    with pytest.raises(AOIError) as caught:
        aoi.read(url + path, max_bytes=50_000, timeout=0.5)
    assert time.monotonic() - begun < 4
    for word in (url + path, *words):
        assert word in str(caught.value)


def test_an_unreachable_host_is_told_at_once(url: str) -> None:
    begun = time.monotonic()
    with pytest.raises(AOIError, match=r"127\.0\.0\.1:1/a\.geojson cannot be reached .*refused.*Check the address"):
        aoi.read("http://127.0.0.1:1/a.geojson")
    assert time.monotonic() - begun < 5


def test_a_token_in_the_address_is_used_and_told_to_nobody(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="pipeline")
    area = aoi.read(f"{url}/a.geojson?sig=hush&se=2030")
    assert area.source == f"{url}/a.geojson"
    assert aoi.read(f"{url}/a.geojson?whatever=hush").source == f"{url}/a.geojson"
    for path in ("/missing.geojson?sig=hush", "/endless.geojson?token=hush", "/missing.geojson?whatever=hush"):
        with pytest.raises(AOIError) as caught:
            aoi.read(url + path, max_bytes=1000)
        assert "hush" not in str(caught.value)
    with pytest.raises(AOIError) as caught:
        aoi.read("http://me:hush@127.0.0.1:1/a.geojson?sig=hush")
    assert "hush" not in str(caught.value) + caplog.text


@pytest.mark.parametrize("scheme", ["ftp", "s3", "file"])
def test_other_schemes_are_not_fetched(scheme: str) -> None:
    with pytest.raises(AOIError, match=r"only http:// and https://"):
        aoi.read(f"{scheme}://example.org/a.geojson")


TRIANGLE = [[119.7, 49.2], [119.8, 49.2], [119.8, 49.3], [119.7, 49.2]]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x" * 300, ["too long for a path", "Inline GeoJSON begins with {"]),
        ("/", ["is a folder"]),
        ("~nosuchuser/x.geojson", ["~nosuchuser", "Write the path out"]),
        ("http://[::1", ["not a URL that can be read", "Correct the address"]),
        ("a\0b", ["neither GeoJSON nor a path"]),
        ({"type": "GeometryCollection", "geometries": 3}, ["GeometryCollection without geometries"]),
        ({"type": "Polygon", "coordinates": [[[10**400, 49.2], *TRIANGLE[1:]]]}, ["metres of a projected system"]),
        ('{"type": "Polygon", "coordinates": [[[' + "1" * 5000 + ", 2]]]}", ["number that cannot be read"]),
    ],
)
def test_odd_sources_are_refused_in_words(source: Any, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(AOIError) as caught:
        aoi.read(source, base=tmp_path)
    for part in words:
        assert part in str(caught.value)


@pytest.mark.parametrize("properties", [3, "text", ["name"], None])
def test_odd_properties_do_no_harm(properties: Any) -> None:
    found = aoi.read(
        {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [TRIANGLE]}}
    )
    assert found.name == "aoi"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_is_called_so(tmp_path: Path, encoding: str) -> None:
    text = json.dumps({"type": "Polygon", "coordinates": [TRIANGLE]})
    (tmp_path / "field.geojson").write_bytes(
        ("\ufeff" if encoding.endswith("le") else "").encode(encoding) + text.encode(encoding)
    )
    with pytest.raises(AOIError, match=r"field\.geojson is text in UTF-16.*save it as UTF-8"):
        aoi.read("field.geojson", base=tmp_path)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "field.geojson")
    with pytest.raises(AOIError, match=r"pipe or device.*Write it to a file first"):
        aoi.read("field.geojson", base=tmp_path)


def test_names_in_other_scripts_stay_apart(tmp_path: Path) -> None:
    text = json.dumps({"type": "Polygon", "coordinates": [TRIANGLE]})
    names = ["\u6d77\u62c9\u5c14", "\u5fb7\u5dde", "M\u00fcnchen"]
    for name in names:
        (tmp_path / f"{name}.geojson").write_text(text)
    found = [aoi.read(f"{name}.geojson", base=tmp_path).name for name in names]
    assert len(set(found)) == 3
    assert found[2] == "Munchen"
    assert all(re.fullmatch(r"aoi-[0-9a-f]{6}", name) for name in found[:2])
    assert aoi.read(f"{names[0]}.geojson", base=tmp_path).name == found[0], "the same name, the same store"
