"""Landsat as the pipeline hands it to a method, made from 10 m reflectance: the sensor, its grid, what is left of its
errors after harmonisation, and the resampling onto the common lattice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from marstfn.bands import BANDS, COARSE, FINE, PAN_RES
from marstfn.baselines.degrade import Array

Floats = NDArray[np.floating[Any]]

MARGIN = 12
"""10 m pixels needed around a patch, on every side, to look at it: shift, PSF and the cubic kernel."""

PAN_SHARES = (0.13, 0.44, 0.43)
"""Blue, green and red in the panchromatic band (500-680 nm)."""


@dataclass(frozen=True, slots=True)
class View:
    """How one Landsat acquisition sees: `psf` Gaussian sigma in metres before the pixel's own box; `east`, `north`
    registration error in metres; `gain`, `offset` what harmonisation left, per band; `noise` reflectance; `haze` path
    reflectance in blue of a smooth unmasked veil; `pan_gain`, `pan_offset` top-of-atmosphere against surface."""

    psf: float = 0.0
    east: float = 0.0
    north: float = 0.0
    gain: tuple[float, ...] = (1.0,) * len(BANDS)
    offset: tuple[float, ...] = (0.0,) * len(BANDS)
    noise: float = 0.0
    haze: float = 0.0
    pan_gain: float = 1.0
    pan_offset: float = 0.0
    greenness: tuple[float, ...] = (0.0,) * len(BANDS)
    angle: float = 0.0
    ground: float = 100.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> View:
        """A plausible view: PSF 0-13 m, registration within 12 m, 1-3 % and 0.002-0.008 of radiometric error, haze at
        times, differences with the kind of ground and the angle of view."""
        east, north = np.clip(rng.normal(0, 4, 2), -12, 12)
        return cls(
            psf=float(rng.uniform(0, 13)),
            east=float(east),
            north=float(north),
            gain=tuple(float(g) for g in rng.normal(1, rng.uniform(0.01, 0.03), len(BANDS))),
            offset=tuple(float(o) for o in rng.normal(0, rng.uniform(0.002, 0.008), len(BANDS))),
            noise=float(rng.uniform(0.0005, 0.004)),
            haze=float(rng.uniform(0.005, 0.03)) if rng.random() < 0.15 else 0.0,
            pan_gain=float(rng.uniform(0.85, 1.0)),
            pan_offset=float(rng.uniform(0.01, 0.06)),
            greenness=tuple(float(g) for g in rng.normal(0, 0.02, len(BANDS))),
            angle=float(rng.uniform(0, 0.03)),
            ground=float(rng.uniform(30, 200)),
        )


def landsat(fine: Array, view: View, rng: np.random.Generator) -> tuple[Array, Array]:
    """(6, H, W) reflectance at 10 m, a patch with MARGIN px around it -> Landsat (6, h, w) at 30 m and pan (1, 2h, 2w)
    at 15 m of the patch alone, on the lattice's corners; H and W multiples of 6. Deterministic in `rng`."""
    height, width = fine.shape[1:]
    if (height - 2 * MARGIN) % 6 or (width - 2 * MARGIN) % 6 or min(height, width) <= 2 * MARGIN:
        raise ValueError(f"{height} x {width} px are no patch of multiples of 6 px with {MARGIN} px around it")
    # a shift to the east moves what is seen to higher columns, one to the north to lower rows
    seen = shift(fine, (0, -view.north / FINE, view.east / FINE), order=1, mode="nearest")
    if view.haze:
        veil = view.haze * (1 + 0.5 * blobs((height, width), 25, rng))
        seen = seen + veil * np.asarray((1.0, 0.75, 0.5, 0.25, 0.08, 0.04))[:, None, None]
    if view.angle:
        # one pattern for all bands, and a share of its own for each
        pattern = blobs((height, width), view.ground / FINE, rng)
        own = np.stack([blobs((height, width), view.ground / FINE, rng) for _ in range(len(fine))])
        seen = seen * (1 + view.angle * (0.8 * pattern + 0.4 * own))
    if any(view.greenness):
        seen = seen + np.asarray(view.greenness)[:, None, None] * (seen[3] - seen[2])
    sigma = view.psf / FINE
    blurred = gaussian_filter(seen, (0, sigma, sigma), mode="nearest")
    native = _boxes(blurred, COARSE)
    gain, offset = (np.asarray(v)[:, None, None] for v in (view.gain, view.offset))
    native = native * gain + offset + rng.normal(0, view.noise, native.shape)
    sharp = np.tensordot(PAN_SHARES, gaussian_filter(seen[:3], (0, sigma / 2, sigma / 2), mode="nearest"), 1)[None]
    native_pan = _boxes(sharp, PAN_RES) * view.pan_gain + view.pan_offset
    native_pan = native_pan + rng.normal(0, view.noise, native_pan.shape)
    return _lattice(native, fine.shape, COARSE), _lattice(native_pan, fine.shape, PAN_RES)


def half_pixel(native: Floats) -> Floats:
    """(b, n, m) -> (b, n-3, m-3): cubic (a = -0.5) values half-way between pixels, GDAL's for a shift by half a pixel.

    The result's first pixel is centred on the corner shared by the native pixels 1 and 2.
    """
    taps = (-1 / 16, 9 / 16, 9 / 16, -1 / 16)
    n, m = native.shape[1:]
    rows = np.sum([t * native[:, k : n - 3 + k] for k, t in enumerate(taps)], axis=0)
    out: Floats = np.sum([t * rows[:, :, k : m - 3 + k] for k, t in enumerate(taps)], axis=0)
    return out


def bilinear20(band20: Floats) -> Floats:
    """(b, h, w) at 20 m -> (b, 2h, 2w) at 10 m on the same corners, bilinear, edges repeated."""
    bands, h, w = band20.shape
    padded = np.pad(band20, ((0, 0), (1, 1), (1, 1)), mode="edge")
    tall = np.empty((bands, 2 * h, w + 2), band20.dtype)
    tall[:, 0::2] = 0.25 * padded[:, :-2] + 0.75 * padded[:, 1:-1]
    tall[:, 1::2] = 0.75 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
    out = np.empty((bands, 2 * h, 2 * w), band20.dtype)
    out[:, :, 0::2] = 0.25 * tall[:, :, :-2] + 0.75 * tall[:, :, 1:-1]
    out[:, :, 1::2] = 0.75 * tall[:, :, 1:-1] + 0.25 * tall[:, :, 2:]
    return out


def blobs(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(H, W) smooth random field of mean 0 and deviation 1, features of about `scale` px."""
    field = gaussian_filter(rng.standard_normal(shape), scale, mode="wrap")
    out: NDArray[np.float64] = (field - field.mean()) / max(float(field.std()), 1e-12)
    return out


def _boxes(fine: Floats, side: int) -> Floats:
    """Means over boxes of `side` metres whose corners lie at side/2 mod side, as Landsat's do."""
    parts = 2 if side == COARSE else 4
    sub = np.repeat(np.repeat(fine, parts, 1), parts, 2)
    per_box = side * parts // FINE
    first = per_box // 2
    rows, cols = ((n - first) // per_box for n in sub.shape[1:])
    cut = sub[:, first : first + rows * per_box, first : first + cols * per_box]
    out: Floats = cut.reshape(len(fine), rows, per_box, cols, per_box).mean((2, 4))
    return out


def _lattice(native: Floats, fine: tuple[int, ...], resolution: int) -> Array:
    """The patch's own pixels, on the lattice, out of native ones that begin half a pixel inside the fine image."""
    margin = MARGIN * FINE // resolution
    # lattice pixel j is centred on the corner shared by the native pixels j-1 and j: it is number j-2 of the middles
    rows, cols = (slice(margin - 2, n * FINE // resolution - margin - 2) for n in fine[1:])
    return half_pixel(native)[:, rows, cols].astype(np.float32)
