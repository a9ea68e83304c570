"""Methods on the same scenes: what each makes of them, how long it takes, and the reason where it makes nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS
from marstfn.baselines.degrade import Array
from marstfn.scenes import Scene

PLACE = re.compile(r", r\d+c\d+")
"""In the name of a case: which part of its date's scene it is."""


@dataclass(frozen=True, eq=False)
class Case:
    """One date to be predicted, or a part of its scene: what methods see (`view`), and what they are held against
    (`view.truth`).

    `group` names the table it stands in; `data` says whose data they are. `coarse_then` (6,H/3,W/3) is a real coarse
    image of the reference's own date, where there is one.
    """

    name: str
    group: str
    view: Scene
    data: str
    simulated: bool
    coarse_then: Array | None = None

    @property
    def row(self) -> str:
        """The row of the table it stands in: its name without the place, so that the parts of a scene share one."""
        return PLACE.sub("", self.name)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(H,W) the pixels every method is scored on: Landsat clear and the truth known."""
        return np.asarray(self.view.seen & np.isfinite(self.view.truth).all(0))


class Counted(Iterator[Case]):
    """Cases made as they are asked for, of which `operator.length_hint` says beforehand how many there are at most."""

    def __init__(self, most: int, cases: Iterable[Case]) -> None:
        self._left, self._cases = most, iter(cases)

    def __next__(self) -> Case:
        self._left -= 1
        return next(self._cases)

    def __length_hint__(self) -> int:
        return max(self._left, 0)


Whole = Callable[[Case], Array]
"""A method over a whole case: (6,H,W), or (7,H,W) with uncertainty; NaN where it has nothing to say."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What `method` made of `case`: `image` (6,H,W), NaN where it left a pixel empty; `reason` where it failed."""

    case: Case
    method: str
    image: Array
    seconds: float
    reason: str = ""

    @property
    def coverage(self) -> float:
        """Share of the scored pixels that the method filled."""
        scored = self.case.scored
        return float(np.isfinite(self.image[:, scored]).all(0).mean()) if scored.any() else 0.0


def compare(cases: Iterable[Case], methods: Mapping[str, Whole]) -> Iterator[Outcome]:
    """Every method on every case, case by case; one that raises ValueError leaves its case empty and says why."""
    for case in cases:
        for name, method in methods.items():
            start = time.perf_counter()
            reason = ""
            try:
                image = method(case)[: len(BANDS)]
            except ValueError as error:
                image, reason = np.full(case.view.truth.shape, np.nan, np.float32), str(error)
            yield Outcome(case, name, image, time.perf_counter() - start, reason)
