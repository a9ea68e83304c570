"""Training samples: what the pipeline would hand to the network, and the truth it should have given.

Two sources: the simulator, with its exact truth, and real Sentinel-2, where another date is the truth and Landsat is
simulated from it. Samples are stored as the cube stores reflectance (int16, 1e-4), holes filled as it fills them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift
from scipy.spatial import cKDTree

from marstfn.bands import FINE
from marstfn.baselines.degrade import Array
from marstfn.observe import MARGIN, View, bilinear20, blobs, landsat
from marstfn.patches import fill_holes
from marstfn.reference import Reference
from marstfn.scenes import MAX_AGE, nearest, scene
from marstfn.series import Series
from marstfn.simulate import Simulation, Style

SCALE = 1e-4
CLOUD_BLUE = 0.22
"""Blue reflectance above which a real image shows cloud rather than ground."""


@dataclass(frozen=True)
class Sample:
    """One patch of side p, float32 reflectance without holes: `nearest` and `between` (6,p,p), the two forms of the
    reference, and `context` (8,p,p), see `marstfn.reference`; `landsat` (6,p/3,p/3), `pan` (1,2p/3,2p/3), `truth`
    (6,p,p); `scored` (p,p) bool, False where Landsat saw nothing or the truth is unknown."""

    nearest: Array
    between: Array
    context: Array
    landsat: Array
    pan: Array
    truth: Array
    scored: NDArray[np.bool_]


FIELDS = ("nearest", "between", "context", "landsat", "pan", "truth", "scored")


def finish(reference: Reference, coarse: Array, pan: Array, truth: Array) -> Sample:
    """Round to what the cube stores, note what Landsat saw, fill the holes (NaN) as the pipeline does."""
    nearest, between, coarse, pan, truth = (
        np.round(a / SCALE).astype(np.float32) * np.float32(SCALE)
        for a in (reference.nearest(), reference.between(), coarse, pan, truth)
    )
    scored = np.repeat(np.repeat(~np.isnan(coarse).any(0), 3, 0), 3, 1) & ~np.isnan(truth).any(0)
    near, _, _ = fill_holes(nearest, coarse)
    fine, filled, sharp = fill_holes(between, coarse, pan)
    assert sharp is not None
    return Sample(near, fine, reference.context(), filled, sharp, np.nan_to_num(truth), scored)


def observable(truth: Array) -> Array:
    """(6,H,W) at 10 m -> the same as Sentinel-2 could have shown it: nir08, swir16 and swir22 as means of 20 m pixels,
    brought to 10 m as the pipeline brings them. What a network is to learn: no observation confirms more."""
    out = np.array(truth, np.float32)
    bands, height, width = out[3:].shape
    out[3:] = bilinear20(out[3:].reshape(bands, height // 2, 2, width // 2, 2).mean((2, 4)))
    return out


def from_simulation(seed: int, patch: int = 60, *, side: int = 180, count: int = 24) -> list[Sample]:
    """At least `count` samples of a land of its own, if its year is clear enough: passes of Landsat over a window of
    `side` px, cut into patches.

    The reference is the nearest clear pass of those that a random half of the calendar keeps, so that its age varies as
    under all sorts of weather. Patches that Landsat hardly saw, or that have hardly any reference, are left out.
    """
    rng = np.random.default_rng((11, seed))
    simulation = Simulation(1_000_000 + seed, int(rng.integers(2016, 2026)), style=Style.varied(rng))
    x0, y0 = (int(v) * 60 for v in rng.integers((5_000, 70_000), (12_000, 95_000)))
    passes = [a for a in simulation.acquisitions() if a.landsat and a.cloud_cover <= 70]
    samples: list[Sample] = []
    for k in rng.permutation(len(passes)):
        if len(samples) >= count:
            break
        near = nearest(simulation, passes[k].time)
        lost = rng.uniform(0, 0.8)
        kept = [a for a in near if rng.random() >= lost]
        view = scene(simulation, passes[k], kept, x0, y0, (side, side), fitted_to=near)
        truth = observable(view.truth)
        for row in range(0, side - patch + 1, patch):
            for col in range(0, side - patch + 1, patch):
                fine, coarse, pan = _cuts(row, col, patch)
                if view.seen[fine].mean() < 0.5 or np.isnan(view.s2[0][fine]).mean() > 0.7:
                    continue
                images = (view.landsat[:, *coarse], view.pan[:, *pan], truth[:, *fine])
                samples.append(finish(view.reference.cut(*fine), *images))
    return samples


def from_series(series: tuple[Series, ...], rng: np.random.Generator, patch: int = 60) -> Sample:
    """One sample of a real place: a clear date as the truth, others on either side of it, at most MAX_AGE days away,
    as references; where the place has no such dates, they are made by inventing change."""
    # the one series with dates close together shows real change: it is drawn most often
    chosen = series[rng.choice(len(series), p=_shares(series))]
    date, before, after = _dates(chosen, rng)
    cut = _crop(chosen.s2[[date, *(k for k in (before, after) if k is not None)]], patch, rng)
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    truth, *others = (np.rot90(a, turns, (1, 2))[:, :, :: -1 if mirrored else 1] for a in cut)
    days = _distances(chosen, date, before, after, rng)
    if not others:
        images = list(invent_change(truth, days, rng))
        # these have no registration error of their own yet
        drifts = np.clip(rng.normal(0, 2, (2, 2)), -5, 5) / FINE
        images = [shift(a, (0, *d), order=1, mode="nearest") for a, d in zip(images, drifts, strict=True)]
    else:
        images = [others.pop(0) if k is not None else np.full_like(truth, np.nan) for k in (before, after)]
    coarse, pan = landsat(np.ascontiguousarray(truth), View.draw(rng), rng)
    inner = (slice(None), slice(MARGIN, MARGIN + patch), slice(MARGIN, MARGIN + patch))
    seen = [_clouded(image[inner], rng, 0.25) for image in images]
    far = [np.where(np.isnan(a[0]), np.inf, d).astype(np.float32) for a, d in zip(seen, days, strict=True)]
    reference = Reference(seen[0], seen[1], far[0], far[1])
    return finish(reference, *_coarse_holes(coarse, pan, rng), truth[inner])


def invent_change(image: Array, days: tuple[float, float], rng: np.random.Generator) -> tuple[Array, Array]:
    """(6, H, W) -> how it may have looked `days` (before, after) away from the date; inf days: not at all (NaN).

    Parcels of a random mosaic drift steadily through the date, as crops grow, and some jump on one side of it towards
    the colour of other ground, as at harvest.
    """
    height, width = image.shape[1:]
    points = rng.uniform(0, (height, width), (int(rng.integers(6, 40)), 2))
    grid = np.moveaxis(np.mgrid[:height, :width], 0, -1) + rng.normal(0, 0.3, (height, width, 2))
    parcel = cKDTree(points).query(grid.reshape(-1, 2))[1].reshape(height, width)
    pixels = image.reshape(len(image), -1)

    def colours() -> NDArray[Any]:
        """Of other ground, one a parcel."""
        drawn = pixels[:, rng.integers(pixels.shape[1], size=len(points))]
        return np.asarray(drawn[:, parcel])

    growing = np.where(rng.random(len(points)) < 0.6, rng.uniform(0, 0.5, len(points)), 0)
    trend = growing[parcel] * (colours() - image)
    out = []
    for span, sign in zip(days, (-1, 1), strict=True):
        if not np.isfinite(span):
            out.append(np.full_like(image, np.nan))
            continue
        share = span / MAX_AGE
        jumps = rng.random(len(points)) < rng.uniform(0.0, 0.7) * min(1.0, 0.2 + share)
        amount = np.where(jumps, rng.uniform(0, 0.9, len(points)), 0.0)
        season = rng.normal(1, 0.05 * np.sqrt(share) + 0.015, (len(image), 1, 1))
        mixed = image + sign * share * trend
        mixed = mixed + amount[parcel] * (colours() - mixed)
        out.append(np.maximum(mixed * season, 0.001).astype(np.float32))
    return out[0], out[1]


def generate(
    folder: str | Path,
    make: Callable[[int], list[Sample]],
    seeds: Iterable[int],
    *,
    name: str,
    processes: int = 2,
) -> Iterator[Path]:
    """Write one file `name`-SEED.npz a seed under `folder`, in `processes` niced processes; existing ones are kept.

    `make(seed)` must be importable and depend on the seed alone. Yields paths as they are finished.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [(seed, folder / f"{name}-{seed:06d}.npz") for seed in seeds]
    todo = [(seed, path) for seed, path in paths if not path.exists()]
    if processes <= 1:
        yield from (_write(make, *job) for job in todo)
        return
    with ProcessPoolExecutor(processes, initializer=partial(os.nice, 10)) as pool:
        yield from pool.map(_Writer(make), *zip(*todo, strict=True)) if todo else ()


def read(folder: str | Path) -> dict[str, NDArray[Any]]:
    """All samples under `folder` in the order of file names: `s2`, `landsat`, `pan`, `truth` int16 (n, ...) at 1e-4,
    `scored` bool (n, p, p). Raises ValueError where there is none."""
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise ValueError(f"no samples (*.npz) in {folder}; make them first: python -m marstfn.train samples")
    parts: dict[str, list[NDArray[Any]]] = {field: [] for field in FIELDS}
    for path in paths:
        with np.load(path) as file:
            for field in FIELDS:
                parts[field].append(file[field])
    return {field: np.concatenate(arrays) for field, arrays in parts.items()}


def digest(folder: str | Path) -> str:
    """Hash of the names and sizes of the sample files: which set a checkpoint was trained on."""
    text = "\n".join(f"{p.name} {p.stat().st_size}" for p in sorted(Path(folder).glob("*.npz")))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Writer:
    def __init__(self, make: Callable[[int], list[Sample]]) -> None:
        self.make = make

    def __call__(self, seed: int, path: Path) -> Path:
        return _write(self.make, seed, path)


def _write(make: Callable[[int], list[Sample]], seed: int, path: Path) -> Path:
    samples = make(seed)
    if not samples:
        raise ValueError(f"seed {seed} gives no sample: the year is clouded over; leave it out")
    arrays: dict[str, Any] = {
        field: np.stack([_stored(getattr(sample, field)) for sample in samples]) for field in FIELDS
    }
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    part.replace(path)
    return path


def _stored(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == bool:
        return array
    return np.clip(np.round(array / SCALE), -9998, 32767).astype(np.int16)


def _cuts(row: int, col: int, patch: int) -> tuple[tuple[slice, slice], ...]:
    """The same ground in 10 m, 30 m and 15 m pixels."""
    return tuple(
        (slice(row * k // 3, (row + patch) * k // 3), slice(col * k // 3, (col + patch) * k // 3)) for k in (3, 1, 2)
    )


def _shares(series: tuple[Series, ...]) -> NDArray[np.float64]:
    weight = np.array([4.0 if s.days is not None and len(s.s2) > 12 else 1.0 for s in series])
    out: NDArray[np.float64] = weight / weight.sum()
    return out


def _dates(series: Series, rng: np.random.Generator) -> tuple[int, int | None, int | None]:
    """The date, one before and one after it (None: none there); both None where change must be invented."""
    count = len(series.s2)
    if count == 1:
        return 0, None, None
    if series.days is None:
        # the order of the dates is not known: another one stands on either side
        first, second = (int(k) for k in rng.permutation(count)[:2])
        return (first, second, None) if rng.random() < 0.5 else (first, None, second)
    gaps = series.days[None, :] - series.days[:, None]
    near = (np.abs(gaps) <= MAX_AGE) & (gaps != 0)
    date = int(rng.choice(np.flatnonzero(near.any(1))))
    # a side is at times cloudy for long: the reference lies farther off, or is missing
    sides: list[int | None] = []
    for sign in (-1, 1):
        there = np.flatnonzero(near[date] & (np.sign(gaps[date]) == sign))
        order = there[np.argsort(np.abs(gaps[date][there]))]
        place = int(rng.geometric(0.5)) - 1
        sides.append(int(order[place]) if place < len(order) else None)
    if sides == [None, None]:
        closest = int(np.argmin(np.where(near[date], np.abs(gaps[date]), np.inf)))
        sides[0 if gaps[date][closest] < 0 else 1] = closest
    return date, sides[0], sides[1]


def _distances(
    series: Series, date: int, before: int | None, after: int | None, rng: np.random.Generator
) -> tuple[float, float]:
    """Days to either reference, inf where there is none; drawn where the dates are not known or invented."""
    drawn = np.minimum(rng.gamma(2, 8, 2).round() + 1, MAX_AGE)
    if before is None and after is None:
        lost = rng.random()
        return (np.inf if lost < 0.15 else float(drawn[0])), (np.inf if lost > 0.85 else float(drawn[1]))
    known = [k for k in (before, after) if k is not None]
    days = series.days
    found = [float(abs(days[k] - days[date])) if days is not None else float(drawn[0]) for k in known]
    return (found.pop(0) if before is not None else np.inf), (found.pop(0) if after is not None else np.inf)


def _crop(dates: Array, patch: int, rng: np.random.Generator) -> Array:
    side = patch + 2 * MARGIN
    height, width = dates.shape[-2:]
    # a small place is mirrored at its edges, so that the patch still has surroundings
    pad = [max(0, side + 6 - n) for n in (height, width)]
    if any(pad):
        around = [((p + 1) // 2, (p + 1) // 2) for p in pad]
        dates = np.pad(dates, ((0, 0), (0, 0), *around), mode="symmetric")
    cut = dates
    for _ in range(20):
        row, col = (int(rng.integers(n - side + 1)) for n in dates.shape[-2:])
        cut = dates[:, :, row : row + side, col : col + side]
        # blue this bright is cloud: the truth of a fusion is the ground
        if np.quantile(cut[:, 0], 0.98) < CLOUD_BLUE:
            break
    return cut


def _clouded(reference: Array, rng: np.random.Generator, chance: float) -> Array:
    """The reference with holes where a mask saw cloud, and at times a thin veil that no mask saw."""
    out = np.array(reference, np.float32)
    shape = (out.shape[1], out.shape[2])
    if rng.random() < 0.1:
        veil = rng.uniform(0.005, 0.04) * np.clip(blobs(shape, 12, rng), 0, 2)
        out += (veil * np.asarray((1.0, 0.9, 0.8, 0.6, 0.4, 0.3))[:, None, None]).astype(np.float32)
    if rng.random() < chance:
        out[:, blobs(shape, rng.uniform(4, 15), rng) > rng.uniform(0.0, 1.8)] = np.nan
    return out


def _coarse_holes(coarse: Array, pan: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    if rng.random() < 0.15:
        hole = blobs((coarse.shape[1], coarse.shape[2]), rng.uniform(2, 5), rng) > rng.uniform(0.4, 1.8)
        coarse = np.where(hole, np.nan, coarse).astype(np.float32)
        pan = np.where(np.repeat(np.repeat(hole, 2, 0), 2, 1), np.nan, pan).astype(np.float32)
    return coarse, pan


__all__ = [
    "FIELDS",
    "Sample",
    "digest",
    "finish",
    "from_series",
    "from_simulation",
    "generate",
    "invent_change",
    "observable",
    "read",
]
