"""Landsat into the cube's one radiometric frame: band-pass first, then a bounded check against clear Sentinel-2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS
from pipeline import bandpass, lines, registration, sampling
from pipeline.errors import CubeError
from pipeline.lines import LEAST_PIXELS, Line, line, refused, spread
from pipeline.neighbours import between
from pipeline.plan import FORMAT, Plan, fingerprint
from pipeline.sensors import Bandpass, to_msi
from pipeline.shifts import SceneShift
from pipeline.store import LEDGER, Store

Array = NDArray[np.float32]

NAME = f"{LEDGER}/harmonise.json"
YEAR_SPREAD = (0.05, 0.02)
"""How far sensor, processing and band-pass may stand off all year: standard deviation of gain and of reflectance."""
SCENE_SPREAD = (0.02, 0.004)
"""How far one date stands off the others: atmosphere, angles."""
DRIFT = (0.006, 0.0012)
"""Change of the land, per square root of the days between Landsat and Sentinel-2, at the least."""
OTHER_SPREAD = (0.02, 0.003)
"""How far one Sentinel-2 date stands off the others: it is no more perfect than Landsat."""


Source = Literal["scene", "year", "none"]


@dataclass(frozen=True, slots=True)
class Fit:
    """One band of one Landsat date: Sentinel-2 = gain * Landsat + offset is what is applied."""

    gain: float
    offset: float
    source: Source
    """What it comes from: the date's own fit drawn towards the year's, the year's alone, or nothing (gain 1)."""
    reason: str
    """Why the date's own fit was refused; empty if it was not."""
    own_gain: float = 1.0
    own_offset: float = 0.0
    """The date's own fit, as it came."""
    correlation: float = 0.0
    pixels: int = 0
    before: float = 0.0
    """Robust spread of Sentinel-2 minus Landsat about 0, reflectance."""
    after: float = 0.0
    """The same after what is applied."""

    @property
    def applied(self) -> bool:
        return self.source != "none"


@dataclass(frozen=True, slots=True)
class SceneFit:
    """The fits of one Landsat date, in the order of BANDS."""

    landsat: int
    """Index along Landsat's own time axis."""
    label: str
    bands: tuple[Fit, ...]


@dataclass(frozen=True, slots=True)
class Harmonisation:
    """What is done to each Landsat date before any method sees it."""

    fingerprint: str
    bandpass: bool
    scenes: tuple[SceneFit, ...]
    shifts: tuple[SceneShift, ...] = ()
    """Of all Landsat dates, in order; empty where they were not measured."""
    bandpasses: tuple[Bandpass, ...] = ()
    """Of all Landsat dates, in order, where coefficients were given; empty where those of HLS serve all."""

    @property
    def content(self) -> str:
        """Fingerprint of what is done: the same inputs by plan give other fits where their pixels are others."""
        return fingerprint(asdict(self))

    def apply(self, landsat: Array, index: int) -> Array:
        """(6, h, w) OLI reflectance of the Landsat date `index` in the cube's frame; NaN kept."""
        own = self.bandpasses[index] if self.bandpasses else bandpass.HLS
        out = to_msi(landsat, own) if self.bandpass else np.array(landsat, np.float32)
        if self.scenes:
            for band, fit in enumerate(self.scenes[index].bands):
                out[band] = out[band] * np.float32(fit.gain) + np.float32(fit.offset)
        return out


def harmonise_fingerprint(plan: Plan, ingested: Sequence[str]) -> str:
    """Of everything that shapes the fits: inputs of all tiles, the options, and this module's bounds."""
    options = plan.options
    given = [asdict(one) for one in bandpass.of_landsat(plan)]
    return fingerprint(
        {
            **({"bandpasses": given} if given else {}),
            "format": FORMAT,
            "ingested": list(ingested),
            "options": [options.bandpass, options.scene_check, options.min_reference_days, options.max_reference_days],
            "bounds": [getattr(lines, name) for name in lines.BOUNDS],
            "sample": [getattr(sampling, name) for name in sampling.BOUNDS],
            "registration": [options.registration, registration.bounds()],
            "spreads": [YEAR_SPREAD, SCENE_SPREAD, DRIFT, OTHER_SPREAD],
        }
    )


def fit_scenes(
    plan: Plan, samples: Sequence[dict[int, Array]], identity: str, shifts: tuple[SceneShift, ...] = ()
) -> Harmonisation:
    """The fits of all Landsat dates from the samples of all tiles, in the order of the tiles; `shifts` are kept with
    them.

    Between two dates the land changes more than a sensor errs, so a date's own fit is trusted as far as the land stood
    still (which the two Sentinel-2 days tell) and is otherwise drawn towards the mean of the year, in which changes
    cancel; the year's mean in turn is drawn towards no correction. Gaussian shrinkage with the spreads above.
    """
    given = bandpass.of_landsat(plan)
    if not plan.options.scene_check:
        return Harmonisation(identity, plan.options.bandpass, (), shifts, given)
    empty = np.empty((0, 4, len(BANDS)), np.float32)
    labels = [scene.label for scene in plan.of("landsat8")]
    data = [np.concatenate([s[i] for s in samples if i in s] or [empty]) for i in range(len(labels))]
    columns = []
    for band in range(len(BANDS)):
        own = [_own(part, band) for part in data]
        columns.append([_drawn(o, part, band, *_year(own)) for o, part in zip(own, data, strict=True)])
    scenes = tuple(SceneFit(i, label, tuple(column[i] for column in columns)) for i, label in enumerate(labels))
    return Harmonisation(identity, plan.options.bandpass, scenes, shifts, given)


@dataclass(frozen=True, slots=True)
class _Own:
    """A date's own fit, why it is refused if it is, and the variance that the land's change adds (gain, shift)."""

    line: Line | None
    reason: str
    change: tuple[float, float] = (0.0, 0.0)


def _own(part: Array, band: int) -> _Own:
    if len(part) < LEAST_PIXELS:
        return _Own(None, f"{len(part)} pixels clear in both, {LEAST_PIXELS} needed")
    x, before, after = (part[:, k, band].astype(np.float64) for k in range(3))
    a, b = part[:, 3, 0].astype(np.float64), part[:, 3, 1].astype(np.float64)
    fitted = line(x, between(before, after, a, b))
    reason = refused(fitted)
    # a random walk pinned at both ends strays from the straight line by this share of its whole step
    nearest = float(np.median(np.minimum(a, b)))
    both = np.isfinite(a) & np.isfinite(b) & fitted.kept
    share, step = 1.0, (0.0, 0.0)
    if both.sum() >= LEAST_PIXELS // 2:
        weight = float(np.median(b[both] / np.maximum(a + b, 1e-6)[both]))
        share = float(np.sqrt(weight * (1 - weight)))
        change = line(before[both], after[both])
        step = change.gain - 1, change.shift
    variance = [
        (share * move) ** 2 + low**2 * nearest + other**2 + chance
        for move, low, other, chance in zip(step, DRIFT, OTHER_SPREAD, fitted.chance, strict=True)
    ]
    return _Own(fitted, reason, (variance[0], variance[1]))


def _year(own: Sequence[_Own]) -> tuple[float, float]:
    """Gain and offset of the year: the mean of the usable dates, each by how still the land stood."""
    usable = [(o.line, o.change) for o in own if o.line is not None and not o.reason]
    if not usable:
        return 1.0, 0.0
    gain = _mean([x.gain - 1 for x, _ in usable], [c[0] for _, c in usable], 0) + 1
    offsets = [x.shift - (gain - 1) * x.at for x, _ in usable]
    return gain, _mean(offsets, [c[1] for _, c in usable], 1)


def _mean(values: Sequence[float], changes: Sequence[float], which: int) -> float:
    """Weighted mean, drawn towards 0 by the year's spread."""
    weights = 1 / (SCENE_SPREAD[which] ** 2 + np.asarray(changes))
    mean = float((weights * np.asarray(values)).sum() / weights.sum())
    return mean * YEAR_SPREAD[which] ** 2 / (YEAR_SPREAD[which] ** 2 + 1 / float(weights.sum()))


def _drawn(own: _Own, part: Array, band: int, gain: float, offset: float) -> Fit:
    """A date's fit drawn towards the year's; the year's alone where its own is refused."""
    fitted = own.line
    source: Source = "none" if (gain, offset) == (1.0, 0.0) else "year"
    if fitted is not None and not own.reason:
        trust = [s**2 / (s**2 + c) for s, c in zip(SCENE_SPREAD, own.change, strict=True)]
        expected = (gain - 1) * fitted.at + offset
        shift = expected + trust[1] * (fitted.shift - expected)
        gain += trust[0] * (fitted.gain - gain)
        offset, source = shift - (gain - 1) * fitted.at, "scene"
    gain, offset = round(gain, 6), round(offset, 6)
    if fitted is None:
        return Fit(gain, offset, source, own.reason, pixels=len(part))
    x = part[:, 0, band].astype(np.float64)
    y = between(part[:, 1, band], part[:, 2, band], part[:, 3, 0], part[:, 3, 1])
    spreads = [round(spread(v, 0.0), 6) for v in (y - x, y - (gain * x + offset))]
    numbers = [round(v, 6) for v in (fitted.gain, fitted.offset, fitted.correlation)]
    return Fit(
        gain,
        offset,
        source,
        own.reason,
        numbers[0],
        numbers[1],
        numbers[2],
        fitted.pixels,
        *spreads,
    )


def write(store: Store, result: Harmonisation) -> None:
    """Keep the fits beside the ledger."""
    store.write(NAME, json.dumps(asdict(result), sort_keys=True, allow_nan=False).encode())


def read(store: Store) -> Harmonisation | None:
    """The fits of an earlier run, or None."""
    data = store.read(NAME)
    if data is None:
        return None
    try:
        raw: dict[str, Any] = json.loads(data)
        scenes = tuple(
            SceneFit(s["landsat"], s["label"], tuple(Fit(**band) for band in s["bands"])) for s in raw["scenes"]
        )
        shifts = tuple(SceneShift(**s) for s in raw["shifts"])
        given = tuple(Bandpass(b["name"], tuple(b["slope"]), tuple(b["intercept"])) for b in raw.get("bandpasses", []))
        return Harmonisation(raw["fingerprint"], raw["bandpass"], scenes, shifts, given)
    except (ValueError, TypeError, KeyError) as error:
        raise CubeError(f"{store.join(NAME)} cannot be read ({error}); delete it and it is made again") from error
