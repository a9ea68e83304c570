"""Whether the network earns its place on some land and season: free methods win it only by a margin that chance does
not explain.

Two views decide. At reduced scale (marstfn.reduced) Landsat itself is the truth, so every date has one; but the methods
that follow Landsat closest share its own errors with that truth. Where Sentinel-2 saw a Landsat date within a day it is
the better judge, at 10 m, hidden from the methods. The default gives way only where either judge has the rival ahead
beyond chance: on simulated land the reduced scale alone, or confirmed by a mere lead with Sentinel-2, favoured a free
method where the network was the better one at 10 m.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marstfn.baselines.degrade import Array
from marstfn.methods import NETWORK
from marstfn.metrics import Interval, block_sums, blocks

RIVALS = ("additive", "additive-linear", "linear", "bicubic")
"""What anybody has without training."""
NAMES = (NETWORK, *RIVALS)
"""The default first."""
MARGIN, BLOCK = 6, 24
"""Outer pixels of a patch that are not scored (blending hides them elsewhere), and the side of a block: at 30 m."""
LEVEL = 0.95
"""Of all rivals' intervals together: each has the level 1 - (1 - LEVEL) / number of rivals."""
DRAWS = 2000
LEAST_DATES, LEAST_CELLS = 3, 12
"""Dates, and blocks of dates, in either half below which a season has too little to say."""
NEAR = 1
"""Days within which Sentinel-2 stands for the truth of a Landsat date."""
LEAST_NEAR = 4
"""Blocks of dates that Sentinel-2 must have judged for its judgement to count."""
YEAR = "year"
QUARTERS = ("January-March", "April-June", "July-September", "October-December")
SEED = 0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cell:
    """One block of ground on one date: pixels scored, and by method of NAMES the sum of their squared errors."""

    date: int
    block: str
    pixels: int
    errors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Half:
    """RMSE by method on half of the blocks, and of each rival its RMSE minus the network's with its interval."""

    cells: int
    rmse: Mapping[str, float]
    against: Mapping[str, Interval]

    @property
    def ahead(self) -> list[str]:
        """Rivals that beat the network beyond chance, the best first."""
        names = [name for name, interval in self.against.items() if interval.high < 0]
        return sorted(names, key=lambda name: self.rmse[name])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is used in a season, and why: decided on one half of the blocks, reported on the other."""

    season: str
    method: str
    reason: str
    dates: int
    decided: Half | None = None
    reported: Half | None = None
    near: tuple[Half | None, Half | None] = (None, None)
    """The same two halves by Sentinel-2 of a neighbouring day at 10 m; None where it judged too little."""


def cells(date: int, place: str, errors: Sequence[Array]) -> list[Cell]:
    """The blocks of one patch on one date, from squared errors (h,w) by method of NAMES, NaN where not scored."""
    inner = [e[MARGIN:-MARGIN, MARGIN:-MARGIN] for e in errors]
    if not inner[0].size:
        return []
    labels = blocks((inner[0].shape[0], inner[0].shape[1]), BLOCK)
    scored = np.asarray(np.isfinite(np.stack(inner)).all(axis=0))
    sums = [block_sums(np.where(scored, e, 0), labels, scored) for e in inner]
    found = []
    for k, pixels in enumerate(sums[0][1]):
        if pixels:
            found.append(Cell(date, f"{place}-{k}", int(pixels), tuple(float(total[k]) for total, _ in sums)))
    return found


def verdicts(
    found: Sequence[Cell], quarter: Mapping[int, str], near: Sequence[Cell] = (), *, seed: int = SEED
) -> tuple[Verdict, ...]:
    """The whole year's verdict first, then each quarter's; `quarter` names that of each date.

    `found` are cells at reduced scale, `near` those judged by Sentinel-2 of a neighbouring day. Blocks are dealt at
    random (`seed`) into two halves of different ground: one decides, the other reports.
    """
    names = sorted({c.block for c in (*found, *near)})
    deciding = set(np.random.default_rng(seed).permutation(np.array(names, dtype=object))[: -(-len(names) // 2)])
    year = _verdict(YEAR, found, near, deciding, Verdict(YEAR, NETWORK, "", 0))
    out = [year]
    for name in sorted(set(quarter.values()), key=QUARTERS.index):
        parts = [[c for c in some if quarter[c.date] == name] for some in (found, near)]
        out.append(_verdict(name, parts[0], parts[1], deciding, year))
    return tuple(out)


def chosen(decisions: Sequence[Verdict], season: str) -> str:
    """The method for a date of `season`; the network where nothing was decided."""
    return next((v.method for v in decisions if v.season == season), NETWORK)


def _verdict(
    season: str, found: Sequence[Cell], near: Sequence[Cell], deciding: set[str], otherwise: Verdict
) -> Verdict:
    first, second = (_half(part) for part in _dealt(found, deciding))
    dates = len({c.date for c in found})
    if first is None or second is None:
        what = "the default stays" if season == YEAR else "as the whole year"
        return Verdict(season, otherwise.method, f"too little to judge by: {what}", dates)
    judged = [_half(part, LEAST_NEAR, 1) for part in _dealt(near, deciding)]
    judge = (judged[0], judged[1]) if judged[0] is not None else otherwise.near
    ahead = first.ahead
    confirmed = [name for name in ahead if judge[0] is not None and judge[0].against[name].high < 0]
    if not confirmed:
        reason = "no free method beyond chance"
        if ahead and judge[0] is None:
            reason = f"{ahead[0]} is ahead at reduced scale, but no Sentinel-2 of a neighbouring day can confirm it"
        elif ahead:
            reason = f"{ahead[0]} is ahead at reduced scale, and not beyond chance by Sentinel-2 of neighbouring days"
        return Verdict(season, NETWORK, reason, dates, first, second, judge)
    return Verdict(season, confirmed[0], "ahead of the network beyond chance", dates, first, second, judge)


def _dealt(found: Sequence[Cell], deciding: set[str]) -> tuple[list[Cell], list[Cell]]:
    ordered = sorted(found, key=lambda c: (c.block, c.date))
    return [c for c in ordered if c.block in deciding], [c for c in ordered if c.block not in deciding]


def _half(found: Sequence[Cell], least: int = LEAST_CELLS, dates: int = LEAST_DATES) -> Half | None:
    if len(found) < least or len({c.date for c in found}) < dates:
        return None
    pixels = np.array([c.pixels for c in found], np.float64)
    errors = np.array([c.errors for c in found], np.float64)
    rmse = np.sqrt(errors.sum(0) / pixels.sum())
    drawn = _weights(np.array([c.date for c in found])) @ np.column_stack([errors, pixels])
    spread = np.sqrt(drawn[:, :-1] / drawn[:, -1:])
    tail = (1 - LEVEL) / len(RIVALS) / 2
    against = {}
    for k, name in enumerate(NAMES[1:], start=1):
        low, high = np.quantile(spread[:, k] - spread[:, 0], [tail, 1 - tail])
        against[name] = Interval(float(rmse[k] - rmse[0]), float(low), float(high))
    return Half(len(found), {name: float(v) for name, v in zip(NAMES, rmse, strict=True)}, against)


def _weights(dates: NDArray[np.intp]) -> Floats:
    """(DRAWS, n) how often each cell is drawn: dates first, since one date's cells share its errors, then cells."""
    rng = np.random.default_rng(SEED)
    members = [np.flatnonzero(dates == d) for d in np.unique(dates)]
    out = np.zeros((DRAWS, len(dates)))
    times = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), DRAWS)
    for column, cells_ in enumerate(members):
        even = np.full(len(cells_), 1 / len(cells_))
        out[:, cells_] = rng.multinomial(times[:, column] * len(cells_), even)
    return out
