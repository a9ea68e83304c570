"""Networks and free methods on the same scenes: what each makes of them, scored over one set of pixels.

The scenes are lands, sensors and seasons that training never drew (`held_back`); `pipeline.report` has the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from marstfn import methods, metrics
from marstfn.bands import BANDS
from marstfn.baselines import METHODS, Array, bicubic
from marstfn.patches import fill_holes
from marstfn.predict import Predictor
from marstfn.reference import FILL
from marstfn.scenes import Scene, hidden, nearest, scene
from marstfn.simulate import Simulation, Style
from marstfn.tally import Tally, tally
from marstfn.weights import load

SEEDS = range(7_000_000, 7_000_024)
"""Simulations of the evaluation; training uses 1_000_000 and on."""

CALIBRATION = range(7_500_000, 7_500_024)
"""Simulations by which the intervals of the shipped sets are calibrated: other lands, drawn as the evaluation's are."""

SIDE, BLOCK = 108, 18
"""Sides of a scene and of a bootstrap block (180 m) in 10 m pixels."""

Method = Callable[[Scene], Array]
"""A scene with its holes -> (6,H,W), NaN where the method has nothing to say; (7,H,W) with uncertainty."""

Part = Callable[[Scene], NDArray[np.bool_]]
"""Which pixels (H, W) of a scene are meant."""

CHANGE = 0.02
"""Reflectance, mean over bands, beyond which a pixel has changed since its reference."""


def held_back(seeds: Iterable[int] = SEEDS, side: int = SIDE) -> list[Scene]:
    """One Landsat date of each seed's year, `Style.held_back`, at least half clear in a window of `side` px, with the
    nearest clear Sentinel-2 of other days as its reference."""
    found: list[Scene] = []
    for seed in seeds:
        rng = np.random.default_rng((23, seed))
        simulation = Simulation(seed, int(rng.integers(2016, 2026)), style=Style.held_back(rng))
        x0, y0 = (int(v) * 60 for v in rng.integers((5_000, 70_000), (12_000, 95_000)))
        passes = [a for a in simulation.acquisitions() if a.landsat and a.cloud_cover <= 70]
        for k in rng.permutation(len(passes)):
            if hidden(simulation, passes[k], x0, y0, (side, side)).mean() > 0.5:
                continue
            others = [a for a in nearest(simulation, passes[k].time) if a.time.date() != passes[k].time.date()]
            view = scene(simulation, passes[k], others, x0, y0, (side, side))
            if np.isfinite(view.s2[0]).mean() >= 0.5:
                found.append(view)
                break
    return found


def network(name: str, *, batch: int = 8, threads: int = 0) -> Method:
    """A weights file or shipped set as a method over whole scenes; seven channels where it has uncertainty."""
    return whole(methods.network(Predictor(load(name), batch=batch, threads=threads)))


def baselines() -> dict[str, Method]:
    """Every method that needs no training, over whole scenes."""
    return {name: whole(methods.free(name)) for name in METHODS}


def whole(method: methods.Method) -> Method:
    """A method over whole scenes."""

    def run(view: Scene) -> Array:
        return method.whole(view.reference, view.landsat, view.pan)

    return run


def results(scenes: Iterable[Scene], methods: Mapping[str, Method]) -> dict[str, list[Array]]:
    """What each method makes of each scene, (6,H,W) with NaN where it leaves a pixel empty."""
    held = list(scenes)
    return {name: [np.asarray(f(s)) for s in held] for name, f in methods.items()}


def at_20_m(image: Array) -> Array:
    """(6,H,W) with nir08, swir16 and swir22 as means of 20 m cells: what real Sentinel-2 can say of them."""
    out = np.array(image, np.float32)
    bands, height, width = out[3:].shape
    cells = out[3:].reshape(bands, height // 2, 2, width // 2, 2).mean((2, 4))
    out[3:] = np.repeat(np.repeat(cells, 2, 1), 2, 2)
    return out


def tallies(
    scenes: list[Scene], made: Mapping[str, list[Array]], parts: Mapping[str, Part] | None = None
) -> dict[str, dict[str, Tally]]:
    """By part of the pixels and method: the sums of errors over the pixels that Landsat saw; one set for all methods,
    and what a method leaves empty is scored as bicubic Landsat."""
    table: dict[str, dict[str, Tally]] = {}
    full = {n: [filled(s, image) for s, image in zip(scenes, images, strict=True)] for n, images in made.items()}
    for part, belongs in {"all": _everywhere, **(parts or {})}.items():
        masks = [s.seen & belongs(s) for s in scenes]
        truths = [s.truth for s in scenes]
        table[part] = {name: tally(images, truths, masks, BLOCK) for name, images in full.items()}
    return table


def coverage(scenes: list[Scene], made: list[Array]) -> float:
    """Share of the scored pixels that a method filled itself."""
    empty = [np.isnan(image[:, s.seen]).any(axis=0) for s, image in zip(scenes, made, strict=True)]
    return 1 - float(np.concatenate(empty).mean())


def intervals(scenes: list[Scene], made: list[Array], factors: tuple[float, ...]) -> tuple[float, ...]:
    """By band the share of scored pixels within `factors` times channel 7 of the truth; 0.9 is what is claimed."""
    held = []
    for view, image in zip(scenes, made, strict=True):
        half = np.asarray(factors)[:, None, None] * image[len(BANDS)]
        held.append((np.abs(image[: len(BANDS)] - view.truth) <= half)[:, view.seen])
    return tuple(float(v) for v in np.concatenate(held, 1).mean(1))


def calibrated(scenes: list[Scene], made: list[Array], share: float = 0.9) -> tuple[float, ...]:
    """By band, the factor of channel 7 within which `share` of the scored pixels of these scenes have the truth."""
    ratios = [
        (np.abs(image[: len(BANDS)] - view.truth) / image[len(BANDS)])[:, view.seen]
        for view, image in zip(scenes, made, strict=True)
    ]
    factors = np.quantile(np.concatenate(ratios, 1), share, axis=1)
    return tuple(round(float(f), 5) for f in factors)


def changed(view: Scene) -> NDArray[np.bool_]:
    """(H, W) where the mean over bands of |truth - nearest reference| is above CHANGE."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(view.truth - view.s2).mean(0) > CHANGE)


def unchanged(view: Scene) -> NDArray[np.bool_]:
    """(H, W) where it is not, and there is a reference."""
    return np.asarray(~changed(view) & ~np.isnan(view.s2[0]))


def aged(low: int, high: int) -> Part:
    """Pixels whose nearest reference lies low..high days away."""

    def belongs(view: Scene) -> NDArray[np.bool_]:
        age = view.reference.age()
        return np.asarray((age != FILL) & (np.abs(age) >= low) & (np.abs(age) <= high))

    return belongs


PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "changed": changed,
        "unchanged": unchanged,
        "reference 1-5 days": aged(1, 5),
        "reference 6-15 days": aged(6, 15),
        "reference 16-60 days": aged(16, 60),
    }
)


def filled(view: Scene, image: Array) -> NDArray[np.float64]:
    """The six bands of a result, what it leaves empty as bicubic Landsat."""
    return np.asarray(metrics.fill_empty(image[: len(BANDS)], fallback(view)), np.float64)


def fallback(view: Scene) -> Array:
    """(6,H,W) that stands for the pixels a method leaves empty: bicubic Landsat, its holes closed."""
    _, coarse, _ = fill_holes(view.s2, view.landsat)
    return bicubic(view.s2, coarse, None)


def _everywhere(view: Scene) -> NDArray[np.bool_]:
    return np.ones(view.truth.shape[1:], bool)
