"""Reflectance as seen from above: the c-factor of Roy et al., with one set of kernel weights for all land.

rho above = rho * K(0, sun) / K(view, sun, azimuth), K = f_iso + f_geo * LiSparseR + f_vol * RossThick.
Sources: Roy et al. 2016, 10.1016/j.rse.2016.01.023 (Landsat); 2017, 10.1016/j.rse.2017.06.019 (Sentinel-2). Kernels:
Lucht, Schaaf and Strahler 2000, 10.1109/36.841980, h/b = 2 and b/r = 1.

One factor serves a whole item, for the area's middle. Angles pixel by pixel would need rasters of them, and of the
known catalogues only Digital Earth Australia's items hold some (oa_satellite_view, oa_relative_azimuth), whose
reflectance is NBAR already; the others tell Sentinel-2's in XML on a grid of 5 km and Landsat's as coefficients in a
text, and the VZA and VAA of USGS's Level-1 are of Landsat alone and in no record. What is lost: across the scan the
view of Landsat changes by 0.09 degrees a km and of Sentinel-2 by 0.08, the factor by PER_KM at most, 1.3 % in 20 km.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from shapely.geometry import shape

from marstfn.bands import BANDS
from pipeline.errors import CatalogError
from pipeline.events import counted
from pipeline.facts import Item, platform, sun_elevation
from pipeline.plan import Nadir
from pipeline.profiles import Product

Angle = float | npt.NDArray[np.float64]
"""Radians, a number or an array."""

# (f_iso, f_geo, f_vol) of the global set, in the order of BANDS
WEIGHTS: tuple[tuple[float, float, float], ...] = (
    (0.0774, 0.0079, 0.0372),
    (0.1306, 0.0178, 0.0580),
    (0.1690, 0.0227, 0.0574),
    (0.3093, 0.0330, 0.1535),
    (0.3430, 0.0453, 0.1154),
    (0.2658, 0.0387, 0.0639),
)
LIMIT = 60.0
"""Degrees of sun zenith up to which the factor is used as it is; beyond, that of the limit: Li's kernel was made for
land that sees the sun, and nothing was fitted there."""

PER_KM = 7e-4
"""Of itself, the most by which a factor changes in a km across the scan: any band, azimuth and place in the swath of
either satellite, sun zenith 20 to 60 degrees."""

EARTH = 6371.0
"""Radius in km."""


@dataclass(frozen=True, slots=True)
class Orbit:
    """A sun-synchronous orbit, descending by day."""

    altitude: float
    """km."""
    inclination: float
    """Degrees."""
    period: float
    """Minutes."""


ORBITS: Mapping[str, Orbit] = {"landsat": Orbit(705.0, 98.2, 98.9), "sentinel-2": Orbit(786.0, 98.62, 100.6)}


def ross_thick(sun: Angle, view: Angle, azimuth: Angle) -> Angle:
    """Volume scattering of a dense canopy; angles in radians, `azimuth` between sun and sensor. 0 from above."""
    cosine = _phase(sun, view, azimuth)
    phase = np.arccos(np.clip(cosine, -1, 1))
    out: Angle = ((np.pi / 2 - phase) * cosine + np.sin(phase)) / (np.cos(sun) + np.cos(view)) - np.pi / 4
    return out


def li_sparse(sun: Angle, view: Angle, azimuth: Angle) -> Angle:
    """Surface scattering of sparse crowns and their shadows, reciprocal; h/b = 2, b/r = 1. 0 from above, sun overhead.

    With round crowns (b/r = 1) the angles need no transformation.
    """
    tan_sun, tan_view = np.tan(sun), np.tan(view)
    secants = 1 / np.cos(sun) + 1 / np.cos(view)
    distance = tan_sun**2 + tan_view**2 - 2 * tan_sun * tan_view * np.cos(azimuth)
    side = (tan_sun * tan_view * np.sin(azimuth)) ** 2
    overlap = np.arccos(np.clip(2 * np.sqrt(np.maximum(distance, 0) + side) / secants, -1, 1))
    shared = (overlap - np.sin(overlap) * np.cos(overlap)) * secants / np.pi
    lit = (1 + _phase(sun, view, azimuth)) / (np.cos(sun) * np.cos(view)) / 2
    out: Angle = shared - secants + lit
    return out


def _phase(sun: Angle, view: Angle, azimuth: Angle) -> Angle:
    """Cosine of the angle between sun and sensor."""
    out: Angle = np.cos(sun) * np.cos(view) + np.sin(sun) * np.sin(view) * np.cos(azimuth)
    return out


def factor(band: int, sun_zenith: Angle, view_zenith: Angle, azimuth: Angle) -> Angle:
    """K(0, sun) / K(view, sun, azimuth) of band `band` in the order of BANDS; angles in degrees, number or array."""
    iso, geo, vol = WEIGHTS[band]
    sun, view, phi = (np.radians(a) for a in (np.minimum(sun_zenith, LIMIT), view_zenith, azimuth))

    def kernel(seen: Angle) -> Angle:
        out: Angle = iso + geo * li_sparse(sun, seen, phi) + vol * ross_thick(sun, seen, phi)
        return out

    return kernel(np.zeros_like(view)) / kernel(view)


def nadir(item: Item, product: Product, place: tuple[float, float]) -> Nadir | None:
    """The factors of an item at `place` (longitude, latitude); None where it does not tell its angles.

    An item tells the view of its own middle. Across the swath the view changes by a degree in 13 km, and neighbouring
    tiles of one pass would not match; so the middle's angle is carried to `place` along the scan.
    """
    sun = sun_elevation(item)
    properties = item["properties"]
    bearing = properties.get("view:sun_azimuth", properties.get("s2:mean_solar_azimuth"))
    across = _across(item, product, place)
    if sun is None or bearing is None or across is None:
        return None
    view, azimuth, source = across
    relative = abs((float(bearing) - azimuth + 180) % 360 - 180)
    factors = tuple(round(float(factor(b, 90 - sun, view, relative)), 6) for b in range(len(BANDS)))
    numbers = {"sun_zenith": 90 - sun, "view_zenith": view, "relative_azimuth": relative}
    return Nadir(**{k: round(v, 3) for k, v in numbers.items()}, factors=factors, source=source)


def chosen(
    asked: str, items: Iterable[tuple[Item, Product]], place: tuple[float, float]
) -> tuple[dict[str, Nadir], str]:
    """Of every item that is to be brought to a view from above its angles and factors, and what to say of it.

    `items`: those whose surface reflectance is used. Digital Earth Australia's are NBAR already and are left as they
    are. Raises CatalogError where `asked` is `on` and an item does not tell its angles.
    """
    if asked == "off":
        return {}, ""
    found: dict[str, Nadir] = {}
    lacking: list[str] = []
    already = 0
    for item, product in items:
        if corrected(product):
            already += 1
            continue
        angles = nadir(item, product, place)
        if angles is None:
            lacking.append(str(item["id"]))
        else:
            found[str(item["id"])] = angles
    are = "is" if already == 1 else "are"
    done = f"{counted(already, 'item')} {are} NBAR already and {are} not corrected again" if already else ""
    if lacking:
        told = "does not tell from where it was" if len(lacking) == 1 else "do not tell from where they were"
        why = f"{counted(len(lacking), 'item')}, such as {lacking[0]}, {told} seen"
        if asked == "on":
            raise CatalogError(
                f"reflectance cannot be brought to a view from above: {why}; nothing was planned. "
                "Use --nbar auto or off, or a catalogue whose items hold view:incidence_angle and view:azimuth "
                "(earth-search, cdse, deafrica)"
            )
        # half a year corrected is worse than none
        return {}, "; ".join(filter(None, [f"reflectance is as seen, not brought to a view from above: {why}", done]))
    if found:
        are = "is" if len(found) == 1 else "are"
        seen = f"{counted(len(found), 'item')} {are} brought to a view from above (c-factor NBAR)"
        return found, "; ".join(filter(None, [seen, done]))
    return {}, done


def corrected(product: Product) -> bool:
    """Whether a product is NBAR as it is delivered."""
    return product.family == "dea-ard"


def _across(item: Item, product: Product, place: tuple[float, float]) -> tuple[float, float, str] | None:
    """View zenith and azimuth (degrees) at `place`, and where they come from."""
    orbit = ORBITS["sentinel-2" if platform(item).startswith("sentinel") else "landsat"]
    middle = _middle(item)
    heading = None if middle is None else course(orbit, middle[1])
    if middle is None or heading is None:
        return None
    properties = item["properties"]
    view = properties.get("view:incidence_angle", properties.get("view:off_nadir"))
    azimuth = properties.get("view:azimuth")
    if product.role == "sentinel2":
        # off_nadir of a pushbroom's tile is written as 0 by some catalogues that do not know it
        if properties.get("view:incidence_angle") is None or azimuth is None:
            return None
        view, azimuth = float(view), float(azimuth)
        source = "view:incidence_angle and view:azimuth, carried along the scan"
    else:
        # the middle of a Landsat scene lies under the satellite; a scene taken aslant says so
        if view is not None and abs(float(view)) > 1:
            return None
        view, azimuth = 0.0, 0.0
        source = "the scene's middle seen from above, carried along the scan"
    side = heading + 90
    # km from the middle to the ground track, positive to the right of the flight; what is seen fore and aft is left out
    off = ground(orbit, view) * math.cos(math.radians(azimuth - side))
    east, north = _offset(middle, place)
    off -= east * math.sin(math.radians(side)) + north * math.cos(math.radians(side))
    return seen_from(orbit, abs(off)), (side if off >= 0 else side + 180) % 360, source


def course(orbit: Orbit, latitude: float) -> float | None:
    """Direction (degrees from north) in which the descending ground track runs; None where the orbit does not reach."""
    cosine = math.cos(math.radians(latitude))
    sine = math.cos(math.radians(orbit.inclination)) / cosine if cosine > 0 else -1.0
    if abs(sine) >= 1:
        return None
    inertial = math.pi - math.asin(sine)
    speed = 2 * math.pi * EARTH / orbit.period
    turning = 2 * math.pi * EARTH / 1436.07 * cosine  # the ground moves east beneath it
    return math.degrees(math.atan2(speed * math.sin(inertial) - turning, speed * math.cos(inertial))) % 360


def ground(orbit: Orbit, view_zenith: float) -> float:
    """Kilometres on the ground between a place and the point beneath the satellite that sees it at this angle."""
    view = math.radians(view_zenith)
    return EARTH * (view - math.asin(EARTH / (EARTH + orbit.altitude) * math.sin(view)))


def seen_from(orbit: Orbit, distance: float) -> float:
    """View zenith in degrees of a place `distance` km from the point beneath the satellite."""
    angle, radius = distance / EARTH, EARTH + orbit.altitude
    return math.degrees(math.atan2(radius * math.sin(angle), radius * math.cos(angle) - EARTH))


def _middle(item: Item) -> tuple[float, float] | None:
    """Longitude and latitude of the middle of what was to be imaged."""
    centroid = item["properties"].get("proj:centroid")
    if centroid:
        return float(centroid["lon"]), float(centroid["lat"])
    try:
        point = shape(item["geometry"]).envelope.centroid
        return float(point.x), float(point.y)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _offset(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Kilometres east and north from `start` to `end`."""
    degree = math.radians(1) * EARTH
    east = ((end[0] - start[0] + 180) % 360 - 180) * math.cos(math.radians((start[1] + end[1]) / 2))
    return east * degree, (end[1] - start[1]) * degree
