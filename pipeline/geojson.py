"""GeoJSON documents as checked polygons: every defect named, with its place and its remedy."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import shapely
from pyproj import Geod
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from pipeline.errors import AOIError

_WGS84 = re.compile(r"(CRS:?84|EPSG:+4326|WGS ?84)$", re.IGNORECASE)
_AREAL = ("Polygon", "MultiPolygon")
_REMEDY = "give a GeoJSON Polygon or MultiPolygon in longitude, latitude (WGS 84)"


def parse(data: bytes, where: str) -> Mapping[str, Any]:
    """The JSON object in `data` (UTF-8); `where` names it in errors. Raises AOIError."""
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise AOIError(f"area of interest {where} is text in UTF-16, and GeoJSON is UTF-8; save it as UTF-8")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise AOIError(f"area of interest {where} is not JSON text (byte {error.start}); {_REMEDY}") from error
    except json.JSONDecodeError as error:
        if not data.strip():
            raise AOIError(f"area of interest {where} is empty; {_REMEDY}") from error
        raise AOIError(
            f"area of interest {where} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}; {_REMEDY}"
        ) from error
    except ValueError as error:  # Python reads no integer of more than 4300 digits
        raise AOIError(f"area of interest {where} holds a number that cannot be read ({error}); {_REMEDY}") from error
    except RecursionError as error:
        raise AOIError(f"area of interest {where} is nested too deeply to be GeoJSON; {_REMEDY}") from error
    if not isinstance(document, dict):
        raise AOIError(f"area of interest {where} is JSON but not GeoJSON (a {type(document).__name__}); {_REMEDY}")
    return document


def polygon(document: Mapping[str, Any], where: str, max_km2: float) -> BaseGeometry:
    """The union of all polygons of a GeoJSON document: a valid shapely (Multi)Polygon in longitude, latitude degrees.

    Raises AOIError for whatever cannot be an area of at most `max_km2` on one side of the antimeridian.
    """
    _check_crs(document, where)
    parts = [_areal(geometry, where, label) for geometry, label in _geometries(document, where, "")]
    if not parts:
        raise AOIError(f"area of interest {where} is empty: it holds no geometry; {_REMEDY}")
    united = shapely.union_all(parts)
    west, south, east, north = united.bounds
    if east - west > 180:
        raise AOIError(
            f"area of interest {where} reaches over the antimeridian (longitudes {west:g} to {east:g}); "
            "one cube lies in one UTM zone. Cut it at 180 degrees and run the two parts"
        )
    if north > 84 or south < -80:
        raise AOIError(
            f"area of interest {where} reaches latitude {north if north > 84 else south:g}, outside UTM (-80 to 84); "
            "Landsat 8 and Sentinel-2 cubes end there. Cut it"
        )
    area = km2(united)
    if area <= 0:
        raise AOIError(f"area of interest {where} has no area; {_REMEDY}")
    box = km2(shapely.box(*united.bounds))
    if area > max_km2:
        raise AOIError(
            f"area of interest {where} measures {area:,.0f} km2, more than the limit of {max_km2:,.0f} km2; "
            "nothing was planned. Cut it into parts, or raise the limit (MARSTFN_AOI_MAX_KM2)"
        )
    if box > 4 * max_km2:
        raise AOIError(
            f"area of interest {where}: its parts lie far apart (their frame measures {box:,.0f} km2, the limit for a "
            f"frame is {4 * max_km2:,.0f} km2); nothing was planned. Run them one by one"
        )
    return united


def _geometries(node: Any, where: str, label: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Bare geometries below `node`, each with words that say where in the document it stands."""
    kind = node.get("type") if isinstance(node, Mapping) else None
    if kind == "FeatureCollection":
        features = node.get("features")
        if not isinstance(features, list):
            raise AOIError(f"area of interest {where} is a FeatureCollection without features; {_REMEDY}")
        for index, feature in enumerate(features):
            yield from _geometries(feature, where, f" (feature {index})")
    elif kind == "Feature":
        if node.get("geometry") is not None:
            yield from _geometries(node["geometry"], where, label)
    elif kind == "GeometryCollection":
        geometries = node.get("geometries")
        if not isinstance(geometries, list):
            raise AOIError(f"area of interest {where}{label} is a GeometryCollection without geometries; {_REMEDY}")
        for index, geometry in enumerate(geometries):
            yield from _geometries(geometry, where, f"{label} (geometry {index})")
    elif kind in _AREAL:
        yield node, label
    elif kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        raise AOIError(f"area of interest {where}{label} is a {kind}, which has no area; {_REMEDY}")
    else:
        hint = {"Topology": " (this is TopoJSON: convert it)"}.get(str(kind), "")
        if isinstance(node, Mapping) and "rings" in node:
            hint = " (this looks like Esri JSON: convert it)"
        raise AOIError(f"area of interest {where}{label} is not GeoJSON: type {kind!r}{hint}; {_REMEDY}")


def _areal(geometry: Mapping[str, Any], where: str, label: str) -> BaseGeometry:
    coordinates = geometry.get("coordinates")
    polygons = coordinates if geometry["type"] == "MultiPolygon" else [coordinates]
    if not coordinates or not isinstance(polygons, list):
        raise AOIError(f"area of interest {where}{label} is empty: a {geometry['type']} without coordinates; {_REMEDY}")
    try:
        positions = [tuple(position[:2]) for polygon in polygons for ring in polygon for position in ring]
        numeric = all(len(p) == 2 and all(_is_number(c) for c in p) for p in positions)
    except TypeError:
        numeric, positions = False, []
    if not numeric or not positions:
        raise AOIError(
            f"area of interest {where}{label} is not GeoJSON: coordinates are not rings of [longitude, latitude]; "
            f"{_REMEDY}"
        )
    _check_range(positions, where, label)
    try:
        area = shapely.force_2d(shape({"type": "MultiPolygon", "coordinates": polygons}))
    except (ValueError, TypeError, IndexError, shapely.errors.ShapelyError) as error:
        raise AOIError(f"area of interest {where}{label} is not a polygon: {error}; {_REMEDY}") from error
    if not area.is_valid:
        reason = shapely.is_valid_reason(area)
        match = re.search(r"(.*)\[(\S+) (\S+)\]", reason)
        what, at = (match[1].strip(), f" at longitude {match[2]}, latitude {match[3]}") if match else (reason, "")
        crossing = "crosses itself" if "intersection" in what.lower() else "is not a valid polygon"
        raise AOIError(
            f"area of interest {where}{label} {crossing} ({what}{at}); which side is inside is not defined. "
            "Redraw its outline without the crossing"
        )
    return area


def _check_range(positions: list[tuple[float, ...]], where: str, label: str) -> None:
    lons = [p[0] for p in positions]
    lats = [p[1] for p in positions]
    if all(abs(x) <= 180 for x in lons) and all(abs(y) <= 90 for y in lats):
        return
    # an integer in JSON may have any number of digits, which no float holds
    x, y = (max(-1e300, min(1e300, v)) for v in next(p for p in positions if abs(p[0]) > 180 or abs(p[1]) > 90))
    at = f"area of interest {where}{label}: position [{x:g}, {y:g}]"
    if all(abs(x) <= 90 for x in lons) and all(abs(y) <= 180 for y in lats):
        raise AOIError(
            f"{at} has latitude {y:g}, out of range: longitudes and latitudes look swapped. "
            "GeoJSON positions are [longitude, latitude]; swap them"
        )
    if all(abs(y) <= 90 for y in lats) and all(abs(x) <= 360 for x in lons):
        raise AOIError(
            f"{at} has longitude {x:g}: the area reaches over the antimeridian. Cut it at 180 degrees, give longitudes "
            "within -180 to 180, and run the two parts"
        )
    if max(abs(x), abs(y)) > 360:
        raise AOIError(f"{at} is out of range: these look like metres of a projected system. Convert them to degrees")
    raise AOIError(f"{at} is out of range (longitude -180 to 180, latitude -90 to 90); {_REMEDY}")


def _check_crs(document: Mapping[str, Any], where: str) -> None:
    crs = document.get("crs")
    if crs is None:
        return
    properties = crs.get("properties") if isinstance(crs, Mapping) else None
    name = str(properties.get("name", crs)) if isinstance(properties, Mapping) else str(crs)
    if not _WGS84.search(name):
        raise AOIError(
            f"area of interest {where} declares the coordinate system {name}; GeoJSON is longitude, latitude in "
            "WGS 84. Convert it (ogr2ogr -t_srs EPSG:4326) or remove the crs member if it is wrong"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def km2(geometry: BaseGeometry) -> float:
    """Geodesic area in square kilometres of a geometry in longitude, latitude degrees (WGS 84)."""
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(shapely.orient_polygons(geometry))
    return abs(float(area)) / 1e6
