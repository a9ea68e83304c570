"""How well shifts are measured, on simulated passes of known registration error: `python -m marstfn.surveys`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from marstfn import scenes
from marstfn.registration import Measure, Refusal, measure
from marstfn.simulate import Simulation, Style

Floats = NDArray[np.float32]

GAPS = ((0, 4), (5, 12), (13, 25), (26, 45), (46, 80))
"""Days between Landsat and Sentinel-2, first and last of each class."""
LEAST_CLEAR = 0.3
"""Share of a window that must be clear in each image."""
FIRST_SEED = 9000
"""Of the simulations surveyed; training and tests use smaller ones."""


@dataclass(frozen=True, eq=False)
class Case:
    """A Landsat pass and a Sentinel-2 pass over one window, and how far the first lies beside the second in truth."""

    day: datetime
    reference_day: datetime
    landsat: Floats
    sentinel2: Floats
    east: float
    north: float

    @property
    def gap(self) -> int:
        """Days between the two."""
        return abs((self.day.date() - self.reference_day.date()).days)


def survey(
    simulation: Simulation,
    rng: np.random.Generator,
    x0: int,
    y0: int,
    shape: tuple[int, int],
    gaps: Sequence[tuple[int, int]] = GAPS,
) -> Iterator[Case]:
    """One partly cloudy Landsat pass of the growing season, drawn with `rng`, against the clearest Sentinel-2 pass of
    each class of `gaps`; fewer where none is clear enough."""
    passes = simulation.acquisitions()
    landsat = [a for a in passes if a.landsat and 5 < a.cloud_cover < 75 and 2 <= a.time.month <= 11]
    for k in rng.permutation(len(landsat)):
        own = landsat[k]
        coarse, _ = scenes.landsat(simulation, own, x0, y0, shape)
        if np.isfinite(coarse[0]).mean() >= LEAST_CLEAR:
            break
    else:
        return
    for low, high in gaps:
        near = [a for a in passes if not a.landsat and low <= abs((a.time.date() - own.time.date()).days) <= high]
        for other in sorted(near, key=lambda a: a.cloud_cover)[:2]:
            fine = scenes.sentinel2(simulation, other, x0, y0, shape)
            if np.isfinite(fine[0]).mean() >= LEAST_CLEAR:
                # who looks east of the place he names shows things west of it
                east = other.conditions.shift_x - own.conditions.shift_x
                north = other.conditions.shift_y - own.conditions.shift_y
                yield Case(own.time, other.time, coarse, fine, east, north)
                break


def cases(seeds: int, side: int) -> Iterator[Case]:
    """The surveys of `seeds` held-back simulations over windows of `side` px, each somewhere else."""
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        rng = np.random.default_rng(seed)
        simulation = Simulation(seed, 2022, 32650, Style.held_back(rng))
        x0, y0 = 600_000 + int(rng.integers(400)) * 60, 5_400_000 + int(rng.integers(400)) * 60
        yield from survey(simulation, rng, x0, y0, (side, side))


def table(found: Sequence[tuple[Case, Measure | Refusal]]) -> list[str]:
    """Median, 90th percentile and largest error in metres by days between the images, and what the standard errors were
    worth (1: what they say), as lines of text."""
    lines = [
        f"{'days':>6}{'pairs':>7}{'refused':>9}{'median m':>10}{'p90 m':>7}{'max m':>7}{'stated m':>10}{'ratio':>7}"
    ]
    for low, high in GAPS:
        mine = [(c, m) for c, m in found if low <= c.gap <= high]
        kept = [(m.east - c.east, m.north - c.north, m.error) for c, m in mine if isinstance(m, Measure)]
        if not kept:
            continue
        east, north, stated = np.array(kept).T
        off = np.hypot(east, north)
        ratio = np.sqrt(np.mean(np.concatenate([east / stated, north / stated]) ** 2))
        lines.append(
            f"{f'{low}-{high}':>6}{len(mine):>7}{len(mine) - len(kept):>9}{np.median(off):>10.2f}"
            f"{np.quantile(off, 0.9):>7.2f}{off.max():>7.2f}{np.median(stated):>10.2f}{ratio:>7.2f}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Survey held-back simulations and print the table."""
    parser = argparse.ArgumentParser(prog="python -m marstfn.surveys", description=__doc__)
    parser.add_argument("--seeds", type=int, default=24, help="simulations")
    parser.add_argument("--side", type=int, default=360, help="side of the window in 10 m pixels, a multiple of 6")
    options = parser.parse_args(arguments)
    found = [(case, measure(case.landsat, case.sentinel2)) for case in cases(options.seeds, options.side)]
    sys.stdout.write("\n".join(table(found)) + "\n")


if __name__ == "__main__":
    main()
