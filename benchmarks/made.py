"""Items made up in the shape of those that catalogues serve, for plans of any size without a catalogue."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from marstfn.bands import BANDS

CATALOG = "earth-search"
"""The profile whose items these are."""
YEAR = 2023
WEST, SOUTH = 114.1, 46.9
"""Of the area, in UTM zone 50."""
OTHERS = ("coastal", "nir", "rededge1", "rededge2", "rededge3", "wvp", "aot", "cloud", "snow", "preview", "thumbnail")
"""Assets that a plan leaves out."""


def area(tiles: int, tile_px: int) -> dict[str, Any]:
    """A GeoJSON rectangle that holds `tiles` tiles or a few per cent more."""
    side = tiles**0.5 * tile_px * 10 / 111_320
    return _box(WEST, SOUTH, WEST + side / 0.66, SOUTH + side)


def items(count: int, box: dict[str, Any]) -> list[dict[str, Any]]:
    """`count` items over `box`, seven of ten of Sentinel-2: a pass every other day of five granules (of Landsat three)
    that lie side by side."""
    ring = box["coordinates"][0]
    west, south, east, north = ring[0][0], ring[0][1], ring[2][0], ring[2][1]
    out = []
    for k in range(count):
        sentinel = k % 10 < 7
        index = k // 10 * 7 + k % 10 if sentinel else k // 10 * 3 + k % 10 - 7
        parts = 5 if sentinel else 3
        day, part = divmod(index, parts)
        step = (east - west) / parts
        outline = _box(west + part * step, south, west + (part + 1) * step, north)
        passes = -(-count * (7 if sentinel else 3) // 10 // parts)
        moment = datetime(YEAR, 1, 1, 3, tzinfo=UTC) + timedelta(days=day * 364 // max(1, passes), seconds=part)
        out.append(_sentinel2(moment, part, outline) if sentinel else _landsat8(moment, part, outline))
    return out


def catalogue(folder: Path, count: int, box: dict[str, Any]) -> str:
    """A file of `count` items in `folder`, as `Request.catalog` names it."""
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items(count, box)}))
    return f"{CATALOG}@{path}"


def _sentinel2(moment: datetime, part: int, outline: dict[str, Any]) -> dict[str, Any]:
    name = f"S2A_T50UM{'ABCDE'[part]}_{moment:%Y%m%dT%H%M%S}_L2A"
    take = f"{moment.replace(second=0):%Y%m%dT%H%M%S}"
    properties = {
        "platform": "sentinel-2a", "constellation": "sentinel-2", "instruments": ["msi"], "eo:cloud_cover": 31.4,
        "proj:epsg": 32650, "grid:code": f"MGRS-50UM{'ABCDE'[part]}", "view:azimuth": 106.5,
        "view:incidence_angle": 6.2, "view:sun_azimuth": 150.1, "view:sun_elevation": 51.5,
        "s2:processing_baseline": "05.10", "s2:product_uri": f"S2A_MSIL2A_{take}_N0510_R{part + 1:03}_X.SAFE",
        "s2:generation_time": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "s2:datatake_id": f"GS2A_{take}_045855_N05.10",
        "s2:datastrip_id": f"S2A_OPER_MSI_L2A_DS_2APS_{take}_S{take}_N05.10",
        "datetime": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        **{f"s2:{what}_percentage": 1.5 for what in ("water", "vegetation", "snow_ice", "unclassified")},
    }  # fmt: skip
    sizes = {name: 20 if name.startswith("swir") or name == "nir08" else 10 for name in (*BANDS, *OTHERS)} | {"scl": 20}
    return _item(name, "sentinel-2-c1-l2a", outline, properties, sizes, 1e-4, -0.1)


def _landsat8(moment: datetime, part: int, outline: dict[str, Any]) -> dict[str, Any]:
    name = f"LC08_L2SP_12{part}026_{moment:%Y%m%d}_{moment + timedelta(days=9):%Y%m%d}_02_T1"
    properties = {
        "platform": "landsat-8", "instruments": ["oli", "tirs"], "eo:cloud_cover": 42.0, "view:off_nadir": 0,
        "view:sun_elevation": 41.2, "view:sun_azimuth": 157.6, "proj:epsg": 32650, "landsat:wrs_path": f"12{part}",
        "landsat:wrs_row": "026", "landsat:collection_category": "T1", "landsat:correction": "L2SP",
        "landsat:scene_id": f"LC812{part}026{moment:%Y%j}LGN00", "datetime": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
    }  # fmt: skip
    keys = (*BANDS, "qa_pixel", "qa_radsat", "lwir11", "atran", "cdist", "drad", "urad", "trad", "emis", "emsd")
    return _item(name, "landsat-c2-l2", outline, properties, dict.fromkeys(keys, 30), 2.75e-5, -0.2)


def _item(
    name: str, collection: str, outline: dict[str, Any], properties: dict[str, Any], sizes: dict[str, int],
    scale: float, offset: float,
) -> dict[str, Any]:  # fmt: skip
    def asset(key: str, size: int) -> dict[str, Any]:
        side = 109_800 // size
        band = {"nodata": 0, "data_type": "uint16", "spatial_resolution": size, "scale": scale, "offset": offset}
        return {
            "href": f"https://scenes.example/{collection}/{YEAR}/{name}/{key}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized", "title": f"{key} - {size} m",
            "eo:bands": [{"name": key, "common_name": key, "center_wavelength": 0.49, "full_width_half_max": 0.098}],
            "gsd": size, "proj:shape": [side, side], "proj:transform": [size, 0, 399960, 0, -size, 5400000],
            "raster:bands": [band], "file:size": 58021606, "roles": ["data", "reflectance"],
        }  # fmt: skip

    ring = outline["coordinates"][0]
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": collection,
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.0.0/schema.json"],
        "geometry": outline, "bbox": [*ring[0], *ring[2]], "properties": properties,
        "links": [{"rel": "self", "href": f"https://scenes.example/{collection}/items/{name}"}],
        "assets": {key: asset(key, size) for key, size in sizes.items()},
    }  # fmt: skip


def _box(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [[[round(x, 6), round(y, 6)] for x, y in ring]]}
