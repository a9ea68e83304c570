"""The learning curve of a training, as a picture and as rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.drawing import FUSED, GRID, INK, OBSERVED, SOFT

Rows = list[dict[str, float]]

TABLE, PICTURE = "curve.csv", "curve.png"


def rows(run: Path) -> Rows:
    """The validations of the run in a folder, in order (`marstfn.train.COLUMNS`); empty before the first."""
    path = run / TABLE
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def draw(run: Path, title: str, subtitle: str) -> Path | None:
    """Draw the curve of the run in a folder into it; None before there is one."""
    found = rows(run)
    if not found:
        return None
    steps = [row["step"] for row in found]
    figure = Figure(figsize=(9, 4.4), facecolor="white")
    axes = figure.add_axes((0.09, 0.13, 0.82, 0.66))
    figure.text(0.02, 0.96, title, fontsize=15, fontweight="bold", color=INK, va="top")
    figure.text(0.02, 0.88, subtitle, fontsize=9, color=SOFT, va="top")
    axes.axhline(1.0, color=SOFT, lw=1, ls="--")
    axes.text(0, 1.0, " the additive baseline", color=SOFT, fontsize=8, va="bottom")
    axes.plot(steps, [row["ratio"] for row in found], "o-", ms=3.5, color=FUSED)
    axes.set_ylabel("validation error / additive's", color=FUSED)
    axes.set_xlabel("steps", color=SOFT)
    axes.set_xlim(0, max(steps) * 1.02)
    axes.grid(color=GRID)
    loss = axes.twinx()
    loss.plot(steps, [row["loss"] for row in found], "-", lw=1, color=OBSERVED)
    loss.set_ylabel("training loss", color=OBSERVED)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "marstfn"})  # type: ignore[no-untyped-call]
    path = run / PICTURE
    path.write_bytes(buffer.getvalue())
    return path
