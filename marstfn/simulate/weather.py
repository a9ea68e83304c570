"""The sky over a scene: clouds, their shadows, thin haze, and the masks that report them imperfectly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marstfn.simulate import spectra
from marstfn.simulate.hashing import F32, key
from marstfn.simulate.noise import F64, field, fractal, quantile
from marstfn.simulate.style import Style
from marstfn.simulate.year import Acquisition

Mask = NDArray[np.bool_]

VISIBLE = 0.15
"""Opacity from which a cloud or shadow counts as one."""

_SCALES = {
    "stratus": ((9000.0, 3500.0, 1200.0, 350.0, 110.0), (1.0, 0.7, 0.45, 0.22, 0.10)),
    "cumulus": ((5200.0, 1700.0, 650.0, 240.0, 90.0), (0.5, 0.8, 1.0, 0.5, 0.22)),
    "cirrus": ((9000.0, 4000.0, 1500.0, 500.0), (1.0, 0.8, 0.4, 0.15)),
}
_RAMP = {"stratus": 0.55, "cumulus": 0.40, "cirrus": 1.6}
"""Field units over which opacity grows by 1."""
_THICKEST = {"stratus": 1.0, "cumulus": 1.0, "cirrus": 0.5}

_OMITTED, _COMMITTED = (1.0, 0.7), (1.0, 0.7)
_THIN = 3.0
"""Misses fall on the thinnest part of the cloud: this many times the share that is missed."""


@dataclass(frozen=True, slots=True)
class Sky:
    """What stands over each pixel (ny, nx): the truth, and what the mask says of it."""

    cloud: F32
    """Opacity 0..1."""
    shadow: F32
    """Share of direct light taken, 0..1."""
    haze: F32
    texture: F32
    """Brightness of the cloud's top, around 1."""
    cloudy: Mask
    """True cloud (opacity above VISIBLE)."""
    shaded: Mask
    """True shadow, not under cloud."""
    says_cloud: Mask
    says_shadow: Mask
    near_cloud: Mask
    """Reported rim of cloud (Landsat's dilated cloud)."""
    missing: Mask
    """Outside the swath."""


def sky(acq: Acquisition, style: Style, x: F64, y: F64) -> Sky:
    """The sky over columns `x` and rows `y` (pixel centres, metres) during `acq`."""
    c = acq.conditions
    shape = (len(y), len(x))
    none, no = np.zeros(shape, np.float32), np.zeros(shape, bool)
    cloud, shadow, texture, near = none, none, none + np.float32(1), no
    cloudy, shaded, misses = no, no, no
    if c.cover >= 1:
        depth = _depth(acq, x, y)
        cloud, cloudy = none + np.float32(1), ~no
        texture = texture + np.float32(0.10) * depth
    elif c.cover > 0:
        edge = np.float32(quantile(_SCALES[c.kind][1], 1 - c.cover))
        depth = _depth(acq, x, y)
        cloud, cloudy = _opacity(depth - edge, c.kind), depth > edge
        texture = texture + np.float32(0.10) * depth
        near = (depth > edge - np.float32(0.25)) & ~cloudy
        reach = min(c.cloud_height / math.tan(math.radians(max(acq.sun_elevation, 8.0))), 12000.0)
        east = round(reach * math.sin(math.radians(acq.sun_azimuth)))
        north = round(reach * math.cos(math.radians(acq.sun_azimuth)))
        # what shades a place stands toward the sun from it
        cast = _depth(acq, x + east, y + north) - edge
        shadow = _opacity(cast, c.kind) * (np.float32(1) - cloud)
        shaded = (cast > 0) & ~cloudy
        thin = min(_THIN * style.omission, 1.0)
        weak = depth < np.float32(quantile(_SCALES[c.kind][1], 1 - c.cover * (1 - thin)))
        share = style.omission / thin if thin else 0.0
        misses = weak & _patches(key(c.seed, "omission"), x, y, (170.0, 60.0), _OMITTED, share)
    haze = none
    if c.haze:
        haze = np.float32(c.haze) * np.clip(
            np.float32(0.8) + np.float32(0.45) * field(key(c.seed, "haze"), x, y, 5200.0), 0, 2
        )
    wrong = _patches(key(c.seed, "commission"), x, y, (120.0, 45.0), _COMMITTED, style.commission)
    lost = _patches(key(c.seed, "lost shadow"), x, y, (150.0, 50.0), _OMITTED, style.omission)
    says_cloud = (cloudy & ~misses) | (wrong & ~cloudy & ~shaded)
    missing = no
    if c.gap:
        missing = _gap(c.seed, x, y)
    return Sky(
        cloud,
        shadow,
        haze,
        texture,
        cloudy,
        shaded,
        says_cloud,
        shaded & ~lost & ~says_cloud,
        near & ~says_cloud,
        missing,
    )


def through(above: Sky, band: int, reflectance: F32) -> F32:
    """Reflectance (ny, nx) of `band` (0..5) as it looks through the sky: haze first, then shadow, then cloud."""
    one = np.float32(1)
    seen = reflectance * (one - spectra.SHADE[band] * above.shadow)
    seen = seen * (one - spectra.HAZE_DIMS[band] * above.haze) + spectra.HAZE[band] * above.haze
    return np.asarray(seen + above.cloud * (spectra.CLOUD[band] * above.texture - seen))


def _depth(acq: Acquisition, x: F64, y: F64) -> F32:
    scales, weights = _SCALES[acq.conditions.kind]
    return fractal(key(acq.conditions.seed, "clouds"), x, y, scales, weights)


def _opacity(excess: F32, kind: str) -> F32:
    grown = np.float32(VISIBLE) + excess * np.float32(1 / _RAMP[kind])
    return np.asarray(np.clip(grown, 0, np.float32(_THICKEST[kind])))


def _patches(name: int, x: F64, y: F64, scales: tuple[float, ...], weights: tuple[float, ...], share: float) -> Mask:
    """Patches that cover a `share` of the plane."""
    if share <= 0:
        return np.zeros((len(y), len(x)), bool)
    return np.asarray(fractal(name, x, y, scales, weights) > np.float32(quantile(weights, 1 - share)))


def _gap(seed: int, x: F64, y: F64) -> Mask:
    """A band 9 km wide every 30 km, running as a swath's edge does (12 degrees off north)."""
    along = x[None, :] * 0.978 - y[:, None] * 0.208 + seed % 30000
    return np.asarray(along - np.floor(along / 30000.0) * 30000.0 < 9000.0)
