"""How often the method that is best at reduced scale, where Landsat is the truth, is the best at 10 m: on simulated
land, where both can be told.

`python -m marstfn.foresight` writes a Markdown table to standard output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from marstfn import gate
from marstfn.bands import BANDS
from marstfn.dataset import observable
from marstfn.methods import NETWORK, Method, free, network
from marstfn.predict import Predictor
from marstfn.reduced import Trial, reduced, squared_errors
from marstfn.scenes import Scene, composite, hidden, nearest, scene, sentinel2
from marstfn.simulate import Acquisition, Simulation, Style
from marstfn.weights import load

SEEDS = range(8_000_000, 8_000_020)
"""Of no training and no other evaluation."""
TIE = 2e-4
"""Differences of RMSE at 10 m below this are ties."""


@dataclass(frozen=True, slots=True)
class Case:
    """One piece of land: RMSE by method at 10 m over all its dates, and what the gate decided without looking there."""

    seed: int
    dates: int
    verdict: gate.Verdict
    unchecked: str
    """What the reduced scale alone would have chosen."""
    fine: Mapping[str, float]
    """Against the truth as Sentinel-2 could have shown it: three bands at 20 m."""
    exact: Mapping[str, float]
    """Against the land itself at 10 m, which no sensor sees."""

    @property
    def best(self) -> str:
        """The best at 10 m."""
        return min(self.fine, key=lambda name: self.fine[name])

    @property
    def foreseen(self) -> str:
        """The best at reduced scale, by whatever margin."""
        decided = self.verdict.decided
        return NETWORK if decided is None else min(decided.rmse, key=lambda name: decided.rmse[name])

    @property
    def right(self) -> bool:
        """Whether the method that the gate chose is the best at 10 m, or ties with it."""
        return self.fine[self.verdict.method] <= self.fine[self.best] + TIE

    @property
    def harmless(self) -> bool:
        """Whether the gate's choice is no worse at 10 m than the network it could have kept."""
        return self.fine[self.verdict.method] <= self.fine[NETWORK] + TIE


@dataclass(frozen=True, eq=False)
class Sight:
    """A Landsat date at one place, and a part of it that Sentinel-2 saw on a neighbouring day, if it did."""

    view: Scene
    near: Trial | None


def land(seed: int, *, places: int = 4, dates: int = 5, patch: int = 60) -> dict[tuple[int, int], Sight]:
    """By (place, date): `places` windows of one gate's patch, 3 x `patch` px at 10 m, kilometres apart in one held-back
    simulation, each on the same `dates` passes of Landsat (fewer where the year is overcast)."""
    rng = np.random.default_rng((29, seed))
    simulation = Simulation(seed, int(rng.integers(2016, 2026)), style=Style.held_back(rng))
    side = 3 * patch
    x0, y0 = (int(v) * 60 for v in rng.integers((5_000, 70_000), (12_000, 95_000)))
    corners = [(x0 + 6_000 * (k % 2), y0 + 6_000 * (k // 2)) for k in range(places)]
    passes = [a for a in simulation.acquisitions() if a.landsat and a.cloud_cover <= 70]
    out: dict[tuple[int, int], Sight] = {}
    found = 0
    for k in rng.permutation(len(passes)):
        acq = passes[k]
        clear = [c for c in corners if hidden(simulation, acq, *c, (side, side)).mean() < 0.5]
        if found == dates or not clear:
            continue
        found += 1
        others = [a for a in nearest(simulation, acq.time) if a.time.date() != acq.time.date()]
        for corner in clear:
            view = scene(simulation, acq, others, *corner, (side, side))
            out[corners.index(corner), found] = Sight(view, _near(simulation, acq, others, corner, view, patch))
    return out


def _near(
    simulation: Simulation,
    acq: Acquisition,
    others: list[Acquisition],
    at: tuple[int, int],
    view: Scene,
    patch: int,
) -> Trial | None:
    """The middle patch against Sentinel-2 of a neighbouring day, which the references then lack."""

    def days(other: Acquisition) -> int:
        return abs((other.time.date() - acq.time.date()).days)

    inside = at[0] + 10 * patch, at[1] - 10 * patch, (patch, patch)
    judges = [other for other in others if days(other) <= gate.NEAR]
    truths = [sentinel2(simulation, judge, *inside) for judge in judges]
    if not truths or np.isnan(truths[0][0]).mean() > 0.7:
        return None
    kept = [other for other in others if days(other) > gate.NEAR]
    around = composite(simulation, acq.time, kept, *inside)
    third = slice(patch // 3, 2 * patch // 3)
    pan = slice(2 * patch // 3, 4 * patch // 3)
    return Trial(around, view.landsat[:, third, third], view.pan[:, pan, pan], truths[0])


def case(seed: int, methods: Mapping[str, Method], patch: int, **size: int) -> Case | None:
    """The gate's choice on one land and the truth of it; None where it has too little to say there.

    `methods` by name of `gate.NAMES`.
    """
    views = land(seed, patch=patch, **size)
    found: dict[bool, list[gate.Cell]] = {True: [], False: []}
    sums = {name: np.zeros(2) for name in gate.NAMES}
    pixels = 0
    for (place, date), sight in views.items():
        view = sight.view
        for trial in (reduced(view.reference, view.landsat, view.pan), sight.near):
            if trial is not None:
                errors = [squared_errors([trial], methods[name], patch)[0] for name in gate.NAMES]
                found[trial is sight.near] += gate.cells(date, str(place), errors)
        scored = view.seen & np.isfinite(view.reference.nearest()).all(0)
        edge = 3 * gate.MARGIN
        scored[:edge], scored[-edge:], scored[:, :edge], scored[:, -edge:] = False, False, False, False
        pixels += int(scored.sum())
        truths = np.stack([observable(view.truth), view.truth])[:, :, scored]
        for name in gate.NAMES:
            made = methods[name].whole(view.reference, view.landsat, view.pan)[: len(BANDS), scored]
            off = made - truths
            sums[name] += np.square(off, dtype=np.float64).mean(1).sum(1)
    quarter = {date: gate.QUARTERS[0] for _, date in views}
    decision = gate.verdicts(found[False], quarter, found[True])[0]
    if decision.decided is None or not pixels:
        return None
    unchecked = (*decision.decided.ahead, NETWORK)[0]
    fine, exact = ({name: float(np.sqrt(total[k] / pixels)) for name, total in sums.items()} for k in range(2))
    return Case(seed, decision.dates, decision, unchecked, fine, exact)


def cases(seeds: range, weights: str, **size: int) -> Iterator[Case]:
    """The cases of `seeds` with a set of weights by name or file."""
    predictor = Predictor(load(weights), batch=4)
    methods = {NETWORK: network(predictor), **{name: free(name) for name in gate.RIVALS}}
    for seed in seeds:
        made = case(seed, methods, predictor.patch, **size)
        if made is not None:
            yield made


def shares(found: list[Case]) -> dict[str, float]:
    """Shares of the cases: `foreseen` (best at reduced scale is best at 10 m, or ties), `right` and `harmless` (the
    gate's choice, see Case), the same of the reduced scale `unchecked` by Sentinel-2 of neighbouring days, `kept` (the
    network stays); and mean RMSE of always the network, of either choice and of the best in hindsight."""
    n = len(found)
    return {
        "foreseen": sum(c.fine[c.foreseen] <= c.fine[c.best] + TIE for c in found) / n,
        "right": sum(c.right for c in found) / n,
        "harmless": sum(c.harmless for c in found) / n,
        "right unchecked": sum(c.fine[c.unchecked] <= c.fine[c.best] + TIE for c in found) / n,
        "harmless unchecked": sum(c.fine[c.unchecked] <= c.fine[NETWORK] + TIE for c in found) / n,
        "kept": sum(c.verdict.method == NETWORK for c in found) / n,
        "RMSE network": sum(c.fine[NETWORK] for c in found) / n,
        "RMSE gate": sum(c.fine[c.verdict.method] for c in found) / n,
        "RMSE unchecked": sum(c.fine[c.unchecked] for c in found) / n,
        "RMSE best": sum(c.fine[c.best] for c in found) / n,
    }


def markdown(found: list[Case]) -> str:
    """A row a case: RMSE at reduced scale / by Sentinel-2 of neighbouring days (deciding halves) / at 10 m."""
    columns = ("seed", "dates", "reduced scale alone", "chosen", "best at 10 m", *gate.NAMES)
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for c in found:
        coarse = c.verdict.decided.rmse if c.verdict.decided else {}
        near = c.verdict.near[0].rmse if c.verdict.near[0] else {}
        numbers = " | ".join(f"{coarse[n]:.4f} / {near.get(n, np.nan):.4f} / {c.fine[n]:.4f}" for n in gate.NAMES)
        lines.append(f"| {c.seed} | {c.dates} | {c.unchecked} | {c.verdict.method} | {c.best} | {numbers} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m marstfn.foresight", description=__doc__)
    parser.add_argument("--weights", default="marstfn-pan", help="a set by name, or a weights file")
    parser.add_argument("--lands", type=int, default=len(SEEDS), help="number of simulated lands")
    parser.add_argument("--places", type=int, default=4, help="places on each, 1.8 km wide")
    parser.add_argument("--dates", type=int, default=5, help="Landsat dates on each")
    options = parser.parse_args(arguments)
    seeds = range(SEEDS.start, SEEDS.start + options.lands)
    found = []
    for made in cases(seeds, options.weights, places=options.places, dates=options.dates):
        found.append(made)
        sys.stderr.write(f"{len(found)} of {len(seeds)} lands\n")
    if not found:
        sys.stdout.write("no land of these had enough clear ground for the gate to judge by\n")
        return
    sys.stdout.write(f"{len(found)} simulated lands, {options.weights}\n")
    truths = {"as Sentinel-2 could have shown it": found, "the land itself": [replace(c, fine=c.exact) for c in found]}
    for truth, some in truths.items():
        text = ", ".join(f"{name} {value:.4f}" for name, value in shares(some).items())
        sys.stdout.write(f"\nTruth at 10 m: {truth}\n\n{markdown(some)}\n\n{text}\n")


if __name__ == "__main__":
    main()
