"""Reflectance of surfaces in the six shared bands at the Sentinel-2A MSI band-passes, and how other sensors differ.

Magnitudes are those of common spectral libraries and of clear Sentinel-2 farmland scenes (reflectance, 0..1),
order blue green red nir08 swir16 swir22.
"""

from __future__ import annotations

import numpy as np

from marstfn.simulate.hashing import F32


def _row(*values: float) -> F32:
    return np.array(values, np.float32)


SOIL = _row(0.078, 0.112, 0.152, 0.228, 0.315, 0.268)
STRAW = _row(0.098, 0.148, 0.212, 0.335, 0.420, 0.300)
GRASS = _row(0.028, 0.068, 0.038, 0.390, 0.205, 0.100)
GRASS_DRY = _row(0.070, 0.100, 0.125, 0.250, 0.310, 0.215)
BROADLEAF = _row(0.019, 0.044, 0.022, 0.390, 0.170, 0.072)
BROADLEAF_BARE = _row(0.032, 0.044, 0.052, 0.150, 0.160, 0.098)
CONIFER = _row(0.016, 0.029, 0.019, 0.225, 0.098, 0.043)
WATER = _row(0.026, 0.031, 0.017, 0.009, 0.006, 0.004)
SILT = _row(0.012, 0.030, 0.034, 0.018, 0.004, 0.002)
ASPHALT = _row(0.085, 0.098, 0.108, 0.140, 0.165, 0.150)
TRACK = _row(0.105, 0.140, 0.180, 0.250, 0.310, 0.275)
ROOFS = np.stack(
    [
        _row(0.060, 0.080, 0.150, 0.230, 0.270, 0.245),  # clay tiles
        _row(0.075, 0.080, 0.086, 0.100, 0.125, 0.115),  # slate
        _row(0.270, 0.300, 0.320, 0.360, 0.380, 0.340),  # sheet metal, concrete
        _row(0.160, 0.190, 0.210, 0.260, 0.300, 0.280),  # weathered fibre cement
    ]
)
SNOW = _row(0.860, 0.880, 0.870, 0.790, 0.130, 0.100)
CLOUD = _row(0.620, 0.620, 0.630, 0.660, 0.480, 0.370)
HAZE = _row(0.340, 0.270, 0.210, 0.150, 0.070, 0.040)
"""What thin haze adds at unit amount, falling with wavelength."""
HAZE_DIMS = _row(0.90, 0.75, 0.62, 0.45, 0.22, 0.14)
"""What share of the surface's light thin haze takes away at unit amount."""
SHADE = _row(0.48, 0.55, 0.60, 0.66, 0.72, 0.75)
"""Share of the light that a full cloud shadow takes: the diffuse sky light left is blue."""
WETNESS = _row(0.30, 0.32, 0.33, 0.34, 0.42, 0.48)
"""Share of soil reflectance lost when wet: water absorbs most in the short-wave infrared."""

OLI_FROM_MSI = {
    "sentinel-2a": (
        _row(0.9778, 1.0053, 0.9765, 0.9983, 0.9987, 1.0030),
        _row(-0.0040, -0.0009, 0.0009, -0.0001, -0.0011, -0.0012),
    ),
    "sentinel-2b": (
        _row(0.9778, 1.0075, 0.9761, 0.9966, 1.0000, 0.9867),
        _row(-0.0040, -0.0008, 0.0010, 0.0000, -0.0003, 0.0004),
    ),
}
"""Slope and intercept of rho_OLI = a rho_MSI + b by Sentinel-2 unit (HLS v1.4 user guide)."""

GREENNESS = _row(0.006, 0.010, -0.008, 0.014, -0.010, -0.012)
"""Land-cover dependent rest of the band-pass difference: times (nir08 - red - 0.2), vegetation against soil."""

PAN_WEIGHTS = _row(0.07, 0.51, 0.42)
"""Blue, green, red shares of the OLI panchromatic band, 0.50-0.68 um (overlap of the relative responses)."""


def band_as_seen(sensor: str, band: int, reflectance: F32) -> F32:
    """MSI-frame reflectance of one band as the band-pass of `sensor` has it (without the land-cover residual)."""
    if sensor == "sentinel-2a":
        return reflectance
    slope, intercept = OLI_FROM_MSI["sentinel-2a"]
    seen = slope[band] * reflectance + intercept[band]
    if sensor == "landsat-8":
        return np.asarray(seen)
    slope, intercept = OLI_FROM_MSI[sensor]
    return np.asarray((seen - intercept[band]) / slope[band])


def oli(bands: F32, greenness: float) -> F32:
    """MSI-frame reflectance (6, h, w), all bands of one PSF, as Landsat 8 OLI sees it."""
    slope, intercept = OLI_FROM_MSI["sentinel-2a"]
    contrast = np.float32(greenness) * (bands[3] - bands[2] - np.float32(0.2))
    return np.asarray(
        slope[:, None, None] * bands + intercept[:, None, None] + GREENNESS[:, None, None] * contrast, np.float32
    )
