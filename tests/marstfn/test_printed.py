"""The paper's tables against the paper, and against themselves."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from marstfn.printed import TABLES, Printed


@pytest.mark.shared
def test_every_figure_stands_in_the_paper_in_this_order(shared: Path) -> None:
    text = (shared / "PAPER.md").read_text()
    starts = [text.index(mark) for mark in ("**Table 2.**", "Evaluation\t\t\tMethod", "Data\tIndex", "Table 4. The")]
    for table, (begin, end) in zip((2, 3, 4), pairwise(starts), strict=True):
        printed = [float(v) for v in re.findall(r"(?<![\d.])\d{1,2}\.\d{4}(?!\d)", text[begin:end])]
        ours = [v for p in TABLES if p.table == table for row in (*p.trials, p.average) for v in row]
        assert ours == printed


@pytest.mark.parametrize("printed", [p for p in TABLES if p.trials], ids=lambda p: f"{p.dataset} {p.index}")
def test_averages_are_those_of_the_trials(printed: Printed) -> None:
    assert len(printed.trials) == {"Hailar": 6, "Dezhou": 5}[printed.dataset]
    assert {len(row) for row in (*printed.trials, printed.average)} == {5}
    # rounded figures of rounded figures
    np.testing.assert_allclose(np.mean(printed.trials, axis=0), printed.average, atol=1.01e-4)


def test_the_paper_marks_its_own_network_as_best_everywhere() -> None:
    assert len(TABLES) == 10
    assert {p.best for p in TABLES} == {"MARSTFN"}
