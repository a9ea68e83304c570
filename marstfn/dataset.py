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
from marstfn.observe import MARGIN, View, blobs, landsat
from marstfn.patches import fill_holes
from marstfn.scenes import MAX_AGE, nearest, scene
from marstfn.series import Series
from marstfn.simulate import Simulation, Style

SCALE = 1e-4
CLOUD_BLUE = 0.22
"""Blue reflectance above which a real image shows cloud rather than ground."""


@dataclass(frozen=True)
class Sample:
    """One patch of side p, float32 reflectance: `s2` (6,p,p), `landsat` (6,p/3,p/3), `pan` (1,2p/3,2p/3), `truth`
    (6,p,p); `scored` (p,p) bool, False where Landsat saw nothing."""

    s2: Array
    landsat: Array
    pan: Array
    truth: Array
    scored: NDArray[np.bool_]


FIELDS = ("s2", "landsat", "pan", "truth", "scored")


def finish(s2: Array, coarse: Array, pan: Array, truth: Array) -> Sample:
    """Round to what the cube stores, note what Landsat saw, fill the holes (NaN) as the pipeline does."""
    s2, coarse, pan, truth = (
        np.round(a / SCALE).astype(np.float32) * np.float32(SCALE) for a in (s2, coarse, pan, truth)
    )
    scored = np.repeat(np.repeat(~np.isnan(coarse).any(0), 3, 0), 3, 1) & ~np.isnan(truth).any(0)
    fine, filled, sharp = fill_holes(s2, coarse, pan)
    assert sharp is not None
    return Sample(fine, filled, sharp, np.nan_to_num(truth), scored)


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
        for row in range(0, side - patch + 1, patch):
            for col in range(0, side - patch + 1, patch):
                fine, coarse, pan = _cuts(row, col, patch)
                if view.seen[fine].mean() < 0.5 or np.isnan(view.s2[0][fine]).mean() > 0.7:
                    continue
                cut = (view.s2[:, *fine], view.landsat[:, *coarse], view.pan[:, *pan], view.truth[:, *fine])
                samples.append(finish(*cut))
    return samples


def from_series(series: tuple[Series, ...], rng: np.random.Generator, patch: int = 60) -> Sample:
    """One sample of a real place: two clear dates at most MAX_AGE days apart, or one date and an invented change."""
    # the one series with dates close together shows real change: it is drawn most often
    chosen = series[rng.choice(len(series), p=_shares(series))]
    first, second = _dates(chosen, rng)
    truth, reference = _crop(chosen.s2[[first, second]], patch, rng)
    if first == second:
        reference = invent_change(truth, rng)
    turns = int(rng.integers(4))
    truth, reference = (np.rot90(a, turns, (1, 2)) for a in (truth, reference))
    if rng.random() < 0.5:
        truth, reference = truth[:, :, ::-1], reference[:, :, ::-1]
    # the reference has its own registration error; that of real pairs is in them already
    drift = np.clip(rng.normal(0, 2, 2), -5, 5) / FINE if first == second else np.zeros(2)
    moved = shift(reference, (0, *drift), order=1, mode="nearest") if drift.any() else reference
    coarse, pan = landsat(np.ascontiguousarray(truth), View.draw(rng), rng)
    inner = (slice(None), slice(MARGIN, MARGIN + patch), slice(MARGIN, MARGIN + patch))
    return finish(_clouded(moved[inner], rng, 0.25), *_coarse_holes(coarse, pan, rng), truth[inner])


def invent_change(image: Array, rng: np.random.Generator) -> Array:
    """(6, H, W) -> another date of it: parcels of a random mosaic move, some, towards the colour of other ground."""
    height, width = image.shape[1:]
    points = rng.uniform(0, (height, width), (int(rng.integers(6, 40)), 2))
    grid = np.moveaxis(np.mgrid[:height, :width], 0, -1) + rng.normal(0, 0.3, (height, width, 2))
    parcel = cKDTree(points).query(grid.reshape(-1, 2))[1].reshape(height, width)
    changed = rng.random(len(points)) < rng.uniform(0.2, 0.9)
    amount = np.where(changed, rng.uniform(0, 0.7, len(points)), 0.0)
    pixels = image.reshape(len(image), -1)
    colours = pixels[:, rng.integers(pixels.shape[1], size=len(points))].T
    season = rng.normal(1, 0.06, (len(image), 1, 1))
    towards = np.moveaxis(colours[parcel], -1, 0)
    mixed = image + amount[parcel] * (towards - image)
    out: Array = np.maximum(mixed * season, 0.001).astype(np.float32)
    return out


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


def _dates(series: Series, rng: np.random.Generator) -> tuple[int, int]:
    count = len(series.s2)
    if count == 1:
        return 0, 0
    days = series.days if series.days is not None else np.zeros(count)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j and abs(days[i] - days[j]) <= MAX_AGE]
    first, second = pairs[rng.integers(len(pairs))]
    return first, second


def _crop(dates: Array, patch: int, rng: np.random.Generator) -> tuple[Array, Array]:
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
    return cut[0], cut[1]


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
    "read",
]
