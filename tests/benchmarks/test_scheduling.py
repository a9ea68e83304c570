"""Tiles that do nothing go through the window of a real run."""

from __future__ import annotations

from benchmarks import scheduling


def test_scheduling_is_measured_through_the_real_window() -> None:
    (table,) = scheduling.tables(quick=True)
    assert [f.what.split(" tiles")[0] for f in table.figures[::2]] == ["100", "10"]
