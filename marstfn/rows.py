"""Rows of a table while their cases come in: of every image only sums over blocks are kept, and the image may go.

The parts into which the scene of one date was cut share a row: their sums stand side by side, as those of one large
image would. Where that makes more than MOST_BLOCKS blocks, four neighbours become one, in all parts alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from marstfn.comparison import Case, Outcome
from marstfn.measures import ALL, MOST_BLOCKS, Doubles, Ground, moved

NOT_RUN = "not run on this date"


@dataclass(frozen=True, slots=True)
class Row:
    """What stands in one row: a date of a group, whose data it is, the cases it is made of and their sizes in 10 m
    pixels (rows, columns), and how many pixels are scored."""

    group: str
    name: str
    data: str
    simulated: bool
    cases: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    pixels: int


@dataclass(frozen=True, eq=False)
class Kept:
    """What is left of one method's image: `sums` by part over blocks, pixels it filled by part, seconds and reason."""

    sums: dict[str, Doubles]
    filled: dict[str, int]
    seconds: float
    reason: str


@dataclass(frozen=True, eq=False)
class Piece:
    """What is left of one case: scored `pixels` by part, `centre` and `peak` of its truth, and its methods."""

    pixels: dict[str, int]
    centre: Doubles
    peak: Doubles
    methods: dict[str, Kept]

    @property
    def blocks(self) -> int:
        """With a scored pixel."""
        return max((int((kept.sums[ALL][..., 0] > 0).sum()) for kept in self.methods.values()), default=0)

    def coarser(self) -> Piece:
        """With blocks of twice the side."""
        methods = {
            name: replace(kept, sums={part: _halved(grid) for part, grid in kept.sums.items()})
            for name, kept in self.methods.items()
        }
        return replace(self, methods=methods)


class Growing:
    """A row to which cases are added; `row`, `pooled`, `centre` and `peak` say what it has come to."""

    def __init__(self, group: str, name: str) -> None:
        self.row = Row(group, name, "", False, (), (), 0)
        self.pieces: list[Piece] = []
        self._halvings = 0

    def add(self, case: Case, made: Sequence[Outcome], methods: Iterable[str]) -> None:
        """The outcomes of one case; a method of `methods` that has none counts as failed. ValueError on a wrong shape
        or a case or method that comes twice."""
        row = self.row
        if case.name in row.cases:
            raise ValueError(f"two dates of group {case.group!r} are named {case.name!r}; give each its own name")
        piece = _piece(case, made, methods)
        for _ in range(self._halvings):
            piece = piece.coarser()
        self.pieces.append(piece)
        while self._crowded():
            self.pieces = [p.coarser() for p in self.pieces]
            self._halvings += 1
        data = "; ".join(dict.fromkeys((*([row.data] if row.cases else []), case.data)))
        height, width = case.view.truth.shape[1:]
        self.row = Row(
            row.group,
            row.name,
            data,
            row.simulated or case.simulated,
            (*row.cases, case.name),
            (*row.sizes, (height, width)),
            row.pixels + piece.pixels[ALL],
        )

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for piece in self.pieces for name in piece.methods))

    @property
    def pixels(self) -> dict[str, int]:
        """Scored, by part."""
        return {part: sum(p.pixels[part] for p in self.pieces) for part in self.pieces[0].pixels}

    @property
    def centre(self) -> Doubles:
        """(bands) what the pooled sums of the truth are relative to: its mean over the scored pixels, NaN without."""
        known = self._known()
        if len(known) == 1:
            return known[0].centre
        weights = [p.pixels[ALL] for p in known]
        return np.average([p.centre for p in known], 0, weights) if known else self.pieces[0].centre

    @property
    def peak(self) -> Doubles:
        """(bands) the highest value of the truth among the scored pixels, NaN without."""
        known = self._known()
        return np.max([p.peak for p in known], 0) if known else self.pieces[0].peak

    def pooled(self, method: str) -> Kept:
        """One method over all cases: `sums` by part (blocks with a scored pixel, columns). KeyError where a case was
        added without it."""
        kept = [piece.methods[method] for piece in self.pieces]
        centre, sums = self.centre, {}
        for part, first in kept[0].sums.items():
            found = [np.zeros((0, first.shape[-1]))]
            for piece, one in zip(self.pieces, kept, strict=True):
                table = one.sums[part].reshape(-1, first.shape[-1])
                table = table[table[:, 0] > 0]
                if len(table):
                    found.append(table if piece.centre is centre else moved(table, piece.centre - centre))
            sums[part] = np.concatenate(found)
        filled = {part: sum(k.filled[part] for k in kept) for part in kept[0].filled}
        known = [k.seconds for k in kept if not math.isnan(k.seconds)]
        return Kept(sums, filled, sum(known) if known else math.nan, _reason([k.reason for k in kept]))

    def _known(self) -> list[Piece]:
        return [p for p in self.pieces if p.pixels[ALL]]

    def _crowded(self) -> bool:
        """Whether there are too many blocks, and cases whose blocks can be joined."""
        several = any(max(k.sums[ALL].shape[:2]) > 1 for p in self.pieces for k in p.methods.values())
        return several and sum(p.blocks for p in self.pieces) > MOST_BLOCKS


def _piece(case: Case, made: Sequence[Outcome], methods: Iterable[str]) -> Piece:
    ground = Ground.of(case)
    by_method: dict[str, Outcome] = {}
    for outcome in made:
        if outcome.method in by_method:
            raise ValueError(f"{outcome.method} has two outcomes for {case.name!r} of group {case.group!r}")
        by_method[outcome.method] = outcome
    nothing = np.full(case.view.truth.shape, np.nan, np.float32)
    kept = {}
    for name in dict.fromkeys((*methods, *by_method)):
        outcome = by_method.get(name) or Outcome(case, name, nothing, math.nan, NOT_RUN)
        full = np.isfinite(outcome.image).all(0)
        sums = ground.sums(outcome.image)
        filled = {part: int((full & mask).sum()) for part, mask in ground.parts.items()}
        kept[name] = Kept(sums, filled, outcome.seconds, outcome.reason)
    pixels = {part: int(mask.sum()) for part, mask in ground.parts.items()}
    return Piece(pixels, ground.centre, ground.peak, kept)


def _halved(grid: Doubles) -> Doubles:
    """(rows / 2, columns / 2, n) sums of 2 x 2 neighbours, fewer at an odd edge."""
    rows, cols, n = grid.shape
    even = np.pad(grid, ((0, rows % 2), (0, cols % 2), (0, 0)))
    return np.asarray(even.reshape(-(-rows // 2), 2, -(-cols // 2), 2, n).sum((1, 3)))


def _reason(reasons: Sequence[str]) -> str:
    failed = [r for r in reasons if r]
    said = "; ".join(dict.fromkeys(failed))
    return said if len(failed) in (0, len(reasons)) else f"failed on {len(failed)} of {len(reasons)} parts: {said}"
