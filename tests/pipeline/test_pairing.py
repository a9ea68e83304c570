"""The reference of a Landsat date: near and clear, before or after, and never a day that is ruled out."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pairing import LEAST_CLEAR, clear_fractions, day_gap, pair
from pipeline.plan import Options

START = datetime(2023, 5, 1, 2, 50, tzinfo=UTC)


def days(*numbers: float) -> list[datetime]:
    return [START + timedelta(days=n, minutes=15) for n in numbers]


def test_nearest_clear_day_first_whichever_side():
    (found,) = pair(days(10), days(0, 5, 8, 13, 15), [1.0] * 5, Options())
    assert found.references == (2, 3, 1, 4, 0)
    assert found.days == (2, -3, 5, -5, 10)


def test_a_clouded_day_gives_way_to_a_clear_one_a_few_days_farther():
    (found,) = pair(days(10), days(6, 9, 10), [1.0, 0.1, 0.0], Options())
    assert found.references == (0, 1)
    (found,) = pair(days(10), days(0, 9), [1.0, 0.1], Options())
    assert found.references == (1, 0)


def test_same_day_is_used_only_where_allowed():
    landsat, sentinel2, clear = days(10), days(5, 10, 11, 15), [0.9, 1.0, 0.9, 0.9]
    assert pair(landsat, sentinel2, clear, Options())[0].references[0] == 1
    for least in (1, 2):
        found = pair(landsat, sentinel2, clear, Options(min_reference_days=least))[0]
        assert 1 not in found.references
        assert all(abs(gap) >= least for gap in found.days)


def test_no_reference_is_an_empty_list_not_an_error():
    far, clouded = pair(days(200, 3), days(0, 2), [1.0, LEAST_CLEAR / 2], Options(max_reference_days=30))
    assert far.references == ()
    assert clouded.references == (0,)


def test_a_cloudy_side_keeps_its_own_candidates():
    """Many good days after the date do not push the ones before it off the list."""
    (found,) = pair(days(20), days(0, 2, 21, 22, 23, 24), [0.9] * 6, Options(max_references=2))
    assert found.days == (-1, -2, 18, 20)


def test_a_sensor_half_an_orbit_apart_is_still_the_same_day():
    assert day_gap(START + timedelta(hours=5), START) == 0
    assert day_gap(START + timedelta(days=3, hours=-5), START) == 3


@given(
    st.lists(st.integers(0, 365), min_size=1, max_size=40, unique=True),
    st.lists(st.integers(0, 365), min_size=1, max_size=20, unique=True),
    st.integers(0, 5),
    st.integers(10, 60),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_bounds_hold_whatever_the_year_looks_like(s2, l8, least, most, count, random):
    clear = [random.random() for _ in s2]
    options = Options(min_reference_days=least, max_reference_days=most, max_references=count)
    sentinel2, landsat = days(*sorted(s2)), days(*sorted(l8))
    for found, when in zip(pair(landsat, sentinel2, clear, options), landsat, strict=True):
        assert len(found.references) == len(set(found.references))
        assert max(sum(gap < 0 for gap in found.days), sum(gap >= 0 for gap in found.days)) <= count
        for j, gap in zip(found.references, found.days, strict=True):
            assert gap == day_gap(when, sentinel2[j])
            assert least <= abs(gap) <= most
            assert clear[j] >= LEAST_CLEAR


def test_clear_fractions_are_over_the_whole_area():
    assert clear_fractions([[[10, 0, 0], [0, 5, 5]], [[0, 10, 0], [5, 0, 5]]]) == [0.5, 0.25]
    assert clear_fractions([]) == []


def test_fractions_and_days_must_agree():
    with pytest.raises(ValueError, match="1 clear fractions for 2"):
        pair(days(1), days(1, 2), [1.0], Options())
