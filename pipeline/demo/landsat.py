"""Landsat 8 Collection 2 as catalogues describe it: Level-2 items, Level-1 items with pan, and their MTL files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from marstfn.bands import BANDS
from pipeline.demo.raster import Raster
from pipeline.demo.search import Json

LEVEL2, LEVEL1 = "landsat-c2-l2", "landsat-c2l1"
"""Collections: Level-2 as Planetary Computer names it, Level-1 as USGS does."""

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
USGS_COG = "image/vnd.stac.geotiff; cloud-optimized=true"

BAND_NUMBER = dict(zip(BANDS, range(2, 8), strict=True))
_OPTICS = {
    "blue": ("Blue Band", "Visible blue", 0.48, 0.06),
    "green": ("Green Band", "Visible green", 0.56, 0.06),
    "red": ("Red Band", "Visible red", 0.65, 0.04),
    "nir08": ("Near Infrared Band 0.8", "Near infrared", 0.87, 0.03),
    "swir16": ("Short-wave Infrared Band 1.6", "Short-wave infrared", 1.61, 0.09),
    "swir22": ("Short-wave Infrared Band 2.2", "Short-wave infrared", 2.2, 0.19),
}
_FLAGS = (
    ("fill", ("not_fill", "fill")),
    ("dilated_cloud", ("not_dilated", "dilated")),
    ("cirrus", ("not_cirrus", "cirrus")),
    ("cloud", ("not_cloud", "cloud")),
    ("cloud_shadow", ("not_shadow", "shadow")),
    ("snow", ("not_snow", "snow")),
    ("clear", ("not_clear", "clear")),
    ("water", ("not_water", "water")),
    ("cloud_confidence", ("not_set", "low", "medium", "high")),
    ("cloud_shadow_confidence", ("not_set", "low", "reserved", "high")),
    ("snow_confidence", ("not_set", "low", "reserved", "high")),
    ("cirrus_confidence", ("not_set", "low", "reserved", "high")),
)


@dataclass(frozen=True, slots=True)
class LandsatPass:
    """What the metadata of one Landsat 8 scene say; `extra` goes into the properties of its items."""

    product_id: str
    """LC08_L2SP_PPPRRR_YYYYMMDD_YYYYMMDD_02_T1."""
    level1_id: str
    time: datetime
    sun_elevation: float
    sun_azimuth: float
    cloud_cover: float
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def item_id(self) -> str:
        """The product id without its processing date, as Planetary Computer has it."""
        parts = self.product_id.split("_")
        return "_".join([*parts[:4], *parts[5:]])

    @property
    def path(self) -> str:
        return self.product_id.split("_")[2][:3]

    @property
    def row(self) -> str:
        return self.product_id.split("_")[2][3:]

    @property
    def generated(self) -> str:
        made = self.product_id.split("_")[4]
        return f"{made[:4]}-{made[4:6]}-{made[6:]}T00:00:00Z"

    @property
    def scene_id(self) -> str:
        """LC8PPPRRRYYYYDDDLGN00, equal on Level-1 and Level-2 items."""
        return f"LC8{self.path}{self.row}{self.time:%Y%j}LGN00"

    def folder(self, level: int) -> str:
        """Where the files of a level lie below the root."""
        name = self.product_id if level == 2 else self.level1_id
        place = f"{self.time:%Y}/{self.path}/{self.row}"
        return f"data/landsat-c2/level-{level}/standard/oli-tirs/{place}/{name}"

    def href(self, asset: str) -> str:
        """Relative address of an asset's file: a band, qa_pixel, qa_radsat, pan, mtl.json or MTL.json (Level-1)."""
        level = 1 if asset in ("pan", "MTL.json") else 2
        name = self.product_id if level == 2 else self.level1_id
        endings = {"qa_pixel": "QA_PIXEL.TIF", "qa_radsat": "QA_RADSAT.TIF", "pan": "B8.TIF"}
        endings |= {"mtl.json": "MTL.json", "MTL.json": "MTL.json"}
        ending = endings.get(asset) or f"SR_B{BAND_NUMBER[asset]}.TIF"
        return f"{self.folder(level)}/{name}_{ending}"


def level2_item(scene: LandsatPass, raster: Raster) -> Json:
    """Level-2 item in the shape of Planetary Computer's landsat-c2-l2, with the assets that a fusion reads."""
    assets: Json = {band: _band(scene, band) for band in BANDS}
    assets["qa_pixel"] = {
        "href": scene.href("qa_pixel"),
        "title": "Pixel Quality Assessment Band",
        "description": "Collection 2 Level-1 Pixel Quality Assessment Band (QA_PIXEL)",
        "type": COG,
        "roles": ["cloud", "cloud-shadow", "snow-ice", "water-mask"],
        "classification:bitfields": _bitfields(),
        "raster:bands": [{"unit": "bit index", "nodata": 1, "data_type": "uint16", "spatial_resolution": 30}],
    }
    assets["qa_radsat"] = {
        "href": scene.href("qa_radsat"),
        "title": "Radiometric Saturation and Terrain Occlusion Quality Assessment Band",
        "description": "Collection 2 Level-1 Radiometric Saturation and Terrain Occlusion Quality Assessment Band",
        "type": COG,
        "roles": ["saturation"],
        "raster:bands": [{"unit": "bit index", "data_type": "uint16", "spatial_resolution": 30}],
    }
    assets["mtl.json"] = {
        "href": scene.href("mtl.json"),
        "title": "Product Metadata File (json)",
        "description": "Collection 2 Level-2 Product Metadata File (json)",
        "type": "application/json",
        "roles": ["metadata"],
    }
    properties = {
        "created": scene.generated,
        "description": "Landsat Collection 2 Level-2",
        "gsd": 30,
        "platform": "landsat-8",
        "instruments": ["oli", "tirs"],
        "sci:doi": "10.5066/P9OGBGM6",
        "landsat:correction": "L2SP",
    }
    return _item(scene, raster, LEVEL2, scene.item_id, properties, assets)


def level1_item(scene: LandsatPass, raster: Raster) -> Json:
    """Level-1 item in the shape of USGS landsat-c2l1, built from a recorded Multispectral Scanner item and the key list
    of Landsat 8: like the real ones it states one grid, that of the 30 m bands in `raster`, also for the 15 m pan."""
    assets: Json = {
        "pan": {
            "title": "Panchromatic Band (B8)",
            "description": "Collection 2 Level-1 Panchromatic Band (B8) Top of Atmosphere Radiance",
            "type": USGS_COG,
            "roles": ["data"],
            "eo:bands": [{"name": "B8", "common_name": "pan", "gsd": 15, "center_wavelength": 0.59}],
            "href": scene.href("pan"),
        },
        "MTL.json": {
            "title": "Product Metadata File (json)",
            "description": "Collection 2 Level-1 Product Metadata File (json)",
            "type": "application/json",
            "roles": ["metadata"],
            "href": scene.href("MTL.json"),
        },
    }
    properties = {
        "created": scene.generated,
        "platform": "LANDSAT_8",
        "instruments": ["OLI", "TIRS"],
        "landsat:correction": scene.level1_id.split("_")[1],
    }
    item = _item(scene, raster, LEVEL1, scene.level1_id, properties, assets)
    item["description"] = "Landsat Collection 2 Level-1 Product"
    return item


def pan_raster(raster: Raster) -> Raster:
    """The 15 m grid of a scene from its 30 m one: half a pixel further in, one row and column fewer than twice."""
    rows, columns = raster.shape
    return Raster(raster.epsg, raster.left + 7.5, raster.top - 7.5, 15, (2 * rows - 1, 2 * columns - 1))


def level2_mtl(scene: LandsatPass, raster: Raster) -> Json:
    """The groups of a Level-2 MTL.json that readers use; the coefficients of Level-1 stand beside those of Level-2."""
    surface: dict[str, str] = {}
    for number in range(1, 8):
        surface |= {f"REFLECTANCE_MULT_BAND_{number}": "2.75e-05", f"REFLECTANCE_ADD_BAND_{number}": "-0.2"}
    groups = {
        "PRODUCT_CONTENTS": _contents(scene.product_id, "L2SP", "https://doi.org/10.5066/P9OGBGM6"),
        "IMAGE_ATTRIBUTES": _attributes(scene),
        "PROJECTION_ATTRIBUTES": _projection(raster),
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": surface,
        "LEVEL1_PROCESSING_RECORD": _record(scene),
        "LEVEL1_RADIOMETRIC_RESCALING": _rescaling(),
    }
    return {"LANDSAT_METADATA_FILE": groups}


def level1_mtl(scene: LandsatPass, raster: Raster) -> Json:
    """The groups of a Level-1 MTL.json that readers use."""
    pan = pan_raster(raster)
    projection = _projection(raster) | {
        "GRID_CELL_SIZE_PANCHROMATIC": "15.00",
        "PANCHROMATIC_LINES": str(pan.shape[0]),
        "PANCHROMATIC_SAMPLES": str(pan.shape[1]),
    }
    groups = {
        "PRODUCT_CONTENTS": _contents(scene.level1_id, "L1TP", "https://doi.org/10.5066/P975CC9B"),
        "IMAGE_ATTRIBUTES": _attributes(scene),
        "PROJECTION_ATTRIBUTES": projection,
        "LEVEL1_PROCESSING_RECORD": _record(scene),
        "LEVEL1_RADIOMETRIC_RESCALING": _rescaling(),
    }
    return {"LANDSAT_METADATA_FILE": groups}


def _item(scene: LandsatPass, raster: Raster, collection: str, item_id: str, properties: Json, assets: Json) -> Json:
    geometry, bbox = raster.footprint
    shared = {
        "datetime": f"{scene.time:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
        "eo:cloud_cover": scene.cloud_cover,
        "landsat:cloud_cover_land": scene.cloud_cover,
        "view:off_nadir": 0,
        "view:sun_azimuth": scene.sun_azimuth,
        "view:sun_elevation": scene.sun_elevation,
        "landsat:wrs_type": "2",
        "landsat:wrs_path": scene.path,
        "landsat:wrs_row": scene.row,
        "landsat:scene_id": scene.scene_id,
        "landsat:collection_category": scene.product_id.split("_")[-1],
        "landsat:collection_number": "02",
        "proj:epsg": raster.epsg,
        "proj:shape": list(raster.shape),
        "proj:transform": raster.transform,
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://landsat.usgs.gov/stac/landsat-extension/v1.1.1/schema.json",
            "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
            "https://stac-extensions.github.io/view/v1.0.0/schema.json",
        ],
        "id": item_id,
        "collection": collection,
        "geometry": geometry,
        "bbox": bbox,
        "properties": {**shared, **properties, **scene.extra},
        "links": [],
        "assets": assets,
    }


def _band(scene: LandsatPass, band: str) -> Json:
    title, description, centre, width = _OPTICS[band]
    number = BAND_NUMBER[band]
    return {
        "href": scene.href(band),
        "title": title,
        "description": f"Collection 2 Level-2 {title} (SR_B{number}) Surface Reflectance",
        "type": COG,
        "roles": ["data", "reflectance"],
        "eo:bands": [
            {
                "name": f"OLI_B{number}",
                "common_name": band,
                "description": description,
                "center_wavelength": centre,
                "full_width_half_max": width,
            }
        ],
        "raster:bands": [
            {"scale": 2.75e-05, "offset": -0.2, "nodata": 0, "data_type": "uint16", "spatial_resolution": 30}
        ],
    }


def _bitfields() -> list[Json]:
    fields, offset = [], 0
    for name, names in _FLAGS:
        classes = [{"name": label, "value": value} for value, label in enumerate(names)]
        length = (len(names) - 1).bit_length()
        fields.append({"name": name, "offset": offset, "length": length, "classes": classes})
        offset += length
    return fields


def _contents(product_id: str, level: str, doi: str) -> dict[str, str]:
    return {
        "DIGITAL_OBJECT_IDENTIFIER": doi,
        "LANDSAT_PRODUCT_ID": product_id,
        "PROCESSING_LEVEL": level,
        "COLLECTION_NUMBER": "02",
        "COLLECTION_CATEGORY": product_id.split("_")[-1],
        "OUTPUT_FORMAT": "GEOTIFF",
    }


def _attributes(scene: LandsatPass) -> dict[str, str]:
    return {
        "SPACECRAFT_ID": "LANDSAT_8",
        "SENSOR_ID": "OLI_TIRS",
        "WRS_TYPE": "2",
        "WRS_PATH": str(int(scene.path)),
        "WRS_ROW": str(int(scene.row)),
        "DATE_ACQUIRED": f"{scene.time:%Y-%m-%d}",
        "SCENE_CENTER_TIME": f"{scene.time:%H:%M:%S}.0000000Z",
        "CLOUD_COVER": f"{scene.cloud_cover:.2f}",
        "CLOUD_COVER_LAND": f"{scene.cloud_cover:.2f}",
        "SATURATION_BAND_8": "N",
        "SUN_AZIMUTH": f"{scene.sun_azimuth:.8f}",
        "SUN_ELEVATION": f"{scene.sun_elevation:.8f}",
    }


def _projection(raster: Raster) -> dict[str, str]:
    left, bottom, right, top = raster.bounds
    # MTL corners are centres of the corner pixels
    west, east, south, north = left + 15, right - 15, bottom + 15, top - 15
    corners = {"UL": (west, north), "UR": (east, north), "LL": (west, south), "LR": (east, south)}
    places = {
        f"CORNER_{c}_PROJECTION_{axis}_PRODUCT": f"{v:.3f}"
        for c, xy in corners.items()
        for axis, v in zip("XY", xy, strict=True)
    }
    return {
        "MAP_PROJECTION": "UTM",
        "DATUM": "WGS84",
        "UTM_ZONE": str(raster.epsg % 100),
        "GRID_CELL_SIZE_REFLECTIVE": "30.00",
        "REFLECTIVE_LINES": str(raster.shape[0]),
        "REFLECTIVE_SAMPLES": str(raster.shape[1]),
        "ORIENTATION": "NORTH_UP",
        **places,
    }


def _record(scene: LandsatPass) -> dict[str, str]:
    files = {f"FILE_NAME_BAND_{n}": f"{scene.level1_id}_B{n}.TIF" for n in range(1, 12)}
    return {
        "LANDSAT_SCENE_ID": scene.scene_id,
        "LANDSAT_PRODUCT_ID": scene.level1_id,
        "PROCESSING_LEVEL": scene.level1_id.split("_")[1],
        "COLLECTION_CATEGORY": scene.level1_id.split("_")[-1],
        **files,
        "GEOMETRIC_RMSE_MODEL": "5.000",
    }


def _rescaling() -> dict[str, str]:
    numbers = range(1, 10)
    mult = {f"REFLECTANCE_MULT_BAND_{n}": "2.0000E-05" for n in numbers}
    return mult | {f"REFLECTANCE_ADD_BAND_{n}": "-0.100000" for n in numbers}
