"""From a request to a frozen plan, against the served simulation; what goes wrong before a pixel is read."""

from __future__ import annotations

import functools
import itertools
import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pystac
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from marstfn import weights
from marstfn.model import MARSTFN, Config
from pipeline import aoi, items, outlook, planner, profiles, trained
from pipeline import request as requests
from pipeline.errors import AOIError, CatalogError, PlanError, WeightsError
from pipeline.events import Event, Note
from pipeline.grid import Grid
from pipeline.hrefs import unsigned
from pipeline.plan import Plan, Scene, WeightsRef
from pipeline.settings import Settings

DEFAULTS = Settings(catalog="planetary-computer", store=None)
SMALL = {"type": "Polygon", "coordinates": [[[119.6, 49.1], [119.604, 49.1], [119.604, 49.102], [119.6, 49.1]]]}


def ask(**given: Any) -> requests.Request:
    return requests.make(defaults=DEFAULTS, **{"aoi": "hailar", "year": 2023, **given})


def plan_of(request: requests.Request, **kw: Any) -> tuple[Plan, pystac.ItemCollection]:
    return planner.make_plan(request, defaults=DEFAULTS, **kw)


@pytest.fixture(scope="module")
def made(season: Any) -> tuple[Plan, pystac.ItemCollection, list[Event]]:
    season.server.faults.set()
    events: list[Event] = []
    plan, frozen = plan_of(ask(aoi=str(season.aoi), catalog=season.catalog), listener=events.append)
    return plan, frozen, events


# ---- a plan of the served season


@pytest.mark.server
def test_the_plan_holds_the_season_as_it_was_simulated(made: Any, season: Any) -> None:
    plan, frozen, _ = made
    assert plan.grid == season.grid
    assert (plan.name, plan.year, plan.first, plan.last) == ("field", 2023, date(2023, 1, 1), date(2023, 12, 31))
    assert plan.simulated is True
    assert plan.catalog == season.catalog
    expected = {
        (a.sensor, a.time.replace(microsecond=0))
        for a in season.simulation.acquisitions()
        if a.time.month in range(5, 9)
    }
    found = {(s.platform, s.time.replace(microsecond=0)) for s in plan.scenes}
    assert found == expected
    times = [s.time for s in plan.scenes]
    assert all(a < b for a, b in itertools.pairwise(times))
    assert all(t.tzinfo == UTC or t.utcoffset().total_seconds() == 0 for t in times)
    assert all(len(s.pan_items) == len(s.items) == 1 for s in plan.of("landsat8"))
    used = {i for s in plan.scenes for i in (*s.items, *s.pan_items)}
    assert {i.id for i in frozen} == used
    assert set(plan.radiometry) == {i + ("#pan" if "L1TP" in i else "") for i in used}


@pytest.mark.server
def test_radiometry_of_the_simulated_products_is_that_of_the_real_ones(made: Any) -> None:
    plan, _, _ = made
    for scene in plan.scenes:
        for name in scene.items:
            rule = plan.radiometry[name]
            expected = (1e-4, -0.1) if scene.sensor == "sentinel2" else (2.75e-5, -0.2)
            assert (rule.scale, rule.offset) == pytest.approx(expected)


@pytest.mark.server
def test_weights_with_pan_and_the_options_are_frozen_by_content(made: Any) -> None:
    plan, _, _ = made
    # with pan first; the set without it serves pixels and dates that have none
    loaded = {name: weights.load(name) for name in ("marstfn-pan", "marstfn-nopan")}
    assert plan.weights == tuple(
        WeightsRef(
            source=name,
            sha256=w.sha256,
            pan=w.config.pan,
            patch=w.config.patch,
            context=w.config.context,
            interval=w.interval,
        )
        for name, w in loaded.items()
    )
    assert plan.options.stride <= min(w.patch for w in plan.weights)
    assert plan.options.stride % 6 == 0
    assert 1 <= plan.options.threads <= (os.cpu_count() or 1)
    assert plan.options.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert plan.versions["torch"] == torch.__version__
    assert {"gdal", "python", "odc-stac", "numpy", "zarr"} <= set(plan.versions)


@pytest.mark.server
def test_the_items_hash_outlives_a_file_and_tells_every_change(made: Any, tmp_path: Path) -> None:
    plan, frozen, _ = made
    frozen.save_object(str(tmp_path / "items.json"))
    again = pystac.ItemCollection.from_file(str(tmp_path / "items.json"))
    assert items.sha256(again) == items.sha256(frozen) == plan.items_sha256
    next(iter(again)).assets["pan" if "pan" in next(iter(again)).assets else "blue"].href += "x"
    assert items.sha256(again) != plan.items_sha256


@pytest.mark.server
def test_only_the_assets_of_a_run_are_frozen_and_a_run_needs_no_other(made: Any) -> None:
    plan, frozen, _ = made
    profile = profiles.resolve(plan.catalog).profile
    for item in frozen:
        product = profile.product_of(item.collection_id)
        assert product is not None
        assert set(item.assets) == set(product.keys)
        assert all(a.href.startswith("http://127.0.0.1:") for a in item.assets.values())


@pytest.mark.server
def test_the_same_request_gives_the_same_plan(made: Any, season: Any) -> None:
    plan, _, _ = made
    again, _ = plan_of(ask(aoi=str(season.aoi), catalog=season.catalog))
    assert again == plan
    assert again.fingerprint == plan.fingerprint
    other, _ = plan_of(ask(aoi=str(season.aoi), catalog=season.catalog, min_reference_days=3))
    assert other.fingerprint != plan.fingerprint


@pytest.mark.server
def test_the_listener_hears_the_search_and_gets_the_plan(made: Any) -> None:
    plan, _, events = made
    notes = [e for e in events if isinstance(e, Note)]
    assert [n.text.split(":")[0] for n in notes if n.kind == "search"] == [f"2023-{m:02}" for m in range(1, 13)]
    (note,) = [n for n in notes if n.kind == "plan"]
    assert note.data is plan
    counts = len(plan.of("landsat8")), len(plan.of("sentinel2"))
    assert note.text.startswith(f"field 2023: {counts[0]} Landsat 8 and {counts[1]} Sentinel-2 days, 4 tiles, about ")


@pytest.mark.server
def test_a_busy_catalogue_is_borne_with(catalogue: Any) -> None:
    from pipeline.demo.faults import Fault

    catalogue.server.faults.set([Fault("/search", times=2, status=503), Fault("/search", times=1, status=429, skip=4)])
    plan, _ = plan_of(ask(aoi=str(catalogue.aoi), catalog=catalogue.catalog, start="2023-05-01", end="2023-06-30"))
    assert {s.day.month for s in plan.scenes} == {5, 6}


@pytest.mark.server
def test_no_scenes_in_the_year_says_which_months_have_some(catalogue: Any) -> None:
    with pytest.raises(CatalogError) as caught:
        plan_of(ask(aoi=str(catalogue.aoi), catalog=catalogue.catalog, year=2022))
    for word in (
        catalogue.url,
        "no Landsat 8 and no Sentinel-2 scenes from 2022-01-01 to 2022-12-31",
        "Landsat 8: none from 2022-01-01 to 2022-12-31, but in 2023-05, 2023-06, 2023-07, 2023-08",
        "Sentinel-2: none from 2022-01-01 to 2022-12-31, but in 2023-05",
        "Choose another year",
        "swapped",
        "nothing was planned",
    ):
        assert word in str(caught.value)


@pytest.mark.server
def test_no_scenes_at_all_says_that_too(catalogue: Any) -> None:
    with pytest.raises(CatalogError, match="nor in the years before and after"):
        plan_of(ask(aoi=str(catalogue.aoi), catalog=catalogue.catalog, year=2018))


@pytest.mark.server
def test_scenes_that_all_fail_a_limit_say_which(catalogue: Any) -> None:
    with pytest.raises(CatalogError) as caught:
        plan_of(ask(aoi=str(catalogue.aoi), catalog=catalogue.catalog, max_cloud=0))
    assert "is more than the limit of 0 %" in str(caught.value)
    assert "but in 2023-05" in str(caught.value)


@pytest.mark.server
def test_a_season_without_landsat_lists_the_months_of_sentinel(catalogue: Any, made: Any) -> None:
    days = sorted(s.day for s in made[0].of("landsat8"))
    between = [s.day for s in made[0].of("sentinel2") if days[0] < s.day < days[1]]
    with pytest.raises(CatalogError) as caught:
        plan_of(ask(aoi=str(catalogue.aoi), catalog=catalogue.catalog, start=between[0], end=between[-1]))
    assert "has no Landsat 8 scenes from" in str(caught.value)
    assert f"Sentinel-2: {between[0]:%Y-%m}" in str(caught.value)


@pytest.mark.server
def test_weights_with_pan_alone_serve_where_every_date_has_pan(catalogue: Any) -> None:
    plan, _ = plan_of(ask(aoi=str(catalogue.aoi), catalog=catalogue.catalog, weights="marstfn-pan"))
    assert [w.pan for w in plan.weights] == [True]


@pytest.mark.server
def test_methods_without_a_network_need_no_weights(catalogue: Any) -> None:
    plan, _ = plan_of(
        ask(aoi=str(catalogue.aoi), catalog=catalogue.catalog, method="bicubic", weights="nowhere.safetensors")
    )
    assert plan.weights == ()
    assert (plan.options.method, plan.options.device) == ("bicubic", "cpu")


# ---- going on with a plan


@pytest.mark.server
def test_the_same_request_contradicts_nothing_and_each_other_one_is_named(
    made: Any, season: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "offered", functools.cache(trained.offered))  # the files do not change here
    plan, _, _ = made
    base: dict[str, Any] = {"aoi": str(season.aoi), "catalog": season.catalog}
    area = planner.read_area(ask(**base), DEFAULTS)

    def differing(area: Any = area, **change: Any) -> list[str]:
        return [line.split(":")[0] for line in planner.contradictions(plan, ask(**{**base, **change}), area)]

    assert differing() == []
    assert differing(threads=plan.options.threads, device=plan.options.device, tile_px=plan.grid.tile_px) == []
    assert differing(year=2022) == ["year", "first day", "last day"]
    assert differing(catalog="planetary-computer") == ["catalog"]
    assert differing(tile_px=120) == ["tile_px"]
    assert differing(max_cloud=50) == ["max_cloud"]
    assert differing(batch=4, stride=24) == ["stride", "batch"]
    assert differing(method="bicubic") == ["weights", "method"]
    assert differing(threads=plan.options.threads + 1) == ["threads"]
    assert differing(end="2023-08-01") == ["last day"]
    assert differing(area=aoi.read(SMALL)) == ["area of interest"]
    assert differing(landsat="both", snow="mask", nbar="on") == ["landsat", "snow", "nbar"]
    assert differing(radiometry=["boa-offset=0"]) == ["radiometry"]
    # what shapes the inputs is not gone on with from the same inputs
    asked = ask(**base, cirrus=False, radiometry=["boa-offset=0"])
    found = planner.contradictory_inputs(plan, asked, area)
    assert [line.split(":")[0] for line in found] == ["cirrus", "radiometry"]


@pytest.mark.server
def test_drift_names_the_libraries_that_changed(made: Any) -> None:
    plan, _, _ = made
    assert planner.drift(plan) == []
    older = plan.model_copy(update={"versions": {**plan.versions, "zarr": "3.0.0"}})
    assert planner.drift(older) == [f"zarr 3.0.0 -> {plan.versions['zarr']}"]


# ---- before the search


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kw: Any) -> None:
        raise AssertionError("the catalogue was asked although the request could not be served")

    monkeypatch.setattr("pipeline.catalog.search", refuse)


def saved(path: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    shape = {"pan": False, "features": 16, "growth": 8, "layers": 2, "blocks": 1, "patch": 24, **config}
    weights.save(path, MARSTFN(Config(**shape)), {"training": "none"})
    return path


def altered(path: Path, **header: str) -> Path:
    with safe_open(str(path), framework="pt") as file:
        metadata = {**file.metadata(), **header}
        state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    save_file(state, str(path), metadata=metadata)
    return path


@pytest.mark.usefixtures("no_search")
def test_weights_are_checked_before_the_catalogue_is_asked(tmp_path: Path) -> None:
    order = '["red", "green", "blue", "nir08", "swir16", "swir22"]'
    files = {
        "other bands": (
            altered(saved(tmp_path / "order.safetensors"), bands=order),
            ["trained for the bands red, green", "use other"],
        ),
        "not there": (tmp_path / "none.safetensors", ["none.safetensors", "not found"]),
        "no weights": (Path(__file__), ["test_planner.py", "no complete safetensors file"]),
        "altered patch": (altered(saved(tmp_path / "patch.safetensors"), patch="60"), ["patch side", "altered"]),
    }
    for path, words in files.values():
        with pytest.raises(WeightsError) as caught:
            plan_of(ask(weights=str(path)))
        for word in (*words, "nothing was planned"):
            assert word in str(caught.value)


@pytest.mark.usefixtures("no_search")
def test_sets_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    one, two = saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors", patch=36)
    pan = saved(tmp_path / "p.safetensors", pan=True, patch=36)
    with pytest.raises(WeightsError, match=r"are all without the panchromatic band.*one of each"):
        plan_of(ask(weights=[str(one), str(two)]))
    with pytest.raises(
        WeightsError, match=r"must have one patch side .*24 px.*36 px|must have one patch side .*36 px.*24 px"
    ):
        plan_of(ask(weights=[str(one), str(pan)]))


def test_relative_weights_are_read_from_the_callers_folder(tmp_path: Path) -> None:
    saved(tmp_path / "mine.safetensors")
    (ref,) = trained.offered("mine.safetensors", tmp_path)
    assert ref.source == str(tmp_path / "mine.safetensors")
    assert (ref.pan, ref.patch) == (False, 24)
    assert [r.pan for r in trained.offered("auto", tmp_path)] == [True, False]


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stride": 66}, ["stride 66 px is more than the patch side", "gaps"]),
        ({"tile_px": 1920, "batch": 64}, ["tiles of 1920 px and batches of 64", "MB", "tile of at most"]),
        ({"batch": 1024}, ["batches of 1024", "Choose a smaller batch"]),
    ],
)
def test_options_no_worker_could_carry_out_are_refused(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(ask(**given))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.usefixtures("no_search")
def test_a_bad_area_is_told_before_the_catalogue_is_asked() -> None:
    with pytest.raises(AOIError, match="Point"):
        plan_of(ask(aoi={"type": "Point", "coordinates": [1, 2]}))
    with pytest.raises(AOIError, match="limit of 10 km2"):
        planner.make_plan(ask(), defaults=Settings(aoi_max_km2=10))


def scene(number: int, *, pan: bool) -> Scene:
    return Scene(
        sensor="landsat8",
        platform="landsat-8",
        time=datetime(2023, 5, number, tzinfo=UTC),
        day=date(2023, 5, number),
        items=(f"L{number}",),
        pan_items=(f"P{number}",) if pan else (),
    )


def test_weights_follow_what_the_dates_have() -> None:
    both = (
        WeightsRef(source="p", sha256="0", pan=True, patch=60),
        WeightsRef(source="n", sha256="1", pan=False, patch=60),
    )
    every, none = [scene(1, pan=True), scene(2, pan=True)], [scene(1, pan=False)]
    assert [w.source for w in trained.used(both, every)] == ["p", "n"]
    assert [w.source for w in trained.used(both, [*every, scene(3, pan=False)])] == ["p", "n"]
    assert [w.source for w in trained.used(both, none)] == ["n"]
    assert [w.source for w in trained.used(both[1:], every)] == ["n"]
    with pytest.raises(PlanError, match=r"weights p need the panchromatic band, and 1 of 3 Landsat dates.*2023-05-03"):
        trained.used(both[:1], [*every, scene(3, pan=False)])


# ---- grid, store, secrets


def grid_over(columns: int, rows: int, tile_px: int | None = None, patch: int = 60) -> Grid:
    box = Grid(32650, 480_000, 5_450_040, columns, rows).geobox(10).extent.buffer(-2).to_crs("EPSG:4326", resolution=50)
    return planner.covering(aoi.AOI("a", box, "inline"), tile_px, patch)


@pytest.mark.parametrize(
    ("columns", "rows", "side"),
    [
        (660, 660, 480),
        (160, 160, 480),
        (159, 160, 240),
        (80, 80, 240),
        (50, 50, 120),
        (40, 40, 120),
        (20, 20, 60),
        (11, 11, 60),
    ],
)
def test_tiles_shrink_until_there_are_four(columns: int, rows: int, side: int) -> None:
    grid = grid_over(columns, rows)
    assert (grid.columns, grid.rows, grid.tile_px) == (columns, rows, side)
    tiles = len(list(grid.tiles()))
    assert tiles >= 4 or side == 60
    assert grid_over(columns, rows, 240).tile_px == 240


def test_a_plane_smaller_than_the_model_window_grows_to_it() -> None:
    grid = grid_over(3, 14)
    assert (grid.columns, grid.rows) == (10, 14)
    assert grid.left == 480_000 - 3 * 60, "grown evenly on both sides"
    assert grid_over(3, 3, patch=90).shape(10) == (90, 90)


def test_the_store_lies_beside_the_users_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "north field.geojson").write_text(json.dumps(SMALL))
    own = aoi.read("data/north field.geojson", base=tmp_path)
    bundled = aoi.read("hailar", base=tmp_path)

    def at(area: aoi.AOI, **given: Any) -> str:
        return planner.store_url(ask(base=tmp_path, **given), area)

    assert at(own) == str(tmp_path / "data" / "north-field-2023")
    assert at(bundled) == str(tmp_path / "hailar-2023")
    assert at(own, store="out") == str(tmp_path / "out")
    assert at(own, store="/cubes/x") == "/cubes/x"
    assert at(own, store="s3://bucket/x") == "s3://bucket/x"
    assert at(own, store_root="cubes") == str(tmp_path / "cubes" / "north-field-2023")
    assert at(bundled, store_root="s3://bucket/cubes/") == "s3://bucket/cubes/hailar-2023"
    assert at(own, store="~/x") == str(Path.home() / "x")


@pytest.mark.parametrize(
    ("href", "kept"),
    [
        ("https://a.blob.core.windows.net/c/B02.tif?st=2024&se=2025&sp=rl&sig=abc%3D", "https://a.blob.core.windows.net/c/B02.tif"),
        ("https://b.s3.amazonaws.com/x.tif?X-Amz-Signature=1&X-Amz-Date=2", "https://b.s3.amazonaws.com/x.tif"),
        ("https://me:pw@h:8000/x.tif?version=2", "https://h:8000/x.tif?version=2"),
        ("https://h/x.tif?access_token=t", "https://h/x.tif"),
        ("https://h/x.tif?api_key=t&version=2", "https://h/x.tif"),
        ("https://h/x.tif?version=2", "https://h/x.tif?version=2"),
        ("s3://usgs-landsat/a/b.TIF", "s3://usgs-landsat/a/b.TIF"),
        ("/vsicurl/http://h/x.tif", "/vsicurl/http://h/x.tif"),
    ],
)  # fmt: skip
def test_signatures_do_not_reach_a_plan(href: str, kept: str) -> None:
    assert unsigned(href) == kept


def test_relative_hrefs_become_absolute_by_the_items_own_address() -> None:
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "x", "collection": "sentinel-2-c1-l2a", "geometry": None,
        "properties": {"datetime": "2023-05-01T00:00:00Z"},
        "links": [{"rel": "self", "href": "https://h/items/x.json"}, {"rel": "root", "href": "https://h"}],
        "assets": {"blue": {"href": "./B02.tif"}, "thumbnail": {"href": "t.png"}},
    }  # fmt: skip
    (frozen,) = items.collection([item], profiles.resolve("simulated@http://127.0.0.1:1"))
    assert {k: a.href for k, a in frozen.assets.items()} == {"blue": "https://h/items/B02.tif"}
    assert [link.rel for link in frozen.links] == ["self"]


def test_an_item_is_simulated_only_if_it_says_so() -> None:
    assert items.is_simulated({"properties": {"simulated": True}})
    assert not items.is_simulated({"properties": {"simulated": "no"}})
    assert not items.is_simulated({"properties": {}})


# ---- the outlook


@pytest.mark.server
def test_the_summary_counts_scenes_a_month_and_tells_sizes(made: Any) -> None:
    plan, _, _ = made
    figures = outlook.outlook(plan)
    assert [m.month for m in figures.months] == ["2023-05", "2023-06", "2023-07", "2023-08"]
    assert sum(m.landsat for m in figures.months) == len(plan.of("landsat8"))
    assert sum(m.with_pan for m in figures.months) == len(plan.of("landsat8"))
    assert sum(m.sentinel2 for m in figures.months) == len(plan.of("sentinel2"))
    # inputs: 13 B a Sentinel-2 pixel and day, 13/9 Landsat, 2 * 4/9 pan; output: 19 B a pixel and date
    landsat, sentinel = len(plan.of("landsat8")), len(plan.of("sentinel2"))
    raw = 120 * 120 * (13 * sentinel + (13 + 8) / 9 * landsat + 19 * (sentinel + landsat))
    assert figures.raw_mb == pytest.approx(raw / 1e6)
    assert 0.3 * figures.raw_mb < figures.store_mb < figures.raw_mb
    text = planner.summary(plan)
    for word in (
        "field 2023: 120 x 120 px of 10 m",
        "4 tiles of 60 px",
        "2023-07",
        "expected size of the store",
        "memory",
    ):
        assert word in text


def test_reasons_are_counted_without_their_particulars() -> None:
    reasons = ["same data as A, which is the newer processing", "same data as B, which is the newer processing"]
    reasons += ["platform landsat-9: only landsat-8 is used"] * 3
    plan = SimpleNamespace(dropped=[SimpleNamespace(why=why) for why in reasons])
    from collections import Counter

    counted = Counter(outlook._kind(d.why) for d in plan.dropped)
    assert counted == {"platform landsat-9": 3, "same data as a newer processing": 2}
