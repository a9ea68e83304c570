"""The parts into which a date's scene was cut are scored as the whole scene would be, however many they are."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from marstfn import metrics, rows
from marstfn.comparison import Case, Outcome
from marstfn.measures import ALL, MEASURES, scores
from marstfn.reference import Reference
from marstfn.rows import NOT_RUN, Growing
from marstfn.scenes import Scene
from marstfn.scoring import AVERAGE, Scores, Scoring, score

SIDE = 72
METHODS = ("near", "far")


def part(name: str, seed: int, level: float = 0.0, hidden: int = 0) -> Case:
    """A case whose truth lies about `level` above those of others; `hidden` Landsat rows are masked."""
    rng = np.random.default_rng(seed)
    truth = (rng.uniform(0.05, 0.4, (6, SIDE, SIDE)) + level).astype(np.float32)
    coarse = truth.reshape(6, SIDE // 3, 3, SIDE // 3, 3).mean((2, 4)).astype(np.float32)
    coarse[:, :hidden] = np.nan
    s2 = truth + np.float32(0.05) * (np.arange(SIDE) < SIDE // 2)[:, None]
    pan = np.full((1, SIDE * 2 // 3, SIDE * 2 // 3), np.nan, np.float32)
    view = Scene(datetime(2020, 6, 1, tzinfo=UTC), Reference.single(s2, 3), coarse, pan, truth)
    return Case(name, "land", view, "made up", seed % 2 == 0)


def made(case: Case, seed: int) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    shape = case.view.truth.shape
    images = [np.asarray(case.view.truth + rng.normal(0, sd, shape), np.float32) for sd in (0.01, 0.03)]
    return [Outcome(case, m, i, 0.5 + k) for k, (m, i) in enumerate(zip(METHODS, images, strict=True))]


PARTS = (("d1, r0c0", 1, 0.0, 0), ("d1, r0c1", 2, 0.3, 5), ("d2, r0c0", 3, 0.1, 0), ("d1, r1c0", 4, 0.0, 24))


def outcomes() -> list[list[Outcome]]:
    return [made(part(*given), 10 + k) for k, given in enumerate(PARTS)]


@pytest.fixture(scope="module")
def found() -> Scores:
    return score([o for own in outcomes() for o in own], chosen="far", draws=100)


def test_a_date_has_one_row_whatever_it_was_cut_into(found: Scores) -> None:
    first, second = found.rows_of("land")
    assert (first.name, first.cases) == ("d1", ("d1, r0c0", "d1, r0c1", "d1, r1c0"))
    assert first.sizes == ((SIDE, SIDE),) * 3
    assert first.pixels == SIDE * SIDE + SIDE * (SIDE - 15)
    assert first.simulated
    assert (second.name, second.cases, second.simulated) == ("d2", ("d2, r0c0",), False)
    assert {r.case for r in found.records} == {"d1", "d2", AVERAGE}


@pytest.mark.parametrize("method", METHODS)
def test_its_scores_are_those_of_all_its_pixels(found: Scores, method: str) -> None:
    """Against the plain formulas on the parts laid side by side; SSIM alone knows where one ends."""
    own = [o for k in (0, 1) for o in outcomes()[k] if o.method == method]
    image = np.concatenate([o.image for o in own], 2)
    truth = np.concatenate([o.case.view.truth for o in own], 2)
    mask = np.concatenate([o.case.scored for o in own], 1)
    record = found.record("land", "d1", method)
    for key in ("rmse", "psnr", "r2", "sam", "ergas"):
        assert record.value(key) == pytest.approx(getattr(metrics, key)(image, truth, mask), rel=1e-6), key
    assert record.psnr_truth == pytest.approx(metrics.psnr(image, truth, mask, "truth"), rel=1e-6)
    local = [metrics.ssim_map(o.image, o.case.view.truth, o.case.scored)[:, o.case.scored] for o in own]
    assert record.ssim == pytest.approx(np.concatenate(local, 1).mean(), rel=1e-6)
    assert record.pixels == mask.sum()
    assert record.seconds == pytest.approx(3 * own[0].seconds)
    assert record.coverage == 1


def test_the_average_counts_dates_and_not_parts(found: Scores) -> None:
    for key in MEASURES:
        values = [found.record("land", d, "near").value(key) for d in ("d1", "d2")]
        assert found.record("land", AVERAGE, "near").value(key) == pytest.approx(sum(values) / 2)


def test_a_failure_on_one_part_is_told_as_that() -> None:
    scoring = Scoring(draws=20)
    for own in outcomes()[:2]:
        case = own[0].case
        first = [own[0], Outcome(case, "far", np.full_like(own[1].image, np.nan), 0.1, "no class means")]
        scoring.add(own if case.name == "d1, r0c0" else first, (*METHODS, "absent"))
    scores = scoring.scores()
    record = scores.record("land", "d1", "far")
    assert record.reason == "failed on 1 of 2 parts: no class means"
    assert record.coverage == pytest.approx(SIDE**2 / (SIDE**2 + SIDE * (SIDE - 15)))
    absent = scores.record("land", "d1", "absent")
    assert (absent.reason, absent.coverage) == (NOT_RUN, 0)
    assert math.isnan(absent.seconds)
    assert len(scores.failures) == 2


def test_many_parts_are_drawn_in_larger_blocks_and_score_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 blocks of 18 px a part, of which no more than 20 are wanted: four become one."""
    every = [o for own in outcomes() for o in own]
    plain = score(every, draws=20)
    monkeypatch.setattr(rows, "MOST_BLOCKS", 20)
    growing = Growing("land", "d1")
    for k in (0, 1, 3):
        growing.add(outcomes()[k][0].case, outcomes()[k], METHODS)
        assert sum(piece.blocks for piece in growing.pieces) <= 20
    assert {piece.methods["near"].sums[ALL].shape[:2] for piece in growing.pieces} == {(2, 2)}
    coarse = score(every, draws=20)
    for a, b in zip(plain.records, coarse.records, strict=True):
        for key in MEASURES:
            assert a.value(key) == pytest.approx(b.value(key), rel=1e-9, nan_ok=True), (a.method, a.part, key)
    assert plain.differences != coarse.differences


def test_an_odd_number_of_blocks_loses_none() -> None:
    grid = np.random.default_rng(3).uniform(size=(5, 3, 4))
    halved: NDArray[np.float64] = rows._halved(grid)
    assert halved.shape == (3, 2, 4)
    np.testing.assert_allclose(halved.sum((0, 1)), grid.sum((0, 1)))
    np.testing.assert_allclose(halved[1, 0], grid[2:4, :2].sum((0, 1)))
    np.testing.assert_allclose(halved[2, 1], grid[4, 2])


def test_a_hidden_part_takes_nothing_from_its_date() -> None:
    own, other = outcomes()[0], outcomes()[2]
    dark = replace(part("d1, r5c5", 9, hidden=SIDE // 3))
    alone = score([*own, *other], draws=30)
    along = score([*own, *made(dark, 3), *other], draws=30)
    for key in (*MEASURES, "pixels", "coverage"):
        assert along.record("land", "d1", "near").value(key) == alone.record("land", "d1", "near").value(key)
    growing = Growing("land", "dark")
    growing.add(dark, made(dark, 3), METHODS)
    pooled = growing.pooled("near").sums[ALL]
    assert len(pooled) == 0
    assert np.isnan(scores(pooled.sum(0, keepdims=True), growing.centre, growing.peak)).all()


def test_what_does_not_fit_together_is_refused() -> None:
    own, other = outcomes()[:2]
    scoring = Scoring(draws=10)
    with pytest.raises(ValueError, match="no outcome"):
        scoring.add([])
    with pytest.raises(ValueError, match="no outcome"):
        scoring.scores()
    scoring.add(own, METHODS)
    with pytest.raises(ValueError, match=r"are named 'd1, r0c0'"):
        scoring.add(own, METHODS)
    scoring.add(other[:1])
    with pytest.raises(ValueError, match="far was not among the methods when d1 of land was added"):
        scoring.scores()
