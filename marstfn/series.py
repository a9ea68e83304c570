"""Real Sentinel-2 series that training draws from, out of the files their publishers gave them in.

Only places that no evaluation uses. Reading needs the netCDF4 package, which the rest of `marstfn` does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.baselines.degrade import Array
from marstfn.observe import bilinear20

CREDITS = {
    "brabant": "Sentinel-2 L2A, west of Brussels 2018-2019 (WorldCereal, MIT; modified Copernicus Sentinel data)",
    "hesbaye": "Sentinel-2 L2A monthly, Hesbaye 2020-2021 (WorldCereal, MIT; modified Copernicus Sentinel data)",
    "slovenia": "Sentinel-2 L1C, Slovenia (eo-learn, MIT; modified Copernicus Sentinel data)",
    "oresund": "Sentinel-2 L1C, T33UUB 2017-05-27 (DSen2, CC BY 4.0; modified Copernicus Sentinel data)",
    "csmask": "Sentinel-2 L1C, forest and farmland (ukis-csmask, Apache-2.0; modified Copernicus Sentinel data)",
}
"""Name of each series with its source and licence."""

CLEAR = (4, 5, 6, 7, 11)
"""Scene classes that show the ground: vegetation, bare, water, unclassified, snow."""


LARGE = 300
"""Width in 10 m pixels from which a scene is divided between training and validation."""


@dataclass(frozen=True)
class Series:
    """Dates of one place: `s2` (t, 6, H, W) float32 reflectance, all clear, and `days` (t,) since an epoch; None where
    the file gives no dates. One date alone serves for texture."""

    name: str
    s2: Array
    days: NDArray[np.int64] | None


def read(root: str | Path) -> tuple[Series, ...]:
    """Every known series under `root`, clear dates only; FileNotFoundError names the folder that is missing."""
    root = Path(root)
    return (_brabant(root), _hesbaye(root), _slovenia(root), _oresund(root), _csmask(root))


def split(places: tuple[Series, ...]) -> tuple[tuple[Series, ...], tuple[Series, ...]]:
    """The places for training and those for validation, which share no ground: Hesbaye is validation's alone, and it
    has the eastern third of the two large scenes."""
    training: list[Series] = []
    validation: list[Series] = []
    for place in places:
        width = place.s2.shape[-1]
        if place.name == "hesbaye":
            validation.append(place)
        elif width >= LARGE:
            border = width * 2 // 3
            training.append(replace(place, s2=place.s2[..., :border]))
            validation.append(replace(place, s2=place.s2[..., border:]))
        else:
            training.append(place)
    return tuple(training), tuple(validation)


def _brabant(root: Path) -> Series:
    folder = root / "brabant-s2-series"
    fine = netcdf(next(folder.glob("S2_L2A_10m_*.nc")), ("B02", "B03", "B04", "timestamp"))
    half = netcdf(next(folder.glob("S2_L2A_20m_*.nc")), ("B8A", "B11", "B12", "SCL"))
    ten = np.stack([fine[b] for b in ("B02", "B03", "B04")], 1).astype(np.float32) * 1e-4
    twenty = np.stack([half[b] for b in ("B8A", "B11", "B12")], 1).astype(np.float32) * 1e-4
    # the 20 m bands of this file stand one 10 m row too far south of its 10 m bands
    up = np.stack([bilinear20(date) for date in twenty])
    up = np.concatenate([up[:, :, 1:], up[:, :, -1:]], 2)
    whole = np.concatenate([ten, up], 1)
    clear = np.isin(half["SCL"], CLEAR).mean((1, 2)) >= 0.97
    filled = (whole > 0).all((1, 2, 3))
    keep = clear & filled
    return Series("brabant", whole[keep], (fine["timestamp"][keep] // 86400).astype(np.int64))


def _hesbaye(root: Path) -> Series:
    names = [f"S2-L2A-{b}" for b in ("B02", "B03", "B04", "B08", "B11", "B12")]
    data = netcdf(root / "hesbaye-s2-monthly" / "worldcereal_preprocessed_inputs.nc", (*names, "t"))
    # no B8A in this file: its wide neighbour B08 stands in
    whole = np.stack([data[n] for n in names], 1).astype(np.float32) * 1e-4
    keep = (whole > 0).all((1, 2, 3))
    return Series("hesbaye", whole[keep], data["t"][keep].astype(np.int64))


def _slovenia(root: Path) -> Series:
    scenes = np.load(root / "slovenia-s2-l1c-5dates" / "REFERENCE_SCENES.npy")
    # B02 B03 B04 B8A B11 B12 of thirteen; the first two scenes are cloudy
    whole = np.moveaxis(scenes[2:, :, :, [1, 2, 3, 8, 11, 12]], -1, 1).astype(np.float32)
    return Series("slovenia", whole, None)


def _oresund(root: Path) -> Series:
    data = netcdf(root / "oresund-s2-l1c" / "S2A_MSIL1C_20170527_T33UUB.mat", ("im10", "im20"))
    ten = data["im10"][:3].swapaxes(1, 2).astype(np.float32) * 1e-4
    twenty = data["im20"][3:].swapaxes(1, 2).astype(np.float32) * 1e-4
    return Series("oresund", np.concatenate([ten, bilinear20(twenty)])[None], None)


def _csmask(root: Path) -> Series:
    with np.load(root / "csmask-s2-l1c" / "sentinel2.npz") as file:
        image = np.moveaxis(file["img"], -1, 0).astype(np.float32)
    return Series("csmask", image[None], None)


def netcdf(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Variables of a netCDF (or MATLAB 7.3) file as they are stored: no mask, no scale. ImportError without netCDF4."""
    try:
        import netCDF4
    except ImportError as error:
        raise ImportError(
            "reading the real series needs netCDF4; pip install netCDF4, or train on simulation"
        ) from error
    with netCDF4.Dataset(str(path)) as file:
        file.set_auto_mask(False)
        file.set_auto_scale(False)
        return {name: np.asarray(file[name][:]) for name in names}
