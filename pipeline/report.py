"""The tables of the model card, on standard output: `python -m pipeline.report --help`.

Held-back simulated lands; the real place where both sensors saw the same ground, by how near its references may lie;
a real place with pan at reduced resolution.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

import numpy as np

from marstfn import evaluate, flanders
from marstfn.bands import BANDS
from marstfn.baselines import Array
from marstfn.evaluate import BLOCK, PARTS, SEEDS, SIDE, Method
from marstfn.scenes import Scene
from marstfn.tally import METRICS, Tally, differences, verdict
from marstfn.weights import SHIPPED, load
from pipeline import india

WINDOWS = (1, 10, 30)
"""Days within which, around the target, no reference may lie."""

NAMES = {"rmse": "RMSE", "psnr": "PSNR", "ssim": "SSIM", "sam": "SAM (deg)", "ergas": "ERGAS"}
DIGITS = {"rmse": 5, "psnr": 2, "ssim": 4, "sam": 2, "ergas": 2}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.report", description=__doc__)
    parser.add_argument("--weights", nargs="*", default=list(SHIPPED), help="sets by name, or weights files")
    parser.add_argument("--best", help="which of the weights is compared with all others; default: the first")
    parser.add_argument("--scenes", type=int, default=len(SEEDS), help="number of held-back simulations")
    parser.add_argument("--side", type=int, default=SIDE, help="side of a scene in 10 m pixels, a multiple of 18")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its own choice")
    parser.add_argument("--data", help="folder of the real data: adds Flanders and India")
    options = parser.parse_args(arguments)
    networks = {name: evaluate.network(name, threads=options.threads) for name in options.weights}
    best = options.best or options.weights[0]
    seeds = range(SEEDS.start, SEEDS.start + options.scenes)
    views = evaluate.held_back(seeds, options.side)
    methods = {**networks, **evaluate.baselines()}
    _write(f"## {len(views)} held-back simulated scenes of {options.side} x {options.side} px\n\n")
    _write(section(views, methods, best) + "\n")
    if not options.data:
        return
    place = flanders.read(options.data)
    bare = {n: m for n, m in methods.items() if n not in networks or not load(n).config.pan}
    chosen = best if best in bare else next(n for n in bare)
    for least in WINDOWS:
        found = flanders.scenes(place, least)
        _write(f"\n## Flanders (real), references at least {least} days away: {'; '.join(found)}\n\n")
        _write(section(list(found.values()), bare, chosen, names=tuple(found)) + "\n")
    found = india.scenes(options.data)
    _write(f"\n## India (real Landsat, reduced resolution): {'; '.join(found)}\n\n")
    _write(section(list(found.values()), methods, best, names=tuple(found)) + "\n")


def section(views: list[Scene], methods: Mapping[str, Method], best: str, names: tuple[str, ...] = ()) -> str:
    """Scores, paired differences of `best` to the others, parts of the pixels, coverage of the 90 % intervals; with
    `names`, each scene by itself."""
    made = evaluate.results(views, methods)
    tables = evaluate.tallies(views, made, PARTS)
    filled = {name: evaluate.coverage(views, images) for name, images in made.items()}
    lines = [scores(tables["all"], filled), "", compared(tables["all"], best)]
    if names:
        lines += ["", *_each(views, made, names)]
    lines += ["", by_part(tables)]
    factors = load(best).interval
    if factors:
        shares = evaluate.intervals(views, made[best], factors)
        lines += ["", f"90 % intervals of {best} hold: " + ", ".join(f"{b} {s:.3f}" for b, s in _named(shares))]
    return "\n".join(lines)


def scores(table: Mapping[str, Tally], filled: Mapping[str, float]) -> str:
    """One row a method, the best of each column in bold."""
    values = {name: {m: t.score(m) for m in METRICS} for name, t in table.items()}
    lines = [f"| method | {' | '.join(NAMES[m] for m in METRICS)} | coverage |", "|---" * (len(METRICS) + 2) + "|"]
    for name, row in values.items():
        cells = []
        for metric in METRICS:
            ranked = sorted((v[metric] for v in values.values()), reverse=metric in ("psnr", "ssim"))
            text = f"{row[metric]:.{DIGITS[metric]}f}"
            cells.append(f"**{text}**" if row[metric] == ranked[0] else text)
        lines.append(f"| {name} | {' | '.join(cells)} | {filled[name]:.3f} |")
    return "\n".join(lines)


def compared(table: Mapping[str, Tally], best: str) -> str:
    """Paired differences of `best` to every other method with 95 % intervals, and what they say of it."""
    lines = [f"| {best} minus | {' | '.join(NAMES[m] for m in METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for name, other in table.items():
        if name == best:
            continue
        found = differences(table[best], other)
        cells = []
        for metric in METRICS:
            d, digits = found[metric], DIGITS[metric]
            interval = f"{d.estimate:+.{digits}f} ({d.low:+.{digits}f} .. {d.high:+.{digits}f})"
            cells.append(f"{interval} {verdict(metric, d)}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_part(tables: Mapping[str, Mapping[str, Tally]]) -> str:
    """RMSE / SSIM by part of the pixels."""
    parts = [part for part, table in tables.items() if next(iter(table.values())).pixels]
    counts = ", ".join(f"{p} {next(iter(tables[p].values())).pixels}" for p in parts)
    lines = [f"RMSE / SSIM by part of the pixels ({counts}):", "", f"| method | {' | '.join(parts)} |"]
    lines.append("|---" * (len(parts) + 1) + "|")
    for name in tables["all"]:
        cells = [f"{tables[p][name].score('rmse'):.5f} / {tables[p][name].score('ssim'):.4f}" for p in parts]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _each(views: list[Scene], made: Mapping[str, list[Array]], names: tuple[str, ...]) -> list[str]:
    lines = [f"RMSE / SSIM by scene (blocks of {BLOCK * 10} m):", "", f"| method | {' | '.join(names)} |"]
    lines.append("|---" * (len(names) + 1) + "|")
    tables = [evaluate.tallies([v], {n: [m[k]] for n, m in made.items()})["all"] for k, v in enumerate(views)]
    for name in made:
        cells = [f"{t[name].score('rmse'):.4f} / {t[name].score('ssim'):.3f}" for t in tables]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _named(shares: tuple[float, ...]) -> list[tuple[str, float]]:
    return list(zip(BANDS, np.round(shares, 4).tolist(), strict=True))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
