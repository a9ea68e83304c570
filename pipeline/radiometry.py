"""Which scale and offset turn one item's digital numbers into reflectance: decided per item, by rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pipeline.errors import CatalogError
from pipeline.facts import Item, processing_baseline, sun_elevation
from pipeline.mtl import Metadata
from pipeline.overrides import Override
from pipeline.plan import Radiometry
from pipeline.profiles import Product

LANDSAT_SCALE, LANDSAT_OFFSET = 2.75e-5, -0.2
"""Landsat Collection 2 Level-2 surface reflectance (USGS product guide LSDS-1618/1619)."""

PAN_MULT, PAN_ADD = 2.0e-5, -0.1
"""REFLECTANCE_MULT_BAND_8 and REFLECTANCE_ADD_BAND_8, constant over Landsat 8 and 9 Collection 2 Level-1."""

SENTINEL_SCALE = 1e-4
BOA_ADD_OFFSET = -0.1
"""BOA_ADD_OFFSET / 10000 of Sentinel-2 Level-2A from processing baseline 04.00 on."""


DEA_SCALE, DEA_NODATA = 1e-4, -999
"""Digital Earth Australia's analysis-ready data: int16, 0..10000, NBAR with terrain correction."""


def radiometry(
    item: Item, product: Product, *, mtl: Metadata | None = None, overrides: Sequence[Override] = ()
) -> Radiometry:
    """Scale, offset and nodata of the reflectance bands of `item`; for Level-1 pan of top-of-atmosphere reflectance.

    The first rule that matches decides, and `Radiometry.rule` says which and on what evidence; `mtl` is the metadata
    file of the item where it was read. What `overrides` say of this item, or else of the run, outweighs every rule.
    Raises CatalogError where no rule can tell, or bands of one item disagree.
    """
    given = _given(item, product, overrides)
    try:
        found = _by_rule(item, product, mtl)
    except CatalogError as error:
        if given is None or given.scale is None:
            raise
        why = str(error).split("radiometry unknown: ", 1)[-1].removesuffix("; the item cannot be used")
        nodata = DEA_NODATA if product.family == "dea-ard" else 0
        rule = f"given by the user ({given.text}); by itself: {why}"
        return Radiometry(scale=given.scale, offset=given.offset, nodata=nodata, rule=rule)
    if given is None:
        return found
    scale = found.scale if given.scale is None else given.scale
    rule = f"given by the user ({given.text}) in place of {found.scale:g},{found.offset:g}: {found.rule}"
    return Radiometry(scale=scale, offset=given.offset, nodata=found.nodata, rule=rule)


def key_of(item: Item, product: Product) -> str:
    """The name under which a plan keeps the radiometry of an item: its id, for pan with `#pan` behind it."""
    return str(item["id"]) + ("#pan" if product.role == "landsat8_pan" else "")


def _given(item: Item, product: Product, overrides: Sequence[Override]) -> Override | None:
    key = key_of(item, product)
    for override in overrides:
        if override.item == key:
            return override
    if product.family != "sentinel-2-l2a":
        return None
    return next((override for override in overrides if override.item is None), None)


def _by_rule(item: Item, product: Product, mtl: Metadata | None) -> Radiometry:
    if product.family == "landsat-c2-l2":
        return _landsat_surface(item, product)
    if product.family == "landsat-c2-l1":
        return _landsat_pan(item, product, mtl)
    if product.family == "dea-ard":
        return _dea(item, product)
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


def _landsat_pan(item: Item, product: Product, mtl: Metadata | None) -> Radiometry:
    elevation = sun_elevation(item)
    if elevation is None and mtl is not None:
        elevation = mtl.sun_elevation
    if elevation is None or elevation <= 0:
        raise _refused(item, f"sun elevation {elevation} degrees: no daylight reflectance")
    stated = _stated(item, product)
    told = mtl.pan if mtl is not None else None
    if stated is not None:
        (mult, add, nodata), source = stated, "scale and offset of the item"
    elif told is not None:
        # QUANTIZE_CAL_MIN is 1, so that 0 is fill
        (mult, add), nodata, source = told, 0, "band 8 of LEVEL1_RADIOMETRIC_RESCALING in the MTL"
    elif str(item["properties"].get("landsat:collection_number", "")) == "02":
        mult, add, nodata, source = PAN_MULT, PAN_ADD, 0, "constants of Collection 2"
    else:
        raise _refused(item, "landsat:collection_number is not 02, so the coefficients of band 8 are not known")
    sine = math.sin(math.radians(elevation))
    return Radiometry(
        scale=mult / sine,
        offset=add / sine,
        nodata=nodata,
        rule=f"{source}, divided by the sine of sun elevation {elevation:.4f}",
    )


def _dea(item: Item, product: Product) -> Radiometry:
    stated = _stated(item, product)
    if stated is not None and not (math.isclose(stated[0], DEA_SCALE) and stated[1:] == (0.0, DEA_NODATA)):
        raise _refused(item, f"scale, offset and nodata {stated} are not those of DEA's analysis-ready data")
    # its pan is surface reflectance, too: no sun angle
    return Radiometry(
        scale=DEA_SCALE, offset=0.0, nodata=DEA_NODATA, rule="constants of DEA's analysis-ready data (NBAR)"
    )


def _sentinel2(item: Item, product: Product) -> Radiometry:
    """The order of the rules matters: the flag outweighs the bands, for items whose offset has been applied still
    state -0.1 there; Earth Search v0 outweighs the baseline, for it applied the offset to some items only."""
    properties = item["properties"]
    stated = _stated(item, product)
    applied = properties.get("earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied"))
    if applied is True:
        return Radiometry(scale=SENTINEL_SCALE, offset=0.0, nodata=0, rule="boa_offset_applied is true")
    baseline = processing_baseline(item)
    said = "boa_offset_applied is false; " if applied is False else ""
    if "sentinel:product_id" in properties and applied is None and baseline is not None and baseline >= (4, 0):
        raise _refused(item, "a baseline from 04.00 on in a catalogue that applied the offset to some items only")
    if stated is not None:
        scale, offset, nodata = stated
        return Radiometry(scale=scale, offset=offset, nodata=nodata, rule=f"{said}scale and offset of the item")
    if baseline is None:
        raise _refused(item, "neither scale and offset nor a processing baseline")
    offset = BOA_ADD_OFFSET if baseline >= (4, 0) else 0.0
    text = f"{baseline[0]:02d}.{baseline[1]:02d}"
    return Radiometry(scale=SENTINEL_SCALE, offset=offset, nodata=0, rule=f"{said}processing baseline {text}")


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
