"""Generator parameters: what kind of land, weather and sensors a simulation has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

import numpy as np

CROPS = (
    "winter wheat",
    "winter rape",
    "spring barley",
    "maize",
    "beet",
    "soybean",
    "potato",
    "grassland",
    "fallow",
)
"""Order of `Style.crops`."""


@dataclass(frozen=True, slots=True)
class Style:
    """Parameters of a simulated land and of the sensors that look at it; lengths in metres, rates in 0..1.

    Raises ValueError for values that no land or sensor has.
    """

    # land
    parcel: float = 140.0
    """Typical side of a parcel."""
    block: float = 900.0
    """Spacing of the farm blocks that share one parcel orientation."""
    warp: float = 45.0
    """Amplitude by which boundaries bend."""
    crops: tuple[float, ...] = (0.28, 0.09, 0.06, 0.19, 0.07, 0.06, 0.05, 0.18, 0.02)
    """Shares of `CROPS` (normalised when used)."""
    texture: float = 1.0
    """Strength of variation inside parcels."""
    woodland: float = 0.12
    water: float = 0.02
    hedges: float = 0.35
    """Share of blocks whose parcels are lined by trees."""
    villages: float = 0.5
    """Chance that a village stands on a 2.4 km cell."""
    latitude: float = 49.2
    """Degrees, for the height of the sun; the seasons are the northern ones everywhere."""
    season_shift: float = 0.0
    """Days by which the whole growing season comes later."""
    season_spread: float = 7.0
    """Standard deviation in days of sowing, growth and harvest among parcels of a crop."""
    snow: float = 0.0
    """Chance that a winter week has snow on the ground."""
    # optics: standard deviation of the Gaussian PSF, detector included
    psf_msi10: float = 5.2
    psf_msi20: float = 9.2
    psf_oli: float = 12.0
    psf_pan: float = 6.5
    # errors of the products
    noise_msi: float = 0.0022
    noise_oli: float = 0.0016
    noise_pan: float = 0.0012
    shift_msi: float = 2.0
    """Standard deviation of the registration error of a scene, each axis."""
    shift_oli: float = 4.0
    gain: float = 0.018
    """Standard deviation of the relative radiometric error, each scene and band."""
    offset: float = 0.003
    oli_swir: float = -0.05
    """Systematic relative offset of Landsat's SWIR against Sentinel-2's after the band-pass adjustment."""
    greenness: float = 1.0
    """Strength of the land-cover dependent band-pass residual."""
    structure: float = 0.014
    """Standard deviation, among parcels and passes, of the relative brightness change with the angle of view."""
    # atmosphere and masks
    cloudiness: float = 0.47
    """Mean cloud cover over the year."""
    haze: float = 0.3
    """Chance that a scene has thin haze, which no mask reports."""
    haze_amount: float = 0.06
    omission: float = 0.05
    """Share of cloudy pixels of partly cloudy scenes that the mask misses, thin ones first."""
    commission: float = 0.02
    """Share of clear pixels that the mask calls cloud."""
    gaps: float = 0.06
    """Chance that a scene's swath leaves a band of ground without data."""

    def __post_init__(self) -> None:
        for name in ("psf_msi10", "psf_msi20", "psf_oli", "psf_pan"):
            if not 3 <= getattr(self, name) <= 60:
                raise ValueError(f"{name} = {getattr(self, name)} m; a PSF on the 5 m lattice needs 3 to 60 m")
        for name in ("woodland", "water", "hedges", "villages", "snow", "cloudiness", "haze", "omission", "commission"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)} is a share; give 0 to 1")
        if len(self.crops) != len(CROPS) or min(self.crops) < 0 or sum(self.crops) <= 0:
            raise ValueError(f"crops = {self.crops}; give {len(CROPS)} shares, in the order {', '.join(CROPS)}")
        if min(self.parcel, self.block) < 20:
            raise ValueError(
                f"parcel = {self.parcel} m, block = {self.block} m; the lattice of 5 m needs at least 20 m"
            )

    @classmethod
    def default(cls) -> Style:
        """Temperate farmland with the sensors as they are known."""
        return cls()

    @classmethod
    def varied(cls, rng: np.random.Generator) -> Style:
        """A random draw from `VARIED`, for training."""
        return _drawn(rng, VARIED)

    @classmethod
    def held_back(cls, rng: np.random.Generator) -> Style:
        """A random draw for evaluation: as `varied`, but parameters in `HELD_BACK` lie outside training's ranges."""
        return _drawn(rng, {**VARIED, **HELD_BACK})


Ranges = tuple[tuple[float, float], ...]

VARIED: Mapping[str, Ranges] = MappingProxyType(
    {
        "parcel": ((90.0, 210.0),),
        "block": ((600.0, 1200.0),),
        "warp": ((15.0, 80.0),),
        "texture": ((0.6, 1.5),),
        "woodland": ((0.02, 0.22),),
        "water": ((0.0, 0.05),),
        "hedges": ((0.0, 0.6),),
        "villages": ((0.2, 0.8),),
        "latitude": ((36.0, 52.0),),
        "season_shift": ((-12.0, 12.0),),
        "season_spread": ((4.0, 10.0),),
        "psf_msi10": ((4.6, 5.8),),
        "psf_msi20": ((8.4, 10.2),),
        "psf_oli": ((10.0, 13.5),),
        "psf_pan": ((5.5, 7.5),),
        "noise_msi": ((0.0012, 0.0035),),
        "noise_oli": ((0.0010, 0.0028),),
        "shift_msi": ((0.5, 2.5),),
        "shift_oli": ((1.0, 5.0),),
        "gain": ((0.008, 0.025),),
        "offset": ((0.001, 0.004),),
        "oli_swir": ((-0.12, 0.02),),
        "greenness": ((0.0, 1.5),),
        "structure": ((0.006, 0.022),),
        "cloudiness": ((0.40, 0.55),),
        "haze": ((0.1, 0.4),),
        "haze_amount": ((0.02, 0.08),),
        "omission": ((0.02, 0.08),),
        "commission": ((0.01, 0.04),),
    }
)
"""Ranges that training draws from, uniformly; crop shares are Dirichlet around the default's."""

HELD_BACK: Mapping[str, Ranges] = MappingProxyType(
    {
        "parcel": ((62.0, 82.0), (225.0, 300.0)),
        "psf_msi10": ((4.2, 4.5), (5.9, 6.3)),
        "psf_oli": ((8.8, 9.8), (13.8, 15.0)),
        "psf_pan": ((4.9, 5.4), (7.6, 8.2)),
        "noise_msi": ((0.0036, 0.0045),),
        "noise_oli": ((0.0030, 0.0036),),
        "season_shift": ((-22.0, -13.0), (13.0, 22.0)),
        "texture": ((0.4, 0.55), (1.6, 1.9)),
    }
)
"""Ranges of evaluation, disjoint from `VARIED` in every parameter named here."""


def _drawn(rng: np.random.Generator, table: Mapping[str, Ranges]) -> Style:
    changes: dict[str, float | tuple[float, ...]] = {}
    for name in (f.name for f in fields(Style) if f.name in table):
        ranges = table[name]
        low, high = ranges[int(rng.integers(len(ranges)))]
        changes[name] = round(float(rng.uniform(low, high)), 6)
    shares = rng.dirichlet(np.array(Style().crops) * 12 + 0.2)
    changes["crops"] = tuple(round(float(s), 4) for s in shares)
    return replace(Style(), **changes)  # type: ignore[arg-type]
