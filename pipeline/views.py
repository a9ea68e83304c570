"""What the pictures of a run show: which ground, which dates, which places, read from its store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import BANDS, COARSE, FINE
from pipeline import cube, places
from pipeline import quicklook as pictures
from pipeline.cube import FUSED_PIXELS, OBSERVED, UPSAMPLED
from pipeline.drawing import Curve, Day, Floats, Overview
from pipeline.encoding import SIMULATED
from pipeline.grid import CELL, Tile, Window
from pipeline.indices import ratio
from pipeline.plan import Plan
from pipeline.quicklook import Panel
from pipeline.store import FUSED, INPUTS, Store

Truth = Callable[[datetime, float, float, tuple[int, int]], Floats]
"""(time, x0, y0, shape) -> (6, ny, nx) exact 10 m reflectance; (x0, y0) is the upper left corner in metres."""

RGB = ("red", "green", "blue")
DETAIL_CELLS = 33
"""Side of the ground shown in detail, in 60 m cells: 198 px, so that 30 m pixels can be told from 10 m ones."""
WHOLE_CELLS = 42
"""A grid no larger than this is shown whole."""
COLUMNS = 4


@dataclass(frozen=True, slots=True)
class View:
    """All a picture needs, read into memory: reflectance (dates, 6, ny, nx) over one detail of the grid."""

    plan: Plan
    window: Window
    shares: NDArray[np.float64]
    """(dates, flags) share of the grid's pixels by quality flag."""
    fine: Floats
    """The fused cube over the window."""
    coarse: Floats
    """The 30 m input (Landsat dates, 6, ny/3, nx/3)."""
    overview: Overview
    ages: Sequence[int | None]
    """By date: Landsat day minus the Sentinel-2 day that most of its fused pixels refer to."""
    truth: Truth | None


def choose(
    store: Store,
    plan: Plan,
    tile: Tile,
    counts: NDArray[np.int64],
    ages: Sequence[int | None],
    truth: Truth | None = None,
) -> View:
    """The detail around `tile` with all dates, and the whole grid on its best Landsat date; `counts` as in Tally."""
    window = detail(plan, tile)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    fine = _read(store, FUSED, "", window, FINE, len(plan.scenes))
    coarse = _read(store, INPUTS, "landsat8/", window, COARSE, len(plan.of("landsat8")))
    return View(plan, window, shares, fine, coarse, _overview(store, plan, window, shares), ages, truth)


def detail(plan: Plan, tile: Tile) -> Window:
    """A square of DETAIL_CELLS around the tile's middle, inside the grid; the whole grid where that is small."""
    grid = plan.grid
    if max(grid.rows, grid.columns) <= WHOLE_CELLS:
        return grid.window

    def span(lo: int, hi: int, size: int) -> tuple[int, int]:
        start = max(0, min((lo + hi - DETAIL_CELLS) // 2, size - DETAIL_CELLS))
        return start, min(size, start + DETAIL_CELLS)

    return Window(grid, *span(tile.row0, tile.row1, grid.rows), *span(tile.col0, tile.col1, grid.columns))


def shown_dates(view: View) -> tuple[int, ...]:
    """Positions on the time axis of up to COLUMNS well covered Landsat dates: the fullest, then the farthest apart."""
    known = np.isfinite(view.fine).all(axis=1).mean(axis=(1, 2))
    landsat = [k for k, s in enumerate(view.plan.scenes) if s.sensor == "landsat8" and known[k] > 0]
    good = [k for k in landsat if known[k] >= 0.7] or sorted(landsat, key=lambda k: -known[k])[:COLUMNS]
    chosen = [max(good, key=lambda k: known[k])]
    while len(chosen) < min(COLUMNS, len(good)):
        chosen.append(max(set(good) - set(chosen), key=lambda k: (known[k] * _apart(view.plan, k, chosen), -k)))
    return tuple(sorted(chosen))


def _apart(plan: Plan, k: int, chosen: Sequence[int]) -> float:
    """Days from date `k` to the nearest of `chosen`."""
    return min(abs((plan.scenes[k].time - plan.scenes[other].time).total_seconds()) for other in chosen) / 86400


def quicklook(view: View) -> bytes:
    """PNG: input, output and comparison for the shown dates."""
    plan, shown = view.plan, shown_dates(view)
    panels = [_panel(view, k) for k in shown]
    days = [
        Day(s.time, float(q[list(FUSED_PIXELS)].sum()), float(q[UPSAMPLED]), float(q[OBSERVED]), k in shown)
        for k, (s, q) in enumerate(zip(plan.scenes, view.shares, strict=True))
    ]
    landsat, sentinel = len(plan.of("landsat8")), len(plan.of("sentinel2"))
    return pictures.quicklook(
        panels,
        view.overview,
        days,
        title=f"{plan.name} {plan.year}",
        subtitle=f"{landsat} {plan.landsats} dates fused to 10 m, {sentinel} Sentinel-2 dates observed · "
        "natural colour, one stretch per date, set by its two 10 m pictures; grey: no clear observation",
        credits=credit(plan),
        compared="Sentinel-2" if view.truth is None else "Truth",
        simulated=plan.simulated,
    )


def ndvi(view: View) -> bytes:
    """PNG: NDVI through the year at a few places of the detail."""
    plan = view.plan
    index = _index(view.fine)
    best = greenest(view, index)
    return pictures.ndvi_curves(
        curves(view, index),
        _chart(view, best),
        index[best],
        title=f"{plan.name} {plan.year}: NDVI through the year",
        subtitle="longitude,latitude as `marstfn ndvi --point` takes them; mean of 3 x 3 pixels of 10 m, "
        "a dot for every clear date of either sensor",
        credits=credit(plan),
        simulated=plan.simulated,
    )


def curves(view: View, index: Floats) -> tuple[Curve, ...]:
    """NDVI `index` (dates, ny, nx) at the places picked in it, each the mean of 3 x 3 px."""
    times = np.array([np.datetime64(t.replace(tzinfo=None), "us") for t in cube.times(view.plan.scenes)])
    fused = np.array([s.sensor == "landsat8" for s in view.plan.scenes])
    out = []
    for name, row, col in places.pick(index):
        values = np.array([_mean(plane[row - 1 : row + 2, col - 1 : col + 2]) for plane in index])
        lon, lat = places.lon_lat(view.window.geobox(FINE), row, col)
        place, lon_lat = (float(col), float(row)), f"{lon:.5f},{lat:.5f}"
        out.append(Curve(name, times, values, fused, _true_curve(view, row, col), place, lon_lat))
    return tuple(out)


def credit(plan: Plan) -> str:
    """The credit line that both data policies ask for; a simulation owes none and says what it is."""
    if plan.simulated:
        return SIMULATED
    copernicus, usgs = f"modified Copernicus Sentinel data [{plan.year}]", "the U.S. Geological Survey"
    return f"Contains {copernicus} · Landsat-8 image courtesy of {usgs}"


def _panel(view: View, k: int) -> Panel:
    scene, rgb = view.plan.scenes[k], [BANDS.index(b) for b in RGB]
    fine = view.fine[k][rgb]
    compared, note = _compared(view, k)
    known = 100 * np.isfinite(fine).all(axis=0).mean()
    number = [s for s in view.plan.scenes if s.sensor == "landsat8"].index(scene)
    return Panel(
        title=scene.day.isoformat(),
        note=f"{known:.0f} % known{_reference(view.ages[k])}",
        coarse=view.coarse[number][rgb],
        fine=fine,
        compared=None if compared is None else compared[rgb],
        compared_note=note,
    )


def _reference(age: int | None) -> str:
    if age is None:
        return ", no reference"
    return f", reference {_before(age)}"


def _before(days: int) -> str:
    if days == 0:
        return "of the same day"
    return f"{abs(days)} day{'s' if abs(days) > 1 else ''} {'before' if days > 0 else 'after'}"


def _compared(view: View, k: int) -> tuple[Floats | None, str]:
    """(6, ny, nx) to hold the fused date against: the truth, or the nearest Sentinel-2 date that is clear there."""
    scene = view.plan.scenes[k]
    if view.truth is not None:
        box = view.window.geobox(FINE).boundingbox
        return view.truth(scene.time, box.left, box.top, view.window.shape(FINE)), "exact, from the simulator"
    wanted = np.isfinite(view.fine[k]).all(axis=0)
    best: tuple[float, int] | None = None
    for other, candidate in enumerate(view.plan.scenes):
        if candidate.sensor != "sentinel2":
            continue
        shared = (np.isfinite(view.fine[other]).all(axis=0) & wanted).sum() / max(1, wanted.sum())
        cost = abs((candidate.day - scene.day).days) + 30 * (1 - shared)
        if shared > 0.3 and (best is None or cost < best[0]):
            best = (cost, other)
    if best is None:
        return None, ""
    day = view.plan.scenes[best[1]].day
    return view.fine[best[1]], f"{day.isoformat()}, {_before((scene.day - day).days)}"


def _overview(store: Store, plan: Plan, window: Window, shares: NDArray[np.float64]) -> Overview:
    """The whole grid from the 30 m input (read by date, so cheap) on the Landsat date with most pixels."""
    landsat = [k for k, scene in enumerate(plan.scenes) if scene.sensor == "landsat8"]
    best = max(landsat, key=lambda k: shares[k, [*FUSED_PIXELS, UPSAMPLED]].sum())
    step = max(1, max(plan.grid.shape(COARSE)) // 600)
    at = landsat.index(best)
    arrays = [cube.array(store, INPUTS, f"landsat8/{band}") for band in RGB]
    image = np.stack([cube.unpack(np.asarray(array[at, ::step, ::step])) for array in arrays])
    whole = window == plan.grid.window
    rows, cols = plan.grid.rows, plan.grid.columns
    box = None if whole else (window.col0 / cols, window.row0 / rows, window.col1 / cols, window.row1 / rows)
    km = f"{cols * CELL / 1000:.1f} x {rows * CELL / 1000:.1f} km"
    caption = f"{km}, {plan.landsats}, {plan.scenes[best].day.isoformat()}" + ("" if whole else "; box: detail")
    return Overview(image, box, caption)


def _read(store: Store, name: str, group: str, window: Window, resolution: int, dates: int) -> Floats:
    """(dates, 6, ny, nx) float32 reflectance of a window, NaN where nothing is stored."""
    out = np.empty((dates, len(BANDS), *window.shape(resolution)), np.float32)
    for k, band in enumerate(BANDS):
        stored = np.asarray(cube.array(store, name, f"{group}{band}")[(slice(0, dates), *window.roi(resolution))])
        out[:, k] = cube.unpack(stored)
    return out


def _index(fine: Floats) -> Floats:
    """NDVI (dates, ny, nx) of reflectance (dates, 6, ny, nx), as indices.ndvi."""
    return ratio(fine[:, BANDS.index("red")], fine[:, BANDS.index("nir08")])


def _true_curve(view: View, row: int, col: int) -> Floats | None:
    if view.truth is None:
        return None
    box = view.window.geobox(FINE).boundingbox
    x0, y0 = box.left + (col - 1) * FINE, box.top - (row - 1) * FINE
    patches = np.stack([view.truth(scene.time, x0, y0, (3, 3)) for scene in view.plan.scenes])
    return np.array([_mean(plane) for plane in _index(patches)])


def greenest(view: View, index: Floats) -> int:
    """Position of the greenest date that is clear over the detail; a fused one where it is nearly as green."""
    known = np.isfinite(index).mean(axis=(1, 2))
    green = np.array([np.nanmean(plane) if share > 0 else -1.0 for plane, share in zip(index, known, strict=True)])
    fused = np.array([s.sensor == "landsat8" for s in view.plan.scenes])
    return int(np.argmax(green + 0.15 * fused - 3 * (1 - known)))


def _chart(view: View, best: int) -> Overview:
    """The detail at 10 m on one date."""
    rgb, scene = [BANDS.index(b) for b in RGB], view.plan.scenes[best]
    ny, nx = view.window.shape(FINE)
    what = "fused" if scene.sensor == "landsat8" else "Sentinel-2"
    caption = f"{nx / 100:.1f} x {ny / 100:.1f} km at 10 m, {what}, {scene.day.isoformat()}"
    return Overview(view.fine[best][rgb], None, caption)


def _mean(patch: Floats) -> float:
    known = np.isfinite(patch)
    return float(patch[known].mean()) if known.sum() * 2 > patch.size else float("nan")
