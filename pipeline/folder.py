"""Cases from a folder of GeoTIFFs laid out by date, as the paper's data sets are: Landsat at 30 and 15 m, Sentinel-2.

Files are named in `pipeline.layout`. Three protocols. *paper* (as its section 3.1 has it): the truth is the Sentinel-2
image of the reference date, which is also what the methods are given; whoever copies the reference is therefore without
error, and a method is scored by how little it changes. *other-day*: the truth is Sentinel-2 of Landsat's own day, which
no method sees; the references are the nearest other days. *reduced*: every image three times coarser, Landsat as it
came is the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from marstfn.bands import BANDS, RATIO
from marstfn.baselines import Array, degrade
from marstfn.comparison import Case, Counted
from marstfn.reduced import STEP, reduced
from marstfn.reference import Reference
from marstfn.scenes import Scene, adjusted
from pipeline.errors import AssetError
from pipeline.layout import listed
from pipeline.rasters import REACH, RESOLUTION, Raster, checked_order, look, nested
from pipeline.sensors import to_msi

Protocol = Literal["paper", "other-day", "reduced"]
Frame = Literal["as it is", "band-pass", "fitted"]

ORDER_PAIRS = 3
"""Pairs of near days on which the order of bands is tried."""
ORDER_SIDE = 600
"""Of the window in the middle that is read for it, in 10 m pixels."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a folder becomes cases. Raises AssetError where the values contradict one another."""

    protocol: Protocol = "paper"
    side: int = 990
    """Longest side of a case in 10 m pixels, a multiple of 18; larger scenes are cut into nearly equal blocks. 990
    divides both scenes of the paper, 3960 and 2970 px."""
    test_share: float = 1.0
    """Share of the dates or of the area that is used, the last of them: 0.2 leaves a fifth as the paper has it."""
    test_of: Literal["dates", "area"] = "dates"
    within: int = 0
    """other-day: days by which the Sentinel-2 that is the truth may lie beside Landsat."""
    radiometry: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))
    """Scale and offset by kind of file (landsat, pan, sentinel2) in place of the files' own."""
    frame: Frame | None = None
    """What is done to Landsat: nothing, the band-pass to Sentinel-2's, or that and a fit to the reference, block by
    block. None: nothing under `paper`, whose reference is the truth, and the fit under the others."""

    def __post_init__(self) -> None:
        if self.protocol not in get_args(Protocol):
            raise AssetError(f"protocol {self.protocol} is unknown; choose {', '.join(get_args(Protocol))}")
        if self.side < STEP or self.side % STEP:
            raise AssetError(f"blocks of {self.side} px do not nest; choose a multiple of {STEP} px, e.g. 990")
        if not 0 < self.test_share <= 1:
            raise AssetError(f"a share of {self.test_share} is none; give more than 0 and at most 1")
        if self.frame is not None and self.frame not in get_args(Frame):
            raise AssetError(f"frame {self.frame} is unknown; choose {', '.join(get_args(Frame))}")
        unknown = set(self.radiometry) - {"landsat", "pan", "sentinel2"}
        if unknown:
            raise AssetError(f"scales of {', '.join(sorted(unknown))} are asked for; there are landsat, pan, sentinel2")


Files = Mapping[date, Mapping[str, Raster]]


@dataclass(frozen=True, slots=True)
class Trio:
    """A Landsat date, its references before and after, and where its truth comes from (None: Landsat itself)."""

    day: date
    before: date | None
    after: date | None
    truth: tuple[date, str] | None

    @property
    def nearest(self) -> date:
        """The reference that is nearer, the earlier one of two."""
        return min((d for d in (self.before, self.after) if d), key=lambda d: (abs((d - self.day).days), d))


def cases(folder: str | Path, rules: Rules | None = None) -> Iterator[Case]:
    """The cases of a folder, read one block at a time; all files are looked at before the first.

    Raises AssetError, naming the file, where one is missing, cannot be read, does not nest or holds what it should not,
    and where no date suits the protocol.
    """
    rules = rules or Rules()
    root = Path(folder).expanduser()
    files = {
        day: {kind: look(path, kind, rules.radiometry.get(_of(kind))) for kind, path in sorted(kinds.items())}
        for day, kinds in listed(root).items()
    }
    first = next(raster for kinds in files.values() for kind, raster in kinds.items() if RESOLUTION[kind] == 10)
    for kinds in files.values():
        for raster in kinds.values():
            nested(first, raster)
    _ordered(root, files)
    wanted = trios(root, files, rules)
    return _read(root, files, wanted, rules, first.shape)


def trios(root: Path, files: Files, rules: Rules) -> list[Trio]:
    """What each Landsat date is predicted from and held against; AssetError where none can be."""
    landsat = [d for d, kinds in files.items() if "landsat" in kinds]
    if rules.test_of == "dates":
        landsat = landsat[-max(1, round(len(landsat) * rules.test_share)) :]
    found, why = [], Counter[str]()
    for day in landsat:
        trio = _trio(day, files, rules)
        if isinstance(trio, str):
            why[trio] += 1
        else:
            found.append(trio)
    if not found:
        grounds = "; ".join(f"{count} {ground}" for ground, count in why.items())
        raise AssetError(
            f"{root}: none of {len(landsat)} Landsat dates suits the protocol {rules.protocol}: {grounds}. Add dates, "
            "or choose another protocol"
        )
    return found


def _trio(day: date, files: Files, rules: Rules) -> Trio | str:
    seen = [d for d, kinds in files.items() if "sentinel2" in kinds]
    if rules.protocol == "paper":
        nearest = min(seen, key=lambda d: (abs((d - day).days), d))
        truth = (day, "truth") if "truth" in files[day] else (nearest, "sentinel2")
        return Trio(day, nearest, None, truth) if nearest <= day else Trio(day, None, nearest, truth)
    other: tuple[date, str] | None = None
    if rules.protocol == "other-day":
        near = [d for d in seen if abs((d - day).days) <= rules.within]
        if "truth" in files[day]:
            other = day, "truth"
        elif near:
            other = min(near, key=lambda d: abs((d - day).days)), "sentinel2"
        else:
            return f"without Sentinel-2 within {rules.within} days to be the truth"
        # what was seen on Landsat's day is the truth's own day even where a better truth is given
        seen = [d for d in seen if d not in (other[0], day)]
    before = max((d for d in seen if d <= day), default=None)
    after = min((d for d in seen if d > day), default=None)
    if before is None and after is None:
        return "without Sentinel-2 of another day to be the reference"
    return Trio(day, before, after, other)


def _read(root: Path, files: Files, wanted: Sequence[Trio], rules: Rules, shape: tuple[int, int]) -> Iterator[Case]:
    step = STEP if rules.protocol == "reduced" else 2 * RATIO
    top = 0
    if rules.test_of == "area":
        top = round(shape[0] * (1 - rules.test_share)) // step * step
    rows = [slice(top + s.start, top + s.stop) for s in spans(shape[0] - top, rules.side, step)]
    cols = spans(shape[1], rules.side, step)
    if not rows or not cols:
        raise AssetError(f"{root}: scenes of {shape[0] - top} x {shape[1]} px are smaller than {step} px")
    blocks = {(i, j): (row, col) for i, row in enumerate(rows) for j, col in enumerate(cols)}
    return Counted(len(wanted) * len(blocks), _each(root, files, wanted, rules, blocks))


def _each(
    root: Path,
    files: Files,
    wanted: Sequence[Trio],
    rules: Rules,
    blocks: Mapping[tuple[int, int], tuple[slice, slice]],
) -> Iterator[Case]:
    empty = True
    for trio in wanted:
        for (i, j), block in blocks.items():
            case = _case(root, files, trio, rules, block, f", r{i}c{j}" if len(blocks) > 1 else "")
            if case.scored.any():
                empty = False
                yield case
            # its images must not wait in memory for the next
            del case
    if empty:
        raise AssetError(f"{root}: in no block is a pixel known to Landsat, reference and truth at once")


def _case(root: Path, files: Files, trio: Trio, rules: Rules, block: tuple[slice, slice], label: str) -> Case:
    before, after = (_side(files, trio.day, other, block) for other in (trio.before, trio.after))
    reference = Reference(before[0], after[0], before[1], after[1])
    frame = rules.frame or ("as it is" if rules.protocol == "paper" else "fitted")
    landsat = _landsat(files[trio.day], block, reference.nearest(), frame)
    pan = _pan(files[trio.day], block, landsat)
    when = datetime(trio.day.year, trio.day.month, trio.day.day, 12, tzinfo=UTC)
    name, data = f"{trio.day} from {trio.nearest}{label}", f"{root.name} (own data)"
    if trio.truth is None:
        trial = reduced(reference, landsat, pan)
        sharp = (
            trial.pan if trial.pan is not None else np.full((1, *_third2(trial.truth.shape[1:])), np.nan, np.float32)
        )
        view = Scene(when, trial.reference, trial.landsat, sharp, trial.truth)
        return Case(name, f"{root.name}, reduced resolution (Landsat at 30 m is the truth)", view, data, False)
    day, kind = trio.truth
    truth = _image(files[day], kind, block)
    if pan is None:
        pan = np.full((1, *_third2(truth.shape[1:])), np.nan, np.float32)
    if rules.protocol == "other-day":
        what = "a truth of its own" if kind == "truth" else "Sentinel-2 of Landsat's day"
        group = f"{root.name}, truth is {what}, no method sees it"
        name += f" as {day}" if day != trio.day else ""
    else:
        what = "a truth of its own" if kind == "truth" else "the Sentinel-2 of the reference date, which is the input"
        group = f"{root.name}, the paper's protocol: truth is {what}"
    return Case(name, group, Scene(when, reference, landsat, pan, truth), data, False, _then(files, trio, block, frame))


def spans(length: int, side: int, step: int) -> list[slice]:
    """`length` pixels cut into nearly equal pieces of at most `side`, multiples of `step`; the rest under one step is
    left out."""
    length = length // step * step
    if not length:
        return []
    each = -(-length // step // -(-length // side)) * step
    return [slice(at, min(at + each, length)) for at in range(0, length, each)]


def _side(files: Files, day: date, other: date | None, block: tuple[slice, slice]) -> tuple[Array, Array]:
    """(6,H,W) of a reference and (H,W) its distance in days; nothing where there is none."""
    shape = tuple(s.stop - s.start for s in block)
    if other is None:
        return np.full((len(BANDS), *shape), np.nan, np.float32), np.full(shape, np.inf, np.float32)
    image = _image(files[other], "sentinel2", block)
    away = np.where(np.isfinite(image[0]), np.float32(abs((day - other).days)), np.float32(np.inf))
    return image, away.astype(np.float32)


def _then(files: Files, trio: Trio, block: tuple[slice, slice], frame: Frame) -> Array | None:
    """Landsat of the nearest reference's own day, where that day has it; NaN where that reference has a hole."""
    day = trio.nearest
    if day == trio.day or "landsat" not in files[day]:
        return None
    reference = _image(files[day], "sentinel2", block)
    landsat = _landsat(files[day], block, reference, frame)
    landsat[:, np.isnan(degrade(reference)).any(0)] = np.nan
    return landsat


def _landsat(kinds: Mapping[str, Raster], block: tuple[slice, slice], reference: Array, frame: Frame) -> Array:
    image = _image(kinds, "landsat", block)
    if frame == "as it is":
        return image
    moved = to_msi(image)
    return moved if frame == "band-pass" else adjusted(moved, reference)


def _pan(kinds: Mapping[str, Raster], block: tuple[slice, slice], landsat: Array) -> Array | None:
    if "pan" not in kinds:
        return None
    pan = _image(kinds, "pan", block)
    # what hides the bands hides the pan
    pan[:, np.repeat(np.repeat(np.isnan(landsat[0]), 2, 0), 2, 1)] = np.nan
    return pan


def _image(kinds: Mapping[str, Raster], kind: str, block: tuple[slice, slice]) -> Array:
    """The block of one file, NaN where its own mask hides it; `block` in 10 m pixels."""
    place = [_scaled(s, kind) for s in block]
    image = kinds[kind].read(*place)
    if f"{kind}_clear" in kinds:
        image[:, ~(kinds[f"{kind}_clear"].read(*place)[0] > 0)] = np.nan
    return image


def _ordered(root: Path, files: Files) -> None:
    """Try the order of bands on the nearest days of both sensors, in the middle of the scene."""
    days = [(abs((a - b).days), a, b) for a in files if "landsat" in files[a] for b in files if "sentinel2" in files[b]]
    near = [pair for pair in sorted(days) if pair[0] <= REACH]
    pairs = []
    for _, landsat, sentinel2 in near[:ORDER_PAIRS]:
        if files[landsat]["landsat"].named and files[sentinel2]["sentinel2"].named:
            continue
        block = tuple(_middle(n) for n in files[sentinel2]["sentinel2"].shape)
        pairs.append((_image(files[sentinel2], "sentinel2", block), _image(files[landsat], "landsat", block)))  # type: ignore[arg-type]
    if pairs or not near:
        checked_order(pairs, str(root))


def _middle(length: int) -> slice:
    side = min(length, ORDER_SIDE) // (2 * RATIO) * 2 * RATIO
    start = (length - side) // 2 // (2 * RATIO) * 2 * RATIO
    return slice(start, start + side)


def _scaled(span: slice, kind: str) -> slice:
    ratio = RESOLUTION[kind] / RESOLUTION["sentinel2"]
    return slice(round(span.start / ratio), round(span.stop / ratio))


def _third2(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0] * 2 // RATIO, shape[1] * 2 // RATIO


def _of(kind: str) -> str:
    """The kind whose scale a file has."""
    return "sentinel2" if kind == "truth" else kind
