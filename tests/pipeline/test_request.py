"""What a user may ask for, and how a wrong parameter is told."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from marstfn.baselines import METHODS
from pipeline import request
from pipeline.errors import PlanError
from pipeline.settings import Settings

DEFAULTS = Settings(catalog="planetary-computer", year=None, store=None)


def make(**given: Any) -> request.Request:
    return request.make(defaults=DEFAULTS, **given)


def test_only_the_area_must_be_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    asked = make(aoi="hailar.geojson")
    assert asked.year == request.last_complete_year()
    assert (asked.catalog, asked.method, asked.weights) == ("planetary-computer", "auto", "auto")
    assert (asked.first, asked.last) == (date(asked.year, 1, 1), date(asked.year, 12, 31))
    assert asked.base == tmp_path


def test_the_last_complete_year_is_the_year_before_today() -> None:
    assert request.last_complete_year(date(2026, 1, 1)) == 2025
    assert request.last_complete_year(date(2026, 12, 31)) == 2025


def test_settings_fill_what_was_not_given() -> None:
    settings = Settings(catalog="earth-search", year=2020, store="/cubes", method="additive", tile_px=240)
    asked = request.make(defaults=settings, aoi="a.geojson", year=2021, catalog=None)
    assert (asked.year, asked.catalog, asked.method, asked.tile_px) == (2021, "earth-search", "additive", 240)
    assert (asked.store, asked.store_root) == (None, "/cubes")


def test_dates_inside_the_year_make_a_season() -> None:
    asked = make(aoi="a", year=2021, start="2021-04-01", end=date(2021, 10, 31))
    assert (asked.first, asked.last) == (date(2021, 4, 1), date(2021, 10, 31))


def test_a_request_is_frozen_and_json_both_ways() -> None:
    asked = make(aoi={"type": "Polygon", "coordinates": []}, year=2021, weights=["a.safetensors", "marstfn-nopan"])
    assert request.Request.model_validate_json(asked.model_dump_json()) == asked
    with pytest.raises(Exception, match="frozen"):
        asked.year = 2020  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["aoi", "required"]),
        ({"aoi": "a", "year": 2014}, ["year = 2014", "2015"]),
        ({"aoi": "a", "year": 2999}, ["year = 2999", "less than"]),
        ({"aoi": "a", "year": "soon"}, ["year = 'soon'", "integer"]),
        ({"aoi": "a", "catalog": "google"}, ["unknown catalogue 'google'", "planetary-computer, earth-search"]),
        ({"aoi": "a", "catalog": "simulated"}, ["no endpoint of its own", "simulated@http://"]),
        ({"aoi": "a", "catalog": "earth-search@ftp://x"}, ["'ftp://x'", "http(s)"]),
        ({"aoi": "a", "scheduler": "localhost:8786"}, ["scheduler = 'localhost:8786'", "tcp"]),
        ({"aoi": "a", "tile_px": 100}, ["tile_px = 100", "multiple of 6"]),
        ({"aoi": "a", "tile_px": 6000}, ["tile_px = 6000", "1920"]),
        ({"aoi": "a", "max_cloud": 120}, ["max_cloud", "100"]),
        ({"aoi": "a", "method": "magic"}, ["method = 'magic'", "'network'"]),
        ({"aoi": "a", "year": 2021, "start": "2020-12-01"}, ["start 2020-12-01 lies outside the year 2021"]),
        (
            {"aoi": "a", "year": 2021, "start": "2021-05-02", "end": "2021-05-01"},
            ["2021-05-02 is after end 2021-05-01"],
        ),
        ({"aoi": "a", "min_reference_days": 20, "max_reference_days": 10}, ["min_reference_days 20 is more than"]),
        ({"aoi": "a", "weights": []}, ["weights", "one or two"]),
        ({"aoi": "a", "landsat": "7"}, ["landsat = '7'", "'both'"]),
        ({"aoi": "a", "snow": "melt"}, ["snow = 'melt'", "'keep'"]),
        ({"aoi": "a", "cloud_mask": "mine"}, ["cloud_mask = 'mine'", "'omnicloudmask'"]),
        ({"aoi": "a", "nbar": "maybe"}, ["nbar = 'maybe'", "'auto'"]),
        ({"aoi": "a", "radiometry": ["boa-offset=-0.2"]}, ["radiometry", "'boa-offset=-0.2' is neither"]),
        ({"aoi": "a", "radiometry": ["X=1,0"]}, ["scale 1 lies outside"]),
        ({"aoi": "a", "radiometry": ["X=1e-4,0", "X=1e-4,-0.1"]}, ["contradict each other"]),
        ({"aoi": "a", "wieghts": "x"}, ["wieghts", "not permitted"]),
    ],
)
def test_a_wrong_parameter_is_named_with_its_bound(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        make(**given)
    for word in (*words, "nothing was started"):
        assert word in str(caught.value)


def test_bounds_reach_the_schema_of_a_signature() -> None:
    year = TypeAdapter(request.Year).json_schema()
    assert (year["minimum"], year["maximum"]) == (2015, request.last_complete_year() + 1)
    assert "Calendar year" in year["description"]
    assert TypeAdapter(request.TilePx).json_schema()["multipleOf"] == 6
    assert set(TypeAdapter(request.MethodName).json_schema()["enum"]) == {"auto", "network", *METHODS}
    assert all(
        "description" in TypeAdapter(t).json_schema() for t in (request.AOISource, request.Catalog, request.Weights)
    )


def test_what_is_said_of_radiometry_is_put_in_one_form() -> None:
    asked = make(aoi="a", radiometry=["B=1e-4,0", "boa-offset=-0.1", "A=0.0001,-0.1"])
    assert asked.radiometry == ["A=0.0001,-0.1", "B=0.0001,0.0", "boa-offset=-0.1"]
