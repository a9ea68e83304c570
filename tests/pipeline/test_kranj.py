"""The Landsat and MODIS set as cases with a real coarse image of the reference's day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marstfn.baselines import additive, degrade
from pipeline import kranj


@pytest.mark.shared
def test_three_days_with_both_sensors(shared: Path) -> None:
    found = kranj.cases(shared / "data")
    assert [c.name for c in found] == [
        "2020-03-08 from 2020-03-17",
        "2020-03-17 from 2020-03-08",
        "2020-04-02 from 2020-03-17",
    ]
    for case in found:
        assert not case.simulated
        assert "MODIS" in case.group
        assert case.view.truth.shape == (6, 42, 45)
        assert case.coarse_then is not None
        assert case.view.landsat.shape == case.coarse_then.shape == (6, 14, 15)
        assert np.isnan(case.view.pan).all()
        known = case.view.truth[:, case.scored]
        assert 0 <= known.min() < known.max() < 0.6
        # gaps that the source filled are nobody's truth
        assert case.scored.mean() == pytest.approx(np.isfinite(case.view.truth[0]).mean())
    # the first two days have gaps, the third none, and a gap of one reference is filled from the other side
    assert [bool(c.scored.all()) for c in found] == [False, False, True]
    ages = found[1].view.reference
    assert set(np.unique(ages.days_before)) == {9.0, np.inf}
    assert set(np.unique(ages.days_after)) == {16.0}


@pytest.mark.shared
def test_the_shift_between_sensors_comes_from_the_other_days(shared: Path) -> None:
    first, second, third = kranj.cases(shared / "data")
    raw = kranj._read(shared / "data" / kranj.FOLDER / "modis" / "filled", 77, 1.0)
    shift = second.view.landsat - degrade(raw)
    assert np.ptp(shift, axis=(1, 2)).max() < 1e-6
    # of the two other days, whose Landsat is the truth of the other two cases
    other = [
        np.nanmean(
            degrade(c.view.truth) - degrade(kranj._read(shared / "data" / kranj.FOLDER / "modis" / "filled", day, 1.0)),
            axis=(1, 2),
        )
        for c, day in ((first, 68), (third, 93))
    ]
    np.testing.assert_allclose(shift.mean((1, 2)), np.mean(other, axis=0), atol=1e-6)
    # both coarse images of a case are moved alike, so that their difference is MODIS's own
    assert third.coarse_then is not None
    np.testing.assert_allclose(
        third.view.landsat - third.coarse_then,
        degrade(kranj._read(shared / "data" / kranj.FOLDER / "modis" / "filled", 93, 1.0)) - degrade(raw),
        atol=1e-6,
    )


@pytest.mark.shared
def test_the_coarse_images_tell_of_the_same_land(shared: Path) -> None:
    case = kranj.cases(shared / "data")[1]
    fine, coarse = degrade(case.view.truth), case.view.landsat
    known = np.isfinite(fine).all(0)
    for band in range(6):
        assert 0.4 < np.corrcoef(fine[band][known], coarse[band][known])[0, 1] < 0.8
    made = additive(np.nan_to_num(case.view.s2), coarse, None)
    assert made.shape == (6, 42, 45)


def test_a_set_that_is_not_whole_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no image of day 068 of 2020"):
        kranj.cases(tmp_path)
