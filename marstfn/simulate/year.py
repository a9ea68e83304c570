"""The calendar of a simulated year: when each satellite passes, under which sky, with which errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal

from marstfn.simulate.hashing import draw, draw_normal, key
from marstfn.simulate.style import Style

Sensor = Literal["landsat-8", "sentinel-2a", "sentinel-2b"]
CloudKind = Literal["stratus", "cumulus", "cirrus"]

LANDSAT_CYCLE, SENTINEL_CYCLE = 16, 5
MIDDLING = 0.4
"""Share of days that are neither clear nor overcast."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What an acquisition suffers, hidden from whoever reads the products."""

    seed: int
    """Key of the scene's clouds, masks and noise."""
    shift_x: float
    """Registration error in metres eastward: the sensor looks this far beside the place it reports."""
    shift_y: float
    """The same northward."""
    gain: tuple[float, ...]
    """Radiometric error (6): reported = gain * seen + offset."""
    offset: tuple[float, ...]
    cover: float
    """Share of the plane under cloud, 0..1."""
    kind: CloudKind
    cloud_height: float
    """Metres above ground, which displaces the shadows."""
    haze: float
    """Amount of thin haze, 0 none; no mask reports it."""
    view: float
    """Angle of view off nadir toward the sun or away, in units of the style's `structure`."""
    gap: bool
    """Whether the swath leaves ground without data."""
    pan_path: float
    """Path reflectance in the panchromatic band (top of atmosphere)."""
    pan_transmission: float


@dataclass(frozen=True, slots=True)
class Acquisition:
    """One pass of one satellite over the simulated land."""

    sensor: Sensor
    time: datetime
    """UTC."""
    sun_elevation: float
    """Degrees, > 0."""
    sun_azimuth: float
    """Degrees clockwise from north."""
    cloud_cover: float
    """Percent, as the product's metadata say."""
    conditions: Conditions
    scene_id: str
    """LC08_L2SP_..._02_T1 or S2A_T50UQV_..._L2A: unique in the year, without the processing date."""
    product_id: str
    """Full product name with processing date."""
    level1_id: str
    """Landsat: the Level-1 product the pan band comes from; Sentinel-2: the datatake's Level-1C name."""
    path: int
    """Landsat WRS-2 path, or Sentinel-2 relative orbit."""
    row: int
    """Landsat WRS-2 row (0 for Sentinel-2)."""
    mgrs: str
    """Sentinel-2 tile ("" for Landsat)."""

    @property
    def landsat(self) -> bool:
        return self.sensor == "landsat-8"

    @property
    def platform(self) -> str:
        """As STAC spells it: landsat-8, sentinel-2a, sentinel-2b."""
        return self.sensor


@lru_cache(maxsize=16)
def acquisitions(seed: int, year: int, epsg: int, style: Style) -> tuple[Acquisition, ...]:
    """Every pass of the year in order of time: Landsat 8 each 16 days, Sentinel-2 A and B in turn each 5."""
    first = date(year, 1, 1)
    days = (date(year + 1, 1, 1) - first).days
    landsat = list(range(int(draw(seed, year, "landsat phase") * LANDSAT_CYCLE), days, LANDSAT_CYCLE))
    phase = int(draw(seed, year, "sentinel phase") * SENTINEL_CYCLE)
    sentinel = list(range(phase, days, SENTINEL_CYCLE))
    if len(landsat) < 22:  # cannot be: 365 = 22 * 16 + 13
        raise AssertionError("a year holds at least 22 passes")
    cover = _covers(seed, year, "sentinel", sentinel, style)
    cover |= _covers(seed, year, "landsat", [d for d in landsat if d not in cover], style)
    found = [_pass("landsat-8", seed, first + timedelta(d), epsg, style, cover[d], 0) for d in landsat]
    for number, d in enumerate(sentinel):
        unit: Sensor = "sentinel-2a" if number % 2 == phase % 2 else "sentinel-2b"
        found.append(_pass(unit, seed, first + timedelta(d), epsg, style, cover[d], number))
    return tuple(sorted(found, key=lambda a: (a.time, a.sensor)))


def sun(latitude: float, day: date, solar_hour: float) -> tuple[float, float]:
    """Elevation and azimuth (degrees, clockwise from north) of the sun at local solar time (Cooper 1969)."""
    declination = math.radians(23.45) * math.sin(2 * math.pi * (284 + day.timetuple().tm_yday) / 365)
    hour, lat = math.radians(15 * (solar_hour - 12)), math.radians(latitude)
    up = math.sin(lat) * math.sin(declination) + math.cos(lat) * math.cos(declination) * math.cos(hour)
    east = -math.cos(declination) * math.sin(hour)
    north = math.cos(lat) * math.sin(declination) - math.sin(lat) * math.cos(declination) * math.cos(hour)
    return round(math.degrees(math.asin(up)), 4), round(math.degrees(math.atan2(east, north)) % 360, 4)


def _covers(seed: int, year: int, name: str, days: list[int], style: Style) -> dict[int, float]:
    """Cloud cover by day: clear, overcast or between, spread evenly over quantiles so that every year is typical."""
    order = sorted(days, key=lambda d: draw(seed, year, name, d))
    overcast = min(max(style.cloudiness - MIDDLING / 2, 0.0), 1 - MIDDLING)
    clear = 1 - MIDDLING - overcast
    cover = {}
    for rank, d in enumerate(order):
        q = (rank + draw(seed, year, name, "within", d)) / len(order)
        cover[d] = 0.0 if q < clear else 1.0 if q >= 1 - overcast else round((q - clear) / MIDDLING, 4)
    return cover


def _pass(sensor: Sensor, seed: int, day: date, epsg: int, style: Style, cover: float, number: int) -> Acquisition:
    mine = key(seed, sensor, day.toordinal())
    landsat = sensor == "landsat-8"
    solar = 10.4 if landsat else 10.75
    zone = epsg % 100
    utc = (solar - (6 * zone - 183) / 15) % 24  # the pass belongs to the UTC day it falls on
    time = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(
        seconds=round(utc * 3600 + 240 * draw(mine, "minute"))
    )
    elevation, azimuth = sun(style.latitude, day, solar)
    shift = style.shift_oli if landsat else style.shift_msi
    swir = (0, 0, 0, 0, style.oli_swir, style.oli_swir) if landsat else (0,) * 6
    gain = tuple(round(1 + swir[b] + style.gain * draw_normal(mine, "gain", b), 6) for b in range(6))
    offset = tuple(round(style.offset * draw_normal(mine, "offset", b), 6) for b in range(6))
    chance = draw(mine, "kind")
    kind: CloudKind = "cumulus" if chance < 0.5 else "stratus" if chance < 0.82 else "cirrus"
    lows = {"cumulus": 900.0, "stratus": 1600.0, "cirrus": 6500.0}
    # mostly thin, now and then thick enough to halve the contrast of the blue
    much = draw(mine, "haze")
    haze = style.haze_amount * (0.3 + 0.9 * much + 3.0 * much**8) if draw(mine, "hazy") < style.haze else 0.0
    conditions = Conditions(
        seed=key(mine, "scene"),
        shift_x=round(shift * draw_normal(mine, "east"), 2),
        shift_y=round(shift * draw_normal(mine, "north"), 2),
        gain=gain,
        offset=offset,
        cover=cover,
        kind="stratus" if cover >= 1 else kind,
        cloud_height=round(lows[kind] * (0.7 + draw(mine, "height")), 0),
        haze=round(haze, 5),
        view=round(draw_normal(mine, "view"), 4),
        gap=draw(mine, "gap") < style.gaps,
        pan_path=round(0.035 + 0.02 * draw(mine, "path"), 4),
        pan_transmission=round(0.84 + 0.08 * draw(mine, "clear air"), 4),
    )
    reported = min(max(100 * (cover * (1 - style.omission) + (1 - cover) * style.commission), 0.0), 100.0)
    names = _landsat_names(day) if landsat else _sentinel_names(sensor, time, zone, number)
    return Acquisition(sensor, time, elevation, azimuth, round(reported, 2), conditions, *names)


def _landsat_names(day: date) -> tuple[str, str, str, int, int, str]:
    path, row = 123, 26
    taken, made = f"{day:%Y%m%d}", f"{day + timedelta(9):%Y%m%d}"
    return (
        f"LC08_L2SP_{path:03d}{row:03d}_{taken}_02_T1",
        f"LC08_L2SP_{path:03d}{row:03d}_{taken}_{made}_02_T1",
        f"LC08_L1TP_{path:03d}{row:03d}_{taken}_{made}_02_T1",
        path,
        row,
        "",
    )


def _sentinel_names(sensor: Sensor, time: datetime, zone: int, number: int) -> tuple[str, str, str, int, int, str]:
    unit, orbit, tile = ("S2A", 118, f"{zone:02d}UQV") if sensor == "sentinel-2a" else ("S2B", 118, f"{zone:02d}UQV")
    taken, made = f"{time:%Y%m%dT%H%M%S}", f"{time + timedelta(hours=5, minutes=11):%Y%m%dT%H%M%S}"
    return (
        f"{unit}_T{tile}_{taken}_L2A",
        f"{unit}_MSIL2A_{taken}_N0510_R{orbit:03d}_T{tile}_{made}",
        f"{unit}_MSIL1C_{taken}_N0510_R{orbit:03d}_T{tile}_{made}",
        orbit,
        0,
        tile,
    )
