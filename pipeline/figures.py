"""Pictures of a comparison: predictions beside the truth with a zoomed box, their errors, scatter and NDVI error.

Each function returns a PNG of few colours, so that a report with a hundred pictures can still be sent.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from marstfn import metrics
from marstfn.bands import BANDS, FINE, RATIO
from marstfn.comparison import Case, Outcome
from marstfn.measures import ALL, FLAT, Floats, Ground, ndvi
from pipeline import drawing
from pipeline.drawing import INK, NOTHING, SOFT, STAMP
from pipeline.pixels import Pixels

DPI = 96
SIDE = 1.62
"""Inches of one picture."""
COLUMNS = 6
BOX = "#ffd54a"
RGB = tuple(BANDS.index(b) for b in ("red", "green", "blue"))
ZOOM = 48
"""Side of the zoomed box in 10 m pixels, at most a third of the image."""


@dataclass(frozen=True, slots=True)
class Box:
    row: int
    col: int
    side: int

    @property
    def fine(self) -> tuple[slice, slice]:
        return slice(self.row, self.row + self.side), slice(self.col, self.col + self.side)


def largest_change(case: Case) -> Box:
    """The square, on Landsat's lattice, where the truth is farthest from the reference; the middle where no change is
    known. Its side is ZOOM pixels, or a third of a smaller image's."""
    view = case.view
    height, width = view.truth.shape[1:]
    side = max(RATIO, min(ZOOM, min(height, width) // 3) // RATIO * RATIO)
    known = case.scored & np.isfinite(view.s2).all(0)
    gap = np.where(known, np.abs(np.where(known, view.truth - view.s2, 0)).mean(0), 0)
    sums = np.pad(gap, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    total = total[::RATIO, ::RATIO]
    if not total.max() > 0:
        return Box((height - side) // 2 // RATIO * RATIO, (width - side) // 2 // RATIO * RATIO, side)
    row, col = np.unravel_index(int(total.argmax()), total.shape)
    return Box(int(row) * RATIO, int(col) * RATIO, side)


def side_by_side(case: Case, outcomes: Sequence[Outcome]) -> bytes:
    """PNG: Landsat's own pixels, the Sentinel-2 reference, the truth and every prediction in natural colour, stretched
    as the truth is; below each, the box of largest change enlarged."""
    view, box = case.view, largest_change(case)
    rgb = list(RGB)
    truth = np.where(case.scored, view.truth[rgb], np.nan)
    low, high = drawing.stretch_limits([truth])
    panels: list[tuple[str, Floats | None, str]] = [
        ("Landsat, 30 m", np.repeat(np.repeat(view.landsat[rgb], RATIO, 1), RATIO, 2), ""),
        ("Sentinel-2 reference", view.s2[rgb], ""),
        ("truth", np.asarray(view.truth[rgb]), ""),
    ]
    panels += [(o.method, None if o.reason else o.image[rgb], o.reason) for o in outcomes]
    figure, cells = _sheet(case, len(panels), "natural colour, one stretch; below, the box of largest change", rows=2)
    for (title, image, reason), (top, below) in zip(panels, cells, strict=True):
        _titled(top, title, title == "truth")
        drawing.frame(below)
        if image is None:
            _missing(top, reason)
            continue
        drawing.show(top, image, low, high, False)
        top.images[-1].set_interpolation(_resampled(image.shape[-1]))
        place = (box.col - 0.5, box.row - 0.5)
        for colour, width in (("black", 2.2), (BOX, 1.1)):
            top.add_patch(Rectangle(place, box.side, box.side, fill=False, ec=colour, lw=width))
        drawing.show(below, image[:, *box.fine], low, high, False)
        for spine in below.spines.values():
            spine.set(visible=True, color=BOX, linewidth=1.2)
    drawing.scale_bar(cells[0][0], view.truth.shape[2] * FINE)
    return _png(figure, 160)


def difference_maps(case: Case, outcomes: Sequence[Outcome]) -> bytes:
    """PNG: prediction minus truth, mean over bands, on one scale about 0 for all methods, with the RMSE over all bands;
    only scored pixels, and only those that the method filled."""
    ground = Ground.of(case)
    truth, scored = ground.truth, ground.parts[ALL]

    def error(outcome: Outcome) -> tuple[Floats, float]:
        gap = np.where(scored, (np.asarray(outcome.image, np.float64) - truth).mean(0), np.nan)
        return gap, metrics.rmse(ground.filled(outcome.image), truth, scored) if scored.any() else math.nan

    return _maps(case, outcomes, error, "prediction minus truth, mean over bands, reflectance", "RdBu_r", 0.01)


def vegetation(case: Case, outcomes: Sequence[Outcome]) -> bytes:
    """PNG: NDVI of the prediction minus that of the truth, on one scale about 0, with its RMSE, and its histogram."""
    ground = Ground.of(case)
    scored = ground.parts[ALL]
    red, nir = BANDS.index("red"), BANDS.index("nir08")
    truth = ndvi(ground.truth[red], ground.truth[nir])

    def error(outcome: Outcome) -> tuple[Floats, float]:
        raw = np.asarray(outcome.image, np.float64)
        whole = ground.filled(outcome.image)
        gap = np.where(scored, ndvi(raw[red], raw[nir]) - truth, np.nan)
        full = ndvi(whole[red], whole[nir]) - truth
        return gap, float(np.sqrt((full[scored] ** 2).mean())) if scored.any() else math.nan

    label = "NDVI of the prediction minus that of the truth; below, its histogram"
    return _maps(case, outcomes, error, label, "BrBG", 0.05, histogram=True)


def scatter(pixels: Pixels, group: str) -> bytes:
    """PNG: density of (truth, prediction) over the pixels of a group, a row a method and a column a band, with the 1:1
    line and R² of those pixels."""
    truth, methods = pixels.truth, pixels.methods
    wide, tall, left, top = 1.12, 1.12, 1.2, 0.92
    width, height = left + wide * len(BANDS) + 0.15, top + tall * len(methods) + 0.5
    figure = Figure(figsize=(width, height), facecolor="white", dpi=DPI)
    _head(figure, group, f"predicted against true reflectance, {extent(pixels)}", pixels.simulated)
    limits = [_limits(band) for band in truth]
    for r, method in enumerate(methods):
        whole = pixels.made(method)
        for b, band in enumerate(BANDS):
            bottom = height - top - (r + 1) * tall
            axes = figure.add_axes(
                ((left + b * wide) / width, (bottom + 0.06) / height, (wide - 0.08) / width, (tall - 0.08) / height)
            )
            _density(axes, truth[b], whole[b], limits[b])
            if r == 0:
                axes.set_title(band, fontsize=9, color=INK, pad=4)
            if r == len(methods) - 1:
                for at, value, side in ((0.0, limits[b][0], "left"), (1.0, limits[b][1], "right")):
                    text = f"{value:.2f}".replace("-", "−")
                    axes.text(at, -0.05, text, transform=axes.transAxes, fontsize=7, color=SOFT, ha=side, va="top")
            if b == 0:
                name = "\n".join(textwrap.wrap(method, 14))
                axes.text(-0.08, 0.5, name, transform=axes.transAxes, fontsize=8.5, color=INK, ha="right", va="center")
    figure.text(0.5, 0.08 / height, "true reflectance", fontsize=8.5, color=SOFT, ha="center", va="bottom")
    return _png(figure)


def extent(pixels: Pixels) -> str:
    """Which pixels are shown."""
    shown = pixels.truth.shape[1]
    return "all scored pixels" if shown == pixels.seen else f"{shown} of {pixels.seen} scored pixels, drawn by lot"


def _limits(band: Floats) -> tuple[float, float]:
    if not band.size:
        return 0.0, 0.5
    low, high = (float(v) for v in np.percentile(band, (0.2, 99.8)))
    margin = max(0.08 * (high - low), 0.005)
    return low - margin, high + margin


def _density(axes: Axes, x: Floats, y: Floats, limits: tuple[float, float]) -> None:
    drawing.frame(axes)
    axes.set_facecolor("#f5f7fa")
    axes.set(xlim=limits, ylim=limits)
    axes.plot(limits, limits, "-", color=STAMP, lw=0.8, zorder=3)
    if not x.size:
        return
    counts, *_ = np.histogram2d(np.clip(x, *limits), np.clip(y, *limits), bins=56, range=(limits, limits))
    extent = (*limits, *limits)
    shown = np.where(counts.T > 0, counts.T, np.nan)
    norm = LogNorm(1, max(counts.max(), 2))
    axes.imshow(shown, origin="lower", extent=extent, cmap="viridis", norm=norm, aspect="auto", interpolation="nearest")
    spread = float(((x - x.mean()) ** 2).sum())
    text = f"R² {1 - float(((x - y) ** 2).sum()) / spread:.3f}".replace("-", "−") if x.std() > FLAT else "R² —"
    plate = {"boxstyle": "square,pad=0.12", "fc": "#ffffffd0", "ec": "none"}
    axes.text(0.04, 0.96, text, transform=axes.transAxes, fontsize=7.5, color=INK, va="top", bbox=plate)


def _maps(
    case: Case,
    outcomes: Sequence[Outcome],
    error: Callable[[Outcome], tuple[Floats, float]],
    label: str,
    colours: str,
    least: float,
    *,
    histogram: bool = False,
) -> bytes:
    found = [error(o) for o in outcomes]
    sizes = [np.abs(gap[np.isfinite(gap)]) for gap, _ in found]
    known = np.concatenate(sizes) if sizes else np.zeros(0)
    top = max(least, float(np.percentile(known, 98))) if known.size else least
    figure, cells = _sheet(case, len(outcomes), label, rows=2 if histogram else 1, second=0.34)
    shown = None
    for outcome, (gap, rmse), axes in zip(outcomes, found, cells, strict=True):
        note = "" if math.isnan(rmse) else f"RMSE {rmse:.4f}" + (", as bicubic" if outcome.reason else "")
        _titled(axes[0], outcome.method, False, note)
        if outcome.reason:
            _missing(axes[0], outcome.reason)
        else:
            shown = axes[0].imshow(gap, cmap=colours, vmin=-top, vmax=top, interpolation=_resampled(gap.shape[-1]))
        if histogram:
            drawing.frame(axes[1])
            axes[1].set_facecolor("#f5f7fa")
            values = gap[np.isfinite(gap)]
            if values.size:
                axes[1].hist(np.clip(values, -top, top), bins=41, range=(-top, top), color=SOFT)
            axes[1].axvline(0, color=STAMP, lw=0.8)
            axes[1].set_xlim(-top, top)
    if shown is not None:
        width, height = figure.get_size_inches()
        bar = figure.add_axes((1 - 2.6 / width, 0.3 / height, 2.4 / width, 0.1 / height))
        scale = figure.colorbar(shown, cax=bar, orientation="horizontal", ticks=[-top, 0, top], extend="both")
        scale.ax.set_xticklabels([f"−{top:.3f}", "0", f"+{top:.3f}"])
        scale.outline.set_visible(False)
        scale.ax.tick_params(labelsize=7.5, colors=SOFT, length=0, pad=2)
    return _png(figure)


def _sheet(
    case: Case, count: int, subtitle: str, *, rows: int, second: float = 1.0
) -> tuple[Figure, list[tuple[Axes, ...]]]:
    """A figure of `count` cells, each of one picture, or of two with the lower one `second` times as high."""
    lines = -(-max(count, 1) // COLUMNS)
    columns = max(-(-count // lines), 3)
    ratio = case.view.truth.shape[1] / case.view.truth.shape[2]
    tall = SIDE * min(1.8, max(0.4, ratio))
    lower = 0.0 if rows == 1 else (SIDE if second == 1.0 else SIDE * second) + 0.05
    plain = rows == 2 and second == 1.0
    band, top, bottom, gap = 0.24 if plain else 0.4, 0.62, 0.08 if plain else 0.5, 0.07
    cell = band + tall + lower + 0.06
    width, height = 0.1 + columns * (SIDE + gap), top + lines * cell + bottom
    figure = Figure(figsize=(width, height), facecolor="white", dpi=DPI)
    _head(figure, case.name, subtitle, case.simulated)
    cells: list[tuple[Axes, ...]] = []
    for k in range(count):
        left = 0.1 + (k % columns) * (SIDE + gap)
        upper = height - top - (k // columns) * cell - band
        boxes = [(left / width, (upper - tall) / height, SIDE / width, tall / height)]
        if rows == 2:
            boxes.append((left / width, (upper - tall - lower) / height, SIDE / width, (lower - 0.05) / height))
        axes = tuple(figure.add_axes(box) for box in boxes)
        for a in axes:
            drawing.frame(a)
        cells.append(axes)
    return figure, cells


def _head(figure: Figure, title: str, subtitle: str, simulated: bool) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.1 / width, 1 - 0.1 / height, title, fontsize=12, fontweight="bold", color=INK, va="top")
    figure.text(0.1 / width, 1 - 0.37 / height, subtitle, fontsize=8.5, color=SOFT, va="top")
    if simulated:
        figure.text(
            1 - 0.14 / width,
            1 - 0.14 / height,
            "SIMULATED",
            fontsize=9,
            fontweight="bold",
            color=STAMP,
            ha="right",
            va="top",
            bbox={"boxstyle": "round,pad=0.3", "fc": "white", "ec": STAMP, "lw": 1.2},
        )


def _titled(axes: Axes, title: str, strong: bool, note: str = "") -> None:
    name = title if len(title) <= 24 else title[:23] + "…"
    at = 1.14 if note else 1.02
    axes.text(
        0,
        at,
        name,
        transform=axes.transAxes,
        fontsize=8.5,
        fontweight="bold" if strong else "normal",
        color=INK,
        va="bottom",
    )
    if note:
        axes.text(0, 1.02, note, transform=axes.transAxes, fontsize=7.5, color=SOFT, va="bottom")


def _resampled(pixels: int) -> Literal["auto", "nearest"]:
    """An image of more pixels than its picture has is averaged: picking some would show its noise, not it."""
    return "auto" if pixels > SIDE * DPI else "nearest"


def _missing(axes: Axes, reason: str) -> None:
    axes.set_facecolor(NOTHING)
    text = "no result\n" + "\n".join(textwrap.wrap(reason, 26)[:5])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, fontsize=7, color=INK, ha="center", va="center")


def _png(figure: Figure, colours: int = 64) -> bytes:
    """PNG of a palette of `colours`; the figure never enters pyplot, so nothing keeps it alive."""
    drawn = io.BytesIO()
    FigureCanvasAgg(figure).print_png(drawn)  # type: ignore[no-untyped-call]
    picture = Image.open(drawn).convert("RGB")
    small = picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "png", optimize=True)
    return buffer.getvalue()
