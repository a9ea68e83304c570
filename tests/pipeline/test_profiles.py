"""Catalogues by name, by address, as files, and joined: what resolves, and what is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import profiles
from pipeline.errors import CatalogError


def test_the_default_catalogue_has_no_pan_and_the_simulated_one_has() -> None:
    assert profiles.resolve("planetary-computer").profile.product("landsat8_pan") is None
    pan = profiles.resolve("simulated@http://127.0.0.1:1").profile.product("landsat8_pan")
    assert pan is not None
    assert (pan.collection, dict(pan.assets)) == ("landsat-c2l1", {"pan": "pan"})


def test_a_source_is_named_so_that_it_resolves_to_itself() -> None:
    for text in ("planetary-computer", "earth-search@http://127.0.0.1:8000/v1/", "simulated@http://127.0.0.1:8000"):
        source = profiles.resolve(text)
        assert profiles.resolve(source.label) == source
        assert source.label == text.rstrip("/")
    own = profiles.PROFILES["earth-search"].url
    assert profiles.resolve(f"earth-search@{own}").label == "earth-search"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "unknown catalogue ''"),
        ("Planetary", "unknown catalogue 'Planetary'"),
        ("simulated", "no endpoint of its own"),
        ("simulated@localhost:80", "not an http"),
        ("earth-search@https://me:secret@example.org", "user name, password or query"),
        ("earth-search@https://example.org/v1?token=secret", "user name, password or query"),
    ],
)
def test_what_cannot_be_searched_is_refused_without_telling_secrets(text: str, word: str) -> None:
    with pytest.raises(CatalogError, match=word) as caught:
        profiles.resolve(text)
    assert "nothing was searched" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CatalogError) as caught:
        profiles.resolve("copernicus")
    for name in ("planetary-computer", "earth-search", "usgs", "cdse", "dea", "deafrica", "simulated", "mine.toml"):
        assert name in str(caught.value)


def where(source: profiles.Source) -> dict[str, str]:
    return {role: endpoint.profile.name for role in source.roles if (endpoint := source.endpoint(role))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("planetary-computer", {"sentinel2": "planetary-computer", "landsat8": "planetary-computer"}),
        (
            "planetary-computer+usgs",
            {"sentinel2": "planetary-computer", "landsat8": "planetary-computer", "landsat8_pan": "usgs"},
        ),
        ("usgs+planetary-computer", {"sentinel2": "planetary-computer", "landsat8": "usgs", "landsat8_pan": "usgs"}),
        ("cdse+usgs", {"sentinel2": "cdse", "landsat8": "usgs", "landsat8_pan": "usgs"}),
        ("dea", {"sentinel2": "dea", "landsat8": "dea", "landsat8_pan": "dea"}),
        (
            "cdse@http://127.0.0.1:1+ simulated@items.json",
            {"sentinel2": "cdse", "landsat8": "simulated", "landsat8_pan": "simulated"},
        ),
    ],
)
def test_joined_catalogues_serve_each_role_from_the_first_that_has_it(
    text: str, expected: dict[str, str], tmp_path: Path
) -> None:
    source = profiles.resolve(text, tmp_path)
    assert where(source) == expected
    assert profiles.resolve(source.label) == source
    only = source.only(("landsat8",))
    assert where(only) == {"landsat8": expected["landsat8"]}


def test_a_catalogue_that_has_no_part_is_refused() -> None:
    with pytest.raises(CatalogError, match="'planetary-computer' has no part in 'dea"):
        profiles.resolve("dea+planetary-computer")


def test_the_same_collection_of_two_catalogues_is_two_things() -> None:
    source = profiles.resolve("cdse+planetary-computer")
    item: dict[str, Any] = {"collection": "sentinel-2-l2a", "properties": {"marstfn:catalog": "planetary-computer"}}
    assert source.product_of(item, "sentinel2") is None
    item["properties"]["marstfn:catalog"] = "cdse"
    product = source.product_of(item, "sentinel2")
    assert product is not None
    assert product.assets["red"] == "B04_10m"


def test_collections_of_one_role_are_stored_alike() -> None:
    pc, dea = profiles.PROFILES["planetary-computer"], profiles.PROFILES["dea"]
    with pytest.raises(CatalogError, match="are all to serve landsat8 and are not stored alike"):
        profiles.Profile("both", None, (*pc.products, *dea.of("landsat8")))
    assert len(dea.of("sentinel2")) == 3


def test_files_of_items_are_named_with_their_whole_path(tmp_path: Path) -> None:
    for name in ("items.json", "items.parquet", "sub/items.geojson"):
        source = profiles.resolve(f"simulated@{name}", tmp_path)
        assert source.label == f"simulated@{tmp_path / name}"
        assert source.endpoints[0].static
        assert profiles.resolve(f"simulated@file://{tmp_path / name}") == source
    with pytest.raises(CatalogError, match=r"nor a file of items \(.json"):
        profiles.resolve("simulated@items.csv", tmp_path)
