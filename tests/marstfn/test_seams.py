"""Seams of the shipped weights: tiles made one by one equal the whole plane, and no patch border shows in it."""

from __future__ import annotations

import numpy as np
import pytest

from marstfn.baselines import METHODS, REGIONAL
from marstfn.evaluate import held_back
from marstfn.methods import OVERLAP, free
from marstfn.patches import covering, starts
from marstfn.predict import Predictor, window
from marstfn.scenes import Scene
from marstfn.weights import load

SIDE, TILE = 240, 120
SEEDS = (41, 43, 53)
LIMIT = 1.1
"""Step across borders over the step elsewhere, relative to the truth's, at most."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return held_back(SEEDS, SIDE)


def plane(predict: Predictor, scene: Scene) -> np.ndarray:
    offsets = starts(SIDE, predict.patch, predict.patch - OVERLAP)
    pan = scene.pan if predict.pan else None
    s2, context = sees(predict, scene)
    return window(predict, s2, scene.landsat, pan, offsets, offsets, predict.patch, OVERLAP, context)[:6]


def sees(predict: Predictor, scene: Scene) -> tuple[np.ndarray, np.ndarray | None]:
    """The reference as these weights want it."""
    if predict.context:
        return scene.reference.between(), scene.reference.context()
    return scene.s2, None


def tile(predict: Predictor, scene: Scene, row: int, col: int) -> np.ndarray:
    """A tile as the fuse stage makes it: from the plane's patches that meet it, and their inputs alone."""
    every = starts(SIDE, predict.patch, predict.patch - OVERLAP)
    rows, cols = (covering(k, k + TILE, every, predict.patch) for k in (row, col))
    (top, left), bottom, right = (rows[0], cols[0]), rows[-1] + predict.patch, cols[-1] + predict.patch

    def cut(image: np.ndarray, pixels: int) -> np.ndarray:
        """The window of an image with `pixels` pixels along 60 m."""
        return image[:, top * pixels // 6 : bottom * pixels // 6, left * pixels // 6 : right * pixels // 6]

    s2, context = sees(predict, scene)
    made = window(
        predict,
        cut(s2, 6),
        cut(scene.landsat, 2),
        cut(scene.pan, 4) if predict.pan else None,
        tuple(r - top for r in rows),
        tuple(c - left for c in cols),
        predict.patch,
        OVERLAP,
        None if context is None else cut(context, 6),
    )
    return made[:6, row - top : row - top + TILE, col - left : col - left + TILE]


def steps(image: np.ndarray, borders: set[int]) -> tuple[float, float]:
    """Mean |difference| of neighbours across `borders` (before these columns and rows), and everywhere else."""
    across, elsewhere = [], []
    for axis in (1, 2):
        jump = np.nanmean(np.abs(np.diff(image, axis=axis)), axis=(0, 3 - axis))
        at = np.isin(np.arange(1, len(jump) + 1), list(borders))
        across.append(jump[at])
        elsewhere.append(jump[~at])
    return float(np.concatenate(across).mean()), float(np.concatenate(elsewhere).mean())


@pytest.mark.parametrize("name", ["marstfn-nopan", "marstfn-pan"])
def test_no_border_shows_with_the_shipped_weights(name: str, scenes: list[Scene]) -> None:
    predict = Predictor(load(name), batch=5, threads=1)
    every = starts(SIDE, predict.patch, predict.patch - OVERLAP)
    patch_borders = {b for s in every for b in (s, s + predict.patch)} - {0, SIDE}
    found = {"patch": [], "tile": []}
    for scene in scenes:
        made = plane(predict, scene)
        tiled = np.block([[tile(predict, scene, r, c) for c in (0, TILE)] for r in (0, TILE)])
        # float32 rounding differs with a patch's place in its batch: a thousandth of a stored unit
        np.testing.assert_allclose(tiled, made, rtol=0, atol=1e-7)
        for kind, image, borders in (("patch", made, patch_borders), ("tile", tiled, {TILE})):
            found[kind].append((*steps(image, borders), *steps(scene.truth, borders)))
    for kind, values in found.items():
        across, elsewhere, true_across, true_elsewhere = np.mean(values, axis=0)
        # fields and roads end at borders, too: what counts is the step beyond the land's own at the same places
        ratio = across / elsewhere / (true_across / true_elsewhere)
        print(f"{name}, {len(scenes)} scenes, {kind} borders: step across {across:.5f}, elsewhere {elsewhere:.5f}; "
              f"in the truth {true_across:.5f}, {true_elsewhere:.5f}; ratio {ratio:.3f}")  # fmt: skip
        assert ratio <= LIMIT


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.side == REGIONAL])
def test_no_window_shows_with_a_method_that_fits_itself_to_each(name: str, scenes: list[Scene]) -> None:
    """Windows of half the side of those of a run, so that classes and variograms differ more from one to the next."""
    method, side = free(name), REGIONAL // 2
    stride = side * 4 // 5 // 6 * 6
    every = starts(SIDE, side, stride)
    borders = {b for s in every for b in (s, s + side)} - {0, SIDE}
    found = []
    for scene in scenes:
        s2, pan = method.reference(scene.reference), scene.pan if method.pan else None
        made = window(method.predict, s2, scene.landsat, pan, every, every, side, side - stride, holes=method.holes)
        known = np.where(np.isnan(made), np.nan, scene.truth)
        found.append((*steps(made, borders), *steps(known, borders)))
    across, elsewhere, true_across, true_elsewhere = np.nanmean(found, axis=0)
    ratio = across / elsewhere / (true_across / true_elsewhere)
    print(f"{name}, {len(scenes)} scenes: step across {across:.5f}, elsewhere {elsewhere:.5f}; ratio {ratio:.3f}")
    assert ratio <= LIMIT


def test_a_seam_would_be_seen(scenes: list[Scene]) -> None:
    image = scenes[0].truth.copy()
    image[:, :, TILE:] += 0.05
    across, elsewhere = steps(image, {TILE})
    assert across > LIMIT * elsewhere
