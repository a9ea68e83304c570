"""How pixels are stored, and what the attributes of a cube say of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, FINE, PAN
from pipeline import bandpass
from pipeline.plan import FORMAT, Plan, Scene

FILL = -9999
"""Stored where nothing is known; decodes to NaN."""
SCALE = 1e-4
"""Reflectance of one stored unit."""
NOTHING, CLEAR, MASKED = 0, 1, 2
"""Values of `clear` in the inputs."""
OBSERVED, FUSED_PIXEL, UPSAMPLED, HIDDEN, FUSED_FREELY, IN_TIME, CLASSICAL = 1, 2, 3, 4, 5, 6, 7
"""Values of `quality` in the fused cube besides NOTHING: what a pixel is, and by which family of methods."""
QUALITY = (
    "nothing",
    "observed",
    "fused",
    "landsat_upsampled",
    "masked",
    "fused_additive",
    "sentinel2_in_time",
    "fused_classical",
)
"""What the values mean, from 0."""
FUSED_PIXELS = (FUSED_PIXEL, FUSED_FREELY, IN_TIME, CLASSICAL)
"""Pixels of a Landsat date that a Sentinel-2 reference went into."""
SIMULATED = "with simulated scenes: no record of the ground"
"""Stands where real data are credited to those who gave them."""
FLAG: Mapping[str, int] = {
    "network": FUSED_PIXEL,
    "additive": FUSED_FREELY,
    "additive-linear": FUSED_FREELY,
    "sen2like": FUSED_FREELY,
    "fsdaf": CLASSICAL,
    "starfm-si": CLASSICAL,
    "atprk": CLASSICAL,
    "linear": IN_TIME,
    "copy": IN_TIME,
    "bicubic": UPSAMPLED,
}
"""What a method makes of a pixel that has a reference."""
LAYERS = (*BANDS, "quality", "reference_age", "coherence", "uncertainty")
"""Variables of the fused cube."""
FUSED_SOURCE, OBSERVED_SOURCE = "landsat-8 fused", "sentinel-2 observed"
"""Of Landsat 8; what another Landsat saw carries its own platform's name."""


def source(scene: Scene) -> str:
    """The coordinate `source` of a date: `landsat-8 fused`, `landsat-9 fused`, `sentinel-2 observed`."""
    return OBSERVED_SOURCE if scene.sensor == "sentinel2" else f"{scene.platform} fused"


RADIOMETRY = "Sentinel-2 MSI"
"""The one radiometric frame of all reflectance in the fused cube."""
AGE: dict[str, Any] = {
    "_FillValue": FILL,
    # `day`, not `days`: xarray would turn the latter into time spans, and people want numbers
    "units": "day",
    "long_name": "Landsat day minus the day of the Sentinel-2 reference",
}
RESIDUAL: dict[str, Any] = {
    "_FillValue": FILL,
    "scale_factor": SCALE,
    "units": "1",
    "long_name": "|fused averaged over the 30 m pixel - Landsat|, mean of the bands",
}


SHIFTS: dict[str, dict[str, Any]] = {
    "shift_east": {"units": "m", "long_name": "what Landsat shows lies this far east of its place in Sentinel-2"},
    "shift_north": {"units": "m", "long_name": "what Landsat shows lies this far north of its place in Sentinel-2"},
    "shift_error": {"units": "m", "long_name": "standard error of shift_east and of shift_north"},
}
"""Coordinates along time: what was measured before any correction, NaN where nothing was."""
REGISTRATION: dict[str, Any] = {
    "long_name": "what was done about a Landsat date's shift (corrected, left, rejected, unmeasured), and why"
}


def pack(reflectance: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    """Reflectance (NaN = nothing) as int16 in units of 1e-4, rounded to nearest, clipped to -0.9998..3.2767."""
    scaled = np.rint(reflectance / np.float32(SCALE))
    np.clip(scaled, FILL + 1, np.iinfo(np.int16).max, out=scaled)
    return np.where(np.isnan(scaled), np.float32(FILL), scaled).astype(np.int16)


def unpack(stored: NDArray[np.int16]) -> NDArray[np.float32]:
    """int16 in units of 1e-4 as float32 reflectance, NaN where it is the fill value."""
    out = stored.astype(np.float32) * np.float32(SCALE)
    out[stored == FILL] = np.nan
    return out


def fused_attrs(plan: Plan, versions: dict[str, str]) -> dict[str, Any]:
    """Attributes of the fused cube: what another run needs to repeat it, and whom to credit."""
    box = plan.grid.geobox(FINE).boundingbox
    lon_lat = plan.grid.geobox(FINE).geographic_extent.boundingbox
    ids = [i for scene in plan.scenes for i in (*scene.items, *scene.pan_items)]
    return {
        **identity(plan),
        "Conventions": "CF-1.11",
        "title": f"Reflectance at 10 m, {plan.name} {plan.year}, Landsat 8 and Sentinel-2 fused",
        "radiometry": RADIOMETRY,
        **({"bandpass": bandpass.told(plan)} if plan.options.adjustments else {}),
        "method": plan.options.method,
        "credits": SIMULATED
        if plan.simulated
        else f"Contains modified Copernicus Sentinel data [{plan.year}]. "
        "Landsat-8 image courtesy of the U.S. Geological Survey",
        "simulated": "true" if plan.simulated else "false",
        "catalog": plan.catalog,
        "weights_sha256": [w.sha256 for w in plan.weights],
        "item_ids": ids,
        "versions": {**plan.versions, "marstfn": importlib.metadata.version("marstfn"), **versions},
        "bounds": [box.left, box.bottom, box.right, box.top],
        "crs": f"EPSG:{plan.grid.epsg}",
        "geospatial_lon_min": lon_lat.left,
        "geospatial_lat_min": lon_lat.bottom,
        "geospatial_lon_max": lon_lat.right,
        "geospatial_lat_max": lon_lat.top,
        "year": plan.year,
        "status": "in progress",
    }


def identity(plan: Plan) -> dict[str, Any]:
    """What ties a cube to its plan and its readers."""
    return {"format_version": FORMAT, "plan_fingerprint": plan.fingerprint}


def reflectance(band: str) -> dict[str, Any]:
    """Attributes of a band."""
    return {
        "_FillValue": FILL,
        "scale_factor": SCALE,
        "units": "1",
        "standard_name": "surface_bidirectional_reflectance" if band != PAN else "toa_bidirectional_reflectance",
        "long_name": f"{band} reflectance",
    }


def flags(*meanings: str) -> dict[str, Any]:
    """Attributes of a variable whose values 0, 1, 2 ... mean these."""
    return {"flag_values": list(range(len(meanings))), "flag_meanings": " ".join(meanings)}
