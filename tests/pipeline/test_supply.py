"""What catalogues supply together: roles joined from several, a profile of one's own, a collection that is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest

from marstfn.bands import BANDS
from pipeline import cube, planner
from pipeline import request as requests
from pipeline.catalog import Patience
from pipeline.demo.server import serve
from pipeline.errors import CatalogError, PlanError
from pipeline.ingest import ingest_tile
from pipeline.plan import Plan
from pipeline.settings import Settings
from pipeline.store import INPUTS, Store

DEFAULTS = Settings(catalog="planetary-computer", store=None)
HASTY = Patience(connect=2, answer=30, retries=2, backoff=0.01, longest_pause=1)

MINE = f"""
name = "mine"
[[collections]]
role = "sentinel2"
collection = "landsat-c2-l2"     # the id of another catalogue's Landsat, on purpose
family = "sentinel-2-l2a"
mask = "classes"
assets = {{ {", ".join(f'{band} = "x_{band}"' for band in BANDS)} }}
"""


def plan_of(season: Any, where: str, base: Path) -> tuple[Plan, pystac.ItemCollection]:
    request = requests.make(
        defaults=DEFAULTS, aoi=str(season.aoi), year=2023, catalog=where, method="additive", base=base
    )
    return planner.make_plan(request, defaults=DEFAULTS, patience=HASTY)


def inputs(plan: Plan, frozen: pystac.ItemCollection, folder: Path) -> dict[str, np.ndarray]:
    store, tile = Store(str(folder)), plan.tiles[0]
    cube.create_inputs(plan, store)
    ingest_tile(plan, store, tile, {item.id: item for item in frozen})
    arrays = [f"{group.name}/{band}" for group in cube.groups(plan) for band in group.bands]
    arrays += ["sentinel2/clear", "landsat8/clear"]
    return {array: np.asarray(cube.array(store, INPUTS, array)[:]) for array in arrays}


@pytest.mark.server
def test_sentinel_2_of_a_profile_of_ones_own_and_landsat_of_an_api_make_the_year_of_one(
    season: Any, tmp_path: Path
) -> None:
    """Both call their collection landsat-c2-l2: what an item is goes by catalogue and collection."""
    season.server.faults.set()
    (tmp_path / "mine.toml").write_text(MINE)
    sentinel = []
    for path in sorted((season.folder / "items" / "sentinel-2-c1-l2a").glob("*.json")):
        item = json.loads(path.read_text())
        names = {**{band: f"x_{band}" for band in BANDS}, "scl": "classes"}
        assets = {names[key]: asset for key, asset in item["assets"].items() if key in names}
        for asset in assets.values():
            asset["href"] = str(season.folder / asset["href"])
        sentinel.append({**item, "collection": "landsat-c2-l2", "assets": assets})
    (tmp_path / "own.json").write_text(json.dumps({"type": "FeatureCollection", "features": sentinel}))
    plan, frozen = plan_of(season, f"mine.toml@own.json+{season.catalog}", tmp_path)
    whole, of_one = plan_of(season, season.catalog, tmp_path)
    assert plan.scenes == whole.scenes
    assert plan.catalog.startswith(f"{tmp_path}/mine.toml#")
    assert plan.catalog.endswith(f"@{tmp_path}/own.json+{season.catalog}")
    assert {i.collection_id for i in frozen} == {"landsat-c2-l2", "landsat-c2l1"}
    assert {i.properties["marstfn:catalog"] for i in frozen} == {"mine", "simulated"}
    mixed, plain = inputs(plan, frozen, tmp_path / "mixed"), inputs(whole, of_one, tmp_path / "plain")
    assert mixed.keys() == plain.keys()
    for array, values in mixed.items():
        np.testing.assert_array_equal(values, plain[array], err_msg=array)
        assert len(np.unique(values)) > 1, array


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("usgs", ["usgs serves no Sentinel-2 reflectance", "usgs+earth-search"]),
        ("cdse", ["cdse serves no Landsat 8 reflectance", "cdse+usgs"]),
    ],
)
def test_a_catalogue_of_one_sensor_says_what_to_add(where: str, words: list[str], season: Any, tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        plan_of(season, where, tmp_path)
    for word in (*words, "both sensors are needed", "nothing was searched"):
        assert word in str(caught.value)


def test_an_unknown_catalogue_is_a_wrong_parameter_that_lists_the_known(season: Any, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"catalog.*unknown catalogue 'usgss'.*earth-search, usgs, cdse, dea, deafrica"):
        plan_of(season, "usgss", tmp_path)


@pytest.mark.server
def test_a_vanished_collection_is_told_instead_of_a_year_without_scenes(season: Any, tmp_path: Path) -> None:
    for name in ("catalog.json", "collections", "items", "data"):
        if name != "collections":
            (tmp_path / name).symlink_to(season.folder / name)
    (tmp_path / "collections").mkdir()
    for path in (season.folder / "collections").glob("*.json"):
        if path.stem != "sentinel-2-c1-l2a":
            (tmp_path / "collections" / path.name).symlink_to(path)
    with serve(tmp_path) as server, pytest.raises(CatalogError) as caught:
        plan_of(season, f"simulated@{server.url}", tmp_path)
    for words in ("no longer serves the collection sentinel-2-c1-l2a", "it serves landsat-c2-l2, landsat-c2l1"):
        assert words in str(caught.value)
