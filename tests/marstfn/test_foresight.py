"""How often the choice at reduced scale is the right one at 10 m, on simulated land whose truth is known."""

import numpy as np
import pytest

from marstfn import foresight, gate
from marstfn.foresight import Case
from marstfn.gate import Half, Verdict


def made_up(coarse: dict[str, float], chosen: str, unchecked: str, fine: dict[str, float]) -> Case:
    half = Half(20, dict.fromkeys(gate.NAMES, 0.05) | coarse, {})
    full = dict.fromkeys(gate.NAMES, 0.05) | fine
    return Case(1, 4, Verdict("year", chosen, "", 4, half, half), unchecked, full, full)


def test_shares_count_what_was_chosen_against_what_was_best() -> None:
    cases = [
        made_up({"additive": 0.01}, "additive", "additive", {"additive": 0.012, "network": 0.02}),
        made_up({"additive": 0.01}, "network", "additive", {"additive": 0.03, "network": 0.02}),
        made_up({"linear": 0.01}, "linear", "linear", {"linear": 0.0301, "network": 0.03}),
        made_up({"linear": 0.01}, "linear", "linear", {"linear": 0.04, "network": 0.03}),
    ]
    found = foresight.shares(cases)
    assert found["foreseen"] == 0.5
    assert found["right"] == found["harmless"] == 0.75
    assert found["right unchecked"] == found["harmless unchecked"] == 0.5
    assert found["kept"] == 0.25
    assert found["RMSE gate"] == pytest.approx((0.012 + 0.02 + 0.0301 + 0.04) / 4)
    assert found["RMSE best"] == pytest.approx((0.012 + 0.02 + 0.03 + 0.03) / 4)
    assert foresight.markdown(cases).count("\n") == 5


def test_the_choice_on_simulated_land_is_scored_against_its_exact_truth() -> None:
    """One land of the benchmark (`python -m marstfn.foresight` runs twenty): the gate judges it by what a user has, and
    is judged by what only a simulation knows."""
    found = list(foresight.cases(range(8_000_000, 8_000_001), "marstfn-nopan", places=2, dates=3))
    assert len(found) == 1
    (case,) = found
    print(f"\n{foresight.markdown(found)}\n{foresight.shares(found)}")
    assert set(case.fine) == set(gate.NAMES)
    assert all(0.001 < error < 0.1 for error in case.fine.values())
    assert case.verdict.decided is not None
    assert case.verdict.decided.cells >= gate.LEAST_CELLS
    # at reduced scale Landsat's own errors are in the truth: what follows Landsat looks better there than it is
    decided = case.verdict.decided.rmse
    assert decided["additive"] / decided["linear"] < case.fine["additive"] / case.fine["linear"]
    assert np.isfinite(list(decided.values())).all()
