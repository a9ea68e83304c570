"""What a sample holds: the arrays of the store, of the right days and the right ground, under either protocol."""

from __future__ import annotations

import shutil
from datetime import date

import numpy as np
import pytest

from marstfn import dataset
from marstfn.baselines import degrade
from pipeline import cube, harmonise, ledger, mining, split
from pipeline.encoding import unpack
from pipeline.mining import Lattice, Wanted
from pipeline.split import LANDSAT_ITSELF, SETS, Cut, Pick, Rule
from pipeline.store import INPUTS
from tests.pipeline import small_store

SAME = 5
"""Index of the Sentinel-2 day on which Landsat saw the ground as well, and of that Landsat day."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(store, plan, fits) of the small store; its Landsat needs no correction."""
    store, plan = small_store.write(tmp_path_factory.mktemp("mine"))
    return store, plan, harmonise.Harmonisation("none", False, ())


def stored(store, name):
    return unpack(np.stack([np.asarray(cube.array(store, INPUTS, f"{name}/{b}")[:]) for b in cube.BANDS], 1))


def days(plan, sensor):
    return [scene.day for scene in plan.of(sensor)]


def owned(plan, picks, *, all_of=0):
    """A cut by hand: every day belongs to `all_of`, the picks are its samples."""
    parts = [(), (), ()]
    parts[all_of] = tuple(picks)
    landsat, sentinel2 = ((all_of,) * len(plan.of(sensor)) for sensor in ("landsat8", "sentinel2"))
    return Cut(((all_of,),), ((0, 10**6, all_of),), landsat, sentinel2, tuple(parts))


def mined(made, lattice, picks, *, fresh=True, **rule):
    """The samples of the picks, in their order of files, and what each tile told."""
    store, plan, fits = made
    if fresh:
        shutil.rmtree(store.local / "training", ignore_errors=True)
    want = Wanted("test", lattice, Rule(lattice.protocol, **rule), owned(plan, picks))
    told = [mining.mine(plan, store, tile, fits, want) for tile in want.tiles(plan)]
    folder = store.local / "training" / "train"
    return (dataset.read(folder) if any(t.counts[0] for t in told) else None), told, want


def clear(plan, store, sensor):
    return np.asarray(cube.array(store, INPUTS, f"{sensor}/clear")[:]) == cube.CLEAR


def test_the_census_counts_clear_pixels(made):
    store, plan, _ = made
    lattice = Lattice(18, "cross-sensor")
    assert lattice.shape(plan) == (6, 6)  # 108 x 120 px
    found = [mining.census(plan, store, tile, lattice) for tile in plan.tiles]
    assert sorted(p for c in found for p in c.places) == [(r, c) for r in range(6) for c in range(6)]
    seen = mining.sight(plan, lattice, found)
    for sensor, side, shares in (("landsat8", 6, seen.landsat), ("sentinel2", 18, seen.sentinel2)):
        known = clear(plan, store, sensor)
        for row, col in [(0, 0), (1, 2), (5, 5), (2, 4)]:
            here = known[:, row * side : (row + 1) * side, col * side : (col + 1) * side].mean((1, 2))
            np.testing.assert_allclose(shares[row, col], here, atol=1e-6)
    assert seen.landsat.min() < 0.5 < seen.landsat.max()


def test_a_reduced_patch_covers_three_times_the_ground(made):
    _, plan, _ = made
    lattice = Lattice(12, "reduced")
    assert (lattice.side, lattice.shape(plan)) == (36, (3, 3))
    # patches lie on the plane, not on tiles: one may begin in a tile and end in the next
    assert [lattice.of(plan, tile) for tile in plan.tiles] == [
        [(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 2), (1, 2)], [(2, 0), (2, 1)], [(2, 2)]
    ]  # fmt: skip


def test_a_cross_sensor_sample_is_sentinel2_over_landsat_of_its_day(made):
    store, plan, _ = made
    landsat, sentinel2 = days(plan, "landsat8"), days(plan, "sentinel2")
    truth, when = sentinel2.index(date(2023, 5, 28)), landsat.index(date(2023, 5, 28))
    lattice = Lattice(18, "cross-sensor")
    samples, told, _ = mined(made, lattice, [Pick(3, 1, when, truth), Pick(3, 3, when, truth)])
    assert sum(t.counts[0] for t in told) == len(samples["truth"]) == 2
    fine, coarse = stored(store, "sentinel2"), stored(store, "landsat8")
    for k, col in enumerate((1, 3)):
        at = (slice(54, 72), slice(18 * col, 18 * col + 18))
        np.testing.assert_array_equal(samples["truth"][k], np.rint(fine[truth][:, *at] * 1e4))
        at30 = (slice(18, 24), slice(6 * col, 6 * col + 6))
        np.testing.assert_allclose(samples["landsat"][k], np.rint(coarse[when][:, *at30] * 1e4), atol=1)
        assert samples["scored"][k].all()
        # the nearest other days: 10 May (18 before) and 9 June (12 after), whole there
        before, after = (sentinel2.index(date(2023, *d)) for d in ((5, 10), (6, 9)))
        np.testing.assert_array_equal(samples["nearest"][k], np.rint(fine[after][:, *at] * 1e4))
        ages = samples["context"][k][6:].astype(float) * 1e-4
        np.testing.assert_allclose(ages[0], 18 / 60, atol=1e-4)
        np.testing.assert_allclose(ages[1], 12 / 60, atol=1e-4)
        step = fine[after][:, *at] - fine[before][:, *at]
        np.testing.assert_allclose(samples["context"][k][:6] * 1e-4, step, atol=1.1e-4)
        mixed = (12 * fine[before] + 18 * fine[after])[:, *at] / 30
        np.testing.assert_allclose(samples["between"][k] * 1e-4, mixed, atol=1.1e-4)


def test_a_reduced_sample_is_all_three_times_coarser(made):
    store, plan, _ = made
    lattice = Lattice(12, "reduced")
    samples, _, _ = mined(made, lattice, [Pick(1, 0, 4, LANDSAT_ITSELF)])
    coarse, fine = stored(store, "landsat8"), stored(store, "sentinel2")
    truth = coarse[4][:, 12:24, 0:12]
    assert samples["truth"].shape == (1, 6, 12, 12)
    np.testing.assert_array_equal(samples["truth"][0], np.rint(truth * 1e4))
    np.testing.assert_allclose(samples["landsat"][0], degrade(truth) * 1e4, atol=0.6)
    sentinel2, when = days(plan, "sentinel2"), days(plan, "landsat8")[4]
    nearest = min(range(len(sentinel2)), key=lambda j: (abs((sentinel2[j] - when).days), sentinel2[j] > when))
    expected = degrade(fine[nearest][:, 36:72, 0:36])
    np.testing.assert_allclose(samples["nearest"][0], expected * 1e4, atol=0.6)
    assert samples["pan"].shape == (1, 1, 8, 8)


def test_days_of_another_set_are_never_read(made):
    """The same sample, once with all days, once with only the far ones its own: the near ones leave no trace."""
    store, plan, fits = made
    lattice, pick = Lattice(18, "cross-sensor"), Pick(3, 1, 2, 5)
    sentinel2, when = days(plan, "sentinel2"), days(plan, "landsat8")[2]
    gaps = [abs((d - when).days) for d in sentinel2]
    mine = tuple(0 if gap > 30 or j == pick.truth else 1 for j, gap in enumerate(gaps))
    cut = owned(plan, [pick])
    cut = Cut(cut.places, cut.blocks, cut.landsat, mine, cut.picks)
    want = Wanted("other", lattice, Rule("cross-sensor", near=20), cut)
    for tile in want.tiles(plan):
        mining.mine(plan, store, tile, fits, want)
    ages = dataset.read(store.local / "training" / "train")["context"][0][6:] * 1e-4 * 60
    known = ages[ages < 59.9]
    assert known.size
    assert known.min() > 30


def test_what_is_hidden_is_filled_and_not_scored(made):
    store, plan, _ = made
    known = clear(plan, store, "landsat8")
    when, sentinel2 = days(plan, "landsat8"), days(plan, "sentinel2")
    cells = known[:, :36, :36].reshape(6, 6, 6, 6, 6).mean((2, 4))  # days, rows, px, columns, px
    day, row, col = (int(v) for v in np.argwhere((cells > 0.3) & (cells < 1))[0])
    truth = min(range(len(sentinel2)), key=lambda j: abs((sentinel2[j] - when[day]).days))
    samples, _, _ = mined(made, Lattice(18, "cross-sensor"), [Pick(row, col, day, truth)], near=366)
    hidden = np.kron(~known[day, row * 6 : row * 6 + 6, col * 6 : col * 6 + 6], np.ones((3, 3), bool))
    assert hidden.any()
    assert not samples["scored"][0][hidden].any()
    assert samples["scored"][0][~hidden].any()
    for name in dataset.FIELDS:
        assert (samples[name] > -9999).all(), name


def test_a_patch_whose_truth_is_another_thing_is_left_out(made):
    """Far apart in time Landsat and Sentinel-2 show other land: as cloud missed by a mask would."""
    store = made[0]
    fine, coarse = stored(store, "sentinel2")[0], stored(store, "landsat8")[3]
    places = [(row, col) for row in range(6) for col in range(6)]

    def difference(row, col):
        at = (slice(6 * row, 6 * row + 6), slice(6 * col, 6 * col + 6))
        return np.median(np.abs(degrade(fine) - coarse)[:, *at], axis=(1, 2)).max()

    far, near = max(places, key=lambda p: difference(*p)), min(places, key=lambda p: difference(*p))
    assert difference(*near) < mining.UNLIKE < difference(*far)
    _, told, _ = mined(made, Lattice(18, "cross-sensor"), [Pick(*far, 3, 0)], near=366)
    assert [(t.counts[0], t.unlike) for t in told] == [(0, 1)]
    record = ledger.read(store, "mine", told[0].tile)
    assert record.stats == {"samples": [0, 0, 0], "unlike": 1}


def test_mining_again_gives_the_same_files_and_removes_old_ones(made):
    store, _, _ = made
    lattice = Lattice(18, "cross-sensor")
    first, told, want = mined(made, lattice, [Pick(3, 1, 2, 5), Pick(3, 2, 2, 5)], near=20)
    again, _, _ = mined(made, lattice, [Pick(3, 1, 2, 5), Pick(3, 2, 2, 5)], near=20, fresh=False)
    assert all((first[name] == again[name]).all() for name in dataset.FIELDS)
    record = ledger.read(store, "mine", told[0].tile)
    assert record.fingerprint == mining.mine_fingerprint(want, next(iter(want.tiles(made[1]))))
    fewer, _, _ = mined(made, lattice, [Pick(3, 1, 2, 5)], near=20, fresh=False)
    assert len(fewer["truth"]) == 1
    assert not [p for name in SETS[1:] for p in (store.local / "training" / name).glob("*")]


def test_late_days_serve_only_where_no_other_does():
    before, after = mining.order([(0, 30), (1, 10), (2, -5), (3, -8)], [False, True, True, False])
    assert before == [(0, 30), (1, 10)]
    assert after == [(3, 8), (2, 5)]


def test_what_is_wanted_survives_the_store(made):
    store, plan, _ = made
    want = Wanted("x", Lattice(18, "reduced"), Rule("reduced", reach=30), owned(plan, [Pick(0, 0, 1, -1)]))
    mining.decide(store, want)
    assert mining.wanted(store) == want
    store.write(mining.WANTED, b"{}")
    with pytest.raises(mining.CubeError, match="delete it"):
        mining.wanted(store)
    assert split.as_dict(want.cut)["picks"][0] == [[0, 0, 1, -1]]
