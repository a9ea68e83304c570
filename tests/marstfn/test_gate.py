"""The network gives way only where chance does not explain it, and the numbers of both halves are told."""

import numpy as np
import pytest

from marstfn import gate
from marstfn.gate import NAMES, QUARTERS, Cell

QUARTER = {date: QUARTERS[date // 4] for date in range(16)}


def cells(rmse: dict[str, float], dates=range(16), blocks: int = 8, noise: float = 0.0, seed: int = 0) -> list[Cell]:
    """Cells in which each method has about the RMSE said; `noise` is that of a whole date, as a share."""
    rng = np.random.default_rng(seed)
    found = []
    for date in dates:
        level = {name: np.exp(rng.normal(0, noise)) for name in NAMES} if noise else dict.fromkeys(NAMES, 1.0)
        for block in range(blocks):
            pixels = int(rng.integers(200, 576))
            errors = tuple(pixels * (rmse.get(n, 0.02) * level[n]) ** 2 * rng.uniform(0.9, 1.1) for n in NAMES)
            found.append(Cell(date, f"b{block}", pixels, errors))
    return found


def agreeing(found: list[Cell]) -> list[Cell]:
    """What Sentinel-2 of neighbouring days says where it says the same."""
    return [c for c in found if c.date % 2 == 0]


def test_a_rival_that_is_ahead_takes_over_and_the_best_of_several_does() -> None:
    found = cells({"network": 0.02, "additive": 0.015, "additive-linear": 0.012})
    year, *quarters = gate.verdicts(found, QUARTER, agreeing(found))
    assert [v.method for v in (year, *quarters)] == ["additive-linear"] * 5
    assert [v.season for v in quarters] == list(QUARTERS)
    assert year.decided is not None
    assert year.reported is not None
    assert year.decided.cells == year.reported.cells == 64
    for half in (year.decided, year.reported):
        assert half.rmse["additive-linear"] == pytest.approx(0.012, rel=0.03)
        assert half.against["additive"].excludes_zero
        assert not half.against["bicubic"].excludes_zero


def test_what_chance_explains_changes_nothing() -> None:
    """A few per cent ahead on the mean, with dates that differ by tens: the network stays."""
    found = cells({"network": 0.02, "additive": 0.0195}, noise=0.3)
    year = gate.verdicts(found, QUARTER)[0]
    assert year.method == "network"
    assert year.decided is not None
    assert not year.decided.against["additive"].excludes_zero


def test_by_chance_alone_the_default_hardly_ever_gives_way() -> None:
    lost = sum(gate.verdicts(cells({}, noise=0.2, seed=k), QUARTER)[0].method != "network" for k in range(60))
    print(f"equal methods: the default gave way in {lost} of 60")
    assert lost <= 6


def test_seasons_differ_and_those_with_too_little_follow_the_year() -> None:
    found = cells({"linear": 0.01}, range(4)) + cells({"bicubic": 0.01}, range(4, 12)) + cells({}, range(12, 14))
    year, *quarters = gate.verdicts(found, QUARTER, agreeing(found))
    assert [v.method for v in quarters[:3]] == ["linear", "bicubic", "bicubic"]
    assert quarters[3].method == year.method
    assert "too little" in quarters[3].reason
    assert quarters[3].decided is None
    assert gate.chosen((year, *quarters), QUARTERS[0]) == "linear"


def test_with_too_little_data_the_default_stays_and_says_so() -> None:
    for found in ([], cells({"additive": 0.001}, range(2)), cells({"additive": 0.001}, range(6), blocks=1)):
        year, *rest = gate.verdicts(found, QUARTER)
        assert {v.method for v in (year, *rest)} == {"network"}
        assert "too little to judge by: the default stays" in year.reason


def test_the_default_gives_way_only_where_sentinel_2_of_a_neighbouring_day_agrees() -> None:
    ahead = cells({"additive": 0.01, "linear": 0.015})
    assert gate.verdicts(ahead, QUARTER, agreeing(ahead))[0].method == "additive"
    alone = gate.verdicts(ahead, QUARTER)[0]
    assert alone.method == "network"
    assert "additive is ahead at reduced scale, but no Sentinel-2" in alone.reason
    against = cells({"additive": 0.03, "linear": 0.015}, range(0, 16, 5))
    split = gate.verdicts(ahead, QUARTER, against)[0]
    assert split.method == "linear"
    assert split.near[0] is not None
    assert split.near[0].rmse["additive"] == pytest.approx(0.03, rel=0.05)
    assert gate.verdicts(ahead, QUARTER, cells({"additive": 0.03, "linear": 0.03}, range(4)))[0].method == "network"
    # it gives the network away to nobody that the reduced scale does not favour
    assert gate.verdicts(cells({}), QUARTER, cells({"additive": 0.01}))[0].method == "network"


def test_halves_are_different_ground_and_the_same_every_time() -> None:
    found = cells({"additive": 0.018}, noise=0.1)
    assert gate.verdicts(found, QUARTER) == gate.verdicts(list(reversed(found)), QUARTER)
    bad = {c.block for c in found}
    half = gate.verdicts([c for c in found if c.block in sorted(bad)[:1]], QUARTER)[0]
    assert half.decided is None


def test_cells_leave_out_the_edge_of_the_patch_and_sum_what_is_scored() -> None:
    errors = [np.full((60, 60), k + 1, np.float32) for k in range(len(NAMES))]
    for e in errors:
        e[:10, :10] = np.nan
    found = gate.cells(3, "p", errors)
    assert [c.block for c in found] == ["p-0", "p-1", "p-2", "p-3"]
    assert [c.pixels for c in found] == [24 * 24 - 16, 576, 576, 576]
    assert found[1].errors == tuple(576.0 * (k + 1) for k in range(len(NAMES)))
    assert gate.cells(3, "p", [np.full((60, 60), np.nan, np.float32)] * len(NAMES)) == []
