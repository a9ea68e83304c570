"""The item as pystac and the extensions read it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pystac
import pytest
from pystac.extensions.datacube import DatacubeExtension
from pystac.extensions.projection import ProjectionExtension
from rasterio.warp import transform_geom
from shapely.geometry import box, shape

from marstfn.bands import BANDS
from pipeline import stac_item
from pipeline.encoding import LAYERS
from pipeline.grid import Grid
from pipeline.store import Store
from tests.pipeline import small_store

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REPORT = {"quicklook": "./report/quicklook.png", "ndvi": "./report/ndvi.png", "scenes": "./report/scenes.json"}


@pytest.fixture(scope="module")
def item() -> pystac.Item:
    """Through JSON, as a reader gets it."""
    made = stac_item.item(small_store.plan(), created=NOW, report=REPORT)
    return pystac.Item.from_dict(json.loads(json.dumps(made.to_dict(include_self_link=False))))


def test_it_survives_the_way_through_json(item: pystac.Item) -> None:
    made = stac_item.item(small_store.plan(), created=NOW, report=REPORT).to_dict(include_self_link=False)
    assert item.to_dict(include_self_link=False) == made
    assert made["stac_version"] == "1.1.0"
    assert len(set(made["stac_extensions"])) == 5


def test_what_stac_demands_of_an_item_is_there(item: pystac.Item) -> None:
    """The core of the item specification, written down here since its schema lies on the net."""
    position = {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}}
    ring = {"type": "array", "minItems": 4, "items": position}
    asset = {"type": "object", "required": ["href", "type", "roles", "title"]}
    schema = {
        "type": "object",
        "required": ["stac_version", "type", "id", "geometry", "bbox", "properties", "links", "assets"],
        "properties": {
            "type": {"const": "Feature"},
            "id": {"type": "string", "minLength": 1},
            "bbox": {"type": "array", "minItems": 4, "maxItems": 4, "items": {"type": "number"}},
            "geometry": {"properties": {"type": {"const": "Polygon"}, "coordinates": {"items": ring}}},
            "properties": {
                "required": ["datetime", "start_datetime", "end_datetime", "created", "proj:code", "cube:dimensions"],
                "properties": {"datetime": {"type": "null"}, "start_datetime": {"type": "string"}},
            },
            "assets": {"additionalProperties": asset},
        },
    }
    jsonschema.validate(item.to_dict(include_self_link=False), schema)


def test_it_lies_where_the_cube_lies(item: pystac.Item) -> None:
    grid = small_store.GRID
    outline = shape(item.geometry)
    assert outline.is_valid
    assert outline.exterior.is_ccw
    # GDAL's own transform of the grid's outline is the oracle
    extent = grid.geobox(10).boundingbox
    corners = box(extent.left, extent.bottom, extent.right, extent.top)
    expected = shape(transform_geom(f"EPSG:{grid.epsg}", "EPSG:4326", corners.__geo_interface__))
    assert outline.symmetric_difference(expected).area < 1e-4 * expected.area
    assert item.bbox == pytest.approx(expected.bounds, abs=1e-5)
    projection = ProjectionExtension.ext(item)
    assert projection.code == "EPSG:32651"
    assert projection.shape == [108, 120]
    assert projection.transform == [10, 0, 300000, 0, -10, 5460000]
    assert projection.bbox == [300000, 5458920, 301200, 5460000]


def test_a_long_southern_edge_follows_the_curve_of_the_zone() -> None:
    """Straight lines of a UTM zone are bent in longitude and latitude: corners alone would cut the edge off."""
    grid = Grid(32651, 300000, 5460000, 1000, 1000, 480)
    item = stac_item.item(small_store.plan(grid=grid), created=NOW)
    assert len(item.geometry["coordinates"][0]) > 8  # type: ignore[index]


def test_the_datacube_extension_tells_dimensions_and_variables(item: pystac.Item) -> None:
    plan = small_store.plan()
    cube = DatacubeExtension.ext(item)
    assert list(cube.dimensions) == ["time", "y", "x"]
    x, y, time = (cube.dimensions[name].to_dict() for name in ("x", "y", "time"))
    assert (x["extent"], x["step"], x["reference_system"]) == ([300005, 301195], 10, 32651)
    assert (y["extent"], y["step"]) == ([5458925, 5459995], -10)
    assert time["values"] == [s.time.strftime("%Y-%m-%dT%H:%M:%SZ") for s in plan.scenes]
    assert list(cube.variables) == list(LAYERS)
    assert all(v.dimensions == ["time", "y", "x"] for v in cube.variables.values())


def test_the_asset_says_how_to_read_the_bands(item: pystac.Item) -> None:
    asset = item.assets["cube"]
    assert asset.href == "./fused.zarr"
    assert asset.media_type == "application/vnd.zarr; version=3"
    bands = {band["name"]: band for band in asset.extra_fields["bands"]}
    assert [n for n in bands if "eo:common_name" in bands[n]] == list(BANDS)
    assert all(bands[n]["raster:scale"] == 1e-4 and bands[n]["nodata"] == -9999 for n in BANDS)
    assert bands["quality"]["data_type"] == "uint8"
    assert {k: a.href for k, a in item.assets.items() if k in REPORT} == REPORT


def test_dates_and_provenance(item: pystac.Item) -> None:
    plan = small_store.plan()
    assert item.common_metadata.start_datetime == plan.scenes[0].time
    assert item.common_metadata.end_datetime == plan.scenes[-1].time
    assert item.common_metadata.created == NOW
    assert item.properties["marstfn:plan_fingerprint"] == plan.fingerprint
    assert item.properties["marstfn:simulated"] is True
    assert item.properties["platform"] == "landsat-8, sentinel-2a, sentinel-2b"


def test_no_href_is_tied_to_this_machine(item: pystac.Item) -> None:
    hrefs = [a.href for a in item.assets.values()] + [link.href for link in item.links]
    assert hrefs
    assert all(href.startswith("./") for href in hrefs)


def test_written_beside_the_cube(tmp_path: Path) -> None:
    name = stac_item.write(Store(str(tmp_path)), small_store.plan(), report=REPORT, created=NOW)
    read = pystac.Item.from_file(str(tmp_path / name))
    assert name == "fused.stac.json"
    assert read.assets["cube"].get_absolute_href() == str(tmp_path / "fused.zarr")
