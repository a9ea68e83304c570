"""Which scale and offset turn one item's digital numbers into reflectance: decided per item, by rule."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline.errors import CatalogError
from pipeline.facts import Item, processing_baseline, sun_elevation
from pipeline.plan import Radiometry
from pipeline.profiles import Product

LANDSAT_SCALE, LANDSAT_OFFSET = 2.75e-5, -0.2
"""Landsat Collection 2 Level-2 surface reflectance (USGS product guide LSDS-1618/1619)."""

PAN_MULT, PAN_ADD = 2.0e-5, -0.1
"""REFLECTANCE_MULT_BAND_8 and REFLECTANCE_ADD_BAND_8, constant over Landsat 8 Collection 2 Level-1."""

SENTINEL_SCALE = 1e-4
BOA_ADD_OFFSET = -0.1
"""BOA_ADD_OFFSET / 10000 of Sentinel-2 Level-2A from processing baseline 04.00 on."""


def radiometry(item: Item, product: Product) -> Radiometry:
    """Scale, offset and nodata of the reflectance bands of `item`; for Level-1 pan of top-of-atmosphere reflectance.

    The first rule that matches decides, and `Radiometry.rule` says which and on what evidence.
    Raises CatalogError where no rule can tell, or bands of one item disagree.
    """
    if product.family == "landsat-c2-l2":
        return _landsat_surface(item, product)
    if product.family == "landsat-c2-l1":
        return _landsat_pan(item, product)
    return _sentinel2(item, product)


def _landsat_surface(item: Item, product: Product) -> Radiometry:
    stated = _stated(item, product)
    if stated is not None:
        scale, offset, nodata = stated
        if not math.isclose(scale, LANDSAT_SCALE, rel_tol=1e-6) or not math.isclose(offset, LANDSAT_OFFSET):
            raise _refused(item, f"scale {scale} and offset {offset} are not those of Collection 2 Level-2")
        return Radiometry(scale=scale, offset=offset, nodata=nodata, rule="scale and offset of the item")
    if str(item["properties"].get("landsat:collection_number", "")) != "02":
        raise _refused(item, "no scale and offset, and landsat:collection_number is not 02")
    return Radiometry(
        scale=LANDSAT_SCALE, offset=LANDSAT_OFFSET, nodata=0, rule="constants of Landsat Collection 2 Level-2"
    )


def _landsat_pan(item: Item, product: Product) -> Radiometry:
    elevation = sun_elevation(item)
    if elevation is None or elevation <= 0:
        raise _refused(item, f"sun elevation {elevation} degrees: no daylight reflectance")
    if str(item["properties"].get("landsat:collection_number", "")) != "02":
        raise _refused(item, "landsat:collection_number is not 02, so the coefficients of band 8 are not known")
    stated = _stated(item, product)
    mult, add, nodata = (PAN_MULT, PAN_ADD, 0) if stated is None else stated
    sine = math.sin(math.radians(elevation))
    source = "constants of Collection 2" if stated is None else "scale and offset of the item"
    return Radiometry(
        scale=mult / sine,
        offset=add / sine,
        nodata=nodata,
        rule=f"{source}, divided by the sine of sun elevation {elevation:.4f}",
    )


def _sentinel2(item: Item, product: Product) -> Radiometry:
    properties = item["properties"]
    stated = _stated(item, product)
    applied = properties.get("earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied"))
    # the flag outweighs the bands: such items still state -0.1 there although it has been applied
    if applied is True:
        return Radiometry(scale=SENTINEL_SCALE, offset=0.0, nodata=0, rule="boa_offset_applied is true")
    if stated is not None:
        scale, offset, nodata = stated
        said = "boa_offset_applied is false; " if applied is False else ""
        return Radiometry(scale=scale, offset=offset, nodata=nodata, rule=f"{said}scale and offset of the item")
    baseline = processing_baseline(item)
    if baseline is None:
        raise _refused(item, "neither scale and offset nor a processing baseline")
    if "sentinel:product_id" in properties and baseline >= (4, 0):
        raise _refused(item, "a baseline from 04.00 on in a catalogue that applied the offset to some items only")
    offset = BOA_ADD_OFFSET if baseline >= (4, 0) else 0.0
    text = f"{baseline[0]:02d}.{baseline[1]:02d}"
    return Radiometry(scale=SENTINEL_SCALE, offset=offset, nodata=0, rule=f"processing baseline {text}")


def _stated(item: Item, product: Product) -> tuple[float, float, int] | None:
    """(scale, offset, nodata) as the item's assets state them, or None where no band states a scale."""
    found = {band: values for band in product.assets for values in _of_asset(item, product.assets[band])}
    if not found:
        return None
    if len(found) < len(product.assets) or len(set(found.values())) > 1:
        raise _refused(item, f"its bands state different scales, offsets or nodata: {found}")
    return next(iter(found.values()))


def _of_asset(item: Item, key: str) -> Iterator[tuple[float, float, int]]:
    asset = item["assets"].get(key, {})
    bands = asset.get("raster:bands") or asset.get("bands") or []
    # STAC 1.1 states the values on the asset, or on its only band; 1.0 in raster:bands
    band = {**asset, **bands[0]} if len(bands) == 1 else asset
    scale = band.get("scale", band.get("raster:scale"))
    if scale is not None:
        offset = band.get("offset", band.get("raster:offset", 0.0))
        yield float(scale), float(offset), int(band.get("nodata", 0))


def _refused(item: Item, why: str) -> CatalogError:
    return CatalogError(f"item {item['id']}: radiometry unknown: {why}; the item cannot be used")
