"""FSDAF: the properties of its equations, a plain reading of them as oracle, holes, and the one real place."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator

from marstfn import flanders
from marstfn.baselines import bicubic, copy, degrade
from marstfn.baselines.fsdaf import (
    VALID,
    cell_mean,
    class_change,
    classified,
    distributed,
    fsdaf,
    homogeneous,
    shares,
    spread,
    thin_plate,
)
from marstfn.baselines.similar import smoothed

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """No warning may reach the caller."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def fields(seed: int, side: int = 36, bands: int = 6, kinds: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Parcels of `kinds` spectra with texture; then as they change by kind, one parcel of all is harvested."""
    rng = np.random.default_rng(seed)
    parcel = np.kron(rng.integers(0, kinds, (side // 6, side // 6)), np.ones((6, 6), int))
    parcel = np.roll(parcel, (1, 2), (0, 1))
    spectra, change = rng.uniform(0.03, 0.4, (bands, kinds)), rng.normal(0, 0.04, (bands, kinds))
    s2 = spectra[:, parcel] + rng.normal(0, 0.006, (bands, side, side))
    then = s2 + change[:, parcel]
    then[:, 7:15, 9:20] += 0.1
    return s2.astype(np.float32), then.astype(np.float32)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_nothing_changes_where_nothing_changed(seed: int) -> None:
    s2, _ = fields(seed)
    assert np.array_equal(fsdaf(s2, degrade(s2)), s2)


@given(seeds, st.floats(-0.05, 0.2))
@settings(max_examples=15, deadline=None)
def test_a_uniform_change_is_followed(seed: int, change: float) -> None:
    s2, _ = fields(seed)
    assert abs(fsdaf(s2, degrade(s2) + np.float32(change)) - (s2 + np.float32(change))).max() < 1e-6


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_the_order_of_bands_is_of_no_account(seed: int) -> None:
    s2, then = fields(seed)
    order = np.random.default_rng(seed).permutation(6)
    straight = fsdaf(s2, degrade(then))
    assert abs(fsdaf(s2[order], degrade(then)[order]) - straight[order]).max() < 1e-6


@given(seeds, st.sampled_from((1.5, 4.0, 10.0)))
@settings(max_examples=30, deadline=None)
def test_each_cell_keeps_the_change_that_landsat_saw(seed: int, heaviest: float) -> None:
    """Step 5 before clipping: the residual is shared out, and nothing is added or lost."""
    s2, then = fields(seed)
    labels = classified(s2, 5)
    for first, spatial in zip(s2, thin_plate(degrade(then)), strict=True):
        rng = np.random.default_rng(seed)
        temporal = first + rng.normal(0, 0.05, 5)[labels]
        change = rng.normal(0, 0.05, (12, 12))
        rest = change - (cell_mean(temporal) - cell_mean(first))
        made = temporal + distributed(rest, spatial, temporal, homogeneous(labels), heaviest)
        assert abs(cell_mean(made) - cell_mean(first) - change).max() < 1e-12


def test_weights_above_the_limit_become_the_mean() -> None:
    temporal, spatial = np.full((3, 3), 0.2), np.full((3, 3), 0.2)
    spatial[1, 1] = 0.3  # the only pixel with a share in the residual, where all is of one class
    rest, alike = np.full((1, 1), 0.02), np.ones((3, 3))
    alone = distributed(rest, spatial, temporal, alike)
    assert alone[1, 1] == pytest.approx(9 * 0.02, rel=1e-6)
    assert abs(np.delete(alone.ravel(), 4)).max() < 1e-8
    held = distributed(rest, spatial, temporal, alike, heaviest=5.0)
    assert held[1, 1] == pytest.approx(9 * 0.02, rel=1e-6)  # 1 against eight zeros is 9 again once the mean is 1
    spatial[0] = 0.21
    held, free = (distributed(rest, spatial, temporal, alike, heaviest=h) for h in (5.0, 10.0))
    weight = 9 * np.array([0.01, 0.1]) / 0.13
    assert free[0, 0] == pytest.approx(weight[0] * 0.02, rel=1e-5)
    assert free[1, 1] == pytest.approx(weight[1] * 0.02, rel=1e-5)
    assert held[1, 1] == pytest.approx(9 / (3 * weight[0] + 1) * 0.02, rel=1e-5)


def test_an_error_of_the_other_sign_takes_no_share_unless_the_ground_is_mixed() -> None:
    temporal, rest = np.full((3, 3), 0.2), np.full((1, 1), -0.03)
    spatial = np.where(np.arange(9).reshape(3, 3) < 3, 0.15, 0.25)
    alike = np.ones((3, 3))
    got = distributed(rest, spatial, temporal, alike)
    assert got[0] == pytest.approx(np.full(3, -0.09), rel=1e-5)
    assert abs(got[1:]).max() < 1e-8
    assert distributed(rest, spatial, temporal, 0 * alike) == pytest.approx(np.full((3, 3), -0.03), rel=1e-12)


def test_homogeneity_counts_the_own_class_among_what_is_known() -> None:
    labels = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, -1, 1, 1]])
    got = homogeneous(labels)
    assert got[0, 0] == pytest.approx(3 / 4)
    assert got[1, 1] == pytest.approx(4 / 8)
    assert got[1, 3] == 1
    assert np.isnan(got[2, 1])
    assert homogeneous(labels, 0)[0, 0] == 1


def test_the_spline_is_scipys_through_the_same_nodes() -> None:
    rng = np.random.default_rng(3)
    coarse = rng.uniform(0, 0.5, (2, 7, 7)).astype(np.float32)
    nodes = np.stack(np.meshgrid(np.arange(7.0), np.arange(7.0), indexing="ij"), -1).reshape(-1, 2)
    along = (np.arange(21) + 0.5) / 3 - 0.5
    places = np.stack(np.meshgrid(along, along, indexing="ij"), -1).reshape(-1, 2)
    oracle = RBFInterpolator(nodes, coarse.reshape(2, -1).T.astype(np.float64), kernel="thin_plate_spline", degree=1)
    assert abs(thin_plate(coarse) - oracle(places).T.reshape(2, 21, 21)).max() < 1e-10
    # at a cell's middle pixel the spline is the cell
    larger = rng.uniform(0, 0.5, (1, 12, 9)).astype(np.float32)
    assert abs(thin_plate(larger)[:, 1::3, 1::3] - larger).max() < 1e-10


def test_the_local_spline_stands_for_that_of_the_whole_image() -> None:
    y, x = np.mgrid[:14, :14]
    coarse = (0.2 + 0.1 * np.sin(y / 2.5) * np.cos(x / 3))[None].astype(np.float32)
    nodes = np.stack([y, x], -1).reshape(-1, 2)
    along = (np.arange(42) + 0.5) / 3 - 0.5
    places = np.stack(np.meshgrid(along, along, indexing="ij"), -1).reshape(-1, 2)
    for near, allowed in ((None, 0.002), (32, 0.002)):
        oracle = RBFInterpolator(nodes, coarse.ravel(), kernel="thin_plate_spline", neighbors=near)
        off = thin_plate(coarse)[0] - oracle(places).reshape(42, 42)
        assert abs(off[9:-9, 9:-9]).max() < allowed


@given(st.integers(1, 12), st.integers(1, 12), seeds)
@settings(max_examples=20, deadline=None)
def test_the_spline_keeps_planes_up_to_the_edge_of_any_image(rows: int, cols: int, seed: int) -> None:
    down, across, level = np.random.default_rng(seed).uniform(-0.02, 0.02, 3)
    y, x = np.mgrid[: rows * 3, : cols * 3]
    plane = level + (down * y if rows > 1 else 0) + (across * x if cols > 1 else 0)
    plane = np.broadcast_to(plane, y.shape)
    assert abs(thin_plate(cell_mean(plane)[None])[0] - plane).max() < 1e-10


def test_class_changes_are_found_in_mixed_cells_and_outliers_left_out() -> None:
    rng = np.random.default_rng(5)
    fractions = rng.dirichlet((0.4, 0.4, 0.4), 400).T
    truth = np.array([[0.1, -0.05, 0.02], [0.0, 0.03, -0.2]])
    change = truth @ fractions
    assert abs(class_change(fractions, change, 100, (0.0, 1.0)) - truth).max() < 1e-12
    spoilt = change.copy()
    spoilt[:, fractions.max(0).argsort()[-12:]] += 0.3
    kept = abs(class_change(fractions, spoilt, 100) - truth).max()
    assert kept < 0.01 < abs(class_change(fractions, spoilt, 100, (0.0, 1.0)) - truth).max()


def test_classes_that_cannot_be_told_apart_change_with_the_sample() -> None:
    fractions = np.array([[1 / 3] * 5, [2 / 3] * 5, [0.0] * 5])
    assert abs(class_change(fractions, np.full((1, 5), 0.06), 100) - 0.06).max() < 1e-12


def test_the_purest_cells_are_drawn_from_the_whole_image() -> None:
    """All 400 cells are pure; the change grows from top to bottom, and the upper rows alone would say 0.0125."""
    change = np.linspace(0, 0.1, 400)[None]
    assert class_change(np.ones((1, 400)), change, 100)[0, 0] == pytest.approx(0.05, abs=0.012)


def test_classes_are_the_parcels_and_never_more_than_the_image_holds() -> None:
    two = np.where(np.arange(24) < 9, 0.1, 0.3).astype(np.float32) * np.ones((3, 24, 24), np.float32)
    labels = classified(two, 5)
    assert len(np.unique(labels)) == 2
    assert len(np.unique(labels[:, :9])) == len(np.unique(labels[:, 9:])) == 1
    s2, _ = fields(1, kinds=4)
    s2[:, :3, :5] = np.nan
    labels = classified(s2, 4)
    assert (labels[:3, :5] == -1).all()
    assert set(np.unique(labels)) == {-1, 0, 1, 2, 3}
    assert np.array_equal(labels, classified(s2, 4))
    total = shares(labels).sum(0)
    assert total[0, 0] == 0
    assert np.delete(total.ravel(), 0) == pytest.approx(1)


def plainly(s2: np.ndarray, landsat: np.ndarray, labels: np.ndarray, w: int, n: int, n_class: int) -> np.ndarray:
    """Steps 2 to 6 loop by loop, on whole images without holes; every cell with the class is of its sample."""
    bands, height, width = s2.shape
    fine, coarse = s2.astype(float), landsat.astype(float)
    rows, cols = height // 3, width // 3
    kinds = labels.max() + 1
    cells = [(i, j) for i in range(rows) for j in range(cols)]

    def inside(image: np.ndarray, i: int, j: int) -> np.ndarray:
        return image[3 * i : 3 * i + 3, 3 * j : 3 * j + 3]

    share = {cell: np.array([(inside(labels, *cell) == c).mean() for c in range(kinds)]) for cell in cells}
    nodes = np.array(cells, float)
    moved = np.empty(fine.shape)
    changes = np.empty(coarse.shape)
    for b in range(bands):
        for i, j in cells:
            changes[b, i, j] = coarse[b, i, j] - np.float32(inside(fine[b], i, j).mean())
        left, right = [], []
        for c in range(kinds):
            own = [cell for cell in cells if share[cell][c] > 0.01]
            values = [changes[b][cell] for cell in own]
            low, high = np.percentile(values, 25), np.percentile(values, 75)
            for cell, value in zip(own, values, strict=True):
                if low <= value <= high:
                    left.append(share[cell])
                    right.append(value)
        matrix, wanted = np.array(left), np.array(right)
        by_class = np.linalg.solve(matrix.T @ matrix, matrix.T @ wanted)
        made = np.empty((height, width))
        temporal = np.array([[fine[b, y, x] + by_class[labels[y, x]] for x in range(width)] for y in range(height)])
        for i, j in cells:
            rest = changes[b, i, j] - (inside(temporal, i, j).mean() - inside(fine[b], i, j).mean())
            near = [k for k, (p, q) in enumerate(cells) if max(abs(p - _in(i, rows)), abs(q - _in(j, cols))) <= 3]
            spline = RBFInterpolator(nodes[near], coarse[b].ravel()[near], kernel="thin_plate_spline")
            ys, xs = np.mgrid[3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            spatial = spline(np.stack([(ys - 1) / 3, (xs - 1) / 3], -1).reshape(-1, 2)).reshape(3, 3)
            weight = np.empty((3, 3))
            for a in range(3):
                for e in range(3):
                    y, x = 3 * i + a, 3 * j + e
                    window = labels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                    alike = (window == labels[y, x]).sum() / window.size
                    error = spatial[a, e] - temporal[y, x]
                    error = abs(error) if error * rest > 0 else 0.0
                    weight[a, e] = error * alike + abs(rest) * (1 - alike) + 1e-9
            weight /= weight.mean()
            weight[weight > 10] = 1
            made[3 * i : 3 * i + 3, 3 * j : 3 * j + 3] = inside(temporal, i, j) + weight / weight.mean() * rest
        low, high = min(coarse[b].min(), temporal.min()), max(coarse[b].max(), temporal.max())
        moved[b] = np.clip(made, max(VALID[0], low), min(VALID[1], high)) - fine[b]
    out = np.empty(fine.shape)
    limit = 2 * fine.std((1, 2)) / n_class
    for y in range(height):
        for x in range(width):
            middle = fine[:, y, x]
            found = [(0.0, 0, 0, y, x)]
            for v in range(max(y - w, 0), min(y + w + 1, height)):
                for u in range(max(x - w, 0), min(x + w + 1, width)):
                    off = np.abs(fine[:, v, u] - middle)
                    if (v, u) != (y, x) and (off < limit).all():
                        found.append(((off / middle).sum(), v - y, u - x, v, u))
            found = sorted(found)[:n]
            weights = np.array([1 / ((1 + math.hypot(dy, dx) / w) * (1 + s)) for s, dy, dx, _, _ in found])
            for b in range(bands):
                part = [moved[b, v, u] for *_, v, u in found]
                out[b, y, x] = middle[b] + (weights * part).sum() / weights.sum()
                if not VALID[0] <= out[b, y, x] <= VALID[1]:
                    out[b, y, x] = np.clip(middle[b] + changes[b, y // 3, x // 3], *VALID)
    return out


def _in(cell: int, count: int) -> int:
    """The middle of the 7 cells around `cell` that lie within the image."""
    return min(max(cell, 3), count - 4)


def test_the_equations_read_plainly_give_the_same() -> None:
    s2, then = fields(8, side=60, bands=3)
    s2 = np.maximum(s2, np.float32(0.01))
    landsat = degrade(then)
    expected = plainly(s2, landsat, classified(s2, 4), w=5, n=8, n_class=4)
    got = fsdaf(s2, landsat, classes=4, window=5, similar=8, pure=10_000)
    assert abs(got - expected).max() < 1e-5
    assert abs(got - s2).max() > 0.05


def test_what_leaves_the_valid_range_is_replaced() -> None:
    s2, then = fields(4)
    got = fsdaf(s2, degrade(then) + np.float32(0.3), valid=(0.0, 0.5))
    assert got.min() >= 0
    assert got.max() <= 0.5
    plain = fsdaf(s2, degrade(then) + np.float32(0.3))
    assert plain.max() > 0.5
    # below 0 as atmospheric correction leaves dark water
    dark = s2 - s2.min() - np.float32(0.02)
    assert np.array_equal(fsdaf(dark, degrade(dark)), dark)


def test_similar_pixels_of_one_window_by_hand() -> None:
    guide = np.array([[[0.10, 0.11, 0.30], [0.10, 0.10, 0.30], [np.nan, 0.12, 0.14]]], np.float32)
    values = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    got = smoothed(guide, values, np.array([0.03]), window=1, similar=3)
    # the middle (4) and, equal to it, its left neighbour (3) before the corner (0), which is as like but further off
    near, corner = 1 / 2, 1 / (1 + math.sqrt(2))
    assert got[0, 1, 1] == pytest.approx((4 + 3 * near + 0 * corner) / (1 + near + corner), rel=1e-6)
    assert np.isnan(got[0, 2, 0])
    assert got[0, 2, 2] == pytest.approx((8 + 7 * near / (1 + 0.02 / 0.14)) / (1 + near / (1 + 0.02 / 0.14)), rel=1e-5)
    assert np.array_equal(smoothed(guide, values, np.array([0.0]), window=1, similar=3)[0, 1], values[0, 1])


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_holes_stay_holes_and_reach_no_other_pixel(seed: int) -> None:
    s2, then = fields(seed)
    landsat = degrade(then)
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, 20, 2)
    s2[rng.integers(6), y : y + 11, x : x + 7] = np.nan
    landsat[rng.integers(6), rng.integers(12) :, 4:6] = np.nan
    known = np.isfinite(s2).all(0) & np.isfinite(spread(landsat)).all(0)
    got = fsdaf(s2, landsat)
    assert np.array_equal(np.isfinite(got), np.broadcast_to(known, got.shape))
    # nothing invented: a uniform change is followed beside a hole as well
    coarse = np.where(np.isfinite(landsat), degrade(np.nan_to_num(s2, nan=0.2)) + np.float32(0.03), np.nan)
    whole = known & np.isfinite(spread(cell_mean_of(s2)))
    assert abs(fsdaf(np.where(whole, s2, np.nan), coarse) - s2 - np.float32(0.03))[:, whole].max() < 1e-6


def cell_mean_of(s2: np.ndarray) -> np.ndarray:
    """(h,w) NaN where a cell is not wholly known."""
    return degrade(s2).sum(0)


def test_cells_known_in_part_are_predicted_from_what_is_known() -> None:
    s2, then = fields(6)
    landsat = degrade(then)
    s2[:, ::3, ::3] = np.nan  # no cell is whole
    got = fsdaf(s2, landsat)
    known = np.isfinite(s2[0])
    assert np.isfinite(got[:, known]).all()
    error, before = (np.sqrt(np.mean((image - then)[:, known] ** 2)) for image in (got, s2))
    assert error < 0.6 * before


@pytest.mark.parametrize("which", ["s2", "landsat", "apart"])
def test_without_data_there_is_no_result(which: str) -> None:
    s2, then = fields(2)
    landsat = degrade(then)
    if which != "landsat":
        s2[:, : 18 if which == "apart" else 36] = np.nan
    if which != "s2":
        landsat[:, 6 if which == "apart" else 0 :] = np.nan
    got = fsdaf(s2, landsat)
    assert got.shape == s2.shape
    assert got.dtype == np.float32
    assert np.isnan(got).all()


@pytest.mark.parametrize("level", [0.0, -0.01, 0.2])
def test_a_constant_image_becomes_what_landsat_sees(level: float) -> None:
    s2 = np.full((6, 18, 24), level, np.float32)
    assert abs(fsdaf(s2, np.full((6, 6, 8), 0.25, np.float32)) - np.float32(0.25)).max() < 1e-6
    landsat = np.random.default_rng(0).uniform(0.1, 0.4, (6, 6, 8)).astype(np.float32)
    assert abs(degrade(fsdaf(s2, landsat)) - landsat).max() < 0.1


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 5), (3, 2, 2), (6, 9, 2)])
def test_images_of_a_few_cells_and_any_number_of_bands(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    landsat = rng.uniform(0.1, 0.4, shape).astype(np.float32)
    s2 = rng.uniform(0.1, 0.4, (shape[0], 3 * shape[1], 3 * shape[2])).astype(np.float32)
    assert np.isfinite(fsdaf(s2, landsat)).all()


def test_threads_change_no_bit_and_inputs_stay_as_they_are() -> None:
    s2, then = fields(9, side=60)
    landsat, pan = degrade(then), np.full((1, 40, 40), 0.2, np.float32)
    s2[:, 3:9, 3:9] = np.nan
    kept = s2.copy(), landsat.copy(), pan.copy()
    s2.flags.writeable = landsat.flags.writeable = pan.flags.writeable = False
    one, two = (fsdaf(s2, landsat, pan, threads=n) for n in (1, 2))
    assert np.array_equal(one, two, equal_nan=True)
    assert np.array_equal(one, fsdaf(s2, landsat), equal_nan=True)
    for before, after in zip(kept, (s2, landsat, pan), strict=True):
        assert np.array_equal(before, after, equal_nan=True)
    assert not np.shares_memory(one, s2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": 0},
        {"window": 0},
        {"similar": 0},
        {"pure": 0},
        {"threads": -1},
        {"heaviest": 0.0},
        {"homogeneity": -1},
        {"valid": (1.0, 0.0)},
        {"quantiles": (0.6, 0.9)},
    ],
)
def test_parameters_out_of_range_are_named(wrong: dict[str, object]) -> None:
    s2, then = fields(1)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        fsdaf(s2, degrade(then), **wrong)  # type: ignore[arg-type]


def test_shapes_that_do_not_nest_are_refused() -> None:
    s2, _ = fields(1)
    with pytest.raises(ValueError, match="not 3 times"):
        fsdaf(s2, np.zeros((6, 11, 12), np.float32))


@pytest.mark.shared
def test_on_the_real_pairs_it_beats_both_its_sources(shared: Path) -> None:
    """Over all pairs together; single pairs are printed, as measured."""
    methods = {"fsdaf": fsdaf, "bicubic": bicubic, "copy": copy}
    squares: dict[str, list[float]] = {name: [] for name in methods}
    for title, view in flanders.scenes(flanders.read(shared / "data")).items():
        scored = view.seen & np.isfinite(view.s2).all(0)
        made = {name: f(view.s2, view.landsat) for name, f in methods.items()}
        assert np.array_equal(np.isfinite(made["fsdaf"]).all(0), scored)
        # bicubic loses pixels beside holes, and is spared them
        scored &= np.isfinite(made["bicubic"]).all(0)
        for name, image in made.items():
            squares[name].append(float(np.mean((image - view.truth)[:, scored] ** 2)))
        print(title, {name: round(math.sqrt(values[-1]), 4) for name, values in squares.items()})
    pooled = {name: math.sqrt(np.mean(values)) for name, values in squares.items()}
    print("all", {name: round(value, 4) for name, value in pooled.items()})
    assert pooled["fsdaf"] < min(pooled["bicubic"], pooled["copy"])
