"""Methods by name: what each name stands for, what it needs of a case, and names that are none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from marstfn import contestants, situations
from marstfn.baselines import METHODS
from marstfn.baselines.starfm import starfm
from marstfn.comparison import Case
from marstfn.contestants import DEFAULT, SENTENCES, SETS, STARFM, check, label
from marstfn.methods import NETWORK

SIDE = 72
SHIPPED = Path(str(files("marstfn").joinpath("shipped")))


@pytest.fixture(scope="module")
def case() -> Case:
    return next(situations.each(SIDE))


@pytest.fixture(scope="module")
def bare(case: Case) -> Case:
    """The case without pan."""
    return replace(case, view=replace(case.view, pan=np.full_like(case.view.pan, np.nan)))


def test_all_there_is_takes_part_by_default_and_is_described() -> None:
    assert DEFAULT[0] == NETWORK
    assert set(METHODS) < set(DEFAULT)
    assert STARFM in DEFAULT
    assert set(DEFAULT) | set(SETS) == set(SENTENCES)
    check(DEFAULT)


@pytest.mark.parametrize("name", ["additive", "linear", "copy", "bicubic", "sen2like", "atprk"])
def test_a_method_without_training_is_its_function_on_the_whole_case(case: Case, name: str) -> None:
    (found,) = contestants.contestants([name]).values()
    view, method = case.view, METHODS[name]
    s2 = view.reference.between() if method.kind == "between" else view.s2
    expected = method.function(s2, view.landsat, view.pan if method.pan else None)
    np.testing.assert_array_equal(found(case), expected)


def test_the_network_is_the_set_that_fits_the_case(case: Case, bare: Case) -> None:
    found = contestants.contestants([NETWORK, "marstfn-pan", "marstfn-nopan"], threads=1)
    assert list(found) == [NETWORK, "marstfn-pan", "marstfn-nopan"]
    sharp, plain = found["marstfn-pan"](case), found["marstfn-nopan"](case)
    assert sharp.shape[1:] == plain.shape[1:] == (SIDE, SIDE)
    assert np.isfinite(sharp).all()
    assert not np.array_equal(sharp, plain)
    np.testing.assert_array_equal(found[NETWORK](case), sharp)
    np.testing.assert_array_equal(found[NETWORK](bare), plain)
    np.testing.assert_array_equal(found["marstfn-nopan"](bare), plain)
    with pytest.raises(ValueError, match="needs the panchromatic band"):
        found["marstfn-pan"](bare)


def test_a_weights_file_goes_by_its_stem(bare: Case, tmp_path: Path) -> None:
    own = tmp_path / "mine.safetensors"
    shutil.copy(SHIPPED / "marstfn-nopan.safetensors", own)
    assert label(str(own)) == "mine"
    found = contestants.contestants([str(own), "marstfn-nopan"], threads=1)
    assert list(found) == ["mine", "marstfn-nopan"]
    np.testing.assert_array_equal(found["mine"](bare), found["marstfn-nopan"](bare))


def test_starfm_takes_a_real_coarse_image_of_the_references_day(case: Case) -> None:
    (run,) = contestants.contestants([STARFM]).values()
    with pytest.raises(ValueError, match="needs a coarse image of the reference's own day"):
        run(case)
    then = case.view.landsat - np.float32(0.01)
    paired = replace(case, coarse_then=then)
    np.testing.assert_array_equal(run(paired), starfm(case.view.s2, case.view.landsat, coarse_then=then))


@pytest.mark.parametrize("name", ["magic", "", "no.safetensors", "Additive"])
def test_what_is_no_method_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no method and no weights file; known methods: network, .*bicubic"):
        check(["copy", name])
    with pytest.raises(ValueError, match="is no method"):
        contestants.contestants([name])


def test_no_two_go_by_one_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="copy would go by the name of another method"):
        check(["copy", "bicubic", "copy"])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.safetensors").touch()
    with pytest.raises(ValueError, match=r"b/w\.safetensors would go by the name of another method, w"):
        check([str(tmp_path / folder / "w.safetensors") for folder in ("a", "b")])
    (tmp_path / "copy.safetensors").touch()
    with pytest.raises(ValueError, match="leave one out or rename it"):
        check(["copy", str(tmp_path / "copy.safetensors")])


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "junk.safetensors"
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk\.safetensors"):
        contestants.contestants([str(path)])
