"""Scores agree with plain formulas, one pixel set serves all methods, and noise is not shown as a rank."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from marstfn import metrics
from marstfn.bands import BANDS
from marstfn.baselines import bicubic
from marstfn.comparison import Case, Outcome
from marstfn.evaluate import changed
from marstfn.measures import ALL, CHANGED, MEASURES, UNCHANGED, Ground, block_side, ndvi
from marstfn.metrics import Interval
from marstfn.reference import Reference
from marstfn.scenes import Scene
from marstfn.scoring import AVERAGE, NOT_RUN, POOLED, score, verdict
from marstfn.tally import differences, tally

Image = NDArray[np.float32]
PLACE = (ALL, POOLED)


def case(name: str = "one", group: str = "land", *, seed: int = 0, side: int = 54, **changes: Any) -> Case:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.05, 0.4, (6, side, side)).astype(np.float32)
    truth = changes.get("truth", truth)
    coarse = truth.reshape(6, side // 3, 3, side // 3, 3).mean((2, 4)).astype(np.float32)
    coarse = changes.get("coarse", coarse + np.float32(0.01))
    s2 = truth.copy()
    s2[:, : side // 2] += 0.05
    pan = np.full((1, side * 2 // 3, side * 2 // 3), np.nan, np.float32)
    view = Scene(datetime(2020, 6, 1, tzinfo=UTC), Reference.single(changes.get("s2", s2), 3), coarse, pan, truth)
    return Case(name, group, view, "made up", True)


def noisy(held: Case, sd: float, seed: int = 1) -> Image:
    noise = np.random.default_rng(seed).normal(0, sd, held.view.truth.shape)
    return np.asarray(held.view.truth + noise, np.float32)


def clouded(held: Case) -> Case:
    """With two Landsat pixels hidden."""
    coarse = held.view.landsat.copy()
    coarse[:, 2, 3] = np.nan
    coarse[:, 9, 1] = np.nan
    view = Scene(held.view.day, held.view.reference, coarse, held.view.pan, held.view.truth)
    return Case(held.name, held.group, view, held.data, held.simulated)


def test_scores_are_those_of_the_plain_formulas() -> None:
    held = clouded(case())
    image = noisy(held, 0.02)
    scored, truth = held.scored, held.view.truth
    found = score([Outcome(held, "noisy", image, 1.5)], draws=20).record("land", "one", "noisy")
    assert found.pixels == scored.sum() == 54 * 54 - 18
    for key in ("rmse", "psnr", "ssim", "sam", "ergas", "r2"):
        assert found.value(key) == pytest.approx(getattr(metrics, key)(image, truth, scored), rel=1e-6), key
    assert found.psnr_truth == pytest.approx(metrics.psnr(image, truth, scored, "truth"), rel=1e-6)
    apart, number = 0.0, 0
    for row in range(18):
        for col in range(18):
            cell = held.view.landsat[:, row, col]
            if np.isnan(cell).any():
                continue
            mean = image[:, 3 * row : 3 * row + 3, 3 * col : 3 * col + 3].astype(float).mean((1, 2))
            apart, number = apart + float(np.abs(mean - cell).mean()), number + 1
    assert found.coherence == pytest.approx(apart / number, rel=1e-5)
    red, nir = 2, 3
    index = [(i[nir] - i[red]) / (i[nir] + i[red]) for i in (np.maximum(image, 0).astype(float), truth.astype(float))]
    assert found.ndvi == pytest.approx(np.sqrt(((index[0] - index[1])[scored] ** 2).mean()), rel=1e-5)
    assert (found.coverage, found.seconds, found.reason) == (1.0, 1.5, "")


def test_ssim_by_band_is_scikit_images() -> None:
    held = case(side=60)
    image = noisy(held, 0.03)
    scores = score([Outcome(held, "noisy", image, 0)], draws=5)
    ground = Ground.of(held)
    inner = np.s_[5:-5, 5:-5]
    local = metrics.ssim_map(image, held.view.truth)
    for b, band in enumerate(BANDS):
        options: dict[str, Any] = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "truncate": 3.34}
        _, full = structural_similarity(
            ground.truth[b], image[b].astype(float), use_sample_covariance=False, full=True, **options
        )
        np.testing.assert_allclose(local[b][inner], full[inner], atol=1e-6)
        assert scores.record("land", "one", "noisy", band=band).ssim == pytest.approx(local[b].mean(), rel=1e-6)


def test_bands_and_parts_are_scored_by_themselves() -> None:
    held = case()
    image = held.view.truth.copy()
    image[BANDS.index("swir16")] += 0.03
    image[:, :27] += 0.01
    scores = score([Outcome(held, "shifted", image, 0)], draws=5)
    assert scores.record("land", "one", "shifted", band="blue").rmse == pytest.approx(0.01 * math.sqrt(0.5), rel=1e-4)
    assert scores.record("land", "one", "shifted", band="swir16").psnr_truth == pytest.approx(
        metrics.psnr(image[4], held.view.truth[4], peak="truth"), rel=1e-6
    )
    assert math.isnan(scores.record("land", "one", "shifted", band="blue").sam)
    moved = scores.record("land", "one", "shifted", CHANGED)
    still = scores.record("land", "one", "shifted", UNCHANGED)
    assert moved.pixels == changed(held.view).sum() == 27 * 54
    assert moved.pixels + still.pixels == 54 * 54
    assert moved.rmse == pytest.approx(math.sqrt((5 * 0.01**2 + 0.04**2) / 6), rel=1e-4)
    assert still.rmse == pytest.approx(math.sqrt(0.03**2 / 6), rel=1e-4)


def test_an_empty_pixel_is_scored_as_bicubic_landsat() -> None:
    held = case()
    image = noisy(held, 0.01)
    holed = image.copy()
    holed[:, 10:20, 10:20] = np.nan
    holed[2, 40, 40] = np.inf
    mended = np.where(np.isfinite(holed), holed, bicubic(held.view.s2, held.view.landsat, None))
    scores = score([Outcome(held, "holed", holed, 0), Outcome(held, "mended", mended, 0)], draws=20)
    first, second = (scores.record("land", "one", m) for m in ("holed", "mended"))
    for key in MEASURES:
        assert first.value(key) == second.value(key), key
    assert first.pixels == 54 * 54
    assert first.coverage == pytest.approx(1 - 101 / 54**2)
    assert second.coverage == 1
    assert np.isnan(holed[0, 10, 10])  # what was given is left as it was


def test_a_method_that_failed_is_scored_as_bicubic_and_says_why() -> None:
    held, other = case(), case("two", seed=5)
    nothing = np.full_like(held.view.truth, np.nan)
    landsat = bicubic(held.view.s2, held.view.landsat, None)
    outcomes = [
        Outcome(held, "failing", nothing, 0.1, "no class means"),
        Outcome(held, "bicubic", landsat, 0.1),
        Outcome(other, "bicubic", landsat, 0.1),
    ]
    scores = score(outcomes, draws=20)
    failed = scores.record("land", "one", "failing")
    assert (failed.coverage, failed.reason) == (0, "no class means")
    assert failed.rmse == scores.record("land", "one", "bicubic").rmse
    assert scores.record("land", "two", "failing").reason == NOT_RUN
    assert [(r.case, r.reason) for r in scores.failures] == [("one", "no class means"), ("two", NOT_RUN)]
    assert scores.record("land", AVERAGE, "failing").reason == "failed on 2 of 2 dates"
    assert scores.standing(("land", "one", ALL, POOLED, "rmse"), "bicubic") == "tied"


def test_what_a_constant_truth_leaves_undefined_is_nan() -> None:
    truth = case().view.truth.copy()
    truth[1] = 0.2
    truth[5] = 0
    held = case(truth=truth)
    scores = score([Outcome(held, "a", noisy(held, 0.01), 0), Outcome(held, "b", truth, 0)], draws=20)
    found = scores.record("land", "one", "a")
    assert math.isnan(found.r2)
    assert math.isnan(found.ergas)
    assert scores.record("land", "one", "a", band="green").r2 != scores.record("land", "one", "a", band="blue").r2
    assert math.isnan(scores.record("land", "one", "a", band="green").r2)
    assert scores.record("land", "one", "a", band="blue").r2 > 0.9
    assert found.rmse == pytest.approx(0.01, rel=0.05)
    assert scores.standing(("land", "one", ALL, POOLED, "r2"), "a") == ""
    exact = scores.record("land", "one", "b")
    assert (exact.rmse, exact.psnr) == (0, 240)


def test_a_date_without_a_scored_pixel_says_nothing_and_does_not_spoil_the_average() -> None:
    held = case()
    hidden = case("hidden", coarse=np.full((6, 18, 18), np.nan, np.float32))
    outcomes = [Outcome(c, m, noisy(held, sd), 0) for c in (held, hidden) for m, sd in (("a", 0.01), ("b", 0.03))]
    scores = score(outcomes, draws=50)
    assert scores.record("land", "hidden", "a").pixels == 0
    assert all(math.isnan(scores.record("land", "hidden", "a").value(k)) for k in (*MEASURES, "coverage"))
    assert scores.record("land", AVERAGE, "a").rmse == scores.record("land", "one", "a").rmse
    assert scores.standing(("land", AVERAGE, ALL, POOLED, "rmse"), "b") == "behind"
    assert scores.standing(("land", "hidden", ALL, POOLED, "rmse"), "a") == ""


def test_the_average_is_that_of_dates_and_groups_stand_apart() -> None:
    outcomes = []
    for k, (name, group, sd) in enumerate((("d1", "x", 0.01), ("d2", "x", 0.03), ("d1", "y", 0.05))):
        held = case(name, group, seed=k)
        outcomes.append(Outcome(held, "m", noisy(held, sd), k))
    scores = score(outcomes, draws=20)
    assert scores.groups == ("x", "y")
    dates = [scores.record("x", d, "m") for d in ("d1", "d2")]
    for key in (*MEASURES, "seconds"):
        assert scores.record("x", AVERAGE, "m").value(key) == pytest.approx(
            (dates[0].value(key) + dates[1].value(key)) / 2
        )
    assert scores.record("y", AVERAGE, "m").rmse == scores.record("y", "d1", "m").rmse


def test_what_noise_alone_tells_apart_is_a_tie_and_a_real_gain_is_not() -> None:
    outcomes = []
    for k in range(4):
        held = case(f"d{k}", seed=k, side=108)
        # b makes on each date the errors that a makes on another: no sample of them can favour either
        for name, sd, seed in (("a", 0.01, 50 + k), ("b", 0.01, 50 + (k ^ 1)), ("worse", 0.02, 90 + k)):
            outcomes.append(Outcome(held, name, noisy(held, sd, seed), 0))
    scores = score(outcomes, chosen="worse", draws=400)
    contest = ("land", AVERAGE, ALL, POOLED, "rmse")
    standings = {m: scores.standing(contest, m) for m in ("a", "b", "worse")}
    assert sorted(standings.values()) == ["behind", "best", "tied"]
    assert standings["worse"] == "behind"
    for key, sign in (("rmse", -1), ("psnr", 1), ("ssim", 1), ("r2", 1), ("sam", -1), ("ndvi", -1)):
        found = scores.to_chosen(("land", AVERAGE, ALL, POOLED, key), "a")
        assert found is not None
        assert (found.other, found.verdict) == ("worse", "better"), key
        assert found.low <= found.estimate <= found.high
        assert np.sign(found.estimate) == sign
    assert scores.to_chosen(contest, "worse") is None
    assert score(outcomes, chosen="worse", draws=400).differences == scores.differences


def test_intervals_are_those_of_the_tallies() -> None:
    """On one date both draw blocks alone; only the draws differ."""
    held = clouded(case(side=108))
    first, second = noisy(held, 0.02, 1), noisy(held, 0.021, 2)
    scores = score([Outcome(held, "a", first, 0), Outcome(held, "b", second, 0)], chosen="b", draws=4000)
    sums = [tally([i], [held.view.truth], [held.scored], 18) for i in (first, second)]
    expected = differences(*sums, draws=4000)
    for key, wanted in expected.items():
        found = scores.to_chosen(("land", "one", ALL, POOLED, key), "a")
        assert found is not None
        assert found.estimate == pytest.approx(wanted.estimate, rel=1e-4)
        width = wanted.high - wanted.low
        assert found.low == pytest.approx(wanted.low, abs=0.08 * width), key
        assert found.high == pytest.approx(wanted.high, abs=0.08 * width), key


def test_methods_are_compared_on_the_same_draws() -> None:
    """Errors differ a hundredfold between blocks and dates, those of the two methods by 2 %: paired, that is sure."""
    outcomes = []
    for k in range(4):
        held = case(f"d{k}", seed=k, side=108)
        blocks = np.random.default_rng(k).uniform(0.001, 0.1, (6, 6)).repeat(18, 0).repeat(18, 1)
        error = np.random.default_rng(k + 9).choice([-1, 1], held.view.truth.shape) * blocks
        for name, factor in (("a", 1.0), ("b", 1.02)):
            outcomes.append(Outcome(held, name, np.asarray(held.view.truth + factor * error, np.float32), 0))
    scores = score(outcomes, draws=300)
    for name in ("d0", "d3", AVERAGE):
        found = scores.to_best(("land", name, ALL, POOLED, "rmse"), "b")
        assert found is not None
        assert found.verdict == "worse"
        assert 0.01 * found.estimate < found.high - found.low < 1.5 * found.estimate


def test_a_pixel_without_a_reference_is_scored_but_neither_changed_nor_unchanged() -> None:
    s2 = case().view.truth.copy()
    s2[:, :6] = np.nan
    held = case(s2=s2)
    image = noisy(held, 0.01)
    image[:, :6] += 0.05
    scores = score([Outcome(held, "m", image, 0)], draws=5)
    found = scores.record("land", "one", "m")
    assert found.pixels == 54 * 54
    assert found.rmse == pytest.approx(metrics.rmse(image, held.view.truth), rel=1e-6)
    assert scores.record("land", "one", "m", CHANGED).pixels == 0
    assert math.isnan(scores.record("land", "one", "m", CHANGED).rmse)
    still = scores.record("land", "one", "m", UNCHANGED)
    assert still.pixels == 48 * 54
    assert still.rmse == pytest.approx(metrics.rmse(image[:, 6:], held.view.truth[:, 6:]), rel=1e-6)


def test_one_good_date_among_bad_ones_is_no_proof() -> None:
    outcomes = []
    for k, (good, bad) in enumerate(((0.005, 0.03), (0.02, 0.019), (0.02, 0.0195))):
        held = case(f"d{k}", seed=k)
        outcomes += [Outcome(held, "a", noisy(held, good, 7 + k), 0), Outcome(held, "b", noisy(held, bad, 70 + k), 0)]
    scores = score(outcomes, draws=500)
    assert scores.best(("land", AVERAGE, ALL, POOLED, "rmse")) == "a"
    assert scores.standing(("land", AVERAGE, ALL, POOLED, "rmse"), "b") == "tied"
    assert scores.standing(("land", "d0", ALL, POOLED, "rmse"), "b") == "behind"


@pytest.mark.parametrize(
    ("measure", "low", "high", "says"),
    [
        ("rmse", 0.1, 0.2, "worse"),
        ("rmse", -0.2, -0.1, "better"),
        ("psnr", 0.1, 0.2, "better"),
        ("psnr", -0.2, -0.1, "worse"),
        ("ssim", -0.1, 0.2, "tie"),
        ("rmse", 0.0, 0.0, "tie"),
        ("rmse", math.nan, math.nan, ""),
    ],
)
def test_verdicts(measure: str, low: float, high: float, says: str) -> None:
    assert verdict(measure, Interval((low + high) / 2, low, high)) == says


def test_blocks_are_180_m_and_no_more_than_a_thousand() -> None:
    assert block_side((108, 108)) == 18
    assert block_side((480, 480)) == 18
    large = block_side((3960, 3960))
    assert large % 18 == 0
    assert (-(-3960 // large)) ** 2 <= 1024 < (-(-3960 // (large - 18))) ** 2


def test_ndvi_is_bounded_and_keeps_nothing_as_nothing() -> None:
    red, nir = np.array([0.1, -0.02, 0.0, np.nan, 0.3]), np.array([0.3, 0.2, -0.1, 0.2, -0.01])
    np.testing.assert_allclose(ndvi(red, nir), [0.5, 1, 0, np.nan, -1])


def test_what_cannot_be_scored_is_refused() -> None:
    held = case()
    good = Outcome(held, "a", noisy(held, 0.01), 0)
    with pytest.raises(ValueError, match="no outcome"):
        score([])
    with pytest.raises(ValueError, match="two outcomes"):
        score([good, good])
    with pytest.raises(ValueError, match="are named 'one'"):
        score([good, Outcome(case(seed=3), "b", noisy(held, 0.01), 0)])
    with pytest.raises(ValueError, match=r"shape \(6, 18, 18\).*\(6, 54, 54\)"):
        score([Outcome(held, "a", held.view.landsat, 0)])


def test_what_fails_on_every_date_is_no_rank_but_a_failure() -> None:
    cases = [case(f"day {k}", seed=k) for k in range(2)]
    made = [Outcome(c, "good", c.view.truth, 0.1) for c in cases]
    made += [Outcome(c, "lost", np.full_like(c.view.truth, np.nan), 0.1, "needs what is not there") for c in cases]
    found = score(made, draws=100)
    assert found.methods(cases[0].group) == ("good",)
    assert {r.method for r in found.failures} == {"lost"}
    assert score(made[2:], draws=100).methods(cases[0].group) == ("lost",)
