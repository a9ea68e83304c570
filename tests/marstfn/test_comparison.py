"""Methods on the same scenes: one case at a time, a failure with its reason, the parts of a scene in one row."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from marstfn import situations
from marstfn.comparison import Case, Counted, Outcome, compare


@pytest.fixture(scope="module")
def case() -> Case:
    return next(situations.each(36))


def failing(case: Case) -> np.ndarray:
    raise ValueError("no class means")


def test_every_method_meets_every_case_before_the_next_is_asked_for(case: Case) -> None:
    asked: list[str] = []

    def coming() -> Iterator[Case]:
        for name in "ab":
            asked.append(name)
            yield replace(case, name=name)

    found = compare(coming(), {"one": lambda c: c.view.s2, "two": lambda c: c.view.truth})
    assert asked == []
    first, second = next(found), next(found)
    assert asked == ["a"]
    rest = list(found)
    assert [(o.case.name, o.method) for o in (first, second, *rest)] == [
        ("a", "one"),
        ("a", "two"),
        ("b", "one"),
        ("b", "two"),
    ]
    assert np.array_equal(first.image, case.view.s2)
    assert all(o.seconds >= 0 and o.reason == "" for o in (first, second, *rest))


def test_a_method_that_cannot_leaves_its_case_empty_and_says_why(case: Case) -> None:
    first, second = compare([case], {"failing": failing, "copy": lambda c: c.view.s2})
    assert (first.reason, first.coverage) == ("no class means", 0)
    assert first.image.shape == case.view.truth.shape
    assert np.isnan(first.image).all()
    assert (second.reason, second.coverage) == ("", 1)


def test_what_nobody_foresaw_is_not_taken_for_a_result(case: Case) -> None:
    with pytest.raises(ZeroDivisionError):
        list(compare([case], {"broken": lambda c: c.view.s2 / (1 // 0)}))


def test_the_uncertainty_of_a_method_is_left_out(case: Case) -> None:
    (found,) = compare([case], {"seven": lambda c: np.concatenate([c.view.s2, c.view.s2[:1]])})
    assert np.array_equal(found.image, case.view.s2)


def test_coverage_counts_scored_pixels_alone(case: Case) -> None:
    landsat = case.view.landsat.copy()
    landsat[0, :2] = np.nan
    held = replace(case, view=replace(case.view, landsat=landsat))
    assert held.scored.sum() == 30 * 36
    assert not held.scored[:6].any()
    image = held.view.truth.copy()
    image[3, :9] = np.nan
    assert Outcome(held, "m", image, 0).coverage == pytest.approx(27 / 30)
    hidden = replace(case, view=replace(case.view, landsat=np.full_like(landsat, np.nan)))
    assert Outcome(hidden, "m", image, 0).coverage == 0


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("2020-06-01 from 2020-05-28, r1c12", "2020-06-01 from 2020-05-28"),
        ("2020-06-01 from 2020-05-28, r0c0 as 2020-05-31", "2020-06-01 from 2020-05-28 as 2020-05-31"),
        ("2023-05-11, r003c005", "2023-05-11"),
        ("2020-06-01 from 2020-05-28", "2020-06-01 from 2020-05-28"),
        ("harvest events", "harvest events"),
    ],
)
def test_the_parts_of_a_scene_share_a_row(case: Case, name: str, row: str) -> None:
    assert replace(case, name=name).row == row


def test_cases_to_come_are_counted_beforehand_and_made_one_by_one(case: Case) -> None:
    made: list[int] = []

    def coming() -> Iterator[Case]:
        for k in range(2):
            made.append(k)
            yield case

    counted = Counted(3, coming())
    assert operator.length_hint(counted) == 3
    assert made == []
    next(counted)
    assert (operator.length_hint(counted), made) == (2, [0])
    assert list(counted) == [case]
    assert list(counted) == []
    assert operator.length_hint(situations.each(36)) == 4
