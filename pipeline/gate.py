"""Before a year is fused: whether the network earns its place on this very land, season by season."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn import gate
from marstfn.bands import FINE
from marstfn.gate import NAMES, QUARTERS, Cell, Half, Verdict
from marstfn.methods import NETWORK, Method
from marstfn.metrics import Interval
from marstfn.patches import starts
from marstfn.reduced import STEP, Trial, reduced, squared_errors
from pipeline.cluster import require_gpu
from pipeline.errors import CubeError
from pipeline.grid import CELL, Tile, Window
from pipeline.harmonise import Harmonisation
from pipeline.inputs import Inputs, Reading
from pipeline.methods import methods, patch_side
from pipeline.pairing import Pair
from pipeline.plan import FORMAT, Plan, Scene, fingerprint
from pipeline.store import LEDGER, Store

NAME = f"{LEDGER}/gate.json"
PLACES = 16
"""Windows of one patch at 30 m (1.8 km for 60 px) drawn from the area: bounds the cost whatever its size."""
LEAST_SIDE = 60
"""Of a place, in 10 m pixels."""
RULES = ("RIVALS", "MARGIN", "BLOCK", "LEVEL", "DRAWS", "LEAST_DATES", "LEAST_CELLS", "NEAR", "LEAST_NEAR", "SEED")
"""Of marstfn.gate: what a decision depends on."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The method of each Landsat date, and what led to it."""

    fingerprint: str
    methods: tuple[str, ...]
    """Along Landsat's own time axis."""
    verdicts: tuple[Verdict, ...] = ()
    patches: int = 0
    """That the network was run on to find out."""

    @property
    def text(self) -> str:
        """The decision in one line."""
        seasons = [v for v in self.verdicts if v.season != gate.YEAR] or list(self.verdicts)
        by_method: dict[str, list[str]] = {}
        for verdict in seasons:
            by_method.setdefault(verdict.method, []).append(verdict.season)
        return "; ".join(f"{method} in {', '.join(names)}" for method, names in by_method.items())


@dataclass(frozen=True, slots=True)
class Judged:
    """What one place has to say."""

    place: str
    cells: tuple[Cell, ...]
    near: tuple[Cell, ...]
    patches: int
    seconds: float


def forced(plan: Plan) -> Decision | None:
    """The decision of a plan that leaves nothing to decide; None where the gate must judge (method auto)."""
    method = plan.options.method
    return None if method == "auto" else Decision("", (method,) * len(plan.of("landsat8")))


def places(plan: Plan) -> tuple[Tile, ...]:
    """At most PLACES windows of one patch at 30 m, drawn at random from those that lie within the plan's tiles.

    Where the plane is smaller than such a window it is one place, cut to multiples of 180 m. Patches under 20 px have
    none: their edges, which are not scored, would leave next to nothing.
    """
    side = gate_side(plan)
    if side < LEAST_SIDE:
        return ()
    coarse = replace(plan.grid, tile_px=side)
    there, found = set(plan.tiles), []
    for window in coarse.tiles():
        whole = all(n >= min(side, m) for n, m in zip(window.shape(FINE), plan.grid.shape(FINE), strict=True))
        if whole and there.issuperset(plan.grid.under(window)):
            found.append(window)
    if len(found) > PLACES:
        drawn = np.random.default_rng(gate.SEED).choice(len(found), PLACES, replace=False)
        found = [found[k] for k in sorted(drawn)]
    return tuple(_cut(window) for window in found)


def gate_side(plan: Plan) -> int:
    """Side of a place in 10 m pixels: one patch at 30 m."""
    return 3 * patch_side(plan)


def share(plan: Plan, patches: int) -> float:
    """`patches` over all those that the network is run on for the whole year, about."""
    patch = patch_side(plan)
    rows, cols = (len(starts(max(n, patch), patch, plan.options.stride)) for n in plan.grid.shape(FINE))
    return patches / max(1, rows * cols * len(plan.of("landsat8")))


def gate_fingerprint(plan: Plan, harmonisation: Harmonisation, pairs: Sequence[Pair]) -> str:
    """Of everything that shapes the decision."""
    return fingerprint(
        {
            "format": FORMAT,
            "harmonisation": harmonisation.content,
            "pairs": [p.as_dict() for p in pairs],
            "weights": [w.sha256 for w in plan.weights],
            "places": [PLACES, patch_side(plan)],
            "rules": [getattr(gate, name) for name in RULES],
        }
    )


def judge_place(
    plan: Plan,
    store: Store,
    place: Tile,
    harmonisation: Harmonisation,
    pairs: Sequence[Pair],
    offered: Mapping[bool, Method] | None = None,
) -> Judged:
    """Score the network and its rivals on all Landsat dates of one place; small sums are all that comes back.

    `offered`: by whether it takes pan, in place of the plan's network. Raises ClusterError on a Dask worker without the
    resource GPU.
    """
    require_gpu()
    began = time.perf_counter()
    sight = _Sight(plan, store, place, harmonisation, pairs, offered or methods(plan, NETWORK))
    found = [sight.cells(trials) for trials in sight.trials()]
    return Judged(place.name, tuple(found[0]), tuple(found[1]), sight.patches, time.perf_counter() - began)


def decide(plan: Plan, judged: Iterable[Judged], identity: str) -> Decision:
    """The method of each Landsat date from what all places say, whatever their order."""
    ordered = sorted(judged, key=lambda j: j.place)
    quarter = {k: QUARTERS[(scene.day.month - 1) // 3] for k, scene in enumerate(plan.of("landsat8"))}
    found = gate.verdicts([c for j in ordered for c in j.cells], quarter, [c for j in ordered for c in j.near])
    chosen = tuple(gate.chosen(found, quarter[k]) for k in sorted(quarter))
    return Decision(identity, chosen, found, sum(j.patches for j in ordered))


def rows(decision: Decision) -> list[dict[str, str]]:
    """A row a season: RMSE by method on the deciding half of the blocks (on the other half), and what was decided."""
    table = []
    for verdict in decision.verdicts:
        row = {"season": verdict.season, "method": verdict.method, "why": verdict.reason, "dates": str(verdict.dates)}
        for name in NAMES:
            row[name] = _numbers(name, verdict.decided, verdict.reported)
            row[f"{name}, near days"] = _numbers(name, *verdict.near)
        table.append(row)
    return table


def write(store: Store, decision: Decision) -> None:
    """Keep the decision beside the ledger."""
    store.write(NAME, json.dumps(asdict(decision), sort_keys=True, allow_nan=False).encode())


def read(store: Store) -> Decision | None:
    """The decision of an earlier run, or None. Raises CubeError where it cannot be understood."""
    data = store.read(NAME)
    if data is None:
        return None
    try:
        raw: dict[str, Any] = json.loads(data)
        found = tuple(_verdict(v) for v in raw["verdicts"])
        return Decision(raw["fingerprint"], tuple(raw["methods"]), found, raw["patches"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CubeError(f"{store.join(NAME)} cannot be read ({error}); delete it and it is made again") from error


class _Sight:
    """One place: its dates at reduced scale, and those that Sentinel-2 saw within a day at 10 m."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        place: Tile,
        harmonisation: Harmonisation,
        pairs: Sequence[Pair],
        offered: Mapping[bool, Method],
    ) -> None:
        self.plan, self.place, self.offered = plan, place, offered
        self.patch, self.patches = patch_side(plan), 0
        self.pairs = pairs
        self._whole = Reading(plan, store, place, harmonisation, pairs)
        self._middle = Reading(plan, store, _middle(place, self.patch), harmonisation, [_without(p) for p in pairs])

    def trials(self) -> tuple[dict[int, Trial], dict[int, Trial]]:
        """By Landsat date: at reduced scale, and judged by Sentinel-2 of a neighbouring day."""
        coarse, near = {}, {}
        for index, scene in enumerate(self.plan.of("landsat8")):
            seen = self._inputs(self._whole, scene)
            if seen is not None:
                coarse[index] = reduced(seen.reference, seen.landsat, seen.pan)
            judge = self._judge(index)
            part = None if judge is None else self._inputs(self._middle, scene)
            if part is not None and judge is not None:
                near[index] = Trial(part.reference, part.landsat, part.pan, self._middle.observed(judge))
        return coarse, near

    def cells(self, trials: Mapping[int, Trial]) -> list[Cell]:
        """What they say, method by method; dates with pan by the weights for it."""
        errors: dict[int, list[NDArray[np.float32]]] = {index: [] for index in trials}
        for name in NAMES:
            offered = self.offered if name == NETWORK else methods(self.plan, name)
            for pan, method in offered.items():
                some = [i for i, t in trials.items() if len(offered) < 2 or (t.pan is not None) == pan]
                views = [trials[i] if pan else replace(trials[i], pan=None) for i in some]
                self.patches += len(views) * (name == NETWORK)
                for index, error in zip(some, squared_errors(views, method, self.patch), strict=True):
                    errors[index].append(error)
        return [
            c for i, found in errors.items() for c in gate.cells(i, self.place.name, found) if len(found) == len(NAMES)
        ]

    def _inputs(self, reading: Reading, scene: Scene) -> Inputs | None:
        """The inputs of a date; None where Landsat saw nothing, or the weights need a pan that it lacks."""
        if not scene.pan_items and False not in self.offered:
            return None
        found = reading.inputs(scene, both=True, pan=True in self.offered)
        return found if np.isfinite(found.landsat).any() else None

    def _judge(self, index: int) -> int | None:
        """The Sentinel-2 day within NEAR days that saw most, of those allowed as a reference."""
        pair = self.pairs[index]
        near = [k for k, gap in enumerate(pair.days) if abs(gap) <= gate.NEAR]
        return pair.references[max(near, key=lambda k: pair.clear[k])] if near else None


def _without(pair: Pair) -> Pair:
    """The pair without the days that may judge it."""
    kept = [k for k, gap in enumerate(pair.days) if abs(gap) > gate.NEAR]
    parts = (tuple(values[k] for k in kept) for values in (pair.references, pair.days, pair.clear))
    return Pair(pair.landsat, *parts)  # type: ignore[arg-type]


def _cut(window: Tile) -> Tile:
    """The window without the odd cells at its end: sides multiples of STEP."""
    cells = STEP * FINE // CELL
    rows, cols = ((hi - lo) // cells * cells for lo, hi in ((window.row0, window.row1), (window.col0, window.col1)))
    return replace(window, row1=window.row0 + rows, col1=window.col0 + cols)


def _middle(place: Tile, patch: int) -> Window:
    """One patch at 10 m in the middle of a place, or all of a smaller one."""
    side = patch * FINE // CELL

    def span(lo: int, hi: int) -> tuple[int, int]:
        start = lo + max(0, (hi - lo - side) // 2)
        return start, min(hi, start + side)

    return Window(place.grid, *span(place.row0, place.row1), *span(place.col0, place.col1))


def _numbers(name: str, decided: Half | None, reported: Half | None) -> str:
    if decided is None:
        return ""
    return f"{decided.rmse[name]:.4f}" + (f" ({reported.rmse[name]:.4f})" if reported is not None else "")


def _verdict(raw: Mapping[str, Any]) -> Verdict:
    halves = [_half(h) for h in (raw["decided"], raw["reported"], *raw["near"])]
    return Verdict(
        raw["season"], raw["method"], raw["reason"], raw["dates"], halves[0], halves[1], (halves[2], halves[3])
    )


def _half(raw: Mapping[str, Any] | None) -> Half | None:
    if raw is None:
        return None
    return Half(raw["cells"], dict(raw["rmse"]), {name: Interval(**v) for name, v in raw["against"].items()})
