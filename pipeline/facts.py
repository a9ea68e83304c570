"""What a STAC item says of itself, read alike from every catalogue's spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from pipeline.errors import CatalogError

Item = Mapping[str, Any]
"""A STAC item as JSON, as the catalogue served it."""


def acquired(item: Item) -> datetime:
    """Acquisition time (UTC) of an item: `datetime`, or `start_datetime` where that is null."""
    properties = item["properties"]
    text = properties.get("datetime") or properties.get("start_datetime")
    if not text:
        raise CatalogError(f"item {item['id']} has neither datetime nor start_datetime; it has no place in a year")
    moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def solar_day(moment: datetime, longitude: float) -> date:
    """Local date of an overpass at `longitude` degrees, by whole hours of 15 degrees as in odc-stac."""
    return (moment.astimezone(UTC) + timedelta(hours=int(longitude / 15))).date()


def platform(item: Item) -> str:
    """Platform in one spelling: `landsat-8`, `sentinel-2b`."""
    return str(item["properties"].get("platform", "")).lower().replace("_", "-").replace(" ", "-")


def datatake(item: Item) -> str:
    """Start of the datatake, YYYYMMDDThhmmss, from the datatake id or product name, else the item's own time."""
    properties = item["properties"]
    for key in ("s2:datatake_id", "eopf:datatake_id", "s2:product_uri"):
        match = re.search(r"_(\d{8}T\d{6})_", str(properties.get(key, "")))
        if match:
            return match[1]
    return f"{acquired(item):%Y%m%dT%H%M%S}"


def mgrs_tile(item: Item) -> str:
    """MGRS tile, e.g. 13TDE; empty where the item does not say."""
    properties = item["properties"]
    text = properties.get("s2:mgrs_tile") or str(properties.get("grid:code", "")).removeprefix("MGRS-")
    if not text:
        match = re.search(r"_T(\d{2}[A-Z]{3})_", f"_{properties.get('s2:product_uri', '')}_{item['id']}_")
        text = match[1] if match else ""
    return str(text)


def zone(item: Item) -> int | None:
    """UTM zone of an item; Landsat counts it north (326xx) and Sentinel-2 south (327xx) of the equator alike."""
    properties = item["properties"]
    code = properties.get("proj:epsg") or str(properties.get("proj:code", "")).removeprefix("EPSG:")
    if not code:
        codes = (a.get("proj:code") or a.get("proj:epsg") for a in item["assets"].values())
        code = str(next((c for c in codes if c), "")).removeprefix("EPSG:")
    return int(code) % 100 if str(code).isdigit() and 32600 < int(code) < 32761 else None


def placed(item: Item, keys: Iterable[str]) -> bool:
    """Whether the item, or else every one of its assets `keys`, says in which coordinate system it lies."""
    names = ("proj:epsg", "proj:code", "proj:wkt2", "proj:projjson")

    def says(fields: Mapping[str, Any]) -> bool:
        return any(fields.get(name) for name in names)

    return says(item["properties"]) or all(says(item["assets"][key]) for key in keys)


def cloud_cover(item: Item) -> float:
    """Reported cloud cover of the whole item in percent; 50 where it does not say."""
    value = item["properties"].get("eo:cloud_cover")
    return 50.0 if value is None else float(value)


def processing_baseline(item: Item) -> tuple[int, int] | None:
    """Sentinel-2 processing baseline, e.g. (5, 11), from the properties or the product name; None if unknown."""
    properties = item["properties"]
    for key in ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline"):
        match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})", str(properties.get(key, "")))
        if match:
            return int(match[1]), int(match[2])
    for key in ("s2:product_uri", "sentinel:product_id"):
        match = re.search(r"_N(\d{2})(\d{2})_", str(properties.get(key, "")))
        if match:
            return int(match[1]), int(match[2])
    return None


def scene_id(item: Item) -> str | None:
    """Landsat scene id, e.g. LC80280302020014LGN00: equal on Level-1 and Level-2; None where the item does not say."""
    properties = item["properties"]
    name = properties.get("landsat:scene_id") or properties.get("landsat:landsat_scene_id")
    return str(name) if name else None


def path_row(item: Item) -> tuple[int, int] | None:
    """WRS-2 path and row, from the properties, else the product id; None where neither tells."""
    properties = item["properties"]
    path, row = properties.get("landsat:wrs_path"), properties.get("landsat:wrs_row")
    if path is not None and row is not None:
        return int(path), int(row)
    match = re.match(r"L[COTEM]\d{2}_L\d\w{2}_(\d{3})(\d{3})_", str(item["id"]))
    return (int(match[1]), int(match[2])) if match else None


def tier(item: Item) -> str:
    """Collection category (T1, T2, RT) of a Landsat item; T1 where it does not say, as in analysis-ready data."""
    return str(item["properties"].get("landsat:collection_category") or "T1")


def relative_orbit(item: Item) -> int | None:
    """Relative orbit 1..143 of a Sentinel-2 item, from the properties or the product name; None if unknown."""
    properties = item["properties"]
    if properties.get("sat:relative_orbit") is not None:
        return int(properties["sat:relative_orbit"])
    for text in (properties.get("s2:product_uri"), item["id"]):
        match = re.search(r"_R(\d{3})_", str(text or ""))
        if match:
            return int(match[1])
    return None


def footprint(item: Item) -> BaseGeometry | None:
    """Footprint in longitude and latitude, valid, cut at 180 degrees where it reaches over; None where there is none.

    A ring that runs from 179 to -179 degrees goes over the antimeridian, not around the earth.
    """
    if item.get("geometry") is None:
        return None
    try:
        outline = shape(item["geometry"])
        parts = [_unwrapped(part) for part in getattr(outline, "geoms", [outline])]
        return shapely.unary_union([part if part.is_valid else shapely.make_valid(part) for part in parts])
    except (ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError):
        return None


def _unwrapped(part: BaseGeometry) -> BaseGeometry:
    west, _, east, _ = part.bounds
    if east - west <= 180:
        return part
    whole = shapely.transform(
        part, lambda xy: np.column_stack([np.where(xy[:, 0] < 0, xy[:, 0] + 360, xy[:, 0]), xy[:, 1]])
    )
    whole = whole if whole.is_valid else shapely.make_valid(whole)
    here = shapely.intersection(whole, shapely.box(0, -90, 180, 90))
    beyond = shapely.intersection(whole, shapely.box(180, -90, 360, 90))
    return shapely.union(here, shapely.transform(beyond, lambda xy: xy - [360, 0]))


def sun_elevation(item: Item) -> float | None:
    """Sun elevation in degrees at the centre of the scene, or None where the item does not say."""
    properties = item["properties"]
    if properties.get("view:sun_elevation") is not None:
        return float(properties["view:sun_elevation"])
    if properties.get("s2:mean_solar_zenith") is not None:
        return 90.0 - float(properties["s2:mean_solar_zenith"])
    return None
