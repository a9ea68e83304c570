"""Candidates measured in turn, round by round, so that what disturbs a machine disturbs all of them alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: the median of several runs with the least and the most of them, and what was hoped for."""

    what: str
    values: tuple[float, ...]
    unit: str = ""
    target: str = ""
    met: bool | None = None
    """Whether the median meets the target; None where there is none or it cannot be told here."""

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Table:
    """Figures that belong together, and the conditions they were taken under."""

    title: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()


def alternated(candidates: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, tuple[float, ...]]:
    """Seconds of wall clock of each candidate in each of `rounds` rounds, after one round that does not count.

    Every other round runs backwards, so that no candidate always follows the same one.
    """
    for run in candidates.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds):
        names = list(candidates) if turn % 2 == 0 else list(candidates)[::-1]
        for name in names:
            start = time.perf_counter()
            candidates[name]()
            taken[name].append(time.perf_counter() - start)
    return {name: tuple(values) for name, values in taken.items()}


def ratios(over: Sequence[float], under: Sequence[float]) -> tuple[float, ...]:
    """Round by round `over` / `under`: what disturbed a round disturbed both."""
    return tuple(a / b for a, b in zip(over, under, strict=True))


def at_least(what: str, values: Sequence[float], target: float, unit: str = "") -> Figure:
    """A figure that should be `target` or more."""
    return Figure(what, tuple(values), unit, f">= {target:g}", statistics.median(values) >= target)


def at_most(what: str, values: Sequence[float], target: float, unit: str = "") -> Figure:
    """A figure that should be `target` or less."""
    return Figure(what, tuple(values), unit, f"<= {target:g}", statistics.median(values) <= target)


def machine() -> str:
    """Where the figures were taken, and how busy that was."""
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}{load}"


def markdown(table: Table) -> str:
    """The table as Markdown."""
    lines = [f"### {table.title}", "", "| figure | median | least..most | runs | target | met |", "|-|-|-|-|-|-|"]
    for f in table.figures:
        met = {True: "yes", False: "**no**", None: ""}[f.met]
        unit = f" {f.unit}" if f.unit else ""
        spread = f"{min(f.values):.3g}..{max(f.values):.3g}" if len(f.values) > 1 else ""
        lines.append(f"| {f.what} | {f.median:.3g}{unit} | {spread} | {len(f.values)} | {f.target} | {met} |")
    return "\n".join([*lines, "", *(f"{note}  " for note in table.notes)]) + "\n"
