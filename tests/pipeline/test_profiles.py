"""Catalogues by name: endpoints, asset keys as recorded, digital numbers, signing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import odc.stac
import pytest

from marstfn.bands import BANDS
from pipeline import profiles
from pipeline.errors import CatalogError
from pipeline.items import pystac_item

RECORDED = [
    ("planetary-computer", "landsat8", "planetary-computer/landsat-c2-l2/LC08_L2SP_033032_20241127_02_T1.json"),
    (
        "planetary-computer",
        "sentinel2",
        "planetary-computer/sentinel-2-l2a/S2B_MSIL2A_20241203T174629_R098_T13TDE_20241203T211406.json",
    ),
    ("earth-search", "landsat8", "earth-search-v1/landsat-c2-l2/LC08_L2SP_033032_20231008_02_T1.json"),
    ("earth-search", "sentinel2", "earth-search-v1/sentinel-2-c1-l2a/S2A_T13TDE_20240402T174230_L2A.json"),
]


def recorded(shared: Path, path: str) -> dict[str, Any]:
    item: dict[str, Any] = json.loads((shared / "stac" / path).read_text())
    return item


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


@pytest.mark.shared
@pytest.mark.parametrize(("profile", "role", "path"), RECORDED)
def test_asset_keys_lead_to_the_right_bands_of_recorded_items(profile: str, role: Any, path: str, shared: Path) -> None:
    product = profiles.PROFILES[profile].product(role)
    item = recorded(shared, path)
    assert product is not None
    assert item["collection"] == product.collection
    assert set(product.keys) <= set(item["assets"])
    names = ["B2", "B3", "B4", "B5", "B6", "B7"] if role == "landsat8" else ["B02", "B03", "B04", "B8A", "B11", "B12"]
    for band, name in zip(BANDS, names, strict=True):
        assert name in item["assets"][product.assets[band]]["href"].rsplit("/", 1)[1], band


@pytest.mark.shared
@pytest.mark.parametrize(("profile", "role", "path"), RECORDED)
def test_odc_stac_learns_number_types_from_the_configuration(profile: str, role: Any, path: str, shared: Path) -> None:
    catalogue = profiles.PROFILES[profile]
    product = catalogue.product(role)
    assert product is not None
    (parsed,) = odc.stac.parse_items([pystac_item(recorded(shared, path))], cfg=catalogue.stac_cfg())
    for key in product.assets.values():
        band = parsed.collection[key]
        assert (band.data_type, band.nodata) == ("uint16", 0), key
    assert product.mask is not None
    mask = parsed.collection[product.mask]
    assert (mask.data_type, mask.nodata) == (("uint16", 1) if role == "landsat8" else ("uint8", 0))


def test_only_blobs_of_planetary_computer_are_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    import planetary_computer

    asked: list[str] = []

    def fake(href: str) -> str:
        asked.append(href)
        return href + "?sig=x"

    monkeypatch.setattr(planetary_computer, "sign_url", fake)
    blob = "https://landsateuwest.blob.core.windows.net/landsat-c2/B2.TIF"
    default, other = profiles.PROFILES["planetary-computer"], profiles.PROFILES["simulated"]
    assert default.sign(blob) == blob + "?sig=x"
    for href in (
        "http://127.0.0.1:8000/a.tif",
        "https://example.org/blob.core.windows.net/a.tif",
        "/data/a.tif",
        "s3://b/a",
    ):
        assert default.sign(href) == href
    assert other.sign(blob) == blob
    assert asked == [blob]


def test_gdal_retries_what_a_busy_server_answers() -> None:
    for profile in profiles.PROFILES.values():
        assert {"429", "503"} <= set(profile.gdal["GDAL_HTTP_RETRY_CODES"].split(","))
        assert profile.gdal["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"
    assert profiles.PROFILES["earth-search"].gdal["AWS_REQUEST_PAYER"] == "requester"
    assert "AWS_REQUEST_PAYER" not in profiles.PROFILES["planetary-computer"].gdal
