"""Sentinel-2 Level-2A as two catalogues describe it: Earth Search's Collection 1, and Planetary Computer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from marstfn.bands import BANDS
from pipeline.demo.raster import Raster
from pipeline.demo.search import Json

COLLECTION1, L2A = "sentinel-2-c1-l2a", "sentinel-2-l2a"
COG = "image/tiff; application=geotiff; profile=cloud-optimized"

BAND_NAME = dict(zip(BANDS, ("B02", "B03", "B04", "B8A", "B11", "B12"), strict=True))
RESOLUTION = {band: 10 if band in BANDS[:3] else 20 for band in (*BANDS, "scl")}
_OPTICS = {
    "blue": ("Blue", 0.49, 0.098),
    "green": ("Green", 0.56, 0.045),
    "red": ("Red", 0.665, 0.038),
    "nir08": ("NIR 2", 0.865, 0.033),
    "swir16": ("SWIR 1.6μm", 1.61, 0.143),
    "swir22": ("SWIR 2.2μm", 2.19, 0.242),
}


@dataclass(frozen=True, slots=True)
class SentinelPass:
    """What the metadata of one Sentinel-2 product say; `extra` goes into the properties of its items."""

    item_id: str
    """S2A_T50UQV_YYYYMMDDThhmmss_L2A."""
    product_id: str
    """S2A_MSIL2A_YYYYMMDDThhmmss_N0510_R118_T50UQV_YYYYMMDDThhmmss."""
    platform: str
    """sentinel-2a or sentinel-2b."""
    time: datetime
    baseline: str
    """Processing baseline, e.g. 05.10."""
    sun_elevation: float
    sun_azimuth: float
    cloud_cover: float
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tile(self) -> str:
        """MGRS tile, e.g. 50UQV."""
        return self.product_id.split("_")[5][1:]

    @property
    def orbit(self) -> int:
        return int(self.product_id.split("_")[4][1:])

    @property
    def generated(self) -> str:
        stamp = datetime.strptime(self.product_id.split("_")[6], "%Y%m%dT%H%M%S")
        return f"{stamp:%Y-%m-%dT%H:%M:%S}.000000Z"

    @property
    def offset(self) -> float:
        """Reflectance at DN 0: -0.1 from processing baseline 04.00 on (BOA_ADD_OFFSET), 0 before."""
        return -0.1 if self.baseline >= "04.00" else 0.0

    def href(self, band: str) -> str:
        """Relative address of the file of a band or of scl."""
        zone, letter, square = self.tile[:2], self.tile[2], self.tile[3:]
        name = "SCL" if band == "scl" else BAND_NAME[band]
        place = f"{int(zone)}/{letter}/{square}/{self.time.year}/{self.time.month}"
        return f"data/sentinel-2-l2a/{place}/{self.item_id}/{name}.tif"

    def properties(self) -> Json:
        """What both catalogues say."""
        unit, taken, orbit = self.product_id[:3], f"{self.time:%Y%m%dT%H%M%S}", f"A{self.time:%j%y}"
        made = self.product_id.split("_")[6]
        strip = f"{unit}_OPER_MSI_L2A_DS_2{unit[2]}PS_{made}_S{taken}_N{self.baseline}"
        return {
            "datetime": f"{self.time:%Y-%m-%dT%H:%M:%S.%f}Z",
            "instruments": ["msi"],
            "eo:cloud_cover": self.cloud_cover,
            "s2:product_type": "S2MSI2A",
            "s2:processing_baseline": self.baseline,
            "s2:product_uri": f"{self.product_id}.SAFE",
            "s2:generation_time": self.generated,
            "s2:datatake_id": f"G{unit}_{taken}_{orbit}_N{self.baseline}",
            "s2:datatake_type": "INS-NOBS",
            "s2:datastrip_id": strip,
        }


def earth_search_item(scene: SentinelPass, rasters: Mapping[int, Raster]) -> Json:
    """Item in the shape of Earth Search's sentinel-2-c1-l2a, on the rasters of 10 and 20 m; scale and offset are in
    raster:bands."""
    assets: Json = {}
    for band in BANDS:
        resolution = RESOLUTION[band]
        name, centre, width = _OPTICS[band]
        values = {"scale": 0.0001, "offset": scene.offset}
        assets[band] = {
            **_file(scene, band, f"{name} - {resolution}m", rasters[resolution]),
            "eo:bands": [
                {
                    "name": BAND_NAME[band],
                    "common_name": band,
                    "center_wavelength": centre,
                    "full_width_half_max": width,
                }
            ],
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "spatial_resolution": resolution, **values}],
            "roles": ["data", "reflectance"],
        }
    assets["scl"] = {
        **_file(scene, "scl", "Scene classification map (SCL)", rasters[20]),
        "raster:bands": [{"nodata": 0, "data_type": "uint8", "spatial_resolution": 20}],
        "roles": ["data"],
    }
    properties = {
        **scene.properties(),
        "created": scene.generated,
        "updated": scene.generated,
        "platform": scene.platform,
        "constellation": "sentinel-2",
        "mgrs:utm_zone": int(scene.tile[:2]),
        "mgrs:latitude_band": scene.tile[2],
        "mgrs:grid_square": scene.tile[3:],
        "grid:code": f"MGRS-{scene.tile}",
        "view:sun_azimuth": scene.sun_azimuth,
        "view:sun_elevation": scene.sun_elevation,
    }
    names = ("eo/v1.1.0", "grid/v1.1.0", "mgrs/v1.0.0", "projection/v1.1.0", "raster/v1.1.0")
    extensions = [*names, "sentinel-2/v1.0.0", "view/v1.0.0"]
    return _item(scene, COLLECTION1, scene.item_id, rasters[10], properties, assets, extensions)


def planetary_item(scene: SentinelPass, rasters: Mapping[int, Raster]) -> Json:
    """Item in the shape of Planetary Computer's sentinel-2-l2a: other keys, and neither nodata, scale nor offset."""
    assets: Json = {}
    for band in BANDS:
        name, centre, width = _OPTICS[band]
        key, resolution = BAND_NAME[band], RESOLUTION[band]
        assets[key] = {
            **_file(scene, band, f"Band {key[1:].lstrip('0')} - {name} - {resolution}m", rasters[resolution]),
            "roles": ["data"],
            "eo:bands": [
                {
                    "name": key,
                    # as served there: the narrow infrared band passes for red edge
                    "common_name": "rededge" if band == "nir08" else band,
                    "center_wavelength": centre,
                    "full_width_half_max": width,
                }
            ],
        }
    assets["SCL"] = {**_file(scene, "scl", "Scene classification map (SCL)", rasters[20]), "roles": ["data"]}
    properties = {
        **scene.properties(),
        "platform": scene.platform.capitalize()[:-1] + scene.platform[-1].upper(),
        "constellation": "Sentinel 2",
        "s2:mgrs_tile": scene.tile,
        "sat:orbit_state": "descending",
        "sat:relative_orbit": scene.orbit,
        "s2:mean_solar_zenith": round(90 - scene.sun_elevation, 6),
        "s2:mean_solar_azimuth": scene.sun_azimuth,
    }
    extensions = ["eo/v1.0.0", "sat/v1.0.0", "projection/v1.0.0"]
    return _item(scene, L2A, scene.product_id, rasters[10], properties, assets, extensions)


def _file(scene: SentinelPass, band: str, title: str, raster: Raster) -> Json:
    return {
        "href": scene.href(band),
        "type": COG,
        "title": title,
        "gsd": raster.resolution,
        "proj:shape": list(raster.shape),
        "proj:transform": raster.transform,
    }


def _item(
    scene: SentinelPass,
    collection: str,
    item_id: str,
    raster: Raster,
    properties: Json,
    assets: Json,
    extensions: list[str],
) -> Json:
    geometry, bbox = raster.footprint
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in extensions],
        "id": item_id,
        "collection": collection,
        "geometry": geometry,
        "bbox": bbox,
        "properties": {**properties, "proj:epsg": raster.epsg, **scene.extra},
        "links": [],
        "assets": assets,
    }
