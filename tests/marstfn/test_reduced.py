"""Wald's protocol: everything three times coarser, Landsat the truth, and methods that cannot tell the difference."""

import numpy as np
import pytest

from marstfn.baselines import additive, degrade
from marstfn.methods import Method, free
from marstfn.reduced import reduced, squared_errors
from marstfn.reference import Reference


def place(side: int = 36, seed: int = 0) -> tuple[Reference, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    before, after = rng.uniform(0.05, 0.4, (2, 6, side, side)).astype(np.float32)
    near, far = np.full((side, side), 4, np.float32), np.full((side, side), 9, np.float32)
    before[:, 3:5, 7], near[3:5, 7] = np.nan, np.inf
    landsat = rng.uniform(0.05, 0.4, (6, side // 3, side // 3)).astype(np.float32)
    pan = rng.uniform(0.05, 0.4, (1, side * 2 // 3, side * 2 // 3)).astype(np.float32)
    return Reference(before, after, near, far), landsat, pan


def test_every_input_is_averaged_and_holes_keep_what_they_touch() -> None:
    around, landsat, pan = place()
    landsat[:, 5, 5] = np.nan
    trial = reduced(around, landsat, pan)
    np.testing.assert_allclose(trial.reference.after, degrade(around.after))
    assert (trial.landsat.shape, trial.pan.shape, trial.truth.shape) == ((6, 4, 4), (1, 8, 8), (6, 12, 12))
    assert np.isnan(trial.reference.before[:, 1, 2]).all()
    assert np.isinf(trial.reference.days_before[1, 2])
    assert np.isfinite(trial.reference.days_before).sum() == 143
    # a hidden pixel hides all of its 90 m: at full resolution nothing would be fused there
    want = np.ones((12, 12), bool)
    want[3:6, 3:6] = False
    assert (trial.scored == want).all()
    with pytest.raises(ValueError, match="multiples of 18"):
        reduced(around.cut(slice(0, 30), slice(0, 36)), landsat[:, :10], None)


def test_errors_are_those_of_the_method_on_the_reduced_inputs() -> None:
    around, landsat, pan = place()
    trial = reduced(around, landsat, pan)
    (found,) = squared_errors([trial], free("additive"), 12)
    want = additive(trial.reference.nearest(), trial.landsat)
    np.testing.assert_allclose(found, np.square(want - landsat).mean(0), rtol=1e-4)
    (linear,) = squared_errors([trial], free("linear"), 12)
    np.testing.assert_allclose(linear, np.square(trial.reference.between() - landsat).mean(0), rtol=1e-4)


def test_small_places_are_mirrored_and_networks_see_whole_patches_with_their_context() -> None:
    trials = [reduced(*place(seed=k)) for k in range(3)]
    shapes = []

    def told(s2, landsat, pan, context):
        shapes.append([a.shape for a in (s2, landsat, pan, context)])
        assert all(np.isfinite(a).all() for a in (s2, landsat, pan, context))
        return np.concatenate([s2, s2[:, :1]], 1)

    found = squared_errors(trials, Method("network", told, "between", True, (1.0,) * 6), 30)
    assert shapes == [[(3, 6, 30, 30), (3, 6, 10, 10), (3, 1, 20, 20), (3, 8, 30, 30)]]
    for trial, errors in zip(trials, found, strict=True):
        np.testing.assert_allclose(errors, np.square(trial.reference.between() - trial.truth).mean(0), rtol=1e-4)
    with pytest.raises(ValueError, match="more than one patch"):
        squared_errors(trials, free("linear"), 6)
