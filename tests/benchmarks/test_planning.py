"""A plan is made, measured and gone on from in a process of its own."""

from __future__ import annotations

from benchmarks import planning


def test_making_a_plan_is_measured_in_its_own_process() -> None:
    (making, going_on) = planning.tables(quick=True)
    assert making.figures[0].what.startswith("121 tiles, 60 scenes")
    assert all(f.median > 0 for f in (*making.figures, *going_on.figures))
    assert making.figures[2].met, "a small plan needs less than a large one may"
