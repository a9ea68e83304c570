"""The parts that the pictures of a run are put together from: stretched images, scale bar, calendar charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import matplotlib.dates as mdates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

INK, SOFT, GRID, NOTHING = "#1f2933", "#616e7c", "#e4e7eb", "#d9dee3"
FUSED, OBSERVED, TRUTH, UPSAMPLED, STAMP = "#1b7f5c", "#3d6fb4", "#b8860b", "#8fcbb0", "#b42318"
_OUTLINE = [withStroke(linewidth=2.4, foreground="#000000aa")]


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole area in natural colour (3, ny, nx), and the detail's (left, top, right, bottom) as fractions of it."""

    image: Floats
    detail: tuple[float, float, float, float] | None
    caption: str


@dataclass(frozen=True, slots=True)
class Day:
    """One entry of the time axis and the share (0..1) of its pixels that are fused, upsampled or observed."""

    time: datetime
    fused: float
    upsampled: float
    observed: float
    shown: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """NDVI at one place: all dates with their values (NaN = unknown), which are fused, and the truth if known."""

    name: str
    times: NDArray[np.datetime64]
    values: Floats
    fused: NDArray[np.bool_]
    truth: Floats | None = None
    place: tuple[float, float] | None = None
    """(column, row) in pixels of the map, fractions allowed."""
    lon_lat: str = ""
    """Longitude,latitude in degrees, as a command takes them."""


def stretch_limits(images: Sequence[Floats]) -> tuple[Floats, Floats]:
    """(low, high) reflectance, each (3,), shown as black and white: percentiles 1 and 99.5 over all `images` together.

    The same limits serve every image of a column, so that a difference in tone is a difference in the data.
    """
    known = np.concatenate([image.reshape(3, -1) for image in images], axis=1)
    known = known[:, np.isfinite(known).all(axis=0)]
    if known.shape[1] == 0:
        return np.zeros(3), np.full(3, 0.3)
    low, high = np.percentile(known, 1, axis=1), np.percentile(known, 99.5, axis=1)
    # one span for all bands keeps the hue; at least 0.06, so that a flat scene does not turn into noise
    span = max(float((high - low).max()), 0.06)
    middle_span = 0.5 * (span + np.maximum(high - low, 0.04))
    return low, low + middle_span


def natural_colour(image: Floats, low: Floats, high: Floats) -> Floats:
    """(ny, nx, 4) in 0..1 for matplotlib from (3, ny, nx) reflectance: stretched, gamma 0.75, clear where NaN."""
    known = np.all(np.isfinite(image), axis=0, keepdims=True)
    scaled = (np.nan_to_num(image) - low[:, None, None]) / (high - low)[:, None, None]
    colour = np.clip(scaled, 0, 1) ** 0.75
    return np.moveaxis(np.concatenate([colour, known.astype(colour.dtype)]), 0, -1)


def show(axes: Axes, image: Floats | None, low: Floats, high: Floats, simulated: bool) -> None:
    frame(axes)
    if image is None:
        axes.text(0.5, 0.5, "nothing to compare", transform=axes.transAxes, color=SOFT, ha="center", va="center")
        return
    axes.imshow(natural_colour(image, low, high), interpolation="nearest", aspect="equal")
    if simulated:
        stamp(axes)


def stamp(axes: Axes) -> None:
    """On every picture, so that a crop of it still says so."""
    axes.text(
        0.98,
        0.03,
        "simulated",
        transform=axes.transAxes,
        fontsize=8,
        color="white",
        ha="right",
        va="bottom",
        path_effects=_OUTLINE,
    )


def frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(NOTHING)
    for spine in axes.spines.values():
        spine.set_visible(False)


def label(axes: Axes, text: str) -> None:
    axes.text(0.02, 0.97, text, transform=axes.transAxes, fontsize=8.5, color="white", va="top", path_effects=_OUTLINE)


def scale_bar(axes: Axes, width_m: float) -> None:
    """A bar of a round length of about a quarter of the picture, in its lower left corner."""
    length = max((m * 10**k for k in range(1, 6) for m in (1, 2, 5) if m * 10**k <= 0.33 * width_m), default=10)
    share = length / width_m
    bar = Rectangle((0.04, 0.045), share, 0.014, transform=axes.transAxes, fc="white", ec="black", lw=0.6)
    axes.add_patch(bar)
    text = f"{length} m" if length < 1000 else f"{length // 1000} km"
    axes.text(
        0.04 + share / 2,
        0.07,
        text,
        transform=axes.transAxes,
        fontsize=8.5,
        color="white",
        ha="center",
        va="bottom",
        path_effects=_OUTLINE,
    )


def where(axes: Axes, overview: Overview, simulated: bool) -> None:
    low, high = stretch_limits([overview.image])
    show(axes, overview.image, low, high, simulated)
    axes.set_anchor("NW")
    ny, nx = overview.image.shape[1:]
    if overview.detail is not None:
        left, top, right, bottom = overview.detail
        box = (left * nx - 0.5, top * ny - 0.5), (right - left) * nx, (bottom - top) * ny
        for colour, width in (("black", 3.0), ("#ffd54a", 1.6)):
            axes.add_patch(Rectangle(*box, fill=False, ec=colour, lw=width))
    axes.set_xlabel(overview.caption, fontsize=8.5, color=SOFT, labelpad=4, loc="left")


def index_map(axes: Axes, index: Floats, simulated: bool) -> None:
    """NDVI of the map above, with its colours explained."""
    frame(axes)
    axes.set_anchor("NW")
    shown = axes.imshow(index, cmap="YlGn", vmin=0, vmax=0.9, interpolation="nearest", aspect="equal")
    bar = axes.inset_axes((0.0, -0.055, 0.5, 0.025))
    ticks = axes.figure.colorbar(shown, cax=bar, orientation="horizontal", ticks=[0, 0.3, 0.6, 0.9])
    ticks.outline.set_visible(False)
    ticks.ax.tick_params(labelsize=8, colors=SOFT, length=0, pad=2)
    axes.text(0.53, -0.043, "NDVI of the same date", transform=axes.transAxes, fontsize=8.5, color=SOFT, va="center")
    if simulated:
        stamp(axes)


def year(axes: Axes, days: Sequence[Day]) -> None:
    """The dense series at a glance: how much of the area each date covers."""
    _chart(axes)
    style: dict[str, Any] = {"width": 1.7, "align": "center"}
    times = _stamps([day.time for day in days])
    observed, fused, upsampled = (
        np.array([100 * getattr(day, name) for day in days]) for name in ("observed", "fused", "upsampled")
    )
    axes.bar(times, observed, color=OBSERVED, alpha=0.55, label="Sentinel-2, observed", **style)
    axes.bar(times, fused, color=FUSED, label="Landsat 8, fused", **style)
    if (upsampled > 0).any():
        axes.bar(times, upsampled, bottom=fused, color=UPSAMPLED, label="Landsat 8, no reference", **style)
    shown = times[[day.shown for day in days]]
    axes.plot(shown, np.full(len(shown), 104), "v", ms=6, color=INK, clip_on=False)
    axes.set_ylim(0, 100)
    _whole_year(axes, times)
    axes.set_ylabel("% of the area known", fontsize=8.5, color=SOFT)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.1),
        ncols=3,
        fontsize=8.5,
        frameon=False,
        borderaxespad=0,
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=1.6,
    )
    axes.text(1, 1.11, "▼ shown above", transform=axes.transAxes, fontsize=8.5, color=INK, ha="right", va="bottom")


def curve(axes: Axes, curve: Curve, *, legend: bool) -> None:
    _chart(axes)
    times = curve.times
    known = np.isfinite(curve.values)
    if curve.truth is not None:
        axes.plot(times, curve.truth, "-", color=TRUTH, lw=1.3, alpha=0.9, label="truth (simulator)", zorder=1)
    axes.plot(times[known], curve.values[known], "-", color="#9aa5b1", lw=0.8, zorder=2)
    observed, fused = known & ~curve.fused, known & curve.fused
    axes.plot(
        times[observed],
        curve.values[observed],
        "o",
        ms=4.2,
        mfc="white",
        mec=OBSERVED,
        mew=1.2,
        zorder=3,
        label="Sentinel-2, observed",
    )
    axes.plot(times[fused], curve.values[fused], "o", ms=5.2, color=FUSED, zorder=4, label="Landsat 8, fused to 10 m")
    low = min(0.0, float(np.nanmin(curve.values)) - 0.05) if known.any() else 0.0
    axes.set_ylim(low, 1.0)
    axes.set_yticks([tick for tick in (-0.5, -0.25, 0, 0.25, 0.5, 0.75, 1) if tick >= low])
    _whole_year(axes, times)
    axes.set_ylabel("NDVI", fontsize=8.5, color=SOFT)
    if legend:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1.0),
            ncols=3,
            fontsize=8.5,
            frameon=False,
            borderaxespad=0.1,
            labelcolor=INK,
            handlelength=1.6,
            columnspacing=1.6,
        )


def _stamps(times: Sequence[datetime]) -> NDArray[np.datetime64]:
    return np.array([np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "us") for time in times])


def _whole_year(axes: Axes, times: NDArray[np.datetime64]) -> None:
    """The x axis from January to December of the dates' year, so that gaps at its ends are seen."""
    year = np.sort(times)[len(times) // 2].astype("datetime64[Y]")
    first = year.astype("datetime64[D]")
    last = (year + 1).astype("datetime64[D]") - 1
    axes.set_xlim(first, last)


def _chart(axes: Axes) -> None:
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(SOFT)
    axes.tick_params(colors=SOFT, labelsize=8.5, length=0)
    axes.xaxis.set_major_locator(mdates.MonthLocator())  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(mdates.DateFormatter("%b"))  # type: ignore[no-untyped-call]
