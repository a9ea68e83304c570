"""Nothing leaks: whatever the clouds, no ground, no block of dates and no Sentinel-2 day serves two sets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import split
from pipeline.split import LANDSAT_ITSELF, NOBODY, SETS, Rule, Sight

YEAR = 738_000


def sight(rows, cols, *, clear=0.5, seed=0, days=365, landsat_every=16, sentinel2_every=5, first=3):
    """A lattice of patches under a sky of its own."""
    rng = np.random.default_rng(seed)
    landsat = tuple(range(YEAR + first, YEAR + days, landsat_every))
    sentinel2 = tuple(range(YEAR, YEAR + days, sentinel2_every))
    drawn = [rng.random((rows, cols, len(d))).astype(np.float32) for d in (landsat, sentinel2)]
    shares = [np.where(d < clear, 1.0, d * 0.8).astype(np.float32) for d in drawn]
    return Sight(shares[0], shares[1], landsat, sentinel2)


SKIES = st.builds(
    sight,
    st.integers(2, 14),
    st.integers(2, 14),
    clear=st.floats(0.1, 1.0),
    seed=st.integers(0, 2**16),
    days=st.integers(100, 365),
    landsat_every=st.sampled_from([8, 16]),
    sentinel2_every=st.sampled_from([2, 5, 10]),
)
RULES = st.builds(
    Rule,
    st.sampled_from(["reduced", "cross-sensor"]),
    near=st.integers(0, 4),
    reach=st.integers(5, 120),
    seed=st.integers(0, 99),
    most=st.sampled_from([40, 6000]),
)


def days_used(seen, rule, cut, owner):
    """Ordinals of the Sentinel-2 days that samples of a set may see, as reference or truth."""
    used = set()
    for pick in cut.picks[owner]:
        mine = [j for j in split.partners(seen, rule, pick.landsat) if cut.sentinel2[j] == owner]
        truth = (pick.truth,) if pick.truth >= 0 else ()
        used |= {seen.sentinel2_days[j] for j in (*mine, *truth)}
    return used


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SKIES, RULES)
def test_no_two_sets_share_anything(seen, rule):
    cut = split.cut(seen, rule)
    # ground: a whole patch lies between any two patches of different sets, corners included
    places = [{(p.row, p.col) for p in part} for part in cut.picks]
    for k in range(len(SETS)):
        for other in range(k):
            for row, col in places[k]:
                for r, c in places[other]:
                    assert max(abs(row - r), abs(col - c)) >= 2
    # dates: blocks follow one another without overlap, and every day of a sample lies in a block of its set
    assert all(a[1] < b[0] for a, b in pairwise(cut.blocks))

    def owner_of(day):
        (found,) = [k for first, last, k in cut.blocks if first <= day <= last]
        return found

    used = [days_used(seen, rule, cut, k) for k in range(len(SETS))]
    for k, part in enumerate(cut.picks):
        assert {owner_of(seen.landsat_days[p.landsat]) for p in part} <= {k}
        assert {owner_of(day) for day in used[k]} <= {k}
        for other in range(k):
            assert not used[k] & used[other]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SKIES, RULES)
def test_every_sample_is_clear_in_all_it_uses(seen, rule):
    cut = split.cut(seen, rule)
    for k, part in enumerate(cut.picks):
        assert len(part) <= max(1, round(rule.most * split.SHARES[k]))
        assert len(set(part)) == len(part)
        for p in part:
            when = seen.landsat_days[p.landsat]
            assert seen.landsat[p.row, p.col, p.landsat] >= rule.clear
            references = [
                j
                for j in split.partners(seen, rule, p.landsat)
                if cut.sentinel2[j] == k and j != p.truth and seen.sentinel2[p.row, p.col, j] >= rule.clear
            ]
            assert references
            assert all(1 <= abs(seen.sentinel2_days[j] - when) <= rule.reach for j in references)
            if rule.protocol == "reduced":
                assert p.truth == LANDSAT_ITSELF
            else:
                assert seen.sentinel2[p.row, p.col, p.truth] >= rule.clear
                assert abs(seen.sentinel2_days[p.truth] - when) <= rule.near


@pytest.mark.parametrize(("rows", "cols"), [(22, 22), (8, 8), (5, 5), (4, 12)])
@pytest.mark.parametrize("clear", [0.35, 0.8])
def test_a_year_is_cut_near_60_20_20(rows, cols, clear):
    cut = split.cut(sight(rows, cols, clear=clear, seed=5), Rule("reduced"))
    shares = np.array(cut.counts) / sum(cut.counts)
    print(f"{rows} x {cols} patches, {clear:.0%} clear: {cut.counts}, shares {shares.round(2)}")
    assert sum(cut.counts) > 0.1 * rows * cols * 23 * clear
    np.testing.assert_allclose(shares, split.SHARES, atol=0.12)


def test_all_seasons_are_in_every_set():
    seen = sight(12, 12, clear=0.9, seed=1)
    cut = split.cut(seen, Rule("reduced"))
    for part in cut.picks:
        quarters = {(seen.landsat_days[p.landsat] - YEAR) // 92 for p in part}
        assert len(quarters) >= 3, "a set that lacks a season says nothing about it"


def test_the_nearest_clear_day_is_the_truth_and_never_the_reference():
    seen = sight(6, 6, clear=1.0, seed=2, first=1)  # Landsat on day 1, Sentinel-2 on days 0, 5, ...
    same = split.cut(seen, Rule("cross-sensor", near=0))
    assert all(seen.sentinel2_days[p.truth] == seen.landsat_days[p.landsat] for part in same.picks for p in part)
    assert {(seen.landsat_days[p.landsat] - YEAR - 1) % 80 for part in same.picks for p in part} == {64}
    wider = split.cut(seen, Rule("cross-sensor", near=2))
    assert sum(wider.counts) > sum(same.counts)
    gaps = {abs(seen.sentinel2_days[p.truth] - seen.landsat_days[p.landsat]) for part in wider.picks for p in part}
    assert max(gaps) <= 2


def test_the_cut_is_fixed_by_the_seed_and_survives_json():
    import json

    seen = sight(7, 9, seed=8)
    first, again = split.cut(seen, Rule("reduced", seed=4)), split.cut(seen, Rule("reduced", seed=4))
    assert first == again
    assert split.from_dict(json.loads(json.dumps(split.as_dict(first)))) == first
    assert split.cut(seen, Rule("reduced", seed=5)) != first


def test_a_patch_that_touches_another_set_gives_way():
    places = np.zeros((5, 5), np.int8)
    places[2, 2] = 2
    places[0, 4] = 1
    kept = split.guarded(places)
    assert kept[2, 2] == 2
    assert kept[0, 4] == 1
    assert (kept[1:4, 1:4].ravel()[[0, 1, 3, 5, 6, 7, 8]] == NOBODY).all()
    assert kept[4, 0] == kept[0, 0] == 0
    places[1, 3] = 1
    assert split.guarded(places)[1, 3] == NOBODY


@pytest.mark.parametrize("days", [20, 40])
def test_a_few_weeks_or_a_few_patches_give_empty_sets_and_no_error(days):
    cut = split.cut(sight(4, 4, clear=1.0, days=days), Rule("reduced"))
    assert min(cut.counts) == 0
    assert min(split.cut(sight(1, 2, clear=1.0), Rule("reduced")).counts) == 0
