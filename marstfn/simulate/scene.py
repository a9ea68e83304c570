"""The simulated year as a source of products: any window of any asset of any pass, and the truth behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, PAN
from marstfn.simulate import spectra
from marstfn.simulate.hashing import F32, key, mixed, normal
from marstfn.simulate.landscape import Window, surface
from marstfn.simulate.noise import F64
from marstfn.simulate.optics import CELL, REACH, averaged, look
from marstfn.simulate.style import Style
from marstfn.simulate.weather import Sky, sky, through
from marstfn.simulate.year import Acquisition, acquisitions

PIECE = 3840
"""Longest side in metres of what is rendered at once; larger windows are made piece by piece."""

SNAP = 60
"""Pieces reach out to multiples of this, so that all assets of a pass share one piece of land."""


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
"""Landsat 8 Collection 2: Level-2 reflectance and quality, and the Level-1 pan band (divide by sin of sun elevation)."""

SENTINEL = {
    **{band: AssetSpec(10, "uint16", 0, 1e-4, -0.1, 0.0) for band in BANDS[:3]},
    **{band: AssetSpec(20, "uint16", 0, 1e-4, -0.1, 0.0) for band in BANDS[3:]},
    "scl": AssetSpec(20, "uint8", 0, 1.0, 0.0, 0.0),
}
"""Sentinel-2 Level-2A of processing baseline 04.00 or later."""

QA_CLEAR, QA_WATER, QA_CLOUD, QA_RIM, QA_SHADOW, QA_SNOW, QA_CIRRUS = (
    21824,
    21952,
    22280,
    21762,
    23888,
    30048,
    54596,
)
"""QA_PIXEL words of Collection 2, confidence bits included: clear land and water, cloud, dilated cloud, shadow, snow,
cirrus."""


@dataclass(frozen=True)
class Simulation:
    """A year of land and of satellites over an endless UTM plane, fixed by four values.

    `seed`: any integer; `year`: calendar year; `epsg`: UTM zone (326xx or 327xx), which sets the hour of the passes;
    `style`: generator parameters. Every method is a pure function: a window equals the same window of a larger one.
    """

    seed: int
    year: int
    epsg: int = 32650
    style: Style = field(default_factory=Style.default)

    def __post_init__(self) -> None:
        if not (32601 <= self.epsg <= 32660 or 32701 <= self.epsg <= 32760):
            raise ValueError(f"EPSG:{self.epsg} is no UTM zone, so passes have no hour; use 326xx or 327xx")

    def acquisitions(self) -> tuple[Acquisition, ...]:
        """All passes of the year in order of time: at least 22 of Landsat 8 and 73 of Sentinel-2."""
        return acquisitions(self.seed, self.year, self.epsg, self.style)

    def assets(self, acq: Acquisition) -> dict[str, AssetSpec]:
        """Asset names of a pass and how each is stored."""
        return dict(LANDSAT if acq.landsat else SENTINEL)

    def truth(self, day: datetime | date, x0: float, y0: float, shape: tuple[int, int]) -> F32:
        """Noise-free Sentinel-2A band-pass reflectance averaged over 10 m pixels, float32 (6, ny, nx) in 0..1.

        (x0, y0): upper-left corner in metres, multiples of 10. Raises ValueError off that lattice.
        """
        _on_lattice(x0, y0, 10, 0.0, shape, "truth")
        out = np.empty((6, *shape), np.float32)
        for part in _parts(x0, y0, shape, 10):
            window, top, left = self._ground(part.x0, part.y0, part.shape, 10)
            ground = surface(self.seed, self.style, window, _date(day))
            ny, nx = part.shape
            for b in range(6):
                out[b][part.roi] = averaged(ground[b, top : top + 2 * ny, left : left + 2 * nx])
        return out

    def sentinel2(self, day: datetime | date, x0: float, y0: float, shape: tuple[int, int]) -> F32:
        """A cloud-free Sentinel-2A observation of `day`, float32 (6, ny, nx) on the 10 m lattice: the best one can hope for.

        With the sensor's PSF, 20 m bands (bilinear to 10 m) and noise; without registration or radiometric error.
        Raises ValueError when (x0, y0) are no multiples of 10.
        """
        _on_lattice(x0, y0, 10, 0.0, shape, "sentinel2")
        name = f"ceiling {_date(day).toordinal()}"
        out = np.empty((6, *shape), np.float32)
        for part in _parts(x0, y0, shape, 10):
            for b in range(3):
                seen = self._seen(_date(day), b, part.x0, part.y0, part.shape, 10, self.style.psf_msi10, (0.0, 0.0))
                out[b][part.roi] = self._noisy(
                    seen, key(self.seed, name, b), part.x0, part.y0, 10, self.style.noise_msi
                )
            x20, y20 = math.floor(part.x0 / 20) * 20 - 20, math.ceil(part.y0 / 20) * 20 + 20
            ny = math.ceil((y20 - part.y0) / 20 + part.shape[0] / 2) + 1
            nx = math.ceil((part.x0 - x20) / 20 + part.shape[1] / 2) + 1
            row, column = round((y20 - part.y0) / 10), round((part.x0 - x20) / 10)
            for b in range(3, 6):
                seen = self._seen(_date(day), b, x20, y20, (ny, nx), 20, self.style.psf_msi20, (0.0, 0.0))
                seen = self._noisy(seen, key(self.seed, name, b), x20, y20, 20, self.style.noise_msi)
                out[b][part.roi] = _doubled(seen)[row : row + part.shape[0], column : column + part.shape[1]]
        return out

    def render(
        self, acq: Acquisition, asset: str, x0: float, y0: float, shape: tuple[int, int]
    ) -> NDArray[np.uint16] | NDArray[np.uint8]:
        """Digital numbers (ny, nx) of an asset as its product stores them, dtype and nodata as in `assets`.

        (x0, y0): upper-left corner in metres on the asset's own lattice. Raises ValueError off it, or when the pass
        has no such asset.
        """
        specs = LANDSAT if acq.landsat else SENTINEL
        if asset not in specs:
            raise ValueError(f"{acq.sensor} of {acq.time:%Y-%m-%d} has no asset {asset!r}; it has {', '.join(specs)}")
        spec = specs[asset]
        _on_lattice(x0, y0, spec.resolution, spec.corner_modulo, shape, f"{acq.sensor} {asset}")
        out = np.empty(shape, spec.dtype)
        for part in _parts(x0, y0, shape, spec.resolution):
            out[part.roi] = self._numbers(acq, asset, spec, part)
        return out

    def sky(self, acq: Acquisition, x0: float, y0: float, shape: tuple[int, int], resolution: int) -> Sky:
        """The sky of a pass over pixels of `resolution` metres from corner (x0, y0): true cloud and what masks say."""
        return _sky(acq, self.style, x0, y0, shape, resolution)

    def _numbers(self, acq: Acquisition, asset: str, spec: AssetSpec, part: _Part) -> NDArray[np.uint16]:
        above = _sky(acq, self.style, part.x0, part.y0, part.shape, spec.resolution)
        if asset == "qa_radsat":
            return np.zeros(part.shape, np.uint16)
        if asset in ("qa_pixel", "scl"):
            numbers = self._classes(acq, above, part)
        elif asset == PAN:
            numbers = self._pan(acq, above, part)
        else:
            b = BANDS.index(asset)
            c = acq.conditions
            if acq.landsat:
                seen = _oli(self, acq, part.x0, part.y0, part.shape)[b]
                noise = self.style.noise_oli
            else:
                sigma = self.style.psf_msi10 if spec.resolution == 10 else self.style.psf_msi20
                shift = (c.shift_x, c.shift_y)
                seen = self._seen(_date(acq.time), b, part.x0, part.y0, part.shape, spec.resolution, sigma, shift)
                seen = spectra.band_as_seen(acq.sensor, b, seen)
                noise = self.style.noise_msi
            seen = through(above, b, seen) * np.float32(c.gain[b]) + np.float32(c.offset[b])
            seen = self._noisy(seen, key(c.seed, "noise", asset), part.x0, part.y0, spec.resolution, noise)
            numbers = _stored(seen, spec)
        return np.where(above.missing, np.uint16(spec.nodata or 0), numbers)

    def _pan(self, acq: Acquisition, above: Sky, part: _Part) -> NDArray[np.uint16]:
        c = acq.conditions
        total = np.zeros(part.shape, np.float32)
        for b in range(3):
            shift = (c.shift_x, c.shift_y)
            seen = self._seen(_date(acq.time), b, part.x0, part.y0, part.shape, 15, self.style.psf_pan, shift)
            total += spectra.PAN_WEIGHTS[b] * through(above, b, spectra.band_as_seen("landsat-8", b, seen))
        top = np.float32(c.pan_path) + np.float32(c.pan_transmission) * total
        top = self._noisy(top, key(c.seed, "noise", PAN), part.x0, part.y0, 15, self.style.noise_pan)
        return _stored(top * np.float32(math.sin(math.radians(acq.sun_elevation))), LANDSAT[PAN])

    def _classes(self, acq: Acquisition, above: Sky, part: _Part) -> NDArray[np.uint16]:
        if acq.landsat:
            bands = _oli(self, acq, part.x0, part.y0, part.shape)
            green, red, nir, swir = bands[1], bands[2], bands[3], bands[4]
        else:
            c = acq.conditions
            green, red, nir, swir = (
                self._seen(
                    _date(acq.time), b, part.x0, part.y0, part.shape, 20, self.style.psf_msi20, (c.shift_x, c.shift_y)
                )
                for b in (1, 2, 3, 4)
            )
        vegetated = (nir - red) > np.float32(0.4) * (nir + red)
        water = (green > nir) & (nir < np.float32(0.11))
        snow = (green > np.float32(0.4)) & ((green - swir) > np.float32(0.4) * (green + swir))
        cirrus = acq.conditions.kind == "cirrus"
        if acq.landsat:
            words = np.where(water, QA_WATER, QA_CLEAR)
            words = np.where(snow, QA_SNOW, words)
            words = np.where(above.says_shadow, QA_SHADOW, words)
            words = np.where(above.near_cloud, QA_RIM, words)
            return np.where(above.says_cloud, QA_CIRRUS if cirrus else QA_CLOUD, words).astype(np.uint16)
        dark = (nir < np.float32(0.10)) & ~water
        classes = np.where(vegetated, 4, 5)
        classes = np.where(dark, 2, classes)
        classes = np.where(water, 6, classes)
        classes = np.where(snow, 11, classes)
        classes = np.where(above.says_shadow, 3, classes)
        classes = np.where(above.near_cloud & (above.cloud > 0), 7, classes)
        sure = np.where(above.cloud > np.float32(0.5), 9, 8)
        return np.where(above.says_cloud, 10 if cirrus else sure, classes).astype(np.uint16)

    def _seen(
        self,
        day: date,
        band: int,
        x0: float,
        y0: float,
        shape: tuple[int, int],
        resolution: int,
        sigma: float,
        shift: tuple[float, float],
    ) -> F32:
        """Reflectance (ny, nx) of one band at the Sentinel-2A band-pass, through a sensor's PSF."""
        window, top, left = self._ground(x0, y0, shape, resolution)
        ground = surface(self.seed, self.style, window, day)
        # centres of all four grids lie on edges of the 5 m cells
        centre = resolution / CELL / 2
        step = round(resolution / CELL)
        return look(ground[band], round(top + centre), round(left + centre), step, shape, sigma, shift)

    def _ground(self, x0: float, y0: float, shape: tuple[int, int], resolution: int) -> tuple[Window, float, float]:
        """The lattice window that serves pixels from corner (x0, y0), and that corner's row and column in it."""
        s = self.style
        widest = max(s.psf_msi10, s.psf_msi20, s.psf_oli, s.psf_pan)
        # 4.25 is more than the largest normal deviate that hashing gives
        margin = REACH * widest + 4.25 * max(s.shift_oli, s.shift_msi) + 40
        left = math.floor((x0 - margin) / SNAP) * SNAP
        right = math.ceil((x0 + shape[1] * resolution + margin) / SNAP) * SNAP
        top = math.ceil((y0 + margin) / SNAP) * SNAP
        bottom = math.floor((y0 - shape[0] * resolution - margin) / SNAP) * SNAP
        window = Window(
            round(left / CELL), round(top / CELL), round((top - bottom) / CELL), round((right - left) / CELL)
        )
        row, column = (top - y0) / CELL, (x0 - left) / CELL
        if resolution == 10:
            return window, round(row), round(column)
        return window, row, column

    def _noisy(self, seen: F32, name: int, x0: float, y0: float, resolution: int, sd: float) -> F32:
        ny, nx = seen.shape
        rows = math.floor(-y0 / resolution) + np.arange(ny)
        columns = math.floor(x0 / resolution) + np.arange(nx)
        deviates = normal(mixed(name, rows[:, None], columns[None, :]))
        return np.asarray(seen + np.float32(sd) * (np.float32(0.7) + np.float32(1.2) * seen) * deviates)


@dataclass(frozen=True, slots=True)
class _Part:
    x0: float
    y0: float
    shape: tuple[int, int]
    roi: tuple[slice, slice]


def _parts(x0: float, y0: float, shape: tuple[int, int], resolution: int) -> Iterator[_Part]:
    rows, columns = _cuts(shape[0], resolution), _cuts(shape[1], resolution)
    for r0, r1 in rows:
        for c0, c1 in columns:
            yield _Part(x0 + c0 * resolution, y0 - r0 * resolution, (r1 - r0, c1 - c0), (slice(r0, r1), slice(c0, c1)))


def _cuts(length: int, resolution: int) -> list[tuple[int, int]]:
    pieces = math.ceil(length * resolution / PIECE)
    cell = SNAP // resolution
    step = math.ceil(length / pieces / cell) * cell
    return [(at, min(at + step, length)) for at in range(0, length, step)]


def _on_lattice(x0: float, y0: float, resolution: int, modulo: float, shape: tuple[int, int], what: str) -> None:
    if min(shape) < 1:
        raise ValueError(f"window of {shape[0]} x {shape[1]} pixels of {what} is empty; ask for at least one pixel")
    if (x0 - modulo) % resolution or (y0 - modulo) % resolution:
        raise ValueError(
            f"corner ({x0}, {y0}) is not on the grid of {what}: corners lie at {modulo:g} modulo {resolution} m; "
            "a shifted window would be another image"
        )


@lru_cache(maxsize=8)
def _sky(acq: Acquisition, style: Style, x0: float, y0: float, shape: tuple[int, int], resolution: int) -> Sky:
    x: F64 = x0 + (np.arange(shape[1]) + 0.5) * resolution
    y: F64 = y0 - (np.arange(shape[0]) + 0.5) * resolution
    return sky(acq, style, x, y)


@lru_cache(maxsize=4)
def _oli(simulation: Simulation, acq: Acquisition, x0: float, y0: float, shape: tuple[int, int]) -> F32:
    c, s = acq.conditions, simulation.style
    shift = (c.shift_x, c.shift_y)
    bands = np.stack([simulation._seen(_date(acq.time), b, x0, y0, shape, 30, s.psf_oli, shift) for b in range(6)])
    return spectra.oli(bands, s.greenness)


def _stored(values: F32, spec: AssetSpec) -> NDArray[np.uint16]:
    numbers = np.rint((values - np.float32(spec.offset)) * np.float32(1 / spec.scale))
    return np.clip(numbers, 1, 65535).astype(np.uint16)


def _doubled(coarse: F32) -> F32:
    """Bilinear to half the pixel size; the outermost pixels repeat the edge."""

    def along(a: F32) -> F32:
        padded = np.concatenate([a[:1], a, a[-1:]])
        out = np.empty((2 * len(a), a.shape[1]), np.float32)
        out[0::2] = np.float32(0.25) * padded[:-2] + np.float32(0.75) * padded[1:-1]
        out[1::2] = np.float32(0.75) * padded[1:-1] + np.float32(0.25) * padded[2:]
        return out

    return np.ascontiguousarray(along(np.ascontiguousarray(along(coarse).T)).T)


def _date(day: datetime | date) -> date:
    return day.date() if isinstance(day, datetime) else day
