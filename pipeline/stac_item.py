"""The STAC item that describes a finished cube, so that catalogues and viewers find it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pystac
from odc.geo.geom import Geometry
from pystac.extensions.datacube import DatacubeExtension, Dimension, Variable
from pystac.extensions.projection import ProjectionExtension

from marstfn.bands import BANDS, FINE
from pipeline.encoding import QUALITY
from pipeline.plan import FORMAT, Plan
from pipeline.store import FUSED, ITEMS, PLAN, Store

NAME = "fused.stac.json"
ZARR_TYPE = "application/vnd.zarr; version=3"

_EXTENSIONS = (
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/xarray-assets/v1.0.0/schema.json",
)
"""Those that STAC 1.1 `bands` carry by field prefix; projection and datacube add themselves."""

_CENTRES = {"blue": 0.492, "green": 0.560, "red": 0.665, "nir08": 0.865, "swir16": 1.614, "swir22": 2.202}
"""Centre wavelengths in micrometres of Sentinel-2A B02 B03 B04 B8A B11 B12 (Sentinel-2 spectral responses, ESA)."""

_LAYERS: Mapping[str, tuple[str, str, str | None, float | None, int | None]] = {
    # name: description, data type, unit, scale, nodata
    **{band: (f"surface reflectance, {band}", "int16", None, 1e-4, -9999) for band in BANDS},
    "quality": (
        ", ".join(f"{k} {name.replace('_', ' ')}" for k, name in enumerate(QUALITY)),
        "uint8",
        None,
        None,
        None,
    ),
    "reference_age": ("days from the Sentinel-2 reference to the Landsat date", "int16", "d", None, -9999),
    "coherence": ("absolute difference of the degraded fused date and Landsat", "int16", None, 1e-4, -9999),
    "uncertainty": ("times a band's factor the half-width of its 90 % interval", "int16", None, 1e-4, -9999),
}


def item(plan: Plan, *, created: datetime, report: Mapping[str, str] | None = None) -> pystac.Item:
    """STAC 1.1 item of the cube of `plan`: footprint in WGS 84, projection and datacube extensions, relative hrefs.

    `report` maps the keys quicklook, ndvi, scenes to the hrefs that exist, relative to the store.
    """
    geobox = plan.grid.geobox(FINE)
    side = max(plan.grid.shape(FINE)) * FINE
    footprint = geobox.extent.to_crs("EPSG:4326", resolution=side / 4)
    times = [scene.time for scene in plan.scenes]
    result = pystac.Item(
        id=f"{plan.name}-{plan.year}-fused",
        geometry=_rounded(footprint),
        bbox=[round(v, 7) for v in footprint.boundingbox.bbox],
        datetime=None,
        start_datetime=times[0],
        end_datetime=times[-1],
        properties=_properties(plan, created),
    )
    projection = ProjectionExtension.ext(result, add_if_missing=True)
    projection.apply(
        epsg=plan.grid.epsg,
        shape=list(geobox.shape),
        transform=[float(v) for v in tuple(geobox.affine)[:6]],
        bbox=[float(v) for v in geobox.boundingbox.bbox],
    )
    cube = DatacubeExtension.ext(result, add_if_missing=True)
    cube.apply(_dimensions(plan), _variables())
    result.add_asset("cube", _zarr_asset())
    for key, href in (report or {}).items():
        result.add_asset(key, _report_asset(key, href))
    result.add_asset("plan", pystac.Asset(f"./{PLAN}", "The plan of the run", None, "application/json", ["metadata"]))
    result.add_link(pystac.Link("derived_from", f"./{ITEMS}", "application/geo+json", "The scenes it was made from"))
    result.stac_extensions.extend(_EXTENSIONS)
    return result


def write(store: Store, plan: Plan, *, report: Mapping[str, str] | None = None, created: datetime | None = None) -> str:
    """Write the item beside the cube of `store` and return its name; raises StoreError where that fails."""
    described = item(plan, created=created or datetime.now(UTC), report=report)
    text = json.dumps(described.to_dict(include_self_link=False), indent=2, allow_nan=False)
    store.write(NAME, text.encode())
    return NAME


def _properties(plan: Plan, created: datetime) -> dict[str, Any]:
    landsat, sentinel = plan.of("landsat8"), plan.of("sentinel2")
    what = "Simulated dense" if plan.simulated else "Dense"
    return {
        "title": f"{plan.name} {plan.year}: {FINE} m, {len(landsat)} fused and {len(sentinel)} observed dates",
        "description": (
            f"{what} {FINE} m reflectance series of {plan.year} from {plan.landsats} and Sentinel-2. "
            f"Landsat dates are fused ({plan.options.method}) with Sentinel-2, Sentinel-2 dates are "
            "observed; see `quality` and `source`."
        ),
        "created": pystac.utils.datetime_to_str(created),
        "gsd": float(FINE),
        "platform": ", ".join(sorted({scene.platform for scene in plan.scenes})),
        "instruments": ["oli", "msi"],
        "marstfn:format_version": FORMAT,
        "marstfn:plan_fingerprint": plan.fingerprint,
        "marstfn:method": plan.options.method,
        "marstfn:simulated": plan.simulated,
        "marstfn:pan": plan.has_pan,
    }


def _dimensions(plan: Plan) -> dict[str, Dimension]:
    box = plan.grid.geobox(FINE).boundingbox
    half = FINE / 2
    times = [pystac.utils.datetime_to_str(scene.time) for scene in plan.scenes]
    axes = {
        axis: {
            "type": "spatial",
            "axis": axis,
            "extent": [low + half, high - half],  # pixel centres, as the coordinates are
            "step": FINE * sign,
            "reference_system": plan.grid.epsg,
        }
        for axis, low, high, sign in (("x", box.left, box.right, 1), ("y", box.bottom, box.top, -1))
    }
    axes["time"] = {"type": "temporal", "extent": [times[0], times[-1]], "values": times}
    return {name: Dimension.from_dict(axes[name]) for name in ("time", "y", "x")}


def _variables() -> dict[str, Variable]:
    def entry(description: str, unit: str | None) -> Variable:
        fields = {"type": "data", "dimensions": ["time", "y", "x"], "description": description}
        return Variable(fields if unit is None else fields | {"unit": unit})

    return {name: entry(description, unit) for name, (description, _, unit, _, _) in _LAYERS.items()}


def _zarr_asset() -> pystac.Asset:
    bands = []
    for name, (description, data_type, unit, scale, nodata) in _LAYERS.items():
        band: dict[str, Any] = {"name": name, "description": description, "data_type": data_type}
        if nodata is not None:
            band["nodata"] = nodata
        if unit is not None:
            band["unit"] = unit
        if scale is not None:
            band |= {"raster:scale": scale, "raster:offset": 0.0}
        if name in _CENTRES:
            band |= {"eo:common_name": name, "eo:center_wavelength": _CENTRES[name]}
        bands.append(band)
    return pystac.Asset(
        href=f"./{FUSED}",
        title="The cube: open with xarray.open_zarr",
        media_type=ZARR_TYPE,
        roles=["data"],
        extra_fields={"bands": bands, "xarray:open_kwargs": {"engine": "zarr"}},
    )


def _report_asset(key: str, href: str) -> pystac.Asset:
    titles = {
        "quicklook": ("Input, output and comparison in natural colour", ["overview"]),
        "ndvi": ("NDVI curves at a few points", ["overview"]),
        "scenes": ("Scenes, references and clear fractions", ["metadata"]),
    }
    title, roles = titles[key]
    kind = "image/png" if href.endswith(".png") else "application/json" if href.endswith(".json") else "text/csv"
    return pystac.Asset(href=href, title=title, media_type=kind, roles=list(roles))


def _rounded(shape: Geometry) -> dict[str, Any]:
    """GeoJSON with 7 decimals (1 cm), counter-clockwise as RFC 7946 asks."""
    ring = [[round(x, 7), round(y, 7)] for x, y in shape.exterior.coords]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring))
    return {"type": "Polygon", "coordinates": [ring if area > 0 else ring[::-1]]}
