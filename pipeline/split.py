"""Which ground and which dates teach, which validate and which test: cut so that nothing leaks from one to another.

The rule. The plane is cut into a lattice of patches, the year into blocks of some weeks. Blocks of patches and blocks
of dates are each dealt out to the three sets, two in four to training and one in four to either other, each run of four
neighbours anew, so that all have their share of the ground and of the seasons. A sample belongs to a set where its
patch, its Landsat day and every Sentinel-2 day it uses (truth or reference) do; where they belong to different ones it
is nobody's. A patch that touches one of another set, be it by a corner, gives way (training to validation, both to the
test), so that between two sets there lies at least one whole patch of ground. Of some hundred such cuts, fixed by the
seed, the one is taken from which the most samples at 60/20/20 can be had.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

Protocol = Literal["reduced", "cross-sensor"]
Bools = NDArray[np.bool_]
Labels = NDArray[np.int8]

SETS = ("train", "validation", "test")
SHARES = (0.6, 0.2, 0.2)
DEAL = (0, 0, 1, 2)
"""Sets of four neighbouring blocks, in any order; the guard band then takes most from training."""
NOBODY = -1
LANDSAT_ITSELF, NO_TRUTH = -1, -2
"""In place of the Sentinel-2 day that is the truth."""
WEEKS = (16, 32)
"""Least and most days of a block of dates: a revisit of Landsat, and two."""
BLOCKS = 12
"""Blocks of dates aimed at."""
SIDES = (1, 2, 3, 4, 6)
"""Sides of a block of patches that are tried."""
DRAWS = 16
"""Deals of the dates, and of the patches for each side, that are tried."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What makes a sample. `near`: most days between Landsat and a Sentinel-2 truth; `reach`: most days to a reference;
    `clear`: least share of clear pixels in a patch, for Landsat, truth and one reference; `most`: samples kept."""

    protocol: Protocol
    near: int = 0
    reach: int = 120
    clear: float = 0.9
    most: int = 6000
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """How clear the patches of a lattice are, day by day: `landsat` (rows, cols, days) and `sentinel2` likewise, shares
    0..1; the days of each as ordinals, in order."""

    landsat: NDArray[np.float32]
    sentinel2: NDArray[np.float32]
    landsat_days: tuple[int, ...]
    sentinel2_days: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pick:
    """One sample: its patch on the lattice, its Landsat day, and the Sentinel-2 day that is its truth."""

    row: int
    col: int
    landsat: int
    truth: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Who owns what: `places` a row of sets (NOBODY where none) a row of the lattice, `blocks` (first day, last day,
    set), days of both sensors by index, and the samples of each set."""

    places: tuple[tuple[int, ...], ...]
    blocks: tuple[tuple[int, int, int], ...]
    landsat: tuple[int, ...]
    sentinel2: tuple[int, ...]
    picks: tuple[tuple[Pick, ...], ...]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Samples of training, validation and test."""
        train, validation, test = (len(part) for part in self.picks)
        return train, validation, test


def cut(sight: Sight, rule: Rule) -> Cut:
    """The best of the cuts tried; empty sets where the days or patches are too few to be dealt out."""
    rows, cols, _ = sight.landsat.shape
    blocks = date_blocks((*sight.landsat_days, *sight.sentinel2_days))
    dates = list(_date_deals(len(blocks), rule.seed))
    grounds = list(_place_deals(rows, cols, rule.seed))
    owned = [tuple(_owners(deal, blocks, d) for d in (sight.landsat_days, sight.sentinel2_days)) for deal in dates]
    truths = [usable(sight, rule, *owners) for owners in owned]
    # samples of each set that a patch would give, for every deal of the dates
    given = np.array([
        [((truth != NO_TRUTH) & (owners[0] == k)).sum(-1) for k in range(len(SETS))]
        for truth, owners in zip(truths, owned, strict=True)
    ])  # fmt: skip
    kept = np.array([[ground == k for k in range(len(SETS))] for ground in grounds])
    totals = np.einsum("dsrc,ksrc->dks", given, kept)
    score = (totals / np.asarray(SHARES)).min(-1) + 1e-6 * totals.sum(-1)
    d, k = np.unravel_index(int(score.argmax()), score.shape)
    picks = _picks(grounds[k], owned[d][0], truths[d], rule)
    spans = tuple((first, last, int(owner)) for (first, last), owner in zip(blocks, dates[d], strict=True))
    places = tuple(tuple(int(v) for v in row) for row in grounds[k])
    landsat, sentinel2 = (tuple(int(v) for v in owner) for owner in owned[d])
    return Cut(places, spans, landsat, sentinel2, picks)


def guarded(places: Labels) -> Labels:
    """(rows, cols) sets of patches -> the same with NOBODY where a neighbour, corners included, ranks higher."""
    highest = maximum_filter(places, size=3, mode="nearest")
    out: Labels = np.where(highest == places, places, NOBODY).astype(np.int8)
    return out


def date_blocks(days: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(first, last) of blocks of equal length that cover all `days`, the last one at times shorter."""
    first, last = min(days), max(days)
    length = int(np.clip(-(-(last - first + 1) // BLOCKS), *WEEKS))
    return tuple((lo, min(lo + length - 1, last)) for lo in range(first, last + 1, length))


def partners(sight: Sight, rule: Rule, landsat: int) -> list[int]:
    """Sentinel-2 days that may serve a Landsat day as reference, the nearest first: other days, within reach."""
    when = sight.landsat_days[landsat]
    gaps = {j: abs(day - when) for j, day in enumerate(sight.sentinel2_days)}
    return sorted((j for j, gap in gaps.items() if 1 <= gap <= rule.reach), key=lambda j: (gaps[j], j))


def usable(sight: Sight, rule: Rule, landsat: Labels, sentinel2: Labels) -> NDArray[np.int16]:
    """(rows, cols, Landsat days) the Sentinel-2 day that is the truth, LANDSAT_ITSELF, or NO_TRUTH where there is no
    sample: Landsat and truth are clear, and so is a reference of another day; all owned by one set."""
    seen = sight.sentinel2 >= rule.clear
    out = np.full(sight.landsat.shape, NO_TRUTH, np.int16)
    for i, when in enumerate(sight.landsat_days):
        known = sight.landsat[..., i] >= rule.clear
        mine = [j for j in partners(sight, rule, i) if sentinel2[j] == landsat[i]]
        references = seen[..., mine].sum(-1)
        if rule.protocol == "reduced":
            out[..., i] = np.where(known & (references > 0), LANDSAT_ITSELF, NO_TRUTH)
            continue
        gaps = {j: abs(d - when) for j, d in enumerate(sight.sentinel2_days) if sentinel2[j] == landsat[i]}
        near = sorted((j for j, gap in gaps.items() if gap <= rule.near), key=lambda j: (gaps[j], j))
        for j in near:
            # what is the truth cannot be the reference as well
            others = references - seen[..., j] if j in mine else references
            take = known & seen[..., j] & (others > 0) & (out[..., i] == NO_TRUTH)
            out[..., i][take] = j
    return out


def _owners(deal: tuple[int, ...], blocks: tuple[tuple[int, int], ...], days: tuple[int, ...]) -> Labels:
    ends = [last for _, last in blocks]
    return np.array([deal[int(np.searchsorted(ends, day))] for day in days], np.int8)


def _dealt(count: int, rng: np.random.Generator) -> list[int]:
    """Sets of `count` neighbours: every four hold all three; three do, too."""
    out: list[int] = []
    while len(out) < count:
        left = count - len(out)
        hand = DEAL[1:] if left == 3 else DEAL
        out += [int(v) for v in rng.permutation(hand)][:left]
    return out


def _date_deals(count: int, seed: int) -> Iterator[tuple[int, ...]]:
    for draw in range(DRAWS):
        yield tuple(_dealt(count, np.random.default_rng((3, seed, draw))))


def _place_deals(rows: int, cols: int, seed: int) -> Iterator[Labels]:
    half = -(-max(rows, cols) // 2)
    for side in sorted({s for s in SIDES if s <= half} | {min(half, SIDES[-1])}):
        n_rows, n_cols = -(-rows // side), -(-cols // side)
        order = [(r, c) for r in range(n_rows) for c in range(n_cols)]
        if n_rows > 1 and n_cols > 1:
            order.sort(key=lambda at: (at[0] // 2, at[1] // 2, at))
        for draw in range(DRAWS):
            blocks = np.zeros((n_rows, n_cols), np.int8)
            hands = _dealt(len(order), np.random.default_rng((4, seed, side, draw)))
            for (r, c), owner in zip(order, hands, strict=True):
                blocks[r, c] = owner
            yield guarded(np.repeat(np.repeat(blocks, side, 0), side, 1)[:rows, :cols])


def _picks(ground: Labels, owners: Labels, truth: NDArray[np.int16], rule: Rule) -> tuple[tuple[Pick, ...], ...]:
    out = []
    for k, share in enumerate(SHARES):
        where = (ground == k)[..., None] & (owners == k) & (truth != NO_TRUTH)
        found = np.argwhere(where)
        most = max(1, round(rule.most * share))
        if len(found) > most:
            chosen = np.random.default_rng((5, rule.seed, k)).permutation(len(found))[:most]
            found = found[np.sort(chosen)]
        out.append(tuple(Pick(int(r), int(c), int(i), int(truth[r, c, i])) for r, c, i in found))
    return tuple(out)


def as_dict(value: Cut) -> dict[str, Any]:
    """As JSON would have it."""
    return {
        "places": [list(row) for row in value.places],
        "blocks": [list(block) for block in value.blocks],
        "landsat": list(value.landsat),
        "sentinel2": list(value.sentinel2),
        "picks": [[[p.row, p.col, p.landsat, p.truth] for p in part] for part in value.picks],
    }


def from_dict(raw: dict[str, Any]) -> Cut:
    """The cut that `as_dict` wrote. Raises KeyError, TypeError or ValueError where it is none."""
    return Cut(
        tuple(tuple(row) for row in raw["places"]),
        tuple((int(a), int(b), int(c)) for a, b, c in raw["blocks"]),
        tuple(raw["landsat"]),
        tuple(raw["sentinel2"]),
        tuple(tuple(Pick(*pick) for pick in part) for part in raw["picks"]),
    )
