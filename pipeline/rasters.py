"""GeoTIFFs of a user's own as images of reflectance: what is in them, whether they nest, whether bands are in order."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
from rasterio.windows import Window
from scipy.optimize import linear_sum_assignment

from marstfn.bands import BANDS
from marstfn.baselines import Array, degrade
from marstfn.baselines.check import BRIGHTEST
from pipeline.errors import AssetError

log = logging.getLogger(__name__)

RESOLUTION: Mapping[str, float] = MappingProxyType(
    {"sentinel2": 10, "truth": 10, "landsat": 30, "pan": 15, "sentinel2_clear": 10, "landsat_clear": 30}
)
"""Pixel side by kind of file; only the ratios must hold."""
DARKEST = 1e-3
"""Reflectance that no scene has as its median: below it a scale was applied twice."""
GLANCE = 512
"""Side to which a file is thinned out for a first look."""
BETTER = 0.8
"""By how much, band for band, another order of bands must fit better to be taken for the true one: real pairs within
REACH days of one another stayed above 0.95, those two months apart went down to 0.7."""
REACH = 20
"""Days between Sentinel-2 and Landsat within which the order of bands can be told from them."""
LEAST_PIXELS = 200
NAMED = "name the bands in their descriptions (gdal_edit.py -d)"

_NAMES: Mapping[str, str] = MappingProxyType(
    {"blue": "blue", "green": "green", "red": "red", "nir": "nir08", "nir08": "nir08", "nir8a": "nir08"}
    | {"swir1": "swir16", "swir16": "swir16", "swir2": "swir22", "swir22": "swir22"}
)
_NUMBERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "landsat": dict(zip(("b2", "b3", "b4", "b5", "b6", "b7"), BANDS, strict=True)),
        "sentinel2": dict(zip(("b2", "b3", "b4", "b8a", "b11", "b12"), BANDS, strict=True)) | {"b8": "nir08"},
    }
)


@dataclass(frozen=True, slots=True)
class Raster:
    """A file that was looked at: what it is of, where it lies, and how its numbers become reflectance."""

    path: Path
    kind: str
    """sentinel2, truth, landsat, pan, sentinel2_clear or landsat_clear."""
    shape: tuple[int, int]
    crs: str
    """Empty where the file has no georeference."""
    left: float
    top: float
    pixel: float
    scale: float
    offset: float
    named: bool
    """Whether its band descriptions say which band is which."""

    def read(self, rows: slice, cols: slice) -> Array:
        """(bands, ny, nx) float32 reflectance of a window in pixels, NaN in all bands where one is missing; a mask's
        own values."""
        window = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        with _opened(self.path) as source:
            numbers = _numbers(self.path, source, window=window)
        values = np.ma.filled(numbers.astype(np.float64), np.nan) * self.scale + self.offset
        image: Array = values.astype(np.float32)
        image[:, ~np.isfinite(image).all(0)] = np.nan
        return image


def look(path: Path, kind: str, radiometry: tuple[float, float] | None = None) -> Raster:
    """What is in a file; reflectance = number x scale + offset by `radiometry`, else by the file's own tags.

    Raises AssetError, naming file and remedy, where it is no raster, has other bands or another order of them than its
    kind, holds nothing but nodata, or digital numbers that nobody says how to scale.
    """
    masks = kind.endswith("_clear")
    with _opened(path) as source:
        count = 1 if masks or kind == "pan" else len(BANDS)
        if source.count != count:
            what = f"{count} band" if count == 1 else f"{count} bands ({', '.join(BANDS)})"
            raise AssetError(f"{path} has {source.count} bands; {kind} needs {what}. Write those, in that order")
        place = source.transform
        if source.crs is not None and (place.b or place.d or abs(place.a + place.e) > 1e-6 * abs(place.a)):
            raise AssetError(f"{path} is turned or its pixels are not square; warp it north up (gdalwarp)")
        named = count > 1 and _in_order(path, kind, source.descriptions)
        glance = _numbers(path, source, out_shape=(count, min(GLANCE, source.height), min(GLANCE, source.width)))
        known = np.ma.filled(glance.astype(np.float64), np.nan)
        known = known[:, np.isfinite(known).all(0)]
        if not known.size:
            raise AssetError(f"{path} holds nothing but nodata; leave this date out or write the file again")
        scale, offset = (1.0, 0.0) if masks else _radiometry(path, source, radiometry, known)
        crs = "" if source.crs is None else source.crs.to_string()
        return Raster(path, kind, source.shape, crs, place.c, place.f, place.a, scale, offset, named)


def nested(fine: Raster, other: Raster) -> None:
    """Raise AssetError unless both show the same ground: sides and pixels in the ratio of their kinds, one corner."""
    ratio = RESOLUTION[other.kind] / RESOLUTION[fine.kind]
    sides = tuple(round(n * ratio) for n in other.shape)
    if sides != fine.shape:
        raise AssetError(
            f"{other.path} of {other.shape[0]} x {other.shape[1]} px does not nest in {fine.path} of "
            f"{fine.shape[0]} x {fine.shape[1]} px: {other.kind} has pixels {ratio:g} times as large, so "
            f"{sides[0]} x {sides[1]} px would. Cut both to one extent"
        )
    if bool(fine.crs) != bool(other.crs) or fine.crs != other.crs:
        raise AssetError(
            f"{other.path} is in {other.crs or 'no projection'}, {fine.path} in {fine.crs or 'no projection'}; warp "
            "all files to one (gdalwarp -t_srs)"
        )
    if not fine.crs:
        return
    if rasterio.crs.CRS.from_string(fine.crs).is_geographic:
        raise AssetError(
            f"{fine.path} is in degrees ({fine.crs}): pixels of 10, 15 and 30 m are meant. Warp all files to the UTM "
            "zone (gdalwarp -t_srs EPSG:326xx -tr 10 10)"
        )
    if abs(other.pixel - ratio * fine.pixel) > 1e-3 * fine.pixel:
        raise AssetError(
            f"{other.path} has pixels of {other.pixel:g}, {fine.path} of {fine.pixel:g}: not {ratio:g} to 1. Resample "
            "to 10, 15 and 30 m (gdalwarp -tr)"
        )
    off = other.left - fine.left, other.top - fine.top
    if max(abs(v) for v in off) > 0.01 * fine.pixel:
        raise AssetError(
            f"the corner of {other.path} lies {off[0]:g}, {off[1]:g} beside that of {fine.path}; pixels do not nest. "
            "Cut both to one extent whose edges are multiples of 30 m (gdalwarp -te)"
        )


def checked_order(pairs: Sequence[tuple[Array, Array]], where: str, otherwise: str = NAMED) -> None:
    """Raise AssetError where Sentinel-2 (6,H,W) and Landsat (6,H/3,W/3) of near days say that another order of bands is
    clearly the true one.

    The root mean square difference of every band with every other, in logarithms so that dark bands count as bright
    ones do, is least for the true pairing; a permutation is believed where it is BETTER times smaller over the bands it
    moves. Two bands that are swapped in both sensors cannot be told. `otherwise`: the remedy where bands are in order.
    """
    costs = [cost for cost in (_costs(*pair) for pair in pairs) if cost is not None]
    if not costs:
        log.warning("%s: no two near days are clear enough to tell whether bands are in order", where)
        return
    cost = np.sum(costs, axis=0) / len(costs)
    rows, found = linear_sum_assignment(cost)
    moved = found != rows
    if not moved.any() or np.exp((cost[rows, found] - np.diag(cost))[moved].mean()) > BETTER:
        return
    told = ", ".join(f"{BANDS[k]} looks like {BANDS[f]}" for k, f in zip(rows[moved], found[moved], strict=True))
    raise AssetError(
        f"{where}: the bands of Sentinel-2 and Landsat are not in one order ({told}, Sentinel-2 against Landsat). "
        f"Write both as {', '.join(BANDS)}; if it is the land that has changed so much, {otherwise}"
    )


def _costs(fine: Array, coarse: Array) -> Array | None:
    """(6,6) logarithm of the difference between Sentinel-2's band (row) and Landsat's (column)."""
    own = degrade(fine)
    known = np.isfinite(own).all(0) & np.isfinite(coarse).all(0)
    if known.sum() < LEAST_PIXELS:
        return None
    a, b = own[:, known].astype(np.float64), coarse[:, known].astype(np.float64)
    apart = np.sqrt(np.square(a[:, None] - b[None]).mean(2))
    out: Array = np.log(np.maximum(apart, 1e-6)).astype(np.float32)
    return out


def _in_order(path: Path, kind: str, descriptions: Sequence[str | None]) -> bool:
    """Whether all bands are named; raises AssetError where they are named in another order."""
    numbers = _NUMBERS["landsat" if kind == "landsat" else "sentinel2"]
    found = [_band(text or "", numbers) for text in descriptions]
    if None in found or len(set(found)) < len(BANDS):
        return False
    if tuple(found) != BANDS:
        raise AssetError(
            f"{path} holds {', '.join(str(f) for f in found)} by its band descriptions; wanted is the order "
            f"{', '.join(BANDS)} (gdal_translate -b)"
        )
    return True


def _band(text: str, numbers: Mapping[str, str]) -> str | None:
    for word in re.findall(r"[a-z]+\d*[a-z]?", text.lower()):
        number = re.sub(r"^b0", "b", word)
        if word in _NAMES or number in numbers:
            return _NAMES.get(word) or numbers[number]
    return None


def _radiometry(
    path: Path, source: rasterio.DatasetReader, given: tuple[float, float] | None, known: np.ndarray
) -> tuple[float, float]:
    """Scale and offset: those given, else of the file's own tags, else none where it holds reflectance already."""
    if given is not None:
        scale, offset = given
    elif set(source.scales) != {1.0} or set(source.offsets) != {0.0}:
        if len(set(source.scales)) > 1 or len(set(source.offsets)) > 1:
            raise AssetError(f"{path} scales its bands differently; write them with one scale and offset")
        scale, offset = source.scales[0], source.offsets[0]
    else:
        tags = {name.lower(): value for name, value in source.tags().items()}
        try:
            scale = float(tags.get("scale_factor", tags.get("scale", 1)))
            offset = float(tags.get("add_offset", tags.get("offset", 0)))
        except ValueError as error:
            raise AssetError(f"{path} has a tag for its scale that is no number ({error}); mend it") from error
    middle = float(np.median(known)) * scale + offset
    if abs(middle) > BRIGHTEST:
        raise AssetError(
            f"{path} has a median of {middle:.0f}: digital numbers, not reflectance of 0 to 1, and its tags do not "
            "say how to scale them. Set scale and offset on the file (gdal_edit.py -scale 2.75e-5 -offset -0.2 for "
            "Landsat Collection 2; 1e-4 and -0.1 for Sentinel-2 since 2022, 1e-4 and 0 before)"
        )
    if abs(middle) < DARKEST:
        raise AssetError(
            f"{path} has a median of {middle:.1e} after its scale of {scale:g} and offset of {offset:g}: no land is as "
            "dark. Set the scale and offset on the file that bring its numbers to reflectance of 0 to 1"
        )
    return scale, offset


def _numbers(path: Path, source: rasterio.DatasetReader, **how: Any) -> Any:
    try:
        return source.read(masked=True, **how)
    except (rasterio.errors.RasterioError, OSError) as error:
        raise AssetError(f"{path} cannot be read to its end ({error}); it may be cut short: copy it again") from error


def _opened(path: Path) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        # files without georeference are allowed: their shapes must nest
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            return rasterio.open(path)
        except (rasterio.errors.RasterioError, OSError) as error:
            raise AssetError(f"{path} cannot be read as a raster ({error}); write it again as a GeoTIFF") from error
