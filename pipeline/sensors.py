"""What the two sensors deliver, brought to one frame: digital numbers, masks, band-pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from marstfn.bands import BANDS
from pipeline.plan import Options, Radiometry

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

NOTHING, CLEAR, MASKED = 0, 1, 2
"""Values of a clear mask: no observation; a clear one; one spoilt by cloud, shadow, saturation and the like."""


def to_reflectance(dn: npt.NDArray[np.generic], radiometry: Radiometry) -> Floats:
    """Digital numbers (any shape, any number type) as float32 reflectance; NaN where `dn` is nodata or not finite.

    Values outside 0..1 are kept: dark water and bright cloud go there in real products.
    """
    numbers = np.asarray(dn)
    nothing = numbers == radiometry.nodata
    if np.issubdtype(numbers.dtype, np.floating):
        nothing |= ~np.isfinite(numbers)
    # float64 inside: DN * 2.75e-5 - 0.2 cancels, and float32 would lose the last digit of the sum
    values = numbers.astype(np.float64) * radiometry.scale + radiometry.offset
    values[nothing] = np.nan
    return values.astype(np.float32)


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """What counts as clear."""

    dilation: float = 30.0
    """Metres by which cloud and shadow are grown."""
    snow: bool = True
    """Whether snow is a clear observation."""
    cirrus: bool = True
    """Whether cirrus masks."""
    dilated_cloud: bool = False
    """Whether the dilated-cloud bit of QA_PIXEL masks: it is wide and takes much clear ground with it."""
    cloud: bool = True
    """Whether the product's own cloud, cirrus and shadow count; not where something else tells them."""

    @classmethod
    def of(cls, options: Options) -> MaskOptions:
        """As a plan has them."""
        return cls(
            dilation=options.mask_dilation,
            snow=options.snow == "keep",
            cirrus=options.cirrus,
            dilated_cloud=options.dilated_cloud,
            cloud=options.cloud_mask == "product",
        )


# QA_PIXEL bits (Landsat Collection 2 Level-2 Science Product Guide, table "Pixel Quality Assessment")
QA_FILL, QA_DILATED, QA_CIRRUS, QA_CLOUD, QA_SHADOW, QA_SNOW = (1 << bit for bit in range(6))
RADSAT_BANDS = 0b1111110
"""QA_RADSAT bits of bands 2 to 7; bit n - 1 is band n."""


def landsat_clear(
    qa_pixel: npt.NDArray[np.unsignedinteger],
    qa_radsat: npt.NDArray[np.unsignedinteger] | None = None,
    *,
    resolution: float = 30.0,
    options: MaskOptions = MaskOptions(),
) -> Mask:
    """Clear mask uint8 (ny, nx) from Landsat Collection 2 QA_PIXEL (and QA_RADSAT), pixels of `resolution` m."""
    qa = np.asarray(qa_pixel)
    # a mosaic leaves 0 where no item lies, the product itself writes the fill bit
    nothing = ((qa & QA_FILL) != 0) | (qa == 0)
    spoilt = QA_CLOUD | QA_SHADOW
    if options.cirrus:
        spoilt |= QA_CIRRUS
    if options.dilated_cloud:
        spoilt |= QA_DILATED
    if not options.cloud:
        spoilt = 0
    if not options.snow:
        spoilt |= QA_SNOW
    masked = grown((qa & spoilt) != 0, options.dilation, resolution)
    if qa_radsat is not None:
        masked |= (np.asarray(qa_radsat) & RADSAT_BANDS) != 0
    return _combined(nothing, masked)


# Scene classification of Sentinel-2 Level-2A (SCL)
SCL_NOTHING, SCL_SATURATED, SCL_SHADOW, SCL_MEDIUM, SCL_HIGH, SCL_CIRRUS, SCL_SNOW = 0, 1, 3, 8, 9, 10, 11


def sentinel2_clear(
    scl: npt.NDArray[np.unsignedinteger],
    *,
    resolution: float = 10.0,
    options: MaskOptions = MaskOptions(),
) -> Mask:
    """Clear mask uint8 (ny, nx) from the scene classification of Sentinel-2, pixels of `resolution` metres."""
    classes = np.asarray(scl)
    spoilt = (SCL_SHADOW, SCL_MEDIUM, SCL_HIGH, *((SCL_CIRRUS,) if options.cirrus else ()))
    masked = grown(np.isin(classes, spoilt if options.cloud else ()), options.dilation, resolution)
    masked |= classes == SCL_SATURATED
    if not options.snow:
        masked |= classes == SCL_SNOW
    return _combined(classes == SCL_NOTHING, masked)


# Fmask as Digital Earth Australia stores it (oa_fmask), of either sensor
FMASK_NOTHING, FMASK_CLOUD, FMASK_SHADOW, FMASK_SNOW = 0, 2, 3, 4


def fmask_clear(
    fmask: npt.NDArray[np.unsignedinteger],
    *,
    resolution: float = 10.0,
    options: MaskOptions = MaskOptions(),
) -> Mask:
    """Clear mask uint8 (ny, nx) from Fmask classes, pixels of `resolution` metres; it knows no cirrus of its own."""
    classes = np.asarray(fmask)
    spoilt = (FMASK_CLOUD, FMASK_SHADOW) if options.cloud else ()
    masked = grown(np.isin(classes, spoilt), options.dilation, resolution)
    if not options.snow:
        masked |= classes == FMASK_SNOW
    return _combined(classes == FMASK_NOTHING, masked)


def grown(mask: npt.NDArray[np.bool_], metres: float, resolution: float) -> npt.NDArray[np.bool_]:
    """`mask` (ny, nx) grown by `metres` in every direction (a disc), in pixels of `resolution` metres."""
    radius = metres / resolution
    if radius <= 0 or not mask.any():
        return mask.copy()
    reach = math.floor(radius + 1e-6)
    if reach < 1:
        return mask.copy()
    # exact Euclidean distance is cheaper than a large structuring element
    distance = ndimage.distance_transform_edt(~mask)
    return np.asarray(distance <= radius + 1e-6, dtype=np.bool_)


def _combined(nothing: npt.NDArray[np.bool_], masked: npt.NDArray[np.bool_]) -> Mask:
    out = np.full(nothing.shape, CLEAR, dtype=np.uint8)
    out[masked] = MASKED
    out[nothing] = NOTHING
    return out


@dataclass(frozen=True, slots=True)
class Bandpass:
    """rho_MSI = slope * rho_OLI + intercept, per band in the order of BANDS."""

    name: str
    slope: tuple[float, ...]
    intercept: tuple[float, ...]

    @classmethod
    def inverse_of(cls, name: str, pairs: tuple[tuple[float, float], ...]) -> Bandpass:
        """From published rho_OLI = a * rho_MSI + b, band by band."""
        return cls(name, tuple(1 / a for a, _ in pairs), tuple(-b / a for a, b in pairs))


# rho_OLI = a * rho_MSI + b, (a, b) in the order of BANDS
_HLS_S2A = (
    (0.9778, -0.0040),
    (1.0053, -0.0009),
    (0.9765, 0.0009),
    (0.9983, -0.0001),
    (0.9987, -0.0011),
    (1.0030, -0.0012),
)
_HLS_S2B = (
    (0.9778, -0.0040),
    (1.0075, -0.0008),
    (0.9761, 0.0010),
    (0.9966, 0.0000),
    (1.0000, -0.0003),
    (0.9867, 0.0004),
)
_MEAN = tuple(((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in zip(_HLS_S2A, _HLS_S2B, strict=True))

BANDPASS: Mapping[str, Bandpass] = MappingProxyType(
    {
        "sentinel-2a": Bandpass.inverse_of("OLI to MSI of Sentinel-2A (HLS v1.4, inverted)", _HLS_S2A),
        "sentinel-2b": Bandpass.inverse_of("OLI to MSI of Sentinel-2B (HLS v1.4, inverted)", _HLS_S2B),
        "sentinel-2": Bandpass.inverse_of("OLI to MSI, mean of Sentinel-2A and 2B (HLS v1.4, inverted)", _MEAN),
    }
)
"""Band-pass of Landsat OLI to Sentinel-2 MSI. OLI-2 of Landsat 9 is a copy of OLI whose bands agree with it to a
nanometre or two, and HLS v2 uses one set for both: so does this. The two MSI differ by less than 0.02 in slope, so
the cube's one frame is their mean, `sentinel-2`. Of Sentinel-2C none are published: it is a twin of the two, is read
into the same frame as they are, and what it differs by is left to the fit of each Landsat scene, unless a user gives
coefficients (pipeline.bandpass). Source: HLS product
user guide v1.4, table of the linear spectral adjustment."""


def to_msi(oli: Floats, bandpass: Bandpass = BANDPASS["sentinel-2"]) -> Floats:
    """OLI reflectance (6, H, W) in the order of BANDS, at the MSI band-pass; float32, NaN kept."""
    if oli.shape[0] != len(BANDS):
        raise ValueError(f"expected {len(BANDS)} bands first, got shape {oli.shape}")
    shape = (len(BANDS),) + (1,) * (oli.ndim - 1)
    slope = np.asarray(bandpass.slope, dtype=np.float32).reshape(shape)
    intercept = np.asarray(bandpass.intercept, dtype=np.float32).reshape(shape)
    return np.asarray(oli * slope + intercept, dtype=np.float32)
