"""Plans: the same after JSON, equal where equal, another fingerprint where anything differs."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.grid import Grid
from pipeline.plan import Adjustment, Dropped, Options, Plan, Radiometry, Scene, WeightsRef, fingerprint

ids = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=12)
moments = st.datetimes(datetime(2015, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))
numbers = st.floats(-1, 1, allow_nan=False)

scenes = st.builds(
    Scene,
    sensor=st.sampled_from(["sentinel2", "landsat8"]),
    platform=ids,
    time=moments,
    day=st.dates(date(2015, 1, 1), date(2027, 1, 1)),
    items=st.lists(ids, min_size=1, max_size=3).map(tuple),
    pan_items=st.lists(ids, max_size=1).map(tuple),
)
rules = st.builds(Radiometry, scale=numbers, offset=numbers, nodata=st.integers(0, 9), rule=ids)
plans = st.builds(
    Plan,
    name=ids,
    aoi=st.just({"type": "Polygon", "coordinates": [[[0.1, 0.2], [1.0, 0.0], [1.0, 1.0], [0.1, 0.2]]]}),
    aoi_source=ids,
    year=st.integers(2015, 2030),
    first=st.none() | st.dates(),
    grid=st.builds(
        Grid, st.just(32650), st.just(600), st.just(1200), st.integers(1, 9), st.integers(1, 9), st.just(60)
    ),
    catalog=ids,
    scenes=st.lists(scenes, max_size=4).map(tuple),
    radiometry=st.dictionaries(ids, rules, max_size=3),
    dropped=st.lists(st.builds(Dropped, item=ids, why=ids), max_size=3).map(tuple),
    weights=st.lists(
        st.builds(WeightsRef, source=ids, sha256=ids, pan=st.booleans(), patch=st.just(60)), max_size=2
    ).map(tuple),
    options=st.builds(Options, stride=st.sampled_from([24, 48]), threads=st.integers(0, 8), bandpass=st.booleans()),
    items_sha256=ids,
    simulated=st.booleans(),
    versions=st.dictionaries(ids, ids, max_size=3),
)


def small(**change: Any) -> Plan:
    fields: dict[str, Any] = {
        "name": "a",
        "aoi": {"type": "Polygon", "coordinates": [[[119.6, 49.1], [119.62, 49.1], [119.62, 49.12], [119.6, 49.1]]]},
        "aoi_source": "inline",
        "year": 2024,
        "grid": Grid(32650, 689_700, 5_444_100, 30, 40, 60),
        "catalog": "simulated@http://127.0.0.1:1",
        "scenes": (
            Scene(
                sensor="landsat8",
                platform="landsat-8",
                time=datetime(2024, 5, 1, 2, 30, 1, 123456, UTC),
                day=date(2024, 5, 1),
                items=("L",),
                pan_items=("P",),
            ),
            Scene(
                sensor="sentinel2",
                platform="sentinel-2a",
                time=datetime(2024, 5, 3, 2, 50, tzinfo=UTC),
                day=date(2024, 5, 3),
                items=("S", "T"),
            ),
        ),
        "radiometry": {"L": Radiometry(scale=2.75e-5, offset=-0.2, nodata=0, rule="r")},
        "weights": (WeightsRef(source="marstfn-pan", sha256="0" * 64, pan=True, patch=60),),
        "items_sha256": "1" * 64,
    }
    return Plan(**{**fields, **change})


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(plans)
def test_a_plan_is_the_same_after_json(plan: Plan) -> None:
    again = Plan.model_validate_json(plan.model_dump_json())
    assert again == plan
    assert again.fingerprint == plan.fingerprint
    assert Plan.model_validate_json(plan.model_dump_json(indent=2)) == plan


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = "import sys; from pipeline.plan import Plan; print(Plan.model_validate_json(sys.stdin.read()).fingerprint)"
    plan = small()
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", code],
            input=plan.model_dump_json(),
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        )
        assert found.stdout.strip() == plan.fingerprint


def test_the_order_of_mapping_entries_is_no_difference() -> None:
    rule = small().radiometry["L"]
    one, two = small(radiometry={"L": rule, "P#pan": rule}), small(radiometry={"P#pan": rule, "L": rule})
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("name", sorted(Options.model_fields))
def test_every_option_changes_the_fingerprint(name: str) -> None:
    other: dict[str, Any] = {
        "method": "copy",
        "device": "cuda",
        "precision": "float16",
        "landsat": "9",
        "snow": "mask",
        "nbar": "off",
    }
    other |= {"cloud_mask": "omnicloudmask", "radiometry": ("boa-offset=0",)}
    other |= {"adjustments": (Adjustment(platform="sentinel-2c", scale=(1.01,) * 6, offset=(0.0,) * 6),)}
    default = getattr(Options(), name)
    changed = other.get(name, not default if isinstance(default, bool) else 7)
    assert changed != default
    assert small(options=Options(**{name: changed})).fingerprint != small().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"grid": Grid(32650, 689_700, 5_444_100, 30, 40, 120)},
        {"items_sha256": "2" * 64},
        {"weights": ()},
        {"simulated": True},
        {"max_cloud": 50.0},
        {"versions": {"numpy": "9"}},
        {"radiometry": {"L": Radiometry(scale=2.75e-5, offset=0.0, nodata=0, rule="r")}},
        {"scenes": small().scenes[:1]},
    ],
)
def test_anything_that_shapes_the_result_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert small(**change).fingerprint != small().fingerprint


def test_scenes_by_sensor_and_pan() -> None:
    plan = small()
    assert [s.items for s in plan.of("sentinel2")] == [("S", "T")]
    assert [s.label for s in plan.of("landsat8")] == ["landsat-8 2024-05-01"]
    assert plan.has_pan
    assert not small(scenes=plan.scenes[1:]).has_pan


def test_tiles_of_a_plan_are_those_its_area_meets() -> None:
    plan = small()
    names = {t.name for t in plan.tiles}
    assert names < {t.name for t in plan.grid.tiles()}
    assert "r000c000" not in names, "the triangle leaves the north-western tile out"


def test_plans_are_frozen_and_know_their_fields() -> None:
    plan = small()
    with pytest.raises(ValidationError):
        plan.year = 2020  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        Plan.model_validate({**plan.model_dump(), "colour": "red"})


def test_times_keep_their_microseconds_and_zone() -> None:
    plan = small()
    again = Plan.model_validate_json(plan.model_dump_json())
    assert again.scenes[0].time == datetime(2024, 5, 1, 2, 30, 1, 123456, UTC)
    assert again.scenes[0].time.utcoffset() == timedelta(0)


def test_fingerprints_refuse_what_json_cannot_hold() -> None:
    assert fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    with pytest.raises(ValueError):
        fingerprint({"a": float("nan")})
