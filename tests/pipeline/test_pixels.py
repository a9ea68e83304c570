"""A sample of pixels is bounded and fair, and the same pixels serve every method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marstfn.comparison import Outcome
from marstfn.measures import ALL, Ground
from marstfn.scoring import by_case
from pipeline import figures
from pipeline.pixels import Pixels
from tests.pipeline.comparisons import failing, land, made


def filled(most: int, outcomes: list[Outcome]) -> Pixels:
    pixels = Pixels(most)
    for own, methods in by_case(outcomes):
        pixels.add(own, methods)
    return pixels


def test_few_pixels_are_all_there() -> None:
    outcomes = made("lands", dates=2)
    pixels = filled(100_000, outcomes)
    grounds = {o.case: Ground.of(o.case) for o in outcomes}
    assert pixels.seen == pixels.truth.shape[1] == sum(int(g.parts[ALL].sum()) for g in grounds.values())
    assert figures.extent(pixels) == "all scored pixels"
    assert pixels.simulated
    for method in pixels.methods:
        own = [(grounds[o.case], o.image) for o in outcomes if o.method == method]
        whole = np.concatenate([g.filled(i)[:, g.parts[ALL]] for g, i in own], 1)
        # the order of pixels is nobody's concern; truth and prediction keep together
        expected = {t.tobytes() + p.tobytes() for t, p in _pairs(own)}
        got = {t.tobytes() + p.tobytes() for t, p in zip(pixels.truth.T, pixels.made(method).T, strict=True)}
        assert got == expected
        assert pixels.made(method).shape == whole.shape


def _pairs(own):
    for ground, image in own:
        mask = ground.parts[ALL]
        yield from zip(
            ground.truth[:, mask].T.astype(np.float32), ground.filled(image)[:, mask].T.astype(np.float32), strict=True
        )


def test_many_pixels_leave_a_fair_sample() -> None:
    outcomes = made("lands", dates=4)
    pixels = filled(2000, outcomes)
    assert pixels.truth.shape == pixels.made("good").shape == (6, 2000)
    assert pixels.seen > 11_000
    assert figures.extent(pixels) == f"2000 of {pixels.seen} scored pixels, drawn by lot"
    # every date has its share of the sample, the first as the last
    of_date = []
    for case in dict.fromkeys(o.case for o in outcomes):
        known = set(case.view.truth[0][case.scored].tolist())
        of_date.append(sum(v in known for v in pixels.truth[0].tolist()))
    assert min(of_date) > 400
    assert max(of_date) < 600
    again = filled(2000, outcomes)
    np.testing.assert_array_equal(pixels.truth, again.truth)
    errors = {m: np.sqrt(((pixels.made(m) - pixels.truth) ** 2).mean()) for m in ("good", "bad")}
    assert errors["good"] == pytest.approx(0.01, rel=0.05)
    assert errors["bad"] == pytest.approx(0.03, rel=0.05)


def test_what_is_empty_is_bicubic_landsat() -> None:
    case = made("lands")[0].case
    pixels = Pixels()
    pixels.add([failing(case)], ["failing", "absent"])
    np.testing.assert_array_equal(pixels.made("failing"), pixels.made("absent"))
    assert np.isfinite(pixels.made("failing")).all()
    with pytest.raises(KeyError):
        pixels.made("other")


def test_a_method_cannot_join_later_and_a_hidden_case_adds_nothing() -> None:
    first, *_ = made("lands")
    pixels = Pixels()
    pixels.add([first])
    before = pixels.truth
    view = first.case.view
    dark = replace(first.case, view=replace(view, landsat=np.full_like(view.landsat, np.nan)))
    pixels.add([replace(first, case=dark)])
    np.testing.assert_array_equal(np.sort(pixels.truth), np.sort(before))
    with pytest.raises(ValueError, match=r"methods of .* are not those of the cases before: good, late"):
        pixels.add([Outcome(land(view.day, 5, "lands"), "late", first.image, 0)])
