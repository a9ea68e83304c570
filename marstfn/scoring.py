"""Outcomes to records: every method's scores on one set of pixels, and which differences between methods are real.

The pixels of a date are fixed by its truth and inputs; one that a method left empty is scored as bicubic Landsat, and a
method that failed is scored as bicubic Landsat throughout. The parts into which a date's scene was cut are scored
together. Intervals come from a paired block bootstrap: dates of a group are drawn first, blocks of at least 180 m
within them, as in `marstfn.tally`; an average is that of its dates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from marstfn.bands import BANDS
from marstfn.comparison import Case, Outcome
from marstfn.measures import ALL, MEASURES, Doubles
from marstfn.measures import scores as scores_of
from marstfn.metrics import Interval
from marstfn.rows import NOT_RUN, Growing, Row

AVERAGE = "average"
"""In place of a date: the mean over the dates of the group."""
POOLED = "all bands"
"""In place of a band: all six together."""

Verdict = Literal["better", "worse", "tie", ""]
Standing = Literal["best", "tied", "behind", ""]


@dataclass(frozen=True, slots=True)
class Record:
    """What one method scores on one date (or on the average of a group's), part of the pixels and band; a measure that
    is undefined there is NaN. `reason`: why the method failed there, if it did."""

    group: str
    case: str
    method: str
    part: str
    band: str
    pixels: int
    psnr: float
    psnr_truth: float
    ssim: float
    rmse: float
    r2: float
    sam: float
    ergas: float
    coherence: float
    ndvi: float
    coverage: float
    seconds: float
    simulated: bool
    data: str
    reason: str

    def value(self, measure: str) -> float:
        return float(getattr(self, measure))


@dataclass(frozen=True, slots=True)
class Difference:
    """Score of `method` minus that of `other` with its 95 % interval, and what it says of `method`."""

    group: str
    case: str
    part: str
    band: str
    measure: str
    method: str
    other: str
    estimate: float
    low: float
    high: float
    verdict: Verdict
    against: Literal["best", "chosen"]


Cell = tuple[str, str, str, str, str]
"""group, case, part, band, measure: the place of one contest."""


@dataclass(frozen=True, eq=False)
class Scores:
    """All records and paired differences; groups, dates and methods in the order they came in."""

    records: tuple[Record, ...]
    differences: tuple[Difference, ...]
    rows: tuple[Row, ...]
    chosen: str | None
    draws: int

    @cached_property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(r.group for r in self.rows))

    def rows_of(self, group: str) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.group == group)

    def methods(self, group: str) -> tuple[str, ...]:
        """Those that made something of a date of the group, or all if none did: what failed on every date is told among
        the failures alone."""
        return self._methods[group]

    @cached_property
    def _methods(self) -> dict[str, tuple[str, ...]]:
        out = {}
        for group in self.groups:
            own = [r for r in self.records if r.group == group]
            made = {r.method for r in own if r.case != AVERAGE and not r.reason}
            out[group] = tuple(dict.fromkeys(r.method for r in own if r.method in made or not made))
        return out

    def record(self, group: str, case: str, method: str, part: str = ALL, band: str = POOLED) -> Record:
        """KeyError where there is none."""
        return self._records[group, case, method, part, band]

    def standing(self, cell: Cell, method: str) -> Standing:
        """Whether `method` is the best there, tied with it within the interval, or behind; empty where undefined."""
        if self._best.get(cell) == method:
            return "best"
        found = self._to_best.get((cell, method))
        return "" if found is None else "tied" if found.verdict == "tie" else "behind"

    def to_best(self, cell: Cell, method: str) -> Difference | None:
        """None for the best itself, and where nothing is defined."""
        return self._to_best.get((cell, method))

    def to_chosen(self, cell: Cell, method: str) -> Difference | None:
        return self._to_chosen.get((cell, method))

    def best(self, cell: Cell) -> str | None:
        return self._best.get(cell)

    @cached_property
    def failures(self) -> tuple[Record, ...]:
        """One record for each date and method that failed."""
        return tuple(r for r in self.records if r.reason and r.case != AVERAGE and (r.part, r.band) == (ALL, POOLED))

    @cached_property
    def _records(self) -> dict[tuple[str, str, str, str, str], Record]:
        return {(r.group, r.case, r.method, r.part, r.band): r for r in self.records}

    @cached_property
    def _best(self) -> dict[Cell, str]:
        out: dict[Cell, str] = {}
        top: dict[Cell, float] = {}
        for r in self.records:
            for key, measure in MEASURES.items():
                value, cell = r.value(key), (r.group, r.case, r.part, r.band, key)
                if math.isnan(value):
                    continue
                if cell not in top or (value < top[cell] if measure.less_is_better else value > top[cell]):
                    top[cell], out[cell] = value, r.method
        return out

    @cached_property
    def _to_best(self) -> dict[tuple[Cell, str], Difference]:
        return {(_cell(d), d.method): d for d in self.differences if d.against == "best"}

    @cached_property
    def _to_chosen(self) -> dict[tuple[Cell, str], Difference]:
        return {(_cell(d), d.method): d for d in self.differences if d.against == "chosen"}


class Scoring:
    """Scores of cases that come in one by one: of every image only sums are kept, so that it may go."""

    def __init__(self, *, chosen: str | None = None, draws: int = 2000, seed: int = 0) -> None:
        self.chosen, self.draws, self.seed = chosen, draws, seed
        self._groups: dict[str, dict[str, Growing]] = {}

    def add(self, made: Sequence[Outcome], methods: Iterable[str] = ()) -> None:
        """All outcomes of one case. `methods` take part in its group: one without an outcome has failed there.

        Raises ValueError on an empty list, a case or a method that comes twice, or a wrong shape.
        """
        if not made:
            raise ValueError("there is no outcome to score")
        case = made[0].case
        rows = self._groups.setdefault(case.group, {})
        rows.setdefault(case.row, Growing(case.group, case.row)).add(case, made, methods)

    def scores(self) -> Scores:
        """Records of every row, averages of every group, and paired differences of every method to the best one and,
        where it took part, to the chosen one. Raises ValueError where no outcome or, to some case of a group, not every
        one of its methods was added."""
        if not self._groups:
            raise ValueError("there is no outcome to score")
        records: list[Record] = []
        differences: list[Difference] = []
        for number, (group, rows) in enumerate(self._groups.items()):
            methods = tuple(dict.fromkeys(name for grown in rows.values() for name in grown.methods))
            sampled = [
                _sample(grown, methods, np.random.default_rng((self.seed, number, k)), self.draws)
                for k, grown in enumerate(rows.values())
            ]
            records += [r for s in sampled for r in s.records]
            records += _averages(group, [s.records for s in sampled])
            mean = _mean_sample([s.values for s in sampled], np.random.default_rng((self.seed, number)), self.draws)
            for case, values in ((AVERAGE, mean), *zip(rows, (s.values for s in sampled), strict=True)):
                differences += _differences((group, case), values, self.chosen)
        found = tuple(grown.row for rows in self._groups.values() for grown in rows.values())
        return Scores(tuple(records), tuple(differences), found, self.chosen, self.draws)


def score(outcomes: Iterable[Outcome], *, chosen: str | None = None, draws: int = 2000, seed: int = 0) -> Scores:
    """What `Scoring` makes of outcomes that are all at hand, in any order. Raises ValueError as it does."""
    scoring = Scoring(chosen=chosen, draws=draws, seed=seed)
    for made, methods in by_case(outcomes):
        scoring.add(made, methods)
    return scoring.scores()


def by_case(outcomes: Iterable[Outcome]) -> Iterator[tuple[list[Outcome], tuple[str, ...]]]:
    """Outcomes case by case, each time with all methods of its group."""
    cases: dict[Case, list[Outcome]] = {}
    methods: dict[str, dict[str, None]] = {}
    for outcome in outcomes:
        cases.setdefault(outcome.case, []).append(outcome)
        methods.setdefault(outcome.case.group, {})[outcome.method] = None
    for case, made in cases.items():
        yield made, tuple(methods[case.group])


@dataclass(frozen=True, eq=False)
class _Sample:
    """Of one row: its records, and by part and method the scores (measures, 1 + draws, 1 + bands), drawn ones last."""

    records: list[Record]
    values: dict[str, dict[str, Doubles]]


def _sample(grown: Growing, methods: tuple[str, ...], rng: np.random.Generator, draws: int) -> _Sample:
    row, pixels, centre, peak = grown.row, grown.pixels, grown.centre, grown.peak
    times: dict[str, Doubles] = {}
    records: list[Record] = []
    values: dict[str, dict[str, Doubles]] = {part: {} for part in pixels}
    for method in methods:
        if any(method not in piece.methods for piece in grown.pieces):
            raise ValueError(f"{method} was not among the methods when {row.name} of {row.group} was added")
        kept = grown.pooled(method)
        for part, sums in kept.sums.items():
            if part not in times:
                count = max(len(sums), 1)
                drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
                times[part] = drawn[:, : len(sums)].astype(np.float64)
            found = scores_of(np.vstack([sums.sum(0), times[part] @ sums]), centre, peak)
            # bands of a part have records, but no contest: the tables do not show them
            values[part][method] = found if part == ALL else found[..., :1]
            share = kept.filled[part] / pixels[part] if pixels[part] else math.nan
            for b, band in enumerate((POOLED, *BANDS)):
                place = (row.group, row.name, method, part, band)
                scores = dict(zip(MEASURES, (float(v) for v in found[:, 0, b]), strict=True))
                scores |= {"coverage": share, "seconds": kept.seconds}
                records.append(_record(place, pixels[part], scores, row.simulated, row.data, kept.reason))
    return _Sample(records, values)


def _mean_sample(
    sampled: list[dict[str, dict[str, Doubles]]], rng: np.random.Generator, draws: int
) -> dict[str, dict[str, Doubles]]:
    """By part and method as in `_Sample`: the mean over dates, and its draws, for each of which dates are drawn first
    and then, date by date and the same for every method, one of the date's own draws of blocks."""
    out: dict[str, dict[str, Doubles]] = {}
    for part in sampled[0]:
        # a date without a pixel of the part says nothing of it
        dates = [s[part] for s in sampled if any(np.isfinite(v[:, 0]).any() for v in s[part].values())] or [
            sampled[0][part]
        ]
        which = rng.integers(len(dates), size=(len(dates), draws))
        turn = 1 + rng.integers(draws, size=(len(dates), draws))
        out[part] = {}
        for method in sampled[0][part]:
            stack = np.stack([d[method] for d in dates])
            drawn = stack.transpose(0, 2, 1, 3)[which, turn].transpose(0, 2, 1, 3)
            out[part][method] = np.concatenate([_mean(stack[:, :, :1]), _mean(drawn)], 1)
    return out


def _averages(group: str, dates: list[list[Record]]) -> Iterator[Record]:
    for same in zip(*dates, strict=True):
        first = same[0]
        scores = {k: _known_mean([r.value(k) for r in same]) for k in (*MEASURES, "coverage", "seconds")}
        data = "; ".join(dict.fromkeys(r.data for r in same))
        failed = sum(bool(r.reason) for r in same)
        reason = f"failed on {failed} of {len(same)} dates" if failed else ""
        place = (group, AVERAGE, first.method, first.part, first.band)
        yield _record(place, sum(r.pixels for r in same), scores, any(r.simulated for r in same), data, reason)


def _record(
    place: tuple[str, str, str, str, str],
    pixels: int,
    scores: Mapping[str, float],
    simulated: bool,
    data: str,
    reason: str,
) -> Record:
    return Record(
        *place,
        pixels,
        psnr=scores["psnr"],
        psnr_truth=scores["psnr_truth"],
        ssim=scores["ssim"],
        rmse=scores["rmse"],
        r2=scores["r2"],
        sam=scores["sam"],
        ergas=scores["ergas"],
        coherence=scores["coherence"],
        ndvi=scores["ndvi"],
        coverage=scores["coverage"],
        seconds=scores["seconds"],
        simulated=simulated,
        data=data,
        reason=reason,
    )


def _differences(
    place: tuple[str, str], values: dict[str, dict[str, Doubles]], chosen: str | None
) -> Iterator[Difference]:
    for part, by_method in values.items():
        names = list(by_method)
        stack = np.stack(list(by_method.values()))  # (methods, measures, 1 + draws, bands)
        for m, (key, measure) in enumerate(MEASURES.items()):
            for b in range(stack.shape[3]):
                points = stack[:, m, 0, b]
                if np.isnan(points).all():
                    continue
                best = int(np.nanargmin(points) if measure.less_is_better else np.nanargmax(points))
                against: list[tuple[int, Literal["best", "chosen"]]] = [(best, "best")]
                if chosen in names:
                    against.append((names.index(chosen), "chosen"))
                band = (POOLED, *BANDS)[b]
                for other, kind in against:
                    gaps = stack[:, m, :, b] - stack[other, m, :, b]
                    low, high = _ends(gaps[:, 1:])
                    for k, name in enumerate(names):
                        if k == other or math.isnan(gaps[k, 0]):
                            continue
                        found = Interval(float(gaps[k, 0]), float(low[k]), float(high[k]))
                        says = verdict(key, found)
                        numbers = (found.estimate, found.low, found.high)
                        yield Difference(*place, part, band, key, name, names[other], *numbers, says, kind)


def verdict(measure: str, interval: Interval) -> Verdict:
    """What the interval of a difference says of its first method: a tie where it holds 0, nothing where it is NaN."""
    if math.isnan(interval.low):
        return ""
    if not interval.excludes_zero:
        return "tie"
    return "better" if (interval.high < 0) == MEASURES[measure].less_is_better else "worse"


def _ends(drawn: Doubles) -> Doubles:
    """(2, n) the 2.5 and 97.5 % quantiles of (n, draws); draws in which a score is undefined do not count."""
    ends = [0.025, 0.975]
    if np.isfinite(drawn).all():
        return np.asarray(np.quantile(drawn, ends, axis=1))
    rows = [row[np.isfinite(row)] for row in drawn]
    return np.stack([np.quantile(row, ends) if row.size else np.full(2, np.nan) for row in rows], 1)


def _cell(d: Difference) -> Cell:
    return d.group, d.case, d.part, d.band, d.measure


def _known_mean(values: list[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def _mean(stack: Doubles) -> Doubles:
    known = np.isfinite(stack)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, stack, 0).sum(0) / np.maximum(count, 1), np.nan)


__all__ = [
    "AVERAGE",
    "NOT_RUN",
    "POOLED",
    "Difference",
    "Record",
    "Scores",
    "Scoring",
    "by_case",
    "score",
    "verdict",
]
