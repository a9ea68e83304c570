"""What the shipped weights must reach, and the bookkeeping of the scores."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from marstfn import evaluate, flanders, metrics
from marstfn.reference import Reference
from marstfn.scenes import Scene
from marstfn.simulate import HELD_BACK, VARIED
from marstfn.tally import METRICS, differences, verdict
from marstfn.weights import SHIPPED


def made_up(seed: int = 0, side: int = 36) -> Scene:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.05, 0.3, (6, side, side)).astype(np.float32)
    coarse = truth.reshape(6, side // 3, 3, side // 3, 3).mean((2, 4)).astype(np.float32)
    coarse[:, 0, 0] = np.nan
    s2 = truth + rng.normal(0, 0.02, truth.shape).astype(np.float32)
    s2[:, 20:26, 20:26] = np.nan
    pan = coarse[:1].repeat(2, 1).repeat(2, 2)
    return Scene(datetime(2020, 6, 1, tzinfo=UTC), Reference.single(s2, 0), coarse, pan, truth)


def test_all_methods_are_scored_on_the_same_pixels_and_empty_ones_as_bicubic() -> None:
    view = made_up()
    assert view.seen.sum() == 36 * 36 - 9
    nothing = np.full_like(view.truth, np.nan)
    made = evaluate.results([view], {**evaluate.baselines(), "nothing": lambda view: nothing})
    table = evaluate.tallies([view], made)["all"]
    assert {t.pixels for t in table.values()} == {36 * 36 - 9}
    assert evaluate.coverage([view], made["nothing"]) == 0
    assert evaluate.coverage([view], made["copy"]) == pytest.approx(1 - 36 / view.seen.sum())
    assert evaluate.coverage([view], made["additive"]) == 1
    for metric in METRICS:
        assert table["nothing"].score(metric) == pytest.approx(table["bicubic"].score(metric))
    filled = np.where(np.isnan(view.s2), made["bicubic"][0], view.s2)
    assert table["copy"].score("rmse") == pytest.approx(metrics.rmse(filled, view.truth, view.seen), rel=1e-6)


def test_parts_divide_the_pixels_by_change_and_by_age() -> None:
    view = made_up()
    tables = evaluate.tallies([view], evaluate.results([view], evaluate.baselines()), evaluate.PARTS)
    split = [tables[p]["additive"].pixels for p in ("changed", "unchanged")]
    assert min(split) > 0
    assert sum(split) == (view.seen & ~np.isnan(view.s2[0])).sum()
    assert tables["reference 1-5 days"]["additive"].pixels == 0
    assert tables["changed"]["copy"].score("rmse") > tables["unchanged"]["copy"].score("rmse")


def test_an_interval_that_always_holds_and_one_that_never_does() -> None:
    view = made_up()
    error = np.full((1, 36, 36), 0.01, np.float32)
    image = np.concatenate([view.truth + np.float32(0.02), error])
    assert evaluate.intervals([view], [image], (2.5,) * 3 + (1.5,) * 3) == (1, 1, 1, 0, 0, 0)


def test_evaluation_lies_outside_what_training_draws_from() -> None:
    for name, ranges in HELD_BACK.items():
        for low, high in ranges:
            assert all(high < a or low > b for a, b in VARIED[name])
    assert min(evaluate.SEEDS) > 1_000_000 + 999_999
    assert len(evaluate.SEEDS) >= 20


def test_shipped_weights_beat_landsat_alone_and_the_copied_reference() -> None:
    """On held-back simulated lands, in RMSE and SSIM, with intervals over scenes and blocks that exclude 0."""
    views = evaluate.held_back()
    assert len(views) >= 20
    methods = {**evaluate.baselines(), **{name: evaluate.network(name) for name in SHIPPED}}
    table = evaluate.tallies(views, evaluate.results(views, methods))["all"]
    for name in SHIPPED:
        for other in ("bicubic", "copy"):
            got = differences(table[name], table[other])
            assert verdict("rmse", got["rmse"]) == "better", f"{name} against {other}: {got}"
            assert verdict("ssim", got["ssim"]) == "better", f"{name} against {other}: {got}"


@pytest.mark.shared
def test_real_pairs_are_read_with_their_faults_undone(shared: Path) -> None:
    place = flanders.read(shared / "data")
    views = flanders.scenes(place)
    assert len(views) == 5
    for title, view in views.items():
        assert str(view.day.date()) in title
        assert not np.array_equal(view.s2, view.truth)
        assert view.seen.sum() > 2000
        # the two sensors agree at 30 m once Landsat stands in the frame: the lattice is right
        coarse = view.truth.reshape(6, 20, 3, 20, 3).mean((2, 4))
        known = np.isfinite(view.landsat).all(0)
        nir = np.corrcoef(coarse[3][known], view.landsat[3][known])[0, 1]
        assert nir > 0.8
        shifted = np.roll(view.landsat[3], 1, 0)
        both = known & np.isfinite(shifted)
        assert np.corrcoef(coarse[3][both], shifted[both])[0, 1] < nir


@pytest.mark.shared
def test_network_scores_on_the_real_pairs(shared: Path) -> None:
    """Ranks are printed, as measured; held is only that over all pairs the fusion beats a reference left as it is."""
    methods = {**evaluate.baselines(), "marstfn-nopan": evaluate.network("marstfn-nopan")}
    squares: dict[str, list[float]] = {name: [] for name in methods}
    for title, view in flanders.scenes(flanders.read(shared / "data")).items():
        table = evaluate.tallies([view], evaluate.results([view], methods))["all"]
        rmse = {name: t.score("rmse") for name, t in table.items()}
        ranks = sorted(rmse, key=lambda name: rmse[name])
        print(f"{title}: " + ", ".join(f"{name} {rmse[name]:.4f}/{table[name].score('ssim'):.3f}" for name in ranks))
        for name in methods:
            squares[name].append(rmse[name] ** 2)
    pooled = {name: float(np.sqrt(np.mean(values))) for name, values in squares.items()}
    assert pooled["marstfn-nopan"] < pooled["copy"]
