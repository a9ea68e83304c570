"""Samples look like what the pipeline hands over, follow from their seed and survive storage."""

from pathlib import Path

import numpy as np
import pytest

from marstfn import dataset, metrics
from marstfn.baselines import degrade
from marstfn.reference import Reference
from marstfn.scenes import adjusted
from marstfn.series import Series, read


def series() -> tuple[Series, ...]:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.05, 0.2, (6, 100, 100)).astype(np.float32)
    dates = np.stack([base, base + 0.1, base + 0.3]).astype(np.float32)
    return (Series("made up", dates, np.array([0, 30, 300])), Series("one date", base[None], None))


def check(sample: dataset.Sample, patch: int = 60) -> None:
    assert sample.nearest.shape == sample.between.shape == sample.truth.shape == (6, patch, patch)
    assert sample.context.shape == (8, patch, patch)
    assert (sample.context[6:] >= 0).all()
    assert (sample.context[6:] <= 1).all()
    assert sample.landsat.shape == (6, patch // 3, patch // 3)
    assert sample.pan.shape == (1, patch * 2 // 3, patch * 2 // 3)
    assert sample.scored.shape == (patch, patch)
    assert sample.scored.dtype == bool
    for array in (sample.nearest, sample.between, sample.context, sample.landsat, sample.pan, sample.truth):
        assert np.isfinite(array).all()
    for array in (sample.nearest, sample.between, sample.landsat, sample.pan, sample.truth):
        assert -0.2 < array.mean() < 1.0


def test_real_samples_are_whole_and_follow_from_the_seed() -> None:
    for seed in range(6):
        first, again = (dataset.from_series(series(), np.random.default_rng(seed)) for _ in range(2))
        check(first)
        for field in dataset.FIELDS:
            assert np.array_equal(getattr(first, field), getattr(again, field))


def test_references_are_within_sixty_days_of_the_date() -> None:
    """The third date of the made-up series is 0.3 brighter, and 270 days away: it never meets the others."""
    for seed in range(30):
        sample = dataset.from_series(series()[:1], np.random.default_rng(seed))
        assert abs(np.median(sample.truth) - np.median(sample.nearest)) < 0.16


def test_landsat_sees_the_truth_not_the_reference() -> None:
    gaps = []
    for seed in range(20):
        sample = dataset.from_series(series()[:1], np.random.default_rng(seed))
        coarse = degrade(sample.truth).mean((1, 2))
        gaps.append(np.abs(sample.landsat.mean((1, 2)) - coarse).mean())
    assert np.median(gaps) < 0.02


def test_holes_are_filled_and_those_of_landsat_are_not_scored() -> None:
    s2 = np.full((6, 12, 12), 0.3, np.float32)
    coarse, pan = np.full((6, 4, 4), 0.1, np.float32), np.full((1, 8, 8), 0.2, np.float32)
    s2[:, :3, :3] = np.nan
    coarse[:, 3, 3] = np.nan
    sample = dataset.finish(Reference.single(s2, 5), coarse, pan, np.full((6, 12, 12), 0.25, np.float32))
    for filled in (sample.nearest, sample.between):
        assert np.allclose(filled[:, :3, :3], 0.1, atol=0.02)
    assert np.allclose(sample.context[6, 3:], 5 / 60)
    assert (sample.context[6, :3, :3] == 1).all()
    assert np.allclose(sample.landsat[:, 3, 3], 0.3)
    assert not sample.scored[9:, 9:].any()
    assert sample.scored.sum() == 144 - 9


def test_invented_change_moves_some_parcels_and_keeps_others() -> None:
    image = np.random.default_rng(5).uniform(0.05, 0.5, (6, 84, 84)).astype(np.float32)
    other, gone = dataset.invent_change(image, (20.0, np.inf), np.random.default_rng(6))
    assert np.isnan(gone).all()
    ratio = np.round(other / image, 3)[0]
    _, counts = np.unique(ratio, return_counts=True)
    kept = counts.max() / ratio.size  # ground that kept its colour has the season's factor, the same everywhere
    assert 0.05 < kept < 0.95
    assert (other > 0).all()


def make(seed: int) -> list[dataset.Sample]:
    return [dataset.from_series(series(), np.random.default_rng(seed)) for _ in range(2)]


def test_generated_files_are_kept_read_in_order_and_stored_to_a_ten_thousandth(tmp_path: Path) -> None:
    paths = list(dataset.generate(tmp_path, make, range(3), name="x", processes=2))
    assert [p.name for p in paths] == ["x-000000.npz", "x-000001.npz", "x-000002.npz"]
    stamps = [p.stat().st_mtime_ns for p in paths]
    assert list(dataset.generate(tmp_path, make, range(3), name="x", processes=1)) == []
    assert [p.stat().st_mtime_ns for p in paths] == stamps
    stored = dataset.read(tmp_path)
    assert {name: array.dtype for name, array in stored.items()} == {
        "nearest": np.int16,
        "between": np.int16,
        "context": np.int16,
        "landsat": np.int16,
        "pan": np.int16,
        "truth": np.int16,
        "scored": bool,
    }
    assert len(stored["truth"]) == 6
    assert np.abs(stored["truth"][2] * 1e-4 - make(1)[0].truth).max() <= 0.5e-4 + 1e-7
    before = dataset.digest(tmp_path)
    list(dataset.generate(tmp_path, make, range(3, 4), name="x", processes=1))
    assert dataset.digest(tmp_path) != before


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"marstfn\.train samples"):
        dataset.read(tmp_path)


def test_a_simulated_land_gives_samples_whose_landsat_fits_its_truth() -> None:
    samples = dataset.from_simulation(1, side=120, count=4)
    assert len(samples) >= 4
    for sample in samples:
        check(sample)
        assert sample.scored.mean() >= 0.5
    again = dataset.from_simulation(1, side=120, count=4)
    assert np.array_equal(samples[0].nearest, again[0].nearest)
    correlation = [
        np.corrcoef(degrade(s.truth)[3].ravel(), s.landsat[3].ravel())[0, 1] for s in samples if s.scored.all()
    ]
    assert np.median(correlation) > 0.9


def test_the_linear_check_undoes_gain_and_offset_under_change() -> None:
    rng = np.random.default_rng(7)
    parcels = np.kron(rng.uniform(0.05, 0.4, (6, 10, 10)), np.ones((1, 6, 6)))
    truth = (parcels + rng.normal(0, 0.01, parcels.shape)).astype(np.float32)
    reference = truth.copy()
    reference[:, :30, :20] += 0.15  # a fifth of the ground has changed
    clean = degrade(truth)
    seen = (clean - 0.01) / 1.05
    fixed = adjusted(seen.astype(np.float32), reference)
    assert metrics.rmse(fixed, clean) < 0.2 * metrics.rmse(seen, clean)


def test_the_linear_check_refuses_what_is_beyond_its_bounds() -> None:
    rng = np.random.default_rng(8)
    truth = rng.uniform(0.05, 0.4, (6, 60, 60)).astype(np.float32)
    far = (degrade(truth) * 2).astype(np.float32)
    assert np.array_equal(adjusted(far, truth), far)
    unlike = rng.uniform(0.05, 0.4, (6, 20, 20)).astype(np.float32)
    assert np.array_equal(adjusted(unlike, truth), unlike)
    assert np.array_equal(adjusted(degrade(truth), np.full_like(truth, np.nan)), degrade(truth))


@pytest.mark.shared
def test_real_series_hold_what_they_should_and_no_flanders(shared: Path) -> None:
    places = read(shared / "data")
    assert {p.name for p in places} == {"brabant", "hesbaye", "slovenia", "oresund", "csmask"}
    for place in places:
        assert place.s2.shape[1] == 6
        assert np.isfinite(place.s2).all()
        nir, red = place.s2[:, 3].mean(), place.s2[:, 2].mean()
        assert nir > red
    brabant = next(p for p in places if p.name == "brabant")
    assert len(brabant.s2) >= 20
    # the 20 m bands were a row too far south: after the shift they match the 10 m bands best without another one
    red, swir = brabant.s2[:, 2], brabant.s2[:, 4]
    fits = [
        np.mean(
            [np.corrcoef(r[2:-2].ravel(), np.roll(s, k, 0)[2:-2].ravel())[0, 1] for r, s in zip(red, swir, strict=True)]
        )
        for k in (-1, 0, 1)
    ]
    assert np.argmax(np.abs(fits)) == 1
