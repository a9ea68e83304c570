"""Patches: they cover the plane, meet on the 60 m lattice, and their weights are a partition of unity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marstfn.baselines import degrade, upsample
from marstfn.patches import blend, covering, fill_holes, starts

sixes = st.integers(1, 40).map(lambda k: 6 * k)


@given(length=sixes, patch=sixes, stride=sixes)
def test_patches_cover_the_plane_on_the_lattice(length: int, patch: int, stride: int) -> None:
    if length < patch or stride > patch:
        with pytest.raises(ValueError):
            starts(length, patch, stride)
        return
    offsets = starts(length, patch, stride)
    assert all(s % 6 == 0 for s in offsets)
    assert list(offsets) == sorted(set(offsets))
    assert offsets[0] == 0
    assert offsets[-1] + patch == length
    covered = np.zeros(length, bool)
    for s in offsets:
        covered[s : s + patch] = True
    assert covered.all()


@given(length=sixes, patch=sixes, data=st.data())
def test_covering_names_exactly_the_patches_that_meet_a_range(length: int, patch: int, data: st.DataObject) -> None:
    if length < patch:
        return
    offsets = starts(length, patch, max(6, patch // 12 * 6))
    lo = data.draw(st.integers(0, length - 1))
    hi = data.draw(st.integers(lo + 1, length))
    chosen = covering(lo, hi, offsets, patch)
    assert list(chosen) == [s for s in offsets if set(range(s, s + patch)) & set(range(lo, hi))]
    assert chosen
    assert min(chosen) <= lo
    assert max(chosen) + patch >= hi


@given(patch=sixes, overlap=st.integers(0, 60), length=sixes)
def test_weights_are_positive_and_normalise_to_one(patch: int, overlap: int, length: int) -> None:
    if overlap >= patch:
        with pytest.raises(ValueError, match="overlap"):
            blend(patch, overlap)
        return
    weights = blend(patch, overlap)
    assert weights.dtype == np.float32
    assert weights.shape == (patch, patch)
    assert (weights > 0).all()
    assert weights.max() <= 1
    assert np.array_equal(weights, weights.T)
    assert np.array_equal(weights, weights[::-1])
    stride = (patch - overlap) // 6 * 6
    if length < patch or stride < 6:
        return
    line = weights[patch // 2]
    total = np.zeros(length)
    for s in starts(length, patch, stride):
        total[s : s + patch] += line
    share = np.zeros(length)
    for s in starts(length, patch, stride):
        share[s : s + patch] += line / total[s : s + patch]
    assert np.allclose(share, 1)


def test_outermost_pixels_hardly_count_where_patches_overlap() -> None:
    line = blend(60, 12)[30] / blend(60, 12)[30, 30]
    assert line[:3].max() < 0.01
    assert line[12:48].min() > 0.999


@pytest.mark.parametrize(
    ("length", "patch", "stride"), [(61, 60, 30), (60, 20, 6), (120, 60, 7), (120, 60, 0), (54, 60, 6)]
)
def test_sizes_off_the_lattice_are_refused(length: int, patch: int, stride: int) -> None:
    with pytest.raises(ValueError, match="px"):
        starts(length, patch, stride)


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    s2 = rng.uniform(0.05, 0.4, (6, 12, 18)).astype(np.float32)
    return s2, rng.uniform(0.05, 0.4, (6, 4, 6)).astype(np.float32), rng.uniform(0, 1, (1, 8, 12)).astype(np.float32)


def test_what_has_no_holes_is_left_alone() -> None:
    for before, after in zip(scene(), fill_holes(*scene()), strict=True):
        assert np.array_equal(before, after)


def test_a_hole_of_the_reference_takes_enlarged_landsat() -> None:
    s2, landsat, pan = scene()
    holed = s2.copy()
    holed[2, 3:6, 4:9] = np.nan  # one band missing is a pixel missing
    filled = fill_holes(holed, landsat, pan)[0]
    assert np.array_equal(filled[:, 3:6, 4:9], upsample(landsat)[:, 3:6, 4:9])
    outside = np.ones((12, 18), bool)
    outside[3:6, 4:9] = False
    assert np.array_equal(filled[:, outside], s2[:, outside])


def test_a_hole_of_landsat_takes_the_degraded_reference() -> None:
    s2, landsat, pan = scene()
    holed = landsat.copy()
    holed[:, 1, 2] = np.nan
    filled = fill_holes(s2, holed, pan)[1]
    assert np.allclose(filled[:, 1, 2], degrade(s2)[:, 1, 2], atol=1e-7)


def test_where_nobody_saw_anything_all_stays_finite() -> None:
    s2, landsat, pan = scene()
    s2[:, 3:9, 3:9], landsat[:, 1:3, 1:3], pan[:, 2:6, 2:6] = np.nan, np.nan, np.nan
    for array in fill_holes(s2, landsat, pan):
        assert np.isfinite(array).all()
    nothing = [np.full_like(a, np.nan) for a in (s2, landsat, pan)]
    for array in fill_holes(*nothing):
        assert (array == 0).all()


def test_a_hole_of_pan_takes_the_visible_bands() -> None:
    s2, landsat, pan = scene()
    pan[0, 3, 4] = np.nan
    visible = 0.2 * landsat[0] + 0.4 * landsat[1] + 0.4 * landsat[2]
    assert np.isclose(fill_holes(s2, landsat, pan)[2][0, 3, 4], upsample(visible[None], 2)[0, 3, 4], atol=1e-6)
    assert fill_holes(s2, landsat, None)[2] is None
