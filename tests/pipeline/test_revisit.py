"""Passes that a catalogue should list and does not: told where they are sure, and never where all is well."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import shapely

from marstfn.simulate import Simulation
from pipeline import revisit
from pipeline.plan import Hole

AREA = shapely.box(119.6, 49.1, 119.7, 49.2)
AROUND = shapely.geometry.mapping(shapely.box(118.5, 48.5, 120.5, 49.8))
NOON = datetime(2024, 1, 3, 2, 50, tzinfo=UTC)


def landsat(day: int, *, satellite: str = "landsat-8", row: int = 26, geometry: Any = AROUND) -> dict[str, Any]:
    moment = NOON + timedelta(days=day)
    properties = {
        "datetime": moment.isoformat(),
        "platform": satellite,
        "landsat:wrs_path": "124",
        "landsat:wrs_row": row,
    }
    return {"id": f"{satellite}-{row}-{day}", "geometry": geometry, "properties": properties}


def sentinel(day: int, *, unit: str = "2A", orbit: int = 98, geometry: Any = AROUND) -> dict[str, Any]:
    moment = NOON + timedelta(days=day)
    properties = {"datetime": moment.isoformat(), "platform": f"Sentinel-{unit}"}
    return {"id": f"S{unit}_MSIL2A_{day}_R{orbit:03}_T50UQV", "geometry": geometry, "properties": properties}


def holes(landsats: list[Any] = [], sentinels: list[Any] = []) -> list[str]:  # noqa: B006
    found: Any = {"landsat8": landsats, "sentinel2": sentinels}
    return [h.text for h in revisit.holes(found, AREA, date(2024, 1, 1), date(2024, 12, 31), 119.65)]


SUMMER = range(96, 288, 16)


def test_a_missing_landsat_pass_is_named_by_path_row_and_day() -> None:
    kept = [landsat(day) for day in SUMMER if day not in (128, 160)]
    assert holes(kept) == [
        "scenes of path/row 124/026 of landsat-8 expected and not in the catalogue: 2024-05-10, 2024-06-11"
    ]


def test_two_landsats_are_expected_each_in_its_own_16_days() -> None:
    eighth = [landsat(day) for day in SUMMER]
    ninth = [landsat(day + 8, satellite="landsat-9") for day in SUMMER if day != 128]
    assert holes([*eighth, *ninth]) == [
        "scenes of path/row 124/026 of landsat-9 expected and not in the catalogue: 2024-05-18"
    ]


def test_a_missing_sentinel2_pass_is_named_by_orbit() -> None:
    kept = [sentinel(day, unit=unit) for k, unit in enumerate(("2A", "2B")) for day in range(100 + 5 * k, 250, 10)]
    assert holes(sentinels=kept) == []
    kept = [i for i in kept if i["properties"]["datetime"][:10] != "2024-06-01"]
    (text,) = holes(sentinels=kept)
    assert text == "scenes of orbit 098 of sentinel-2a expected and not in the catalogue: 2024-06-01"


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([landsat(d) for d in (96, 112, 144)], "too few to tell a rhythm"),
        ([landsat(d) for d in (96, 160, 224, 288)], "not tasked each time"),
        ([landsat(d) for d in (96, 112, 130, 144, 176)], "moved to another orbit"),
        ([landsat(d, geometry=shapely.geometry.mapping(shapely.box(119.69, 48, 121, 50))) for d in (96, 112, 144, 160)],
         "the area is at the edge"),
        ([landsat(d, geometry=None) for d in (96, 112, 144, 160)], "no footprint"),
        ([landsat(d) for d in (0, 16, 32, 48, 320, 336, 352)], "the sun is low, and few"),
        ([{"id": "x", "geometry": AROUND, "properties": {"platform": "landsat-8", "datetime": None}}], "unreadable"),
    ],
)  # fmt: skip
def test_nothing_is_missed_where_nothing_is_sure(items: list[Any], why: str) -> None:
    assert holes(items) == [], why


def test_no_level2_is_missed_under_a_low_sun() -> None:
    """USGS makes no Level-2 beyond 76 degrees from the zenith: at 70 N most of the winter."""
    polar = shapely.box(119.6, 70.1, 119.7, 70.2)
    around = shapely.geometry.mapping(shapely.box(117, 69, 122, 71.5))
    lit = [landsat(d, geometry=around) for d in range(0, 366, 16) if 70 < d < 270]
    dark = [landsat(0, geometry=around)]  # one stray scene of January
    found: Any = {"landsat8": [*dark, *lit]}
    told = revisit.holes(found, polar, date(2024, 1, 1), date(2024, 12, 31), 119.65)
    assert [d for h in told for d in h.days if d < date(2024, 3, 10)] == []


def test_what_is_found_but_unfit_is_not_missing() -> None:
    cloudy = [landsat(day) for day in SUMMER]
    for item in cloudy:
        item["properties"]["eo:cloud_cover"] = 100.0
    assert holes(cloudy) == []


@pytest.mark.parametrize("seed", [1, 20])
def test_no_false_alarm_on_the_simulated_year(seed: int) -> None:
    landsats, sentinels = [], []
    for acq in Simulation(seed=seed, year=2024).acquisitions():
        day = (acq.time - NOON).total_seconds() / 86400
        if acq.landsat:
            landsats.append(landsat(0))
            landsats[-1]["properties"]["datetime"] = acq.time.isoformat()
        else:
            sentinels.append(sentinel(0, unit=acq.sensor[-2:].upper()))
            sentinels[-1]["properties"]["datetime"] = acq.time.isoformat()
        assert -3 < day < 366
    assert len(landsats) > 20
    assert len(sentinels) > 70
    assert holes(landsats, sentinels) == []
    # and with a pass taken out of either, it is told: the silence above says something
    assert len(holes(landsats[:8] + landsats[9:], sentinels)) == 1
    assert len(holes(landsats, sentinels[:30] + sentinels[31:])) == 1


def test_a_long_list_of_days_is_cut() -> None:
    days = tuple(date(2024, 5, 1) + timedelta(days=k) for k in range(8))
    text = Hole(sensor="landsat8", track="path/row 124/026 of landsat-8", days=days).text
    assert text.endswith("2024-05-06 and 2 more")


@pytest.mark.parametrize(
    ("moment", "place", "degrees"),
    [
        # of recorded items: view:sun_elevation at the scene's centre
        (datetime(2020, 1, 14, 17, 5, 46, tzinfo=UTC), (-95.55, 43.18), 22.58),
        (datetime(2024, 6, 21, 12, 0, tzinfo=UTC), (0.0, 23.44), 90.0),
        (datetime(2024, 12, 21, 12, 0, tzinfo=UTC), (0.0, 60.0), 6.5),
    ],
)
def test_the_sun_stands_where_it_should(moment: datetime, place: tuple[float, float], degrees: float) -> None:
    assert revisit.sun_elevation(moment, *place) == pytest.approx(degrees, abs=1.0)
