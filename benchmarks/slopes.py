"""Whether a measure grows along a run: a slope that single disturbances do not bend, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from benchmarks.measure import Figure

DRAWS, BLOCK, SEED = 400, 10, 5
"""Bootstrap samples; neighbouring measures that are drawn together at the least, for what disturbs one disturbs the
next."""

Measures = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trend:
    """What a measure gains from the first to the last of a run, and the middle 95 % of bootstrap samples of that."""

    gain: float
    low: float
    high: float
    mean: float
    """Of the measure itself."""

    @property
    def flat(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0 <= self.high


def trend(values: Measures) -> Trend:
    """The trend of measures taken one after another: Theil and Sen's median of slopes, bootstrapped in blocks.

    Blocks are twice as long as a disturbance lasts (the integrated autocorrelation of what the trend leaves, Sokal
    1997), up to a quarter of the run: what a process has taken from the system it keeps, so that its sizes are steps.
    """
    y = np.asarray(values, float)
    x = np.linspace(0, 1, len(y))
    gained = gain(y)
    rest = y - gained * x
    rng = np.random.default_rng(SEED)
    block = min(max(BLOCK, _lasting(rest)), max(1, len(y) // 4))
    draws = []
    for _ in range(DRAWS):
        first = rng.integers(0, len(y) - block + 1, -(-len(y) // block))
        picked = (first[:, None] + np.arange(block)).ravel()[: len(y)]
        draws.append(_slope(x, gained * x + rest[picked]))
    low, high = np.percentile(draws, [2.5, 97.5])
    return Trend(gained, float(low), float(high), float(y.mean()))


def common(rounds: Measures) -> Trend:
    """The trend that `rounds` (round, step) have in common: a line of one slope with a level of its own for each round,
    its interval by Student's t, as every step is a sample by itself."""
    y = np.asarray(rounds, float)
    number, steps = y.shape
    x = (np.arange(steps) + 0.5) / steps - 0.5
    rest = y - y.mean(axis=1, keepdims=True)
    gained = float((rest @ x).sum() / (number * x @ x))
    freedom = number * (steps - 1) - 1
    error = float(np.sqrt(((rest - gained * x) ** 2).sum() / freedom / (number * x @ x)))
    half = float(student.ppf(0.975, freedom)) * error
    return Trend(gained, gained - half, gained + half, float(y.mean()))


def figures(what: str, found: Trend, unit: str, width: float) -> tuple[Figure, Figure]:
    """The gain over the run, as hoped indistinguishable from 0, and its interval's width, at most `width` of the
    mean."""
    share = (found.high - found.low) / found.mean
    return (
        Figure(f"{what}, gain over the run", (found.low, found.gain, found.high), unit, "interval holds 0", found.flat),
        Figure(f"{what}, width of that interval", (share,), "of the mean", f"<= {width:g}", share <= width),
    )


def gain(values: Measures) -> float:
    """What measures taken one after another gain from the first to the last: Theil and Sen's median of slopes."""
    y = np.asarray(values, float)
    return _slope(np.linspace(0, 1, len(y)), y)


def _lasting(rest: NDArray[np.float64]) -> int:
    """Twice the measures for which a disturbance of `rest` lasts: its autocorrelations up to the first below 0."""
    rest = rest - rest.mean()
    products = np.correlate(rest, rest, "full")[len(rest) - 1 :]
    if products[0] == 0:
        return 1
    after = products[1:] / products[0]
    until = int(np.argmax(after < 0)) if (after < 0).any() else len(after)
    return int(np.ceil(2 * (1 + 2 * after[:until].sum())))


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    i, j = np.triu_indices(len(x), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))
