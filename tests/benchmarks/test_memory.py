"""A worker measured in a process of its own holds what the plan says."""

from __future__ import annotations

from benchmarks import memory


def test_the_measurement_runs_and_holds_the_bound() -> None:
    along, peaks = memory.tables(quick=True)
    assert len(along.figures) == 8
    assert len(peaks.figures) == 2
    assert all(f.met for f in peaks.figures), [(f.what, f.values, f.target) for f in peaks.figures]
