"""Where the pixels of an asset lie, and cloud-optimised GeoTIFFs written window by window."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS, wh_
from odc.geo.geobox import GeoBox
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from pipeline.demo.search import Json

SMALL_BLOCK, BLOCK = 128, 512
"""Side of a file's internal blocks: small ones up to LARGE pixels, so that a small scene is read in parts too."""
LARGE = 2048


@dataclass(frozen=True, slots=True)
class Raster:
    """Pixels of one asset: upper-left corner (left, top) and pixel side in metres of UTM `epsg`, (rows, columns)."""

    epsg: int
    left: float
    top: float
    resolution: int
    shape: tuple[int, int]

    @classmethod
    def covering(
        cls, epsg: int, bounds: tuple[float, float, float, float], resolution: int, modulo: float = 0.0, step: int = 0
    ) -> Raster:
        """Smallest raster over `bounds` (left, bottom, right, top in metres) with corners at `modulo` modulo `step`
        metres (default: the resolution)."""
        step = step or resolution
        left, top = (_snap(edge, modulo, step, up) for edge, up in ((bounds[0], False), (bounds[3], True)))
        right, bottom = (_snap(edge, modulo, step, up) for edge, up in ((bounds[2], True), (bounds[1], False)))
        return cls(
            epsg, left, top, resolution, (round((top - bottom) / resolution), round((right - left) / resolution))
        )

    @property
    def transform(self) -> list[float]:
        """The six numbers of proj:transform."""
        return [float(self.resolution), 0.0, float(self.left), 0.0, -float(self.resolution), float(self.top)]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """left, bottom, right, top in metres."""
        rows, columns = self.shape
        return self.left, self.top - rows * self.resolution, self.left + columns * self.resolution, self.top

    @property
    def footprint(self) -> tuple[Json, list[float]]:
        """Outline as GeoJSON geometry and bbox in degrees, to 1e-7."""
        rows, columns = self.shape
        box = GeoBox(wh_(columns, rows), Affine(*self.transform), CRS(f"EPSG:{self.epsg}"))
        outline = box.extent.to_crs("EPSG:4326")
        ring = [[round(x, 7), round(y, 7)] for x, y in outline.exterior.coords]
        xs, ys = [p[0] for p in ring], [p[1] for p in ring]
        return {"type": "Polygon", "coordinates": [ring]}, [min(xs), min(ys), max(xs), max(ys)]


def _snap(edge: float, modulo: float, step: int, up: bool) -> float:
    cells = (edge - modulo) / step
    # a corner within 1 mm of the lattice is on it
    return (math.ceil(cells - 1e-3 / step) if up else math.floor(cells + 1e-3 / step)) * step + modulo


@dataclass(frozen=True, slots=True)
class File:
    """One file to write: its raster, type, nodata (None: every value is data), and whether overviews may average."""

    path: Path
    raster: Raster
    dtype: str
    nodata: int | None
    continuous: bool = True


class Writers:
    """Open files of one acquisition by asset name; `put` fills a window, nothing is visible before all are whole."""

    def __init__(self, open_: Mapping[str, DatasetWriter]) -> None:
        self._open = open_

    def put(self, asset: str, row: int, column: int, values: NDArray[Any]) -> None:
        """Write `values` (ny, nx) with its first pixel at (row, column) of the asset."""
        target = self._open[asset]
        target.write(values, 1, window=Window(column, row, values.shape[1], values.shape[0]))


@contextmanager
def writing(files: Mapping[str, File]) -> Iterator[Writers]:
    """Write cloud-optimised GeoTIFFs window by window, memory bounded: first a plain tiled file beside the target,
    then its optimised copy, which takes the name when it is whole."""
    drafts = {asset: file.path.with_name(f"{file.path.name}.draft") for asset, file in files.items()}
    try:
        with rasterio.Env(), ExitStack() as stack:
            yield Writers({a: stack.enter_context(_draft(drafts[a], file)) for a, file in files.items()})
        for asset, file in files.items():
            _optimise(drafts[asset], file)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def write(file: File, values: NDArray[Any]) -> None:
    """Write one whole cloud-optimised GeoTIFF from an array (ny, nx)."""
    with writing({"": file}) as writers:
        writers.put("", 0, 0, values)


def _draft(path: Path, file: File) -> DatasetWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    side = _block(file)
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=file.raster.shape[0],
        width=file.raster.shape[1],
        count=1,
        dtype=file.dtype,
        nodata=file.nodata,
        crs=f"EPSG:{file.raster.epsg}",
        transform=Affine(*file.raster.transform),
        tiled=True,
        blockxsize=side,
        blockysize=side,
        bigtiff="if_safer",
    )


def _optimise(draft: Path, file: File) -> None:
    whole = file.path.with_name(f"{file.path.name}.part")
    with rasterio.Env():
        rasterio.shutil.copy(
            draft,
            whole,
            driver="COG",
            blocksize=_block(file),
            compress="deflate",
            level=6,
            predictor="yes",
            overviews="auto" if max(file.raster.shape) > BLOCK else "none",
            overview_resampling="average" if file.continuous else "nearest",
            bigtiff="if_safer",
        )
    whole.replace(file.path)


def _block(file: File) -> int:
    return BLOCK if max(file.raster.shape) > LARGE else SMALL_BLOCK


def write_json(path: Path, document: Json) -> None:
    """Write a JSON document whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(document, indent=1))
    part.replace(path)


def fill(file: File) -> np.ndarray[Any, Any]:
    """An array (ny, nx) of the file's nodata, zeros where it has none."""
    return np.full(file.raster.shape, file.nodata or 0, file.dtype)
