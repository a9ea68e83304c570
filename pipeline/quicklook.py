"""The pictures of a run: input, output and truth side by side, and NDVI through the year."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline import drawing
from pipeline.drawing import INK, SOFT, STAMP, Curve, Day, Floats, Overview


@dataclass(frozen=True, slots=True)
class Panel:
    """One Landsat date: (3, ny, nx) red, green, blue reflectance, NaN = nothing, all over the same ground."""

    title: str
    note: str
    coarse: Floats
    """30 m."""
    fine: Floats
    """10 m."""
    compared: Floats | None
    """10 m: the truth, or a Sentinel-2 observation."""
    compared_note: str


def quicklook(
    panels: Sequence[Panel],
    overview: Overview,
    days: Sequence[Day],
    *,
    title: str,
    subtitle: str,
    credits: str,
    compared: str,
    simulated: bool,
) -> bytes:
    """PNG: rows Landsat input, fused output and `compared`; a column per date; below, place and year."""
    columns = max(3, len(panels))
    side = 2.75
    ratio = panels[0].fine.shape[1] / panels[0].fine.shape[2]
    tall = min(1.6, max(0.5, ratio)) * side
    width, height = 1.0 + (side + 0.1) * columns, 1.3 + 3 * (tall + 0.1) + 0.55 + 2.35
    figure = Figure(figsize=(width, height), facecolor="white")
    grid = figure.add_gridspec(
        3,
        columns,
        left=0.8 / width,
        right=1 - 0.2 / width,
        top=1 - 1.3 / height,
        bottom=1 - (1.3 + 3 * (tall + 0.1)) / height,
        wspace=0.036,
        hspace=0.036,
    )
    _head(figure, title, subtitle, simulated)
    rows = (("Landsat 8", "input, 30 m"), ("Fused", "output, 10 m"), (compared, "for comparison, 10 m"))
    for col, panel in enumerate(panels):
        low, high = drawing.stretch_limits([panel.fine, panel.coarse if panel.compared is None else panel.compared])
        for row, image in enumerate((panel.coarse, panel.fine, panel.compared)):
            axes = figure.add_subplot(grid[row, col])
            drawing.show(axes, image, low, high, simulated)
            if row == 0:
                axes.set_title(panel.title, fontsize=12.5, fontweight="bold", color=INK, pad=18, loc="left")
                axes.text(0, 1.02, panel.note, transform=axes.transAxes, fontsize=8.5, color=SOFT, va="bottom")
            if row == 2 and panel.compared_note:
                drawing.label(axes, panel.compared_note)
            if col == 0:
                axes.text(
                    -0.075,
                    0.5,
                    rows[row][0],
                    transform=axes.transAxes,
                    rotation=90,
                    fontsize=12.5,
                    fontweight="bold",
                    color=INK,
                    ha="right",
                    va="center",
                )
                axes.text(
                    -0.025,
                    0.5,
                    rows[row][1],
                    transform=axes.transAxes,
                    rotation=90,
                    fontsize=8.5,
                    color=SOFT,
                    ha="right",
                    va="center",
                )
                drawing.scale_bar(axes, panel.fine.shape[2] * 10.0)
    left = 0.8
    if overview.detail is not None:  # else the first picture above shows the whole area already
        where = figure.add_axes((0.8 / width, 0.62 / height, (side - 0.15) / width, 2.15 / height))
        drawing.where(where, overview, simulated)
        left += side + 0.55
    drawing.year(figure.add_axes((left / width, 0.62 / height, (width - left - 0.2) / width, 1.8 / height)), days)
    figure.text(0.985, 0.012, credits, fontsize=7.5, color=SOFT, ha="right", va="bottom")
    return _png(figure)


def ndvi_curves(
    curves: Sequence[Curve],
    chart: Overview,
    index: Floats,
    *,
    title: str,
    subtitle: str,
    credits: str,
    simulated: bool,
) -> bytes:
    """PNG: the map `chart` with numbered places and its NDVI `index` (ny, nx) beside the curve of each place."""
    count = max(3, len(curves))
    width, height = 12.5, 1.8 * count + 1.75
    figure = Figure(figsize=(width, height), facecolor="white")
    _head(figure, title, subtitle, simulated)
    side, low = 3.75, 0.62
    top = height - 1.2
    tall = min(side * chart.image.shape[1] / chart.image.shape[2], top - low)
    where = figure.add_axes((0.25 / width, (top - tall) / height, side / width, tall / height))
    drawing.where(where, chart, simulated)
    room = top - tall - 0.45 - low
    if room > 1.5:
        drawing.index_map(figure.add_axes((0.25 / width, low / height, side / width, room / height)), index, simulated)
    grid = figure.add_gridspec(
        count, 1, left=4.75 / width, right=1 - 0.2 / width, top=top / height, bottom=low / height, hspace=0.3
    )
    first: Axes | None = None
    for k, curve in enumerate(curves):
        axes = figure.add_subplot(grid[k, 0], sharex=first)
        first = first or axes
        drawing.curve(axes, curve, legend=k == 0)
        axes.tick_params(labelbottom=k == len(curves) - 1)
        label = f"{k + 1}   {curve.name}"
        axes.text(0, 1.04, label, transform=axes.transAxes, fontsize=9.5, fontweight="bold", color=INK, va="bottom")
        # beside the name there may be the legend
        axes.text(0.006, 0.96, curve.lon_lat, transform=axes.transAxes, fontsize=8.5, color=SOFT, va="top")
        if curve.place is not None:
            where.plot(*curve.place, "o", ms=14, mfc="white", mec=INK, mew=1.2)
            where.annotate(
                str(k + 1), curve.place, fontsize=9, color=INK, fontweight="bold", ha="center", va="center_baseline"
            )
    figure.text(1 - 0.2 / width, 0.1 / height, credits, fontsize=7.5, color=SOFT, ha="right", va="bottom")
    return _png(figure)


def single_curve(curve: Curve, *, title: str, subtitle: str, credits: str, simulated: bool) -> bytes:
    """PNG: the NDVI curve of one place."""
    figure = Figure(figsize=(10, 4.2), facecolor="white")
    axes = figure.add_axes((0.06, 0.12, 0.92, 0.66))
    _head(figure, title, subtitle, simulated)
    drawing.curve(axes, curve, legend=True)
    figure.text(0.985, 0.012, credits, fontsize=7.5, color=SOFT, ha="right", va="bottom")
    return _png(figure)


def _head(figure: Figure, title: str, subtitle: str, simulated: bool) -> None:
    height = figure.get_size_inches()[1]
    figure.text(0.02, 1 - 0.18 / height, title, fontsize=17, fontweight="bold", color=INK, va="top")
    figure.text(0.02, 1 - 0.55 / height, subtitle, fontsize=10, color=SOFT, va="top")
    if simulated:
        figure.text(
            0.985,
            1 - 0.2 / height,
            "SIMULATED",
            fontsize=13,
            fontweight="bold",
            color=STAMP,
            ha="right",
            va="top",
            bbox={"boxstyle": "round,pad=0.35", "fc": "white", "ec": STAMP, "lw": 1.6},
        )


def _png(figure: Figure) -> bytes:
    """The figure as PNG at 130 dpi; it never enters pyplot, so nothing keeps it alive."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "marstfn"})  # type: ignore[no-untyped-call]
    return buffer.getvalue()
