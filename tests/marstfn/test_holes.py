"""Degrading and enlarging where pixels are missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marstfn.baselines import degrade
from marstfn.baselines.holes import closed, degraded, enlarged


def test_closed_takes_the_nearest_known_cell_and_enlarged_keeps_holes_to_themselves() -> None:
    coarse = np.arange(2 * 5 * 6, dtype=np.float32).reshape(2, 5, 6) / 100
    holed = coarse.copy()
    holed[0, 2, 5] = np.nan
    holed[:, 2, 4] = np.nan
    filled, hole = closed(holed)
    assert hole.sum() == 2
    assert np.array_equal(filled[:, ~hole], coarse[:, ~hole])
    assert (filled[:, 2, 5] == coarse[:, 1, 5]).all() or (filled[:, 2, 5] == coarse[:, 3, 5]).all()
    big = enlarged(holed)
    assert np.isnan(big).sum() == 2 * 2 * 9
    assert np.isnan(big[:, 6:9, 12:18]).all()
    nothing, all_of_it = closed(holed * np.nan)
    assert all_of_it.all()
    assert (nothing == 0).all()


@pytest.mark.parametrize("psf", ["block", 12.0])
def test_degraded_goes_by_what_is_known_of_a_cell(psf: Any) -> None:
    s2 = np.random.default_rng(14).uniform(0, 0.5, (2, 30, 30)).astype(np.float32)
    np.testing.assert_allclose(degraded(s2, psf), degrade(s2, psf), atol=0)
    holed = s2.copy()
    holed[:, 3:6, 3:6] = holed[0, 9, 9] = np.nan
    made = degraded(holed, psf)
    assert np.isnan(made).sum() == 2
    assert np.isnan(made[:, 1, 1]).all()
    if psf == "block":
        assert made[0, 3, 3] == pytest.approx(np.nanmean(holed[0, 9:12, 9:12]), abs=1e-7)
    np.testing.assert_allclose(degraded(np.where(np.isnan(holed), np.nan, 0.3), psf)[:, 2:, 2:], 0.3, atol=1e-6)
