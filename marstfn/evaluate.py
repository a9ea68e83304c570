"""Shipped weights against methods that need no training, on lands, sensors and seasons that training never drew.

`python -m marstfn.evaluate` writes a Markdown table to standard output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from marstfn import flanders, metrics
from marstfn.bands import BANDS
from marstfn.baselines import METHODS, REFERENCE, Array, bicubic
from marstfn.patches import fill_holes, starts
from marstfn.predict import Predictor, window
from marstfn.scenes import Scene, hidden, nearest, scene
from marstfn.simulate import Simulation, Style
from marstfn.weights import SHIPPED, load

SEEDS = range(7_000_000, 7_000_024)
"""Simulations of the evaluation; training uses 1_000_000 and on."""

SIDE, BLOCK = 108, 18
"""Sides of a scene and of a bootstrap block (180 m) in 10 m pixels."""

OVERLAP = 12

ALONE = ("copy", "linear")
"""Methods that are Sentinel-2 and nothing else."""

Method = Callable[[Scene], Array]
"""A scene with its holes -> (6,H,W), NaN where the method has nothing to say."""


@dataclass(frozen=True)
class Score:
    """One method over all scenes: `coverage` share of the pixel set it filled itself; the rest is bicubic Landsat."""

    rmse: float
    psnr: float
    psnr_truth: float
    ssim: float
    sam: float
    ergas: float
    coverage: float


@dataclass(frozen=True)
class Comparison:
    """First method minus second, 95 % intervals over scenes and blocks: `rmse` below 0 and `ssim` above 0 are gains."""

    rmse: metrics.Interval
    ssim: metrics.Interval


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
    """A weights file or shipped set as a method over whole scenes: patches of its own side, blended."""
    whole = network_with_doubt(name, batch=batch, threads=threads)
    return lambda view: whole(view)[: len(BANDS)]


def network_with_doubt(name: str, *, batch: int = 8, threads: int = 0) -> Method:
    """The same with all its channels: a seventh where the weights have uncertainty."""
    predict = Predictor(load(name), batch=batch, threads=threads)

    def method(view: Scene) -> Array:
        side = predict.patch
        rows, cols = (starts(n, side, side - OVERLAP) for n in view.truth.shape[1:])
        s2 = view.reference.between() if predict.context else view.s2
        context = view.reference.context() if predict.context else None
        pan = view.pan if predict.pan else None
        return window(predict, s2, view.landsat, pan, rows, cols, side, OVERLAP, context)

    return method


def baselines() -> dict[str, Method]:
    """The free methods as the pipeline runs them: on inputs whose holes are filled, as the network's are. Those that
    are Sentinel-2 alone stay empty where there is none."""

    def made(name: str) -> Method:
        def run(view: Scene) -> Array:
            s2 = view.s2 if REFERENCE[name] == "nearest" else view.reference.between()
            if name in ALONE:
                return METHODS[name](s2, view.landsat, None)
            fine, coarse, _ = fill_holes(s2, view.landsat)
            return METHODS[name](fine, coarse, None)

        return run

    return {name: made(name) for name in METHODS}


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


def scores(scenes: list[Scene], made: Mapping[str, list[Array]]) -> dict[str, Score]:
    """Every method over the same pixels, those that Landsat saw; emptiness is scored as bicubic Landsat."""
    table: dict[str, Score] = {}
    for name, images in made.items():
        full = [_filled(s, image) for s, image in zip(scenes, images, strict=True)]
        truth = np.concatenate([s.truth[:, s.seen] for s in scenes], 1)[:, None]
        taken = np.concatenate([f[:, s.seen] for s, f in zip(scenes, full, strict=True)], 1)[:, None]
        empty = [np.isnan(image[:, s.seen]).any(axis=0).mean() for s, image in zip(scenes, images, strict=True)]
        sizes = [int(s.seen.sum()) for s in scenes]
        similar = [metrics.ssim(f, s.truth, s.seen) for s, f in zip(scenes, full, strict=True)]
        table[name] = Score(
            metrics.rmse(taken, truth),
            metrics.psnr(taken, truth),
            metrics.psnr(taken, truth, peak="truth"),
            float(np.average(similar, weights=sizes)),
            metrics.sam(taken, truth),
            metrics.ergas(taken, truth),
            1 - float(np.average(empty, weights=sizes)),
        )
    return table


def compare(scenes: list[Scene], first: list[Array], second: list[Array], *, draws: int = 2000) -> Comparison:
    """Paired difference of two methods' images over blocks of BLOCK px, scenes drawn first and blocks within them."""
    squares: list[NDArray[np.float64]] = []
    similar: list[NDArray[np.float64]] = []
    groups: list[NDArray[np.intp]] = []
    for number, (view, a, b) in enumerate(zip(scenes, first, second, strict=True)):
        labels = metrics.blocks((view.truth.shape[1], view.truth.shape[2]), BLOCK)
        pair = [_filled(view, image) for image in (a, b)]
        error = [metrics.block_sums((p - view.truth) ** 2, labels, view.seen) for p in pair]
        local = [metrics.block_sums(metrics.ssim_map(p, view.truth, view.seen), labels, view.seen) for p in pair]
        squares.append(np.stack([error[0][0], error[1][0], error[0][1]]))
        similar.append(np.stack([local[0][0], local[1][0], local[0][1]]))
        groups.append(np.full(squares[-1].shape[1], number, np.intp))
    names = np.concatenate(groups)
    first_sq, second_sq, count = np.concatenate(squares, 1)
    first_ss, second_ss, _ = np.concatenate(similar, 1)
    return Comparison(
        metrics.block_bootstrap(first_sq, second_sq, count, groups=names, root=True, draws=draws),
        metrics.block_bootstrap(first_ss, second_ss, count, groups=names, draws=draws),
    )


def markdown(table: Mapping[str, Score], comparisons: Mapping[tuple[str, str], Comparison]) -> str:
    """Both tables as a reader of the model card sees them."""
    lines = [
        "| method | RMSE | PSNR (max 1) | PSNR (max of truth) | SSIM | SAM (deg) | ERGAS | coverage |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, s in table.items():
        lines.append(
            f"| {name} | {s.rmse:.5f} | {s.psnr:.2f} | {s.psnr_truth:.2f} | {s.ssim:.4f} | {s.sam:.2f} | "
            f"{s.ergas:.2f} | {s.coverage:.3f} |"
        )
    if comparisons:
        lines += ["", "| difference | RMSE (95 %) | SSIM (95 %) |", "|---|---|---|"]
    for (a, b), c in comparisons.items():
        lines.append(
            f"| {a} - {b} | {c.rmse.estimate:+.5f} ({c.rmse.low:+.5f} .. {c.rmse.high:+.5f}) | "
            f"{c.ssim.estimate:+.4f} ({c.ssim.low:+.4f} .. {c.ssim.high:+.4f}) |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m marstfn.evaluate", description=__doc__)
    parser.add_argument("--weights", nargs="*", default=list(SHIPPED), help="sets by name, or weights files")
    parser.add_argument("--scenes", type=int, default=len(SEEDS), help="number of held-back simulations")
    parser.add_argument("--side", type=int, default=SIDE, help="side of a scene in 10 m pixels, a multiple of 18")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its own choice")
    parser.add_argument(
        "--flanders", help="folder of the real data: adds the real same-day pairs, for sets without pan"
    )
    options = parser.parse_args(arguments)
    views = held_back(range(SEEDS.start, SEEDS.start + options.scenes), options.side)
    methods: dict[str, Method] = {**baselines(), **{n: network(n, threads=options.threads) for n in options.weights}}
    made = results(views, methods)
    pairs = {(n, b): compare(views, made[n], made[b]) for n in options.weights for b in METHODS}
    sys.stdout.write(f"{len(views)} scenes of {options.side} x {options.side} px\n\n")
    sys.stdout.write(markdown(scores(views, made), pairs) + "\n")
    if options.flanders:
        # the real place has no pan
        plain = {n: f for n, f in methods.items() if n not in options.weights or not load(n).config.pan}
        for title, view in flanders.scenes(flanders.read(options.flanders)).items():
            images = results([view], plain)
            sys.stdout.write(f"\n{title}, {int(view.seen.sum())} px\n\n{markdown(scores([view], images), {})}\n")
            coarse = {n: [at_20_m(image) for image in made] for n, made in images.items()}
            native = scores([replace(view, truth=at_20_m(view.truth))], coarse)
            sys.stdout.write(f"\nthe same, nir08, swir16 and swir22 at 20 m\n\n{markdown(native, {})}\n")


def _filled(view: Scene, image: Array) -> NDArray[np.float64]:
    _, coarse, _ = fill_holes(view.s2, view.landsat)
    fallback = bicubic(view.s2, coarse, None)
    return np.asarray(metrics.fill_empty(image, np.asarray(fallback)), np.float64)


if __name__ == "__main__":
    main()
