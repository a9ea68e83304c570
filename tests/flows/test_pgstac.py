"""A STAC API that others wrote, stac-fastapi-pgstac, in place of our own: the same scenes and the same cube.

Its files come over HTTP ranges or from an S3 endpoint, which is moto, not Amazon.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline import catalog
from pipeline.catalogues import PROFILES
from pipeline.products import CATALOG, Profile, Role
from pipeline.profiles import Endpoint, Source, resolve
from tests import servers
from tests.conftest import Served, assert_same_cubes, whole_run

pytestmark = [pytest.mark.server, pytest.mark.postgres, pytest.mark.timeout(300)]

Json = dict[str, Any]
SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"
FOLDERS = {
    "planetary-computer": "planetary-computer",
    "earth-search-v1": "earth-search",
    "usgs-landsatlook": "usgs",
    "cdse": "cdse",
    "dea": "dea",
    "de-africa": "deafrica",
}
"""Profile by folder of recorded items."""


@dataclass(frozen=True)
class Api:
    """A running pgstac."""

    url: str
    log: Path

    def searches(self) -> int:
        """How many searches it has answered."""
        return self.log.read_text().count('"POST /search')


def documents(served: Served) -> tuple[list[Json], list[Json]]:
    """Collections and items as the project's own server gives them, with addresses of its files."""
    collections, items = (_get(f"{served.url}/{path}") for path in ("collections", "search?limit=1000"))
    found = [{**document, "links": []} for document in items["features"]]
    assert len(found) == items["numberMatched"]
    return [{**document, "links": []} for document in collections["collections"]], found


def _get(url: str) -> Json:
    with urllib.request.urlopen(url, timeout=60) as answer:
        found: Json = json.load(answer)
    return found


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Postgres]:
    with servers.postgres(tmp_path_factory.mktemp("postgres") / "postgres.log") as running:
        yield running


@contextmanager
def holding(
    database: servers.Postgres, name: str, collections: list[Json], items: list[Json], folder: Path
) -> Iterator[Api]:
    with servers.api(database, name, collections, items, folder) as url:
        yield Api(url, folder / f"{name}.log")


@pytest.fixture(scope="module")
def api(database: servers.Postgres, whole_year: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The simulated year in pgstac."""
    with holding(database, "year", *documents(whole_year), tmp_path_factory.mktemp("api")) as running:
        yield running


def plain(item: Json) -> Json:
    """An item without what a server adds."""
    return {key: value for key, value in item.items() if key != "links"}


def found(source: Source, served: Served, first: date, last: date) -> dict[str, dict[str, Json]]:
    """Items by role and name of a search over the area."""
    bounds = served.grid.geobox(10).geographic_extent.boundingbox.bbox
    result = catalog.search(source, bounds, first, last)
    return {role: {str(item["id"]): plain(item) for item in items} for role, items in result.items.items()}


def test_all_pages_of_a_year_hold_what_our_own_server_holds(api, year, monkeypatch):
    monkeypatch.setattr(catalog, "PAGE", 3)
    before = api.searches()
    theirs = found(resolve(f"simulated@{api.url}"), year, date(2023, 1, 1), date(2023, 12, 31))
    assert api.searches() - before >= 119 / 3
    ours = found(resolve(year.catalog), year, date(2023, 1, 1), date(2023, 12, 31))
    assert {role: len(items) for role, items in theirs.items()} == {
        "landsat8": 23, "sentinel2": 73, "landsat8_pan": 23,
    }  # fmt: skip
    assert theirs == ours


def test_days_and_places_are_filters_there_too(api, year):
    source = resolve(f"simulated@{api.url}")
    ours = resolve(year.catalog)
    few = found(source, year, date(2023, 7, 3), date(2023, 7, 9))
    assert few == found(ours, year, date(2023, 7, 3), date(2023, 7, 9))
    assert 1 <= len(few["sentinel2"]) <= 2
    elsewhere = catalog.search(source, (10.0, 45.0, 10.1, 45.1), date(2023, 7, 1), date(2023, 7, 31))
    assert not any(elsewhere.items.values())


def test_a_collection_it_has_not_is_told(api, year):
    """pgstac answers a search in an unknown collection with no items and no error."""
    source = resolve(f"simulated@{api.url}")
    (endpoint,) = source.endpoints
    products = tuple(
        replace(p, collection="landsat-c2l1-gone") if p.role == "landsat8_pan" else p for p in endpoint.profile.products
    )
    lacking = Source((replace(endpoint, profile=replace(endpoint.profile, products=products)),))
    result = catalog.search(lacking, (119.0, 49.0, 119.9, 49.3), date(2023, 7, 1), date(2023, 7, 31))
    assert set(result.items) == {"landsat8", "sentinel2"}
    assert "has no collection landsat-c2l1-gone: no panchromatic band" in " ".join(result.notes)


def test_the_flow_makes_the_same_cube_of_it(api, year, calm, tmp_path):
    before = api.searches()
    whole_run(year, f"simulated@{api.url}", tmp_path / "store")
    assert api.searches() > before
    assert year.server.log.count("/search") == 0
    assert year.server.log.count("*.tif", status=206) > 500  # its files come over HTTP ranges
    assert_same_cubes(tmp_path / "store", calm)


def test_the_flow_reads_from_an_s3_endpoint(database, year, calm, tmp_path, monkeypatch):
    """moto in place of Amazon: the addresses are s3://, so GDAL takes another way to the same numbers."""
    collections, items = documents(year)
    text = json.dumps(items).replace(f"{year.url}/data/", "s3://year/data/")
    assert year.url not in text
    files = {str(f.relative_to(year.folder)): f for f in (year.folder / "data").rglob("*") if f.is_file()}
    with (
        servers.moto(tmp_path / "moto.log") as endpoint,
        holding(database, "s3", collections, json.loads(text), tmp_path) as api,
    ):
        servers.bucket(endpoint, "year", files)
        for name, value in servers.gdal_s3(endpoint, "AKIAIOSFODNN7EXAMPLE", SECRET).items():
            monkeypatch.setenv(name, value)
        whole_run(year, f"simulated@{api.url}", tmp_path / "store")
        assert (tmp_path / "moto.log").read_text().count(" 206 ") > 500
    assert year.server.log.count("*.tif") == 0
    assert_same_cubes(tmp_path / "store", calm)
    told = [file for file in (tmp_path / "store").rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
    assert told == []


# --- recorded items ---------------------------------------------------------------------------------------------------


def recorded(shared: Path) -> list[tuple[Profile, Json]]:
    """Recorded items of catalogues and collections that a profile knows."""
    chosen = []
    for folder, name in FOLDERS.items():
        for path in sorted((shared / "stac" / folder).glob("*/*.json")):
            document = json.loads(path.read_text())
            profile = PROFILES.get(name)
            item = isinstance(document, dict) and document.get("type") == "Feature"
            if item and profile and roles(profile, document):
                chosen.append((profile, document))
    return chosen


def roles(profile: Profile, item: Json) -> list[Role]:
    return [role for role in profile.roles if profile.product_of(item.get("collection"), role)]


@pytest.mark.shared
def test_recorded_items_come_back_through_their_profiles(database, shared, tmp_path):
    """The collections of several catalogues have one name; here they share one, as nowhere else."""
    known = recorded(shared)
    assert len(known) >= 4
    own = {p.stem: json.loads(p.read_text()) for p in (shared / "stac").glob("*/*/collection.json")}
    described = {document["id"]: {**document, "links": []} for document in own.values()}
    names = {product.collection for profile, _ in known for product in profile.products}
    collections = [described.get(name) or bare(name) for name in sorted(names)]
    with holding(database, "recorded", collections, [item for _, item in known], tmp_path) as api:
        for profile, item in known:
            day = date.fromisoformat(item["properties"]["datetime"][:10])
            west, south, east, north = item["bbox"]
            x, y = (west + east) / 2, (south + north) / 2
            source = Source((Endpoint(profile, api.url, profile.roles, f"{profile.name}@{api.url}"),))
            result = catalog.search(source, (x, y, x + 0.01, y + 0.01), day, day)
            for role in roles(profile, item):
                (same,) = [found for found in result.items[role] if found["id"] == item["id"]]
                # pgstac makes some addresses of what is not read its own, a thumbnail's query for one
                keys = set(profile.product_of(item["collection"], role).keys) & set(item["assets"])
                assert {key: same["assets"][key] for key in keys} == {key: item["assets"][key] for key in keys}
                assert same["properties"] == {**item["properties"], CATALOG: profile.name}


def bare(name: str) -> Json:
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2013-01-01T00:00:00Z", None]]}}
    return {
        "type": "Collection", "id": name, "stac_version": "1.0.0", "description": name, "license": "proprietary",
        "extent": extent, "links": [],
    }  # fmt: skip
