"""Acquisitions that the satellites' repeat cycles lead one to expect and that a catalogue does not list."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import shapely
from shapely.geometry.base import BaseGeometry

from pipeline.errors import CatalogError
from pipeline.facts import Item, acquired, footprint, path_row, platform, relative_orbit, solar_day
from pipeline.plan import Hole, SensorName
from pipeline.profiles import Role

CYCLE: Mapping[SensorName, int] = {"landsat8": 16, "sentinel2": 10}
"""Days after which one satellite is over the same ground again; with both Landsats 8, with two Sentinel-2 5."""

KNOWN = 4
"""Passes a track must have before one is missed: fewer tell no rhythm."""

REGULAR = 0.6
"""Share of the expected passes a track must have: with less the satellite was not tasked each time."""

INSIDE = 0.05
"""Degrees by which the area must reach into a track's every footprint: at its edge a pass may or may not touch it."""

LOWEST_SUN = 18.0
"""Degrees of sun elevation below which no Level-2 is expected: USGS makes none beyond 76 degrees from the zenith."""


@dataclass(frozen=True, slots=True)
class _Track:
    """What comes back: one satellite on one path and row, or one relative orbit."""

    satellite: str
    place: str


def holes(
    found: Mapping[Role, Iterable[Item]], area: BaseGeometry, first: date, last: date, longitude: float
) -> tuple[Hole, ...]:
    """Missing passes of both sensors on the solar days first..last, from all that a search returned, used or not.

    Told only between passes that are there, of tracks that cover the area well and come regularly, under a sun high
    enough: what is told is missing, what is missing is not always told.
    """
    out = []
    for sensor in CYCLE:
        for track, passes in sorted(_tracks(sensor, found.get(sensor, ())).items(), key=lambda t: str(t[0])):
            days = {solar_day(moment, longitude): moment for moment, _ in passes}
            if not _covers(passes, longitude, area):
                continue
            missed = _missed(sensor, {d: m for d, m in days.items() if first <= d <= last}, area)
            if missed:
                out.append(Hole(sensor=sensor, track=f"{track.place} of {track.satellite}", days=missed))
    return tuple(out)


def _tracks(sensor: SensorName, items: Iterable[Item]) -> dict[_Track, list[tuple[datetime, BaseGeometry | None]]]:
    tracks: dict[_Track, list[tuple[datetime, BaseGeometry | None]]] = defaultdict(list)
    for item in items:
        try:
            if sensor == "landsat8":
                place = path_row(item)
                name = None if place is None else f"path/row {place[0]:03}/{place[1]:03}"
            else:
                orbit = relative_orbit(item)
                name = None if orbit is None else f"orbit {orbit:03}"
            if name is not None and platform(item):
                tracks[_Track(platform(item), name)].append((acquired(item), footprint(item)))
        except (CatalogError, AttributeError, KeyError, TypeError, ValueError):
            continue  # what cannot be read is told where scenes are chosen
    return tracks


def _covers(passes: Iterable[tuple[datetime, BaseGeometry | None]], longitude: float, area: BaseGeometry) -> bool:
    """Whether every pass of a track has the area well inside its edge."""
    days: dict[date, list[BaseGeometry]] = defaultdict(list)
    for moment, outline in passes:
        if outline is None:
            return False
        days[solar_day(moment, longitude)].append(outline)
    return all(shapely.intersects(shapely.buffer(shapely.unary_union(d), -INSIDE), area) for d in days.values())


def _missed(sensor: SensorName, days: Mapping[date, datetime], area: BaseGeometry) -> tuple[date, ...]:
    if len(days) < KNOWN:
        return ()
    cycle, begin, end = CYCLE[sensor], min(days), max(days)
    if any((day - begin).days % cycle for day in days):
        return ()  # the satellite was moved, or two share a name: there is no one rhythm
    expected = [begin + timedelta(days=k) for k in range(0, (end - begin).days + 1, cycle)]
    if len(days) < REGULAR * len(expected):
        return ()
    clock = days[begin]
    middle = area.centroid
    return tuple(
        day
        for day in expected
        if day not in days and sun_elevation(clock + (day - begin), middle.x, middle.y) > LOWEST_SUN
    )


def sun_elevation(moment: datetime, longitude: float, latitude: float) -> float:
    """Degrees of the sun over the horizon to about half a degree (declination and equation of time of a mean year)."""
    angle = 2 * math.pi * (moment.timetuple().tm_yday - 81) / 365.25
    declination = math.radians(23.44) * math.sin(angle)
    equation = 9.87 * math.sin(2 * angle) - 7.53 * math.cos(angle) - 1.5 * math.sin(angle)  # minutes
    hours = moment.hour + moment.minute / 60 + longitude / 15 + equation / 60
    turn, phi = math.radians(15 * (hours - 12)), math.radians(latitude)
    sine = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(turn)
    return math.degrees(math.asin(sine))
