"""A sample of the scored pixels of many cases, for scatter plots: uniform, the same at every call, and bounded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from marstfn.comparison import Outcome
from marstfn.measures import ALL, Floats, Ground

MOST = 60_000
"""Pixels kept of a group."""


class Pixels:
    """True and predicted reflectance, of all scored pixels while they are no more than `most`, else of a sample.

    Every pixel of every case draws a number, and the lowest stay: however many cases come, each pixel has the same
    chance, and all methods are shown on the same ones. What a method left empty is bicubic Landsat.
    """

    def __init__(self, most: int = MOST, seed: int = 0) -> None:
        self.most, self.seen, self.simulated = most, 0, False
        self._seed, self._cases = seed, 0
        self._lots = np.zeros(0)
        self._truth = np.zeros((0, 0), np.float32)
        self._made: dict[str, Floats] = {}

    def add(self, made: Sequence[Outcome], methods: Iterable[str] = ()) -> None:
        """All outcomes of one case; what `methods` have no outcome is empty throughout. ValueError for a method that
        was not there before."""
        case = made[0].case
        ground = Ground.of(case)
        scored = ground.parts[ALL]
        images = {o.method: o.image for o in made}
        names = tuple(dict.fromkeys((*self._made, *methods, *images)))
        if self._cases and set(names) != set(self._made):
            raise ValueError(f"methods of {case.name} are not those of the cases before: {', '.join(names)}")
        lots = np.random.default_rng((31, self._seed, self._cases)).random(int(scored.sum()))
        keep = np.concatenate([self._lots, lots]).argsort(kind="stable")[: self.most]
        old, new = keep[keep < len(self._lots)], keep[keep >= len(self._lots)] - len(self._lots)
        nothing = np.full(ground.truth.shape, np.nan, np.float32)

        def joined(before: Floats, image: Floats) -> Floats:
            chosen = image[:, scored][:, new].astype(np.float32)
            return np.concatenate([before[:, old], chosen], 1) if before.size else chosen

        self._truth = joined(self._truth, ground.truth)
        for name in names:
            before = self._made.get(name, np.zeros((0, 0), np.float32))
            self._made[name] = joined(before, ground.filled(images.get(name, nothing)))
        self._lots = np.concatenate([self._lots[old], lots[new]])
        self.seen += len(lots)
        self.simulated |= case.simulated
        self._cases += 1

    @property
    def truth(self) -> Floats:
        """(6,n)."""
        return self._truth

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self._made)

    def made(self, method: str) -> Floats:
        """(6,n) of one method. KeyError where it took no part."""
        return self._made[method]
