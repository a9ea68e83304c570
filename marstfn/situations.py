"""Four simulated situations, each with one property that sets methods apart, as cases with exact truth.

*calm*: little has changed since the reference. *fast phenology*: everything has, smoothly. *harvest events*: a part of
the parcels has, at once, the rest has not. *misregistration*: calm, but Landsat shows the land 6 m beside its place,
and both sensors are noisier. Skies are clear and the other errors of the sensors are the simulator's usual ones, so
that what tells two methods apart is what the situation is named after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date

from marstfn.comparison import Case, Counted
from marstfn.reduced import STEP
from marstfn.scenes import scene
from marstfn.simulate import Acquisition, Simulation, Style

GROUP = "simulated"
SIDE = 216
"""Of a scene in 10 m pixels."""
X0, Y0 = 420_000, 5_400_000
"""Corner of every scene in metres."""
YEAR = 2021
USUAL = replace(Style.default(), haze=0.0, gaps=0.0, commission=0.0, water=0.0, villages=0.2, woodland=0.08)
QUIET = replace(USUAL, crops=(0.0, 0.0, 0.0, 0.4, 0.15, 0.15, 0.0, 0.28, 0.02))
"""Summer crops and grass: full green in August."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a case is made of: a land, Landsat's day (the pass nearest to it), Sentinel-2's distance and errors."""

    name: str
    seed: int
    month: int
    day: int
    gap: int
    """Days at least between Landsat and the references, before as after."""
    style: Style = USUAL
    shift: tuple[float, float] = field(default=(0.0, 0.0))
    """Metres (east, north) that Landsat looks beside the place it reports."""

    @property
    def simulation(self) -> Simulation:
        return Simulation(self.seed, YEAR, style=self.style)

    def passes(self) -> tuple[Acquisition, Acquisition, Acquisition]:
        """Landsat, and the nearest Sentinel-2 at least `gap` days before and after it, all under clear skies."""
        acquisitions = self.simulation.acquisitions()
        wanted = date(YEAR, self.month, self.day)
        landsat = min((a for a in acquisitions if a.landsat), key=lambda a: abs((a.time.date() - wanted).days))
        gaps = {a: (a.time.date() - landsat.time.date()).days for a in acquisitions if not a.landsat}
        before = max((a for a, gap in gaps.items() if gap <= -self.gap), key=lambda a: gaps[a])
        after = min((a for a, gap in gaps.items() if gap >= self.gap), key=lambda a: gaps[a])
        return clear(landsat, self.shift), clear(before), clear(after)


SITUATIONS = (
    Situation("calm", 9_100_005, 8, 10, 4, QUIET),
    Situation(
        # winter crops green up between April and May, within days of one another
        "fast phenology",
        9_100_014,
        4,
        27,
        16,
        replace(USUAL, season_spread=5.0, crops=(0.45, 0.15, 0.15, 0.1, 0.05, 0.0, 0.05, 0.05, 0.0)),
    ),
    Situation(
        # beet is lifted in October out of full green
        "harvest events",
        9_100_027,
        10,
        14,
        9,
        replace(USUAL, season_spread=5.0, woodland=0.04, crops=(0.2, 0.05, 0.0, 0.15, 0.35, 0.0, 0.0, 0.25, 0.0)),
    ),
    Situation(
        "misregistration and noise",
        9_100_005,
        8,
        10,
        4,
        replace(QUIET, noise_msi=0.006, noise_oli=0.005, noise_pan=0.004),
        (4.8, -3.6),
    ),
)


def clear(acq: Acquisition, shift: tuple[float, float] = (0.0, 0.0)) -> Acquisition:
    """The pass without cloud, with a registration error of `shift` metres (east, north)."""
    sky = replace(acq.conditions, cover=0.0, haze=0.0, gap=False, shift_x=shift[0], shift_y=shift[1])
    return replace(acq, cloud_cover=0.0, conditions=sky)


def cases(side: int = SIDE) -> list[Case]:
    """The four situations of `each`, all in memory."""
    return list(each(side))


def each(side: int = SIDE) -> Iterator[Case]:
    """The four situations over scenes of `side` 10 m pixels, the same at every call, made as they are asked for; truth
    is the simulator's own.

    Raises ValueError where `side` is no positive multiple of 18.
    """
    if side < STEP or side % STEP:
        raise ValueError(f"scenes of {side} px are no multiples of {STEP} px; choose e.g. {SIDE}")
    return Counted(len(SITUATIONS), (_case(situation, side) for situation in SITUATIONS))


def _case(situation: Situation, side: int) -> Case:
    landsat, *references = situation.passes()
    view = scene(situation.simulation, landsat, references, X0, Y0, (side, side))
    return Case(situation.name, GROUP, view, "simulated by marstfn.simulate", True)
