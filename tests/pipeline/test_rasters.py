"""The order of bands is told by real pairs without false alarm, and left alone where nothing tells it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marstfn import flanders, situations
from pipeline import india, rasters
from pipeline.errors import AssetError
from pipeline.rasters import checked_order


@pytest.mark.shared
def test_real_pairs_of_near_days_raise_no_alarm_and_swapped_ones_do(shared: Path) -> None:
    scenes = {**flanders.scenes(flanders.read(shared / "data"), 1), **india.scenes(shared / "data")}
    assert len(scenes) == 7
    for name, view in scenes.items():
        checked_order([(view.s2, view.landsat)], name)
    clear = scenes["2018-08-02 as 2018-08-02"]
    for order in ([2, 1, 0, 3, 4, 5], [0, 2, 1, 3, 4, 5], [0, 1, 3, 2, 4, 5], [0, 1, 2, 3, 5, 4], [3, 2, 1, 0, 4, 5]):
        with pytest.raises(AssetError, match="not in one order"):
            checked_order([(clear.s2, clear.landsat[order])], "swapped")


def test_the_alarm_says_which_band_looks_like_which() -> None:
    view = situations.cases(54)[0].view
    with pytest.raises(AssetError) as caught:
        checked_order([(view.s2, view.landsat[[0, 1, 3, 2, 4, 5]])], "meadow")
    assert "meadow: the bands of Sentinel-2 and Landsat are not in one order" in str(caught.value)
    assert "(red looks like nir08, nir08 looks like red, Sentinel-2 against Landsat)" in str(caught.value)


def test_too_few_clear_pixels_tell_nothing_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    view = situations.cases(54)[0].view
    landsat = np.full_like(view.landsat, np.nan)
    landsat[:, :10, :19] = view.landsat[::-1, :10, :19]
    said: list[str] = []
    monkeypatch.setattr(rasters.log, "warning", lambda text, *values: said.append(text % values))
    checked_order([(view.s2, landsat)], "meadow")
    assert said == ["meadow: no two near days are clear enough to tell whether bands are in order"]
