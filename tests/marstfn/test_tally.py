"""Sums by block give the scores of the whole image, and differences the sign of a gain."""

import numpy as np
import pytest

from marstfn import metrics
from marstfn.tally import METRICS, differences, tally, verdict


def scene(seed: int, error: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.05, 0.4, (6, 40, 50))
    return truth + rng.normal(0, error, truth.shape), truth, rng.random((40, 50)) < 0.8


def test_sums_give_the_scores_of_the_whole_image() -> None:
    image, truth, mask = scene(0, 0.02)
    sums = tally([image], [truth], [mask], 18)
    assert sums.pixels == mask.sum()
    for metric in METRICS:
        plain = getattr(metrics, metric)(image, truth, mask)
        assert sums.score(metric) == pytest.approx(plain, rel=1e-9)
    with pytest.raises(ValueError, match="unknown metric"):
        sums.score("mood")


def test_differences_have_the_sign_of_a_gain_and_equals_tie() -> None:
    good, bad = ([scene(k, error) for k in range(5)] for error in (0.01, 0.02))
    first, second = (tally(*(list(t) for t in zip(*scenes, strict=True)), side=18) for scenes in (good, bad))
    found = differences(first, second, draws=300)
    assert {m: verdict(m, found[m]) for m in METRICS} == dict.fromkeys(METRICS, "better")
    turned = differences(second, first, draws=300)
    assert {verdict(m, turned[m]) for m in METRICS} == {"worse"}
    for metric in METRICS:
        assert found[metric].low <= found[metric].estimate <= found[metric].high
        assert found[metric].estimate == pytest.approx(-turned[metric].estimate)
    assert {verdict(m, d) for m, d in differences(first, first, draws=50).items()} == {"tie"}


def test_one_good_scene_among_bad_ones_is_no_proof() -> None:
    """Blocks of one scene share its fate: the interval must know that only three scenes were drawn."""
    errors = ((0.005, 0.03), (0.02, 0.019), (0.02, 0.0195))
    first, second = (
        tally(*(list(t) for t in zip(*(scene(k, e[side]) for k, e in enumerate(errors)), strict=True)), side=18)
        for side in (0, 1)
    )
    assert verdict("rmse", differences(first, second, draws=500)["rmse"]) == "tie"


def test_tallies_over_other_pixels_are_refused() -> None:
    image, truth, mask = scene(1, 0.02)
    other = mask.copy()
    other[0, :5] ^= True
    with pytest.raises(ValueError, match="same blocks"):
        differences(tally([image], [truth], [mask], 18), tally([image], [truth], [other], 18))
    empty = tally([image], [truth], [np.zeros_like(mask)], 18)
    assert empty.pixels == 0
    with pytest.raises(ValueError, match="no pixel"):
        empty.score("rmse")
