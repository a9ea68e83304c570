"""Items of every catalogue in one form for odc-stac: one collection per role, assets named by band.

odc-stac keys its configuration by collection id, which means different assets in different catalogues, and reads
metadata of assets that nobody asked for; of both it sees nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pystac

from marstfn.bands import PAN
from pipeline.errors import CatalogError
from pipeline.products import CATALOG, Product, Role, wanted
from pipeline.profiles import Source

MASK, SATURATION = "mask", "saturation"
"""Names of the layers that are no bands."""

_PROJ = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


def keys(product: Product) -> dict[str, str]:
    """Asset key by layer name: the bands of the product's role, `mask`, `saturation`."""
    layers = {band: product.assets[band] for band in wanted(product.role)}
    extra = {MASK: product.mask, SATURATION: product.saturation}
    return layers | {name: key for name, key in extra.items() if key is not None}


def stac_cfg(product: Product) -> dict[str, Any]:
    """`stac_cfg` for items in this form: number type and nodata of every layer, whatever items say or leave out."""
    assets = {}
    for name, key in keys(product).items():
        dtype, nodata = product.numbers(key)
        assets[name] = {"data_type": dtype, "nodata": nodata}
    return {product.role: {"assets": assets}, "*": {"warnings": "ignore"}}


def uniform(item: pystac.Item, product: Product, layers: Sequence[str] | None = None) -> pystac.Item:
    """A copy of an item that holds the layers (all by default) of its product under their names, and where they lie.

    Raises CatalogError where a layer has no asset.
    """
    found = keys(product)
    properties = {name: value for name, value in item.properties.items() if name.startswith("proj:")}
    out = pystac.Item(
        item.id, item.geometry, item.bbox, item.datetime, properties, collection=product.role,
        start_datetime=item.common_metadata.start_datetime, end_datetime=item.common_metadata.end_datetime,
        stac_extensions=[_PROJ],
    )  # fmt: skip
    for name in layers if layers is not None else [n for n, key in found.items() if key in item.assets]:
        asset = item.assets.get(found[name])
        if asset is None:
            raise CatalogError(
                f"item {item.id} has no asset {found[name]!r} ({name}; it has {', '.join(sorted(item.assets))}); "
                "the scene cannot be used: plan anew without it, or choose another catalogue"
            )
        fields = {key: value for key, value in asset.extra_fields.items() if key.startswith("proj:")}
        if name == PAN and product.family == "landsat-c2-l1":
            fields = _pan_grid(properties, fields)
        out.add_asset(name, pystac.Asset(asset.get_absolute_href() or asset.href, extra_fields=fields))
    return out


def _pan_grid(properties: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """USGS states the 30 m grid for all bands: that of pan begins half a pan pixel inside it, 2 n - 1 pixels wide."""
    shape, transform = properties.get("proj:shape"), properties.get("proj:transform")
    if "proj:transform" in fields or not shape or not transform or abs(transform[0]) != 30:
        return dict(fields)
    shift = [15.0, 0.0, transform[2] + 7.5, 0.0, -15.0, transform[5] - 7.5]
    return {**fields, "proj:shape": [2 * shape[0] - 1, 2 * shape[1] - 1], "proj:transform": shift}


def product_of(source: Source, item: pystac.Item, role: Role) -> Product:
    """The product that an item of a plan is when it serves `role`. Raises CatalogError where it is none."""
    product = source.product_named(item.collection_id, item.properties.get(CATALOG), role)
    if product is None:
        raise CatalogError(
            f"item {item.id} is of collection {item.collection_id} of {item.properties.get(CATALOG, 'no catalogue')}, "
            f"which does not serve {role} in {source.label}; the store was altered, plan anew"
        )
    return product
