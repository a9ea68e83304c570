"""A real place with pan at reduced resolution: every image three times coarser, so that Landsat itself is the truth.

Town and dry farmland near Thoothukudi, two Landsat 8 days (Deep-Harmonization, MIT). No Sentinel-2 saw them: the other
day's Landsat at 30 m, in the MSI frame, stands where Sentinel-2 would, so both sides are one sensor's and no error
between sensors is tested here; the change between the days, the pan band and the land are real. Reading needs rasterio.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS
from marstfn.baselines import Array, degrade
from marstfn.observe import half_pixel
from marstfn.reference import Reference
from marstfn.scenes import QA_MASKED, Scene
from marstfn.simulate.spectra import OLI_FROM_MSI

FOLDER = "india-l8-pan"
SIDE = 162
"""Of the scenes, in 30 m pixels, which stand for 10 m ones."""
CORNER = 2
"""First row and column: from here on, pan covers the bands."""


def scenes(root: str | Path) -> dict[str, Scene]:
    """Either day with the other as its reference; Landsat is the mean of 3 x 3 pixels, pan of 3 x 3 of its own.

    Raises ImportError without rasterio, FileNotFoundError where the set is not whole.
    """
    folder = Path(root) / FOLDER
    paths = sorted(folder.glob("*_SR.tif"))
    if len(paths) != 2:
        raise FileNotFoundError(f"{folder} does not hold the two days of this set")
    days = [_day(path) for path in paths]
    found: dict[str, Scene] = {}
    for (when, truth, pan), (other, reference, _) in (days, days[::-1]):
        around = Reference.single(reference, (when.date() - other.date()).days)
        known = np.nan_to_num(truth)
        found[f"{when.date()} from {other.date()}"] = Scene(when, around, degrade(truth), degrade(pan), known)
    return found


def _day(path: Path) -> tuple[datetime, Array, Array]:
    """Time, bands (6, SIDE, SIDE) in the MSI frame and pan (1, 2 SIDE, 2 SIDE) at the top of the atmosphere."""
    import rasterio

    level1 = path.stem.removesuffix("_SR").replace("L2SP", "L1TP")
    text = (path.parent / "mtl" / f"{level1}.json").read_text()
    facts = json.loads(text)["LANDSAT_METADATA_FILE"]
    with rasterio.open(path) as source:
        numbers = source.read().astype(np.float64)
    with rasterio.open(path.parent / f"{level1}_pan.tif") as source:
        counts = source.read(1).astype(np.float64)
    inside = slice(CORNER, CORNER + SIDE)
    slope, intercept = (np.asarray(v, np.float64)[:, None, None] for v in OLI_FROM_MSI["sentinel-2a"])
    bands = (numbers[: len(BANDS), inside, inside] * 2.75e-5 - 0.2 - intercept) / slope
    bands[:, (numbers[len(BANDS), inside, inside].astype(int) & QA_MASKED) > 0] = np.nan
    scale = facts["LEVEL1_RADIOMETRIC_RESCALING"]
    sun = np.sin(np.radians(float(facts["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"])))
    top = (float(scale["REFLECTANCE_MULT_BAND_8"]) * counts + float(scale["REFLECTANCE_ADD_BAND_8"])) / sun
    # pan begins a pixel and a half inside the bands: half-way between its pixels lie those that nest in theirs,
    # the first of them three from the bands' corner
    nested: NDArray[np.floating] = half_pixel(top[None])
    first = 2 * CORNER - 3
    cut = slice(first, first + 2 * SIDE)
    stamp = f"{facts['IMAGE_ATTRIBUTES']['DATE_ACQUIRED']}T05:00:00"
    when = datetime.fromisoformat(stamp).replace(tzinfo=UTC)
    return when, bands.astype(np.float32), nested[:, cut, cut].astype(np.float32)
