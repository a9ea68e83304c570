"""Places worth a curve: even ground whose year runs in a way of its own."""

from __future__ import annotations

import numpy as np
from odc.geo.geobox import GeoBox
from odc.geo.geom import point
from scipy.ndimage import uniform_filter

from pipeline.drawing import Floats


def lon_lat(geobox: GeoBox, row: int, col: int) -> tuple[float, float]:
    """Longitude and latitude in degrees WGS 84 of the middle of a pixel of `geobox`."""
    x, y = geobox.pix2wld(col + 0.5, row + 0.5)
    lon, lat = point(x, y, geobox.crs).to_crs("EPSG:4326").coords[0]
    return float(lon), float(lat)


def pick(index: Floats) -> list[tuple[str, int, int]]:
    """Up to 4 (name, row, col) in NDVI (dates, ny, nx), inside even ground, named by how the year runs there."""
    known = np.isfinite(index)
    enough = known.sum(axis=0) >= max(3, 0.7 * known.sum(axis=0).max())
    values = np.where(known, index, 0)
    mean = values.sum(axis=0) / np.maximum(1, known.sum(axis=0))
    swing = np.sqrt((np.where(known, index - mean, 0) ** 2).sum(axis=0) / np.maximum(1, known.sum(axis=0)))
    weight = np.clip(values - np.median(mean), 0, None)
    position = np.arange(len(index))[:, None, None]
    peak = (weight * position).sum(axis=0) / np.maximum(1e-6, weight.sum(axis=0))
    mixed = _roughness(mean) + _roughness(swing)
    edge = np.ones(mean.shape, bool)
    edge[8:-8, 8:-8] = False
    free = enough & ~edge
    scores = {
        "largest seasonal swing": swing,
        "greenest over the year": mean - swing,
        "least green over the year": -mean - swing,
        "latest season": np.where(swing >= np.percentile(swing, 60), peak / len(index), -1.0),
    }
    out = []
    for name, score in scores.items():
        if not free.any():
            break
        row, col = np.unravel_index(int(np.argmax(np.where(free, score - 4 * mixed, -np.inf))), mean.shape)
        out.append((name, int(row), int(col)))
        free[max(0, row - 12) : row + 13, max(0, col - 12) : col + 13] = False  # apart, so that they are four places
    return out


def _roughness(plane: Floats) -> Floats:
    """Standard deviation in the 5 x 5 px around each pixel."""
    rough: Floats = np.sqrt(np.clip(uniform_filter(plane**2, 5) - uniform_filter(plane, 5) ** 2, 0, None))
    return rough
