"""The simulated year as a source of products: any window of any asset of any pass, and the truth behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache

import numpy as np

from marstfn.bands import BANDS, PAN
from marstfn.simulate import spectra
from marstfn.simulate.hashing import F32, key, mixed, normal
from marstfn.simulate.landscape import Window, land, surface
from marstfn.simulate.optics import CELL, REACH, averaged, doubled, look
from marstfn.simulate.products import LANDSAT, SENTINEL, AssetSpec, Numbers, on_lattice, qa_pixel, scl, stored
from marstfn.simulate.style import Style
from marstfn.simulate.weather import Sky, sky, through
from marstfn.simulate.year import Acquisition, Conditions, acquisitions

PIECE = 3840
"""Longest side in metres of what is rendered at once; larger windows are made piece by piece."""

SNAP = 60
"""Pieces reach out to multiples of this, so that all assets of a pass share one piece of land."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Pixels of one grid: upper-left corner in metres, (rows, columns), pixel side, and their place in a larger one."""

    x0: float
    y0: float
    shape: tuple[int, int]
    resolution: int
    row: int = 0
    column: int = 0

    @property
    def roi(self) -> tuple[slice, slice]:
        """(y, x) slices of this frame in the window it is a piece of."""
        return slice(self.row, self.row + self.shape[0]), slice(self.column, self.column + self.shape[1])

    def pieces(self) -> Iterator[Frame]:
        """This frame cut into pieces of at most PIECE metres, nearly equal."""
        r = self.resolution
        for row, ny in _cuts(self.shape[0], r):
            for column, nx in _cuts(self.shape[1], r):
                yield Frame(self.x0 + column * r, self.y0 - row * r, (ny, nx), r, row, column)


@dataclass(frozen=True)
class Simulation:
    """A year of land and of satellites over an endless UTM plane, fixed by four values.

    `seed`: any integer; `year`: calendar year; `epsg`: UTM zone (326xx or 327xx), which sets the hour of the passes;
    `style`: generator parameters. Every method is a pure function: a window equals the same window of a larger one.
    Raises ValueError for another projection.
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
        on_lattice(x0, y0, 10, 0.0, shape, "the truth")
        out = np.empty((6, *shape), np.float32)
        for frame in Frame(x0, y0, shape, 10).pieces():
            window, row, column = self._ground(frame)
            top, left, (ny, nx) = round(row), round(column), frame.shape
            ground = surface(self.seed, self.style, window, _date(day))
            for b in range(6):
                out[b][frame.roi] = averaged(ground[b, top : top + 2 * ny, left : left + 2 * nx])
        return out

    def sentinel2(self, day: datetime | date, x0: float, y0: float, shape: tuple[int, int]) -> F32:
        """A cloud-free Sentinel-2A observation of `day`, float32 (6, ny, nx) on the 10 m lattice: the ceiling.

        With the sensor's PSF, 20 m bands (bilinear to 10 m) and noise; without registration or radiometric error.
        Raises ValueError when (x0, y0) are no multiples of 10.
        """
        on_lattice(x0, y0, 10, 0.0, shape, "the 10 m lattice")
        s, at = self.style, _date(day)
        out = np.empty((6, *shape), np.float32)
        for frame in Frame(x0, y0, shape, 10).pieces():
            # one 20 m pixel more on every side, so that interpolation never meets an edge
            x20, y20 = math.floor(frame.x0 / 20) * 20 - 20, math.ceil(frame.y0 / 20) * 20 + 20
            row, column = round((y20 - frame.y0) / 10), round((frame.x0 - x20) / 10)
            ny, nx = frame.shape
            wide = Frame(x20, y20, ((ny + row + 1) // 2 + 1, (nx + column + 1) // 2 + 1), 20)
            for b in range(6):
                name = key(self.seed, "ceiling", at.toordinal(), b)
                if b < 3:
                    seen = self._seen(at, b, frame, s.psf_msi10, around=wide)
                    out[b][frame.roi] = _noisy(seen, name, frame, s.noise_msi)
                else:
                    seen = doubled(_noisy(self._seen(at, b, wide, s.psf_msi20), name, wide, s.noise_msi))
                    out[b][frame.roi] = seen[row : row + ny, column : column + nx]
        return out

    def render(self, acq: Acquisition, asset: str, x0: float, y0: float, shape: tuple[int, int]) -> Numbers:
        """Digital numbers (ny, nx) of an asset as its product stores them, dtype and nodata as in `assets`.

        (x0, y0): upper-left corner in metres on the asset's own lattice. Raises ValueError off it, or when the pass
        has no such asset.
        """
        specs = LANDSAT if acq.landsat else SENTINEL
        if asset not in specs:
            raise ValueError(f"{acq.sensor} of {acq.time:%Y-%m-%d} has no asset {asset!r}; it has {', '.join(specs)}")
        spec = specs[asset]
        on_lattice(x0, y0, spec.resolution, spec.corner_modulo, shape, f"{acq.sensor} {asset}")
        out = np.empty(shape, spec.dtype)
        for frame in Frame(x0, y0, shape, spec.resolution).pieces():
            out[frame.roi] = self._numbers(acq, asset, spec, frame)
        return out

    def sky(self, acq: Acquisition, x0: float, y0: float, shape: tuple[int, int], resolution: int) -> Sky:
        """The sky of a pass over pixels of `resolution` metres from corner (x0, y0): true cloud and what masks say."""
        return _sky(acq, self.style, Frame(x0, y0, shape, resolution))

    def _numbers(self, acq: Acquisition, asset: str, spec: AssetSpec, frame: Frame) -> Numbers:
        c, s, at = acq.conditions, self.style, _date(acq.time)
        if asset == "qa_radsat":
            return np.zeros(frame.shape, np.uint16)
        above = _sky(acq, s, frame)
        name = key(c.seed, "noise", asset)
        if asset == "qa_pixel":
            bands = _oli(self, acq, frame)
            numbers = qa_pixel(above, bands[1], bands[2], bands[3], bands[4], c.kind == "cirrus")
        elif asset == "scl":
            green, red, nir, swir = (self._seen(at, b, frame, s.psf_msi20, c) for b in (1, 2, 3, 4))
            numbers = scl(above, green, red, nir, swir, c.kind == "cirrus")
        elif asset == PAN:
            seen = np.zeros(frame.shape, np.float32)
            for b in range(3):
                band = spectra.band_as_seen(acq.sensor, b, self._seen(at, b, frame, s.psf_pan, c))
                seen += spectra.PAN_WEIGHTS[b] * through(above, b, band)
            top = np.float32(c.pan_path) + np.float32(c.pan_transmission) * seen
            slant = np.float32(math.sin(math.radians(acq.sun_elevation)))
            numbers = stored(_noisy(top, name, frame, s.noise_pan) * slant, spec)
        else:
            b = BANDS.index(asset)
            if acq.landsat:
                seen, noise = _oli(self, acq, frame)[b], s.noise_oli
            else:
                sigma, noise = s.psf_msi10 if spec.resolution == 10 else s.psf_msi20, s.noise_msi
                seen = spectra.band_as_seen(acq.sensor, b, self._seen(at, b, frame, sigma, c))
            seen = through(above, b, seen) * np.float32(c.gain[b]) + np.float32(c.offset[b])
            numbers = stored(_noisy(seen, name, frame, noise), spec)
        return np.where(above.missing, np.uint16(spec.nodata or 0), numbers)

    def _seen(
        self,
        day: date,
        band: int,
        frame: Frame,
        sigma: float,
        conditions: Conditions | None = None,
        around: Frame | None = None,
    ) -> F32:
        """Reflectance (ny, nx) of one band at the Sentinel-2A band-pass through a PSF of `sigma` metres.

        Straight down, or as a pass sees it: displaced, and brighter or darker with the angle of view. `around`: a
        frame that holds this one and whose land is to be shared.
        """
        window, row, column = self._ground(around or frame)
        if around is not None:
            row, column = row + (around.y0 - frame.y0) / CELL, column + (frame.x0 - around.x0) / CELL
        ground = surface(self.seed, self.style, window, day)[band]
        shift = (0.0, 0.0)
        if conditions is not None:
            shift = (conditions.shift_x, conditions.shift_y)
            tilt = np.float32(self.style.structure * conditions.view)
            ground = ground * (np.float32(1) + tilt * land(self.seed, self.style, window).facing)
        # pixel centres of all four grids lie on edges of the 5 m cells
        half = frame.resolution / CELL / 2
        return look(ground, round(row + half), round(column + half), round(2 * half), frame.shape, sigma, shift)

    def _ground(self, frame: Frame) -> tuple[Window, float, float]:
        """The lattice window that serves the pixels of `frame`, and the frame's corner in it (row, column)."""
        s = self.style
        widest = max(s.psf_msi10, s.psf_msi20, s.psf_oli, s.psf_pan)
        # 4.25 is more than the largest normal deviate that hashing gives
        margin = REACH * widest + 4.25 * max(s.shift_oli, s.shift_msi) + 2 * CELL
        left = math.floor((frame.x0 - margin) / SNAP) * SNAP
        right = math.ceil((frame.x0 + frame.shape[1] * frame.resolution + margin) / SNAP) * SNAP
        top = math.ceil((frame.y0 + margin) / SNAP) * SNAP
        bottom = math.floor((frame.y0 - frame.shape[0] * frame.resolution - margin) / SNAP) * SNAP
        cells = [round(edge / CELL) for edge in (left, top, top - bottom, right - left)]
        return Window(*cells), (top - frame.y0) / CELL, (frame.x0 - left) / CELL


@lru_cache(maxsize=8)
def _sky(acq: Acquisition, style: Style, frame: Frame) -> Sky:
    x = frame.x0 + (np.arange(frame.shape[1]) + 0.5) * frame.resolution
    y = frame.y0 - (np.arange(frame.shape[0]) + 0.5) * frame.resolution
    return sky(acq, style, np.asarray(x, np.float64), np.asarray(y, np.float64))


@lru_cache(maxsize=4)
def _oli(simulation: Simulation, acq: Acquisition, frame: Frame) -> F32:
    s = simulation.style
    seen = [simulation._seen(_date(acq.time), b, frame, s.psf_oli, acq.conditions) for b in range(6)]
    return spectra.oli(np.stack(seen), s.greenness)


def _noisy(seen: F32, name: int, frame: Frame, sd: float) -> F32:
    rows = math.floor(-frame.y0 / frame.resolution) + np.arange(frame.shape[0])
    columns = math.floor(frame.x0 / frame.resolution) + np.arange(frame.shape[1])
    deviates = normal(mixed(name, rows[:, None], columns[None, :]))
    # shot noise grows with light
    return np.asarray(seen + np.float32(sd) * (np.float32(0.7) + np.float32(1.2) * seen) * deviates)


def _cuts(length: int, resolution: int) -> list[tuple[int, int]]:
    pieces = math.ceil(length * resolution / PIECE)
    cell = SNAP // resolution
    step = math.ceil(length / pieces / cell) * cell
    return [(at, min(step, length - at)) for at in range(0, length, step)]


def _date(day: datetime | date) -> date:
    if isinstance(day, datetime):
        return (day.astimezone(UTC) if day.tzinfo else day).date()
    return day
