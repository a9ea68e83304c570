"""Outcomes of made-up methods on made-up lands, for tests of tables, figures and the page."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from marstfn.comparison import Case, Outcome
from marstfn.reference import Reference
from marstfn.scenes import Scene

REASON = "no class means | at\nall <b>"


def land(
    day: datetime, seed: int, group: str, *, simulated: bool = True, side: int = 54, constant: bool = False
) -> Case:
    rng = np.random.default_rng(seed)
    rough = rng.uniform(0.05, 0.4, (6, side // 6, side // 6)).repeat(6, 1).repeat(6, 2)
    truth = (rough + rng.normal(0, 0.01, rough.shape)).astype(np.float32)
    if constant:
        truth[0] = 0.1
    coarse = truth.reshape(6, side // 3, 3, side // 3, 3).mean((2, 4)).astype(np.float32)
    coarse[:, 1, 2] = np.nan
    s2 = truth + rng.normal(0, 0.01, truth.shape).astype(np.float32)
    s2[:, 30:42, 12:24] += 0.1
    pan = np.full((1, side * 2 // 3, side * 2 // 3), np.nan, np.float32)
    view = Scene(day, Reference.single(s2, 3), coarse, pan, truth)
    return Case(f"{day:%Y-%m-%d}", group, view, "simulator" if simulated else "a real field", simulated)


def outcome(case: Case, method: str, sd: float, seed: int) -> Outcome:
    noise = np.random.default_rng(seed).normal(0, sd, case.view.truth.shape)
    return Outcome(case, method, np.asarray(case.view.truth + noise, np.float32), 0.25)


def failing(case: Case) -> Outcome:
    return Outcome(case, "failing", np.full_like(case.view.truth, np.nan), 0.01, REASON)


def made(group: str, *, constant: bool = False, dates: int = 1, simulated: bool = True) -> list[Outcome]:
    """`twin` makes on each date the errors that `good` makes on another."""
    out = []
    for k in range(dates):
        case = land(datetime(2020, 6 + k, 1, tzinfo=UTC), k, group, simulated=simulated, constant=constant)
        other = (k + 1) % dates if dates > 1 else 77
        out += [outcome(case, "good", 0.01, 10 + k), outcome(case, "twin", 0.01, 10 + other)]
        out.append(outcome(case, "bad", 0.03, 30 + k))
    return out


def two_groups() -> list[Outcome]:
    """Three simulated dates with a method that fails on the second, and one real date on which it took no part."""
    lands = made("lands", dates=3)
    cases = list(dict.fromkeys(o.case for o in lands))
    broken = [outcome(cases[0], "failing", 0.02, 50), failing(cases[1]), outcome(cases[2], "failing", 0.02, 52)]
    return [*lands, *broken, *made("field", simulated=False)]
