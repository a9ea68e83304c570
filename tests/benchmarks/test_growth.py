"""What an old process is compared with, and that only what it alone gains is growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import growth, slopes


def test_a_pace_that_an_old_and_a_young_process_share_is_no_growth_and_what_only_the_old_one_gains_is() -> None:
    rng = np.random.default_rng(1)
    pace = 1 + 0.3 * np.sin(np.linspace(0, 5, 400)) + np.linspace(0, 0.4, 400)
    taken = 100 * pace * rng.normal(1, 0.05, (2, 2, 400))  # round, old and young, tile
    taken[:, 0] *= [[1.05], [0.98]]  # one process is a little slower than another from the beginning
    taken[:, 0, ::37] *= 4
    assert not slopes.trend(taken[0, 0]).flat
    flat = growth.ageing(taken, 40)
    assert flat.flat
    assert flat.high - flat.low < 0.1
    taken[:, 0] *= np.linspace(1, 1.1, 400)
    slower = growth.ageing(taken, 40)
    assert not slower.flat
    assert slower.gain == pytest.approx(0.1, rel=0.3)


def test_a_process_beside_is_a_new_one_after_so_many_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = []
    original = growth._process

    def counted(folder: Path, *others: Any) -> Any:
        began.append(folder.name)
        return original(folder, *others)

    monkeypatch.setattr(growth, "_process", counted)
    old, young = growth.beside(tmp_path, "ingest", np.arange(4), growth.Ages(2, settled=2, young=3))
    assert began == ["old", "young", "young"]
    assert old.shape == young.shape == (4, 2)
    assert (old > 0).all()
    assert (young > 0).all()
    for name in ("old", "young"):
        records = list((tmp_path / name / "store").rglob("ledger/**/*.json"))
        assert len(records) == 4, f"each of the 4 tiles is done in the store of the {name} process"
