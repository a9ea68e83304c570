"""Items on disk: a season planned and read from a file, with no server, as it is from the API."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pystac
import pytest
import shapely
from shapely.geometry import shape

from pipeline import catalog, cube, planner, profiles, static
from pipeline import request as requests
from pipeline.errors import CatalogError
from pipeline.events import Event, Note
from pipeline.ingest import ingest_tile
from pipeline.plan import Plan
from pipeline.settings import Settings
from pipeline.store import INPUTS, Store

DEFAULTS = Settings(catalog="planetary-computer", store=None)
DAYS = (datetime(2023, 5, 1, tzinfo=UTC), datetime(2023, 6, 1, tzinfo=UTC))
EVERYWHERE = (-180.0, -90.0, 180.0, 90.0)


def write_json(path: Path, items: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))


def write_parquet(path: Path, items: list[dict[str, Any]]) -> None:
    """As stac-geoparquet has it: properties are columns, geometry is WKB, times are timestamps, bbox and assets are
    structs that have the keys of all rows."""
    rows = []
    for item in items:
        properties = dict(item["properties"])
        moment = datetime.fromisoformat(str(properties.pop("datetime")).replace("Z", "+00:00"))
        top = {key: item[key] for key in ("type", "stac_version", "id", "collection", "links", "assets")}
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), item["bbox"], strict=True))
        wkb = shapely.to_wkb(shape(item["geometry"]))
        rows.append({**top, "geometry": wkb, "bbox": box, "datetime": moment, **properties})
    columns = dict.fromkeys(key for row in rows for key in row)
    pyarrow.parquet.write_table(pyarrow.table({key: [row.get(key) for row in rows] for key in columns}), path)


def served_items(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "items").glob("*/*.json"))]


def item(name: str, moment: str = "2023-05-03T02:55:31Z", **fields: Any) -> dict[str, Any]:
    box = shapely.box(119.6, 49.1, 119.7, 49.2)
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "sentinel-2-c1-l2a",
        "geometry": shapely.geometry.mapping(box), "bbox": list(box.bounds), "properties": {"datetime": moment},
        "links": [], "assets": {"blue": {"href": "B02.tif"}}, **fields,
    }  # fmt: skip


def names(path: Path, bbox: tuple[float, float, float, float] = EVERYWHERE) -> list[str]:
    return sorted(i["id"] for i in static.items(str(path), ["sentinel-2-c1-l2a"], bbox, DAYS))


# ---- a season without a server


@pytest.fixture(scope="module")
def served(season: Any) -> tuple[Plan, pystac.ItemCollection]:
    season.server.faults.set()
    return plan_of(season, season.catalog)


def plan_of(season: Any, where: str, **kw: Any) -> tuple[Plan, pystac.ItemCollection]:
    request = requests.make(defaults=DEFAULTS, aoi=str(season.aoi), year=2023, catalog=where, method="additive")
    return planner.make_plan(request, defaults=DEFAULTS, **kw)


@pytest.mark.server
@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_a_season_is_planned_and_read_from_a_file(ending: str, served: Any, season: Any, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(season.folder / "data")
    path = tmp_path / f"items.{ending}"
    {"json": write_json, "parquet": write_parquet}[ending](path, served_items(season.folder))
    season.server.log.clear()
    events: list[Event] = []
    plan, frozen = plan_of(season, f"simulated@{path}", listener=events.append)
    expected, from_server = served
    assert plan.catalog == f"simulated@{path}"
    assert plan.scenes == expected.scenes
    assert plan.radiometry == expected.radiometry
    assert plan.has_pan
    assert {i.properties["marstfn:catalog"] for i in frozen} == {"simulated"}
    assert any(isinstance(e, Note) and e.kind == "search" and str(path) in e.text for e in events)
    hrefs = [a.href for i in frozen for a in i.assets.values()]
    assert all(href.startswith(f"{tmp_path}/data/") and Path(href).is_file() for href in hrefs)
    if ending == "parquet":
        return  # its items are those of the other file
    tile = plan.tiles[0]
    stores = [Store(str(tmp_path / name)) for name in ("file", "server")]
    cube.create_inputs(plan, stores[0])
    ingest_tile(plan, stores[0], tile, {i.id: i for i in frozen})
    assert season.server.log.all() == (), "no server was asked"
    cube.create_inputs(expected, stores[1])
    ingest_tile(expected, stores[1], tile, {i.id: i for i in from_server})
    for array in ("sentinel2/red", "sentinel2/clear", "landsat8/nir08", "landsat8/clear", "landsat8_pan/pan"):
        one, other = (np.asarray(cube.array(store, INPUTS, array)[:]) for store in stores)
        np.testing.assert_array_equal(one, other, err_msg=array)
        assert len(np.unique(one)) > 1, array


# ---- files


def test_only_what_was_asked_for_comes_out_of_a_file(tmp_path: Path) -> None:
    every = [
        item("in"),
        item("late", "2023-07-03T02:55:31Z"),
        item("other", collection="naip"),
        item("west", bbox=[10.0, 49.1, 11.0, 49.2]),
        item("unboxed", bbox=None),
    ]
    write_json(tmp_path / "items.json", every)
    bbox = (119.65, 49.15, 119.8, 49.3)
    assert names(tmp_path / "items.json", bbox) == ["in", "unboxed"]
    write_parquet(tmp_path / "items.parquet", every[:4])
    assert names(tmp_path / "items.parquet", bbox) == ["in"]


def test_a_box_across_the_antimeridian_is_met_on_either_side(tmp_path: Path) -> None:
    write_json(tmp_path / "items.json", [item("T01", bbox=[179.2, 49.0, -179.1, 50.0])])
    path = tmp_path / "items.json"
    assert names(path, (179.5, 49.1, 179.6, 49.2)) == ["T01"]
    assert names(path, (-179.6, 49.1, -179.5, 49.2)) == ["T01"]
    assert names(path, (0.0, 49.1, 0.1, 49.2)) == []


def test_a_table_gives_items_back_as_they_were(tmp_path: Path) -> None:
    one = item("one", properties={"datetime": "2023-05-03T02:55:31.024000Z", "eo:cloud_cover": 3.5})
    two = item("two", assets={"red": {"href": "https://h/B04.tif", "raster:bands": [{"scale": 1e-4, "offset": 0.0}]}})
    write_parquet(tmp_path / "items.parquet", [one, two])
    back = {i["id"]: i for i in static.items(str(tmp_path / "items.parquet"), [one["collection"]], EVERYWHERE, DAYS)}
    for item_ in (one, two):
        got = back[item_["id"]]
        self_link = {"rel": "self", "href": str(tmp_path / "items.parquet")}
        assert got["links"] == [self_link]
        assert shape(got["geometry"]).equals(shape(item_["geometry"]))
        moment = datetime.fromisoformat(item_["properties"]["datetime"].replace("Z", "+00:00"))
        assert datetime.fromisoformat(got["properties"].pop("datetime")) == moment
        item_["properties"].pop("datetime")
        rest = ("geometry", "links")
        assert {k: v for k, v in got.items() if k not in rest} == {k: v for k, v in item_.items() if k not in rest}


@pytest.mark.shared
def test_recorded_items_outlive_a_table(shared: Path, tmp_path: Path) -> None:
    folder = shared / "stac" / "planetary-computer"
    items = [json.loads(path.read_text()) for path in sorted(folder.glob("*/[LS]*.json"))]
    assert len(items) == 3
    write_parquet(tmp_path / "items.parquet", items)
    span = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
    source = profiles.resolve(f"planetary-computer@{tmp_path / 'items.parquet'}")
    back = {
        i["id"]: i for i in static.items(source.endpoints[0].url, source.endpoints[0].collections, EVERYWHERE, span)
    }
    for item_ in items:
        got = back[item_["id"]]
        assert set(got["assets"]) == set(item_["assets"])
        for key, asset in item_["assets"].items():
            assert got["assets"][key]["href"] == asset["href"]
            assert got["assets"][key].get("raster:bands") == asset.get("raster:bands"), key
        assert got["properties"]["proj:epsg"] == item_["properties"]["proj:epsg"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.json", None, "No such file"),
        ("a.json", "{", "JSONDecodeError"),
        ("a.json", '{"type": "Catalog"}', "it is no ItemCollection: there are no features"),
        ("a.json", "[1]", "it is no ItemCollection"),
        ("a.json", '{"features": [1]}', "cannot be read"),
        ("a.parquet", "not a table", "cannot be read"),
    ],
)
def test_what_is_no_file_of_items_is_told(name: str, text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    source = profiles.resolve(f"simulated@{name}", tmp_path)
    with pytest.raises(CatalogError) as caught:
        catalog.search(source, EVERYWHERE, date(2023, 5, 1), date(2023, 5, 31))
    for word in (words, str(tmp_path / name), "nothing was planned", "stac-geoparquet"):
        assert word in str(caught.value)


def test_a_table_of_something_else_is_told(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"], "price": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(CatalogError, match="no stac-geoparquet: there is no column collection, geometry, assets"):
        names(tmp_path / "a.parquet")


def test_a_file_of_too_many_items_is_refused_with_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "LIMIT", 5)
    write_json(tmp_path / "items.json", [item(f"S{n}") for n in range(7)])
    with pytest.raises(CatalogError, match=r"7 items of .*items.json match .* more than the 5 .* smaller area"):
        catalog.search(
            profiles.resolve("simulated@items.json", tmp_path), EVERYWHERE, date(2023, 5, 1), date(2023, 5, 31)
        )
