"""Simulated acquisitions brought to the cube's lattice and radiometric frame, as the pipeline brings real ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from marstfn.bands import BANDS, COARSE, PAN, PAN_RES, RATIO
from marstfn.baselines.degrade import Array
from marstfn.observe import bilinear20, half_pixel
from marstfn.patches import known_mean
from marstfn.reference import Reference
from marstfn.series import CLEAR
from marstfn.simulate import Acquisition, Simulation
from marstfn.simulate.spectra import OLI_FROM_MSI

QA_MASKED = 0b11111
"""QA_PIXEL bits of fill, dilated cloud, cirrus, cloud and cloud shadow."""

MAX_AGE = 60
"""Days between a reference and the date, at most."""


@dataclass(frozen=True)
class Scene:
    """One Landsat date over a window: its `reference`, `landsat` (6,H/3,W/3), `pan` (1,2H/3,2W/3), NaN where a mask
    hides them; `truth` (6,H,W) exact."""

    day: datetime
    reference: Reference
    landsat: Array
    pan: Array
    truth: Array

    @cached_property
    def s2(self) -> Array:
        """(6, H, W) of the nearest reference."""
        return self.reference.nearest()

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(H, W) where Landsat was clear: the pixels a method is answerable for."""
        clear = ~np.isnan(self.landsat).any(0)
        return np.repeat(np.repeat(clear, RATIO, 0), RATIO, 1)


def scene(
    simulation: Simulation,
    acq: Acquisition,
    references: Iterable[Acquisition],
    x0: int,
    y0: int,
    shape: tuple[int, int],
    *,
    fitted_to: Iterable[Acquisition] | None = None,
) -> Scene:
    """The Landsat pass `acq` over a window (corner a multiple of 60 m, sides of 6 px) and its reference: per pixel, on
    either side of the date, the first of `references` that is clear there. Landsat is fitted to the nearest of
    `fitted_to`, by default the references."""
    coarse, pan = landsat(simulation, acq, x0, y0, shape)
    known: dict[str, Array] = {}
    around = composite(simulation, acq.time, references, x0, y0, shape, known)
    basis = around if fitted_to is None else composite(simulation, acq.time, fitted_to, x0, y0, shape, known)
    fitted = adjusted(coarse, basis.nearest())
    return Scene(acq.time, around, fitted, pan, simulation.truth(acq.time, x0, y0, shape))


def landsat(simulation: Simulation, acq: Acquisition, x0: int, y0: int, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Landsat (6,h,w) at the MSI band-pass and pan (1,2h,2w) at the top of the atmosphere, NaN where masked; cubic from
    their own grids to the lattice."""
    ny, nx = (n // RATIO + 3 for n in shape)
    half = COARSE + COARSE // 2
    specs = simulation.assets(acq)

    def numbers(asset: str) -> NDArray[np.float64]:
        # native pixels begin a pixel and a half outside the window
        return simulation.render(acq, asset, x0 - half, y0 + half, (ny, nx)).astype(np.float64)

    slope, intercept = (np.asarray(v, np.float64)[:, None, None] for v in OLI_FROM_MSI["sentinel-2a"])
    native = np.stack([_reflectance(numbers(b), specs[b].scale, specs[b].offset) for b in BANDS])
    masked = hidden(simulation, acq, x0, y0, shape)
    bands = half_pixel((np.nan_to_num(native) - intercept) / slope)
    bands[:, masked] = np.nan
    edge = PAN_RES * 1.5
    counts = simulation.render(acq, PAN, x0 - edge, y0 + edge, (2 * (ny - 3) + 3, 2 * (nx - 3) + 3)).astype(np.float64)
    top = _reflectance(counts, specs[PAN].scale, specs[PAN].offset) / np.sin(np.radians(acq.sun_elevation))
    pan = half_pixel(np.nan_to_num(top)[None])
    pan[:, np.repeat(np.repeat(masked, 2, 0), 2, 1)] = np.nan
    return bands.astype(np.float32), pan.astype(np.float32)


def hidden(simulation: Simulation, acq: Acquisition, x0: int, y0: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(h,w) lattice pixels of 30 m of which any of the four native pixels beneath is cloud, shadow or missing."""
    ny, nx = (n // RATIO + 3 for n in shape)
    half = COARSE + COARSE // 2
    words = simulation.render(acq, "qa_pixel", x0 - half, y0 + half, (ny, nx)).astype(int)
    bad = (words & QA_MASKED) > 0
    return np.asarray(bad[1:-2, 1:-2] | bad[2:-1, 1:-2] | bad[1:-2, 2:-1] | bad[2:-1, 2:-1])


def sentinel2(simulation: Simulation, acq: Acquisition, x0: int, y0: int, shape: tuple[int, int]) -> Array:
    """Sentinel-2 (6,H,W), 20 m bands bilinear to 10 m, NaN where its scene classes hide the ground (30 m around)."""
    specs = simulation.assets(acq)
    ten = [_reflectance(simulation.render(acq, b, x0, y0, shape), specs[b].scale, specs[b].offset) for b in BANDS[:3]]
    half = (shape[0] // 2 + 2, shape[1] // 2 + 2)
    twenty = np.stack(
        [
            _reflectance(simulation.render(acq, b, x0 - 20, y0 + 20, half), specs[b].scale, specs[b].offset)
            for b in BANDS[3:]
        ]
    )
    classes = simulation.render(acq, "scl", x0 - 20, y0 + 20, half)
    hidden = binary_dilation(~np.isin(classes, CLEAR), iterations=1)
    fine = np.repeat(np.repeat(hidden, 2, 0), 2, 1)[2:-2, 2:-2]
    out = np.concatenate([np.stack(ten), bilinear20(twenty)[:, 2:-2, 2:-2]]).astype(np.float32)
    out[:, fine] = np.nan
    out[:, np.isnan(out).any(0)] = np.nan
    return out


def composite(
    simulation: Simulation,
    day: datetime,
    candidates: Iterable[Acquisition],
    x0: int,
    y0: int,
    shape: tuple[int, int],
    known: dict[str, Array] | None = None,
) -> Reference:
    """Per pixel the first clear candidate of either side of `day`; candidates in order of preference.

    `known` keeps what was rendered, by scene id, for the next call over the same window.
    """
    known = {} if known is None else known
    images = [np.full((len(BANDS), *shape), np.nan, np.float32) for _ in range(2)]
    days = [np.full(shape, np.inf, np.float32) for _ in range(2)]
    for acq in candidates:
        gap = (day.date() - acq.time.date()).days
        side = 0 if gap >= 0 else 1
        empty = np.isinf(days[side])
        if not empty.any():
            continue
        if acq.scene_id not in known:
            known[acq.scene_id] = sentinel2(simulation, acq, x0, y0, shape)
        seen = known[acq.scene_id]
        take = empty & ~np.isnan(seen[0])
        images[side][:, take] = seen[:, take]
        days[side][take] = abs(gap)
    return Reference(images[0], images[1], days[0], days[1])


def nearest(simulation: Simulation, day: datetime, cloudiest: float = 80.0) -> list[Acquisition]:
    """Sentinel-2 passes within MAX_AGE days of `day` that are not overcast, the nearest in time first."""
    passes = [a for a in simulation.acquisitions() if not a.landsat and a.cloud_cover <= cloudiest]
    near = [a for a in passes if abs((a.time.date() - day.date()).days) <= MAX_AGE]
    return sorted(near, key=lambda a: abs(a.time - day))


def adjusted(coarse: Array, reference: Array) -> Array:
    """Landsat (6,h,w) after a linear fit, band by band, to the 3x3 mean of the reference (6,H,W).

    The fit is by least squares on the half of the pixels that lie nearest to it, so that changed ground does not
    count. Bands with under 50 pixels, correlation under 0.5, a slope outside 0.85-1.15 or a shift of the mean over
    0.04 are left as they are.
    """
    target = known_mean(reference).reshape(len(reference), -1).astype(np.float64)
    source = coarse.reshape(len(coarse), -1).astype(np.float64)
    known = np.isfinite(target).all(0) & np.isfinite(source).all(0)
    out = np.array(coarse, np.float32)
    if known.sum() < 50:
        return out
    for b in range(len(coarse)):
        x, y = source[b, known], target[b, known]
        if x.std() < 1e-6 or y.std() < 1e-6 or np.corrcoef(x, y)[0, 1] < 0.5:
            continue
        keep = np.ones(len(x), bool)
        slope, intercept = 1.0, float(np.median(y - x))
        for _ in range(5):
            rest = np.abs(y - slope * x - intercept)
            keep = rest <= np.quantile(rest, 0.5)
            if x[keep].std() < 1e-6:
                break
            slope, intercept = (float(v) for v in np.polyfit(x[keep], y[keep], 1))
        moved = slope * x.mean() + intercept - x.mean()
        if 0.85 <= slope <= 1.15 and abs(moved) <= 0.04:
            out[b] = slope * coarse[b] + intercept
    return out


def _reflectance(numbers: NDArray[np.generic], scale: float, offset: float) -> NDArray[np.float64]:
    counts = np.asarray(numbers, np.float64)
    return np.where(counts == 0, np.nan, counts * scale + offset)
