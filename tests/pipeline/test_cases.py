"""Sources of cases by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marstfn.bands import RATIO
from marstfn.comparison import Case
from pipeline import cases
from pipeline.errors import AssetError, StoreError


def sound(case: Case) -> None:
    """What every case promises the methods."""
    bands, height, width = case.view.truth.shape
    assert bands == 6
    assert height % RATIO == width % RATIO == 0
    assert case.view.s2.shape == case.view.truth.shape
    assert case.view.landsat.shape == (6, height // 3, width // 3)
    assert case.view.pan.shape == (1, height * 2 // 3, width * 2 // 3)
    for image in (case.view.s2, case.view.landsat, case.view.truth):
        assert image.dtype == np.float32
        assert -0.2 < np.nanmin(image) <= np.nanmax(image) < 1.5
    assert case.scored.mean() > 0.5


def test_simulated_cases_are_sound() -> None:
    found = cases.cases("simulated")
    assert len(found) == 4
    for case in found:
        sound(case)
        assert case.simulated


@pytest.mark.shared
def test_flanders_by_the_days_shut_out(shared: Path) -> None:
    found = cases.cases(f"flanders:{shared / 'data'}")
    groups = list(dict.fromkeys(c.group for c in found))
    assert groups == [f"Flanders, references at least {d} away" for d in ("1 day", "10 days", "30 days")]
    for case in found:
        sound(case)
        assert not case.simulated
        reference = case.view.reference
        nearest = min(np.nanmin(reference.days_before), np.nanmin(reference.days_after))
        assert nearest >= int(case.group.split()[4])
    assert len({(c.group, c.name) for c in found}) == len(found) == 15


@pytest.mark.shared
def test_india_says_that_its_resolution_is_reduced(shared: Path) -> None:
    found = cases.cases(f"india:{shared / 'data'}")
    assert len(found) == 2
    for case in found:
        sound(case)
        assert "reduced resolution" in case.group
        assert np.isfinite(case.view.pan).mean() > 0.9


@pytest.mark.shared
def test_kranj_has_the_coarse_image_of_the_reference(shared: Path) -> None:
    found = cases.cases(f"kranj:{shared / 'data'}")
    assert len(found) == 3
    for case in found:
        sound(case)
        assert case.coarse_then is not None


@pytest.mark.parametrize("name", ["flanders", "india", "kranj"])
def test_a_folder_without_the_set_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=f"does not hold the set {name}"):
        cases.cases(f"{name}:{tmp_path}")


@pytest.mark.parametrize("source", ["", "flanders", "brabant:/data", "simulated:"])
def test_what_is_no_source_is_refused(source: str) -> None:
    with pytest.raises(AssetError, match="simulated"):
        cases.cases(source)


def test_simulated_scenes_have_the_side_asked_for() -> None:
    assert {c.view.truth.shape for c in cases.each("simulated", side=36)} == {(6, 36, 36)}


def test_a_folder_of_images_a_store_and_a_file_are_told_apart(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    with pytest.raises(AssetError, match="images holds no landsat"):
        cases.cases(str(images))
    (images / "plan.json").write_text("{}")
    with pytest.raises(StoreError, match=r"holds no items\.json"):
        cases.cases(str(images))
    with pytest.raises(AssetError, match="there is no file"):
        cases.cases(str(tmp_path / "none.npz"))
