"""The reference around a date: nearer side, interpolation, what a network is told of it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marstfn.reference import FILL, Reference


def images(before: float, after: float) -> tuple[np.ndarray, np.ndarray]:
    return (np.full((6, 2, 2), v, np.float32) for v in (before, after))


def days(value: float) -> np.ndarray:
    return np.full((2, 2), value, np.float32)


@given(st.integers(0, 80), st.integers(1, 80))
def test_a_line_through_both_sides_meets_the_date(a: int, b: int) -> None:
    """Ground that changes by 0.001 a day, whatever the days: the interpolation is exact."""
    before, after = images(0.3 - 0.001 * a, 0.3 + 0.001 * b)
    around = Reference(before, after, days(a), days(b))
    assert np.allclose(around.between(), 0.3, atol=1e-6)
    assert np.array_equal(around.nearest(), before if a <= b else after)
    assert (around.age() == (a if a <= b else -b)).all()
    context = around.context()
    assert np.allclose(context[:6], 0.001 * (a + b), atol=1e-6)
    assert np.allclose(context[6:, 0, 0], [min(a / 60, 1), min(b / 60, 1)])


def test_one_side_alone_serves_for_both_forms() -> None:
    before, after = images(np.nan, 0.2)
    around = Reference(before, after, days(np.inf), days(9))
    for image in (around.nearest(), around.between()):
        assert np.array_equal(image, after)
    assert (around.age() == -9).all()
    assert np.allclose(around.context()[:, 0, 0], [0] * 6 + [1, 0.15])


def test_where_nothing_was_seen_there_is_no_number_but_in_the_context() -> None:
    nothing = np.full((6, 2, 2), np.nan, np.float32)
    around = Reference(nothing, nothing, days(np.inf), days(np.inf))
    assert np.isnan(around.nearest()).all()
    assert np.isnan(around.between()).all()
    assert (around.age() == FILL).all()
    assert np.array_equal(around.context()[:, 0, 0], [0] * 6 + [1, 1])


def test_a_single_image_stands_on_its_side() -> None:
    image = np.full((6, 2, 2), 0.1, np.float32)
    image[:, 0, 0] = np.nan
    earlier, later = Reference.single(image, 7), Reference.single(image, -7)
    assert (earlier.age()[1] == 7).all()
    assert (later.age()[1] == -7).all()
    assert earlier.age()[0, 0] == later.age()[0, 0] == FILL
    assert np.array_equal(earlier.between(), image, equal_nan=True)
    part = later.cut(slice(1, 2), slice(0, 2))
    assert part.between().shape == (6, 1, 2)
    assert (part.age() == -7).all()
