"""Each simulated situation has the property it is named after, and only the last stands beside its place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from marstfn import situations
from marstfn.comparison import Case
from marstfn.evaluate import changed
from marstfn.registration import Measure, measure
from marstfn.situations import SITUATIONS, X0, Y0


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {case.name: case for case in situations.cases()}


def moved(case: Case) -> np.ndarray:
    """(H,W) mean over bands of the change since the reference."""
    return np.asarray(np.abs(case.view.truth - case.view.s2).mean(0))


def greenness(image: np.ndarray) -> np.ndarray:
    return np.asarray((image[3] - image[2]) / (image[3] + image[2]))


def clean_reference(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The truth on the day of the nearest reference and on the date itself."""
    situation = next(s for s in SITUATIONS if s.name == name)
    landsat, before, after = situation.passes()
    nearer = min((before, after), key=lambda a: abs(a.time - landsat.time))
    truths = (situation.simulation.truth(a.time, X0, Y0, (216, 216)) for a in (nearer, landsat))
    return tuple(truths)  # type: ignore[return-value]


def test_four_situations_without_a_hole(cases: dict[str, Case]) -> None:
    assert list(cases) == ["calm", "fast phenology", "harvest events", "misregistration and noise"]
    for case in cases.values():
        assert case.simulated
        assert case.group == "simulated"
        assert case.coarse_then is None
        assert case.view.truth.shape == (6, 216, 216)
        assert case.view.landsat.shape == (6, 72, 72)
        assert case.view.pan.shape == (1, 144, 144)
        assert case.scored.all()
        assert not np.isnan(case.view.s2).any()


def test_calm_land_has_hardly_changed(cases: dict[str, Case]) -> None:
    before, now = clean_reference("calm")
    change = np.abs(now - before).mean(0)
    assert (change > 0.02).mean() < 0.05
    assert np.median(change) < 0.005
    assert changed(cases["calm"].view).mean() < 0.1


def test_fast_phenology_moves_most_of_the_land() -> None:
    before, now = clean_reference("fast phenology")
    change = np.abs(now - before).mean(0)
    assert (change > 0.02).mean() > 0.6
    assert (change < 0.01).mean() < 0.1
    assert (greenness(now) - greenness(before) > 0.05).mean() > 0.4


def test_harvest_bares_some_parcels_and_leaves_the_others() -> None:
    before, now = clean_reference("harvest events")
    change = np.abs(now - before).mean(0)
    bared = greenness(before) - greenness(now) > 0.15
    assert 0.1 < bared.mean() < 0.4
    assert 0.12 < (change > 0.02).mean() < 0.35
    assert (change < 0.01).mean() > 0.6
    # whole parcels, not scattered pixels: next to bared ground lies bared ground
    assert bared[:, 1:][bared[:, :-1]].mean() > 0.8


def test_landsat_stands_six_metres_beside_its_place_in_the_last_alone(cases: dict[str, Case]) -> None:
    for name, case in cases.items():
        found = measure(case.view.landsat, case.view.truth)
        assert isinstance(found, Measure), name
        off = math.hypot(found.east, found.north)
        if name == "misregistration and noise":
            assert off == pytest.approx(6.0, abs=0.6)
            assert math.hypot(*SITUATIONS[3].shift) == pytest.approx(6.0)
        else:
            assert off < 0.6, name


def test_the_last_is_the_calm_land_under_more_noise(cases: dict[str, Case]) -> None:
    calm, noisy = cases["calm"].view, cases["misregistration and noise"].view
    assert np.array_equal(calm.truth, noisy.truth)
    added = noisy.s2[:3] - calm.s2[:3]
    assert abs(added.mean()) < 1e-4
    # both draw the same deviates: what is added is the difference of the standard deviations, 0.0038, in the dark
    assert 0.0025 < added.std() < 0.0045


def test_scenes_are_the_same_at_every_call() -> None:
    first, second = (situations.cases(36) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.view.day == b.view.day
        for name in ("landsat", "pan", "truth", "s2"):
            assert np.array_equal(getattr(a.view, name), getattr(b.view, name)), name


@pytest.mark.parametrize("side", [0, -18, 100])
def test_a_side_that_does_not_nest_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match="multiples of 18 px"):
        situations.cases(side)
