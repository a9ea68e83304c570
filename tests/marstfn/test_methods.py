"""A method on a whole image: a network in blended patches, any other in one piece, and what each does about holes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marstfn import methods, situations
from marstfn.baselines import METHODS, Array
from marstfn.methods import OVERLAP, Method, free, network
from marstfn.patches import blend, fill_holes, starts
from marstfn.predict import Predictor
from marstfn.reference import Reference
from marstfn.scenes import Scene
from marstfn.weights import load

SIDE = 96


@pytest.fixture(scope="module")
def view() -> Scene:
    return next(situations.each(108)).view


def cut(view: Scene, height: int, width: int) -> tuple[Reference, Array, Array]:
    reference = view.reference.cut(slice(0, height), slice(0, width))
    pan = view.pan[:, : height * 2 // 3, : width * 2 // 3]
    return reference, view.landsat[:, : height // 3, : width // 3].copy(), pan.copy()


def holed(view: Scene, height: int, width: int) -> tuple[Reference, Array, Array]:
    """With pixels missing in each of the three, and in the reference on both sides."""
    reference, landsat, pan = cut(view, height, width)
    landsat[:, 4:7, 5:9] = np.nan
    pan[:, 30:34, 10:20] = np.nan
    images = [reference.before.copy(), reference.after.copy()]
    days = [reference.days_before.copy(), reference.days_after.copy()]
    for image, day, rows in zip(images, days, (slice(20, 40), slice(30, 50)), strict=True):
        image[:, rows, 30:40], day[rows, 30:40] = np.nan, np.inf
    return Reference(*images, *days), landsat, pan


def plainly(predictor: Predictor, around: Reference, landsat: Array, pan: Array | None) -> Array:
    """Patch by patch, each by itself, summed by the weights of the blend."""
    p = predictor.patch
    s2 = around.between() if predictor.context else around.nearest()
    total, norm = np.zeros((7, *s2.shape[1:])), np.zeros(s2.shape[1:])
    weight = blend(p, OVERLAP)
    for r in starts(s2.shape[1], p, p - OVERLAP):
        for c in starts(s2.shape[2], p, p - OVERLAP):
            sharp = None
            if predictor.pan:
                assert pan is not None
                sharp = pan[:, r * 2 // 3 : (r + p) * 2 // 3, c * 2 // 3 : (c + p) * 2 // 3]
            coarse = landsat[:, r // 3 : (r + p) // 3, c // 3 : (c + p) // 3]
            fine, coarse, sharp = fill_holes(s2[:, r : r + p, c : c + p], coarse, sharp)
            given: list[Any] = [None if image is None else image[None] for image in (fine, coarse, sharp)]
            context = around.context()[None, :, r : r + p, c : c + p] if predictor.context else None
            made = predictor(*given, context)[0]
            total[: len(made), r : r + p, c : c + p] += weight * made
            norm[r : r + p, c : c + p] += weight
    return np.asarray(total[: len(made)] / norm, np.float32)


@pytest.mark.parametrize("name", ["marstfn-pan", "marstfn-nopan", "dstfn-nopan"])
def test_a_network_on_a_whole_image_is_its_patches_blended(view: Scene, name: str) -> None:
    predictor = Predictor(load(name), threads=1)
    method = network(predictor)
    assert method.side == predictor.patch == 60
    around, landsat, pan = holed(view, SIDE, 108)
    made = method.whole(around, landsat, pan)
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made, plainly(predictor, around, landsat, pan), atol=2e-6)


def test_a_network_on_one_patch_is_the_predictor_itself(view: Scene) -> None:
    predictor = Predictor(load("marstfn-nopan"), threads=1)
    around, landsat, pan = cut(view, 60, 60)
    s2 = around.between() if predictor.context else around.nearest()
    context = around.context()[None] if predictor.context else None
    expected = predictor(s2[None], landsat[None], None, context)[0]
    made = network(predictor).whole(around, landsat, pan)
    np.testing.assert_allclose(made, expected, atol=1e-6)
    # it takes no pan, so none makes a difference
    np.testing.assert_array_equal(network(predictor).whole(around, landsat), made)
    assert len(made) == (7 if predictor.interval or predictor.weights.config.uncertainty else 6)


def test_an_image_smaller_than_the_patch_is_refused_by_networks_alone(view: Scene) -> None:
    around, landsat, pan = cut(view, 48, 48)
    with pytest.raises(ValueError, match="48"):
        network(Predictor(load("marstfn-nopan"), threads=1)).whole(around, landsat, pan)
    assert free("additive").whole(around, landsat, pan).shape == (6, 48, 48)


class Heard:
    """Stands in for a method and keeps what it was given."""

    def __call__(self, s2: Array, landsat: Array, pan: Array | None, context: Array | None = None) -> Array:
        self.s2, self.landsat, self.pan, self.context = s2, landsat, pan, context
        return s2.astype(np.float64)


@pytest.mark.parametrize("pan", [False, True])
def test_holes_are_filled_beforehand_or_left_to_the_method(view: Scene, pan: bool) -> None:
    around, landsat, sharp = holed(view, 54, 54)
    s2 = around.nearest()
    assert np.isnan(s2).any()
    heard = Heard()
    made = Method("mine", heard, pan=pan, holes=True).whole(around, landsat, sharp)
    np.testing.assert_array_equal(heard.s2[0], s2)
    np.testing.assert_array_equal(heard.landsat[0], landsat)
    assert made.dtype == np.float32
    assert np.isnan(made).any()
    made = Method("mine", heard, pan=pan).whole(around, landsat, sharp)
    for got, expected in zip((heard.s2, heard.landsat, heard.pan), fill_holes(s2, landsat, sharp), strict=True):
        if got is None:
            assert not pan
        else:
            np.testing.assert_array_equal(got[0], expected)
    assert (heard.pan is not None) == pan
    assert np.isfinite(made).all()


def test_both_sides_of_the_date_are_interpolated_for_those_who_ask(view: Scene) -> None:
    around, landsat, _ = cut(view, 36, 36)
    heard = Heard()
    Method("mine", heard, "between").whole(around, landsat)
    np.testing.assert_array_equal(heard.s2[0], around.between())
    assert not np.array_equal(around.between(), around.nearest())
    Method("mine", heard).whole(around, landsat)
    np.testing.assert_array_equal(heard.s2[0], around.nearest())
    assert (Method("mine", heard, "between").both, Method("mine", heard).both) == (True, False)
    assert Method("mine", heard, context=True).both


@pytest.mark.parametrize("name", methods.ALONE)
def test_what_is_sentinel_2_alone_has_nothing_to_say_where_it_was_not_seen(view: Scene, name: str) -> None:
    around, landsat, pan = holed(view, 54, 54)
    made = free(name).whole(around, landsat, pan)
    expected = around.nearest() if name == "copy" else around.between()
    np.testing.assert_array_equal(np.isnan(made), np.isnan(expected))
    np.testing.assert_array_equal(made, expected)
    assert np.isnan(made).any()


def test_pan_makes_a_difference_to_those_that_take_it(view: Scene) -> None:
    around, landsat, pan = cut(view, 54, 54)
    for name in ("additive", "atprk", "bicubic"):
        with_pan, without = (free(name).whole(around, landsat, p) for p in (pan, None))
        assert np.array_equal(with_pan, without) != METHODS[name].pan


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_writes_into_none_of_its_inputs(view: Scene, name: str) -> None:
    around, landsat, pan = holed(view, 54, 54)
    kept = [np.array(a) for a in (around.before, around.after, landsat, pan)]
    made = free(name).whole(around, landsat, pan)
    assert made.shape == (6, 54, 54)
    for before, now in zip(kept, (around.before, around.after, landsat, pan), strict=True):
        np.testing.assert_array_equal(before, now)
