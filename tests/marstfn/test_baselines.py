"""Properties that fix the baselines, and the degradation they share."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marstfn.baselines import LOCAL, METHODS, additive, bicubic, copy, degrade, upsample

seeds = st.integers(0, 2**32 - 1)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 0.5, (6, 18, 24)).astype(np.float32), rng.uniform(0, 0.5, (6, 6, 8)).astype(np.float32)


@given(seeds)
@settings(max_examples=20)
def test_additive_changes_nothing_where_nothing_changed(seed: int) -> None:
    s2, _ = scene(seed)
    assert abs(additive(s2, degrade(s2)) - s2).max() < 1e-6


@given(seeds, st.floats(-0.1, 0.1))
@settings(max_examples=20)
def test_additive_follows_a_uniform_change(seed: int, change: float) -> None:
    s2, _ = scene(seed)
    assert abs(additive(s2, degrade(s2) + np.float32(change)) - (s2 + np.float32(change))).max() < 1e-6


@given(seeds)
@settings(max_examples=20)
def test_additive_is_nearer_to_landsat_at_30_m_than_the_reference_is(seed: int) -> None:
    s2, landsat = scene(seed)
    fused, before = (np.abs(degrade(a) - landsat).mean() for a in (additive(s2, landsat), s2))
    assert fused < 0.35 * before


@given(seeds)
@settings(max_examples=10)
def test_methods_treat_bands_alike_and_leave_inputs_alone(seed: int) -> None:
    s2, landsat = scene(seed)
    order = np.random.default_rng(seed).permutation(6)
    for method in (m.function for m in METHODS.values() if m.side == LOCAL):
        before = s2.copy(), landsat.copy()
        out = method(s2, landsat, None)
        assert out.shape == s2.shape
        assert out.dtype == np.float32
        assert np.array_equal(method(s2[order], landsat[order], None), out[order])
        assert np.array_equal(before[0], s2)
        assert np.array_equal(before[1], landsat)
        assert not np.shares_memory(out, s2)


def test_the_two_that_look_at_one_sensor_only() -> None:
    (s2, landsat), (other, change) = scene(1), scene(2)
    assert np.array_equal(bicubic(s2, landsat), bicubic(other, landsat))
    assert np.array_equal(copy(s2, landsat), copy(s2, change))
    assert np.array_equal(copy(s2, landsat), s2)


def test_upsample_is_the_networks_bicubic() -> None:
    _, landsat = scene(3)
    expected = torch.nn.functional.interpolate(torch.from_numpy(landsat)[None], scale_factor=3, mode="bicubic")[0]
    assert np.array_equal(upsample(landsat), expected.numpy())
    # the kernel reproduces constants everywhere, and a plane where no edge is near
    ramp = np.arange(12, dtype=np.float32)[None, None].repeat(12, 1)
    inner = upsample(ramp)[0, 18, 9:27]
    assert abs(inner - (np.arange(9, 27) - 1) / 3).max() < 0.06


def test_degrade_is_the_mean_of_the_cell_or_a_blurred_one() -> None:
    s2, _ = scene(4)
    assert np.isclose(degrade(s2)[2, 1, 3], s2[2, 3:6, 9:12].mean(), atol=1e-7)
    assert np.array_equal(degrade(s2, 0.0), degrade(s2))
    point = np.zeros((1, 27, 27), np.float32)
    point[0, 13, 13] = 1
    assert degrade(point)[0, 4, 4] == pytest.approx(1 / 9)
    blurred = degrade(point, 12.0)
    assert blurred[0, 4, 4] < 1 / 9 * 0.75
    assert blurred.sum() == pytest.approx(1 / 9, rel=1e-3)


def test_degrade_spreads_nothing_and_refuses_uneven_images() -> None:
    s2, _ = scene(5)
    s2[0, 4, 4] = np.nan
    holes = np.isnan(degrade(s2))
    assert holes.sum() == 1
    assert holes[0, 1, 1]
    with pytest.raises(ValueError, match="does not divide"):
        degrade(s2[:, :17])
    with pytest.raises(ValueError, match="negative"):
        degrade(s2, -1.0)
