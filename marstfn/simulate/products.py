"""How the agencies store what the sensors see: grids, digital numbers, quality words and scene classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, PAN
from marstfn.simulate.hashing import F32
from marstfn.simulate.weather import Sky


@dataclass(frozen=True, slots=True)
class AssetSpec:
    """How a product stores an asset: reflectance = DN * scale + offset where DN is not `nodata`."""

    resolution: int
    dtype: str
    nodata: int | None
    scale: float
    offset: float
    corner_modulo: float
    """Pixel corners lie at this many metres modulo the resolution."""


LANDSAT = {
    **{band: AssetSpec(30, "uint16", 0, 2.75e-5, -0.2, 15.0) for band in BANDS},
    "qa_pixel": AssetSpec(30, "uint16", 1, 1.0, 0.0, 15.0),
    "qa_radsat": AssetSpec(30, "uint16", None, 1.0, 0.0, 15.0),
    PAN: AssetSpec(15, "uint16", 0, 2e-5, -0.1, 7.5),
}
"""Landsat 8 Collection 2: Level-2 reflectance and quality; Level-1 pan, to be divided by the sine of the elevation."""

SENTINEL = {
    **{band: AssetSpec(10, "uint16", 0, 1e-4, -0.1, 0.0) for band in BANDS[:3]},
    **{band: AssetSpec(20, "uint16", 0, 1e-4, -0.1, 0.0) for band in BANDS[3:]},
    "scl": AssetSpec(20, "uint8", 0, 1.0, 0.0, 0.0),
}
"""Sentinel-2 Level-2A of processing baseline 04.00 or later."""

QA_CLEAR, QA_WATER, QA_CLOUD, QA_RIM = 21824, 21952, 22280, 21762
QA_SHADOW, QA_SNOW, QA_CIRRUS = 23888, 30048, 54596
"""QA_PIXEL words of Collection 2 with their confidence bits: clear land, water, cloud, dilated cloud, shadow, snow,
cirrus (bits 1 to 7 are dilated cloud, cirrus, cloud, shadow, snow, clear, water)."""

Numbers = NDArray[np.uint16] | NDArray[np.uint8]


def stored(reflectance: F32, spec: AssetSpec) -> NDArray[np.uint16]:
    """Reflectance as digital numbers of `spec`, at least 1 so that nothing measured reads as nodata."""
    numbers = np.rint((reflectance - np.float32(spec.offset)) * np.float32(1 / spec.scale))
    return np.asarray(np.clip(numbers, 1, 65535), np.uint16)


def qa_pixel(above: Sky, green: F32, red: F32, nir: F32, swir: F32, cirrus: bool) -> NDArray[np.uint16]:
    """QA_PIXEL words (ny, nx) from the mask's opinion of the sky and the surface's reflectance."""
    words = np.where(_water(green, nir), QA_WATER, QA_CLEAR)
    words = np.where(_snow(green, swir), QA_SNOW, words)
    words = np.where(above.says_shadow, QA_SHADOW, words)
    words = np.where(above.near_cloud, QA_RIM, words)
    return np.where(above.says_cloud, QA_CIRRUS if cirrus else QA_CLOUD, words).astype(np.uint16)


def scl(above: Sky, green: F32, red: F32, nir: F32, swir: F32, cirrus: bool) -> NDArray[np.uint16]:
    """Classes (ny, nx): 2 dark, 3 shadow, 4 vegetation, 5 bare, 6 water, 7 unsure, 8-9 cloud, 10 cirrus, 11 snow."""
    water = _water(green, nir)
    classes = np.where((nir - red) > np.float32(0.4) * (nir + red), 4, 5)
    classes = np.where((nir < np.float32(0.10)) & ~water, 2, classes)
    classes = np.where(water, 6, classes)
    classes = np.where(_snow(green, swir), 11, classes)
    classes = np.where(above.says_shadow, 3, classes)
    classes = np.where(above.near_cloud & (above.cloud > 0), 7, classes)
    sure = np.where(above.cloud > np.float32(0.5), 9, 8)
    return np.where(above.says_cloud, 10 if cirrus else sure, classes).astype(np.uint16)


def on_lattice(x0: float, y0: float, resolution: int, modulo: float, shape: tuple[int, int], what: str) -> None:
    """Raise ValueError unless a window of at least one pixel starts on a corner of the grid of `what`."""
    if min(shape) < 1:
        raise ValueError(f"window of {shape[0]} x {shape[1]} pixels of {what} is empty; ask for at least one pixel")
    if (x0 - modulo) % resolution or (y0 - modulo) % resolution:
        raise ValueError(
            f"corner ({x0}, {y0}) is not on the grid of {what}: corners lie at {modulo:g} modulo {resolution} m; "
            "a shifted window would be another image"
        )


def _water(green: F32, nir: F32) -> NDArray[np.bool_]:
    return (green > nir) & (nir < np.float32(0.11))


def _snow(green: F32, swir: F32) -> NDArray[np.bool_]:
    return (green > np.float32(0.4)) & ((green - swir) > np.float32(0.4) * (green + swir))
