"""The tables of the comparison, and the real place at reduced resolution."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from marstfn import evaluate
from marstfn.reference import Reference
from marstfn.scenes import Scene
from pipeline import india, report


def made_up(side: int = 60) -> Scene:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.05, 0.3, (6, side, side)).astype(np.float32)
    coarse = truth.reshape(6, side // 3, 3, side // 3, 3).mean((2, 4)).astype(np.float32)
    s2 = truth + rng.normal(0, 0.02, truth.shape).astype(np.float32)
    pan = coarse[:1].repeat(2, 1).repeat(2, 2)
    return Scene(datetime(2020, 6, 1, tzinfo=UTC), Reference.single(s2, 3), coarse, pan, truth)


def test_tables_are_markdown() -> None:
    methods = evaluate.baselines() | {"marstfn-nopan": evaluate.network("marstfn-nopan")}
    text = report.section([made_up(side=60)], methods, "marstfn-nopan", names=("one",))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    assert any(line.startswith("| additive-linear |") for line in rows)
    assert "**" in text


@pytest.mark.shared
def test_pan_lies_where_the_bands_are_on_the_real_place(shared: Path) -> None:
    found = india.scenes(shared / "data")
    assert len(found) == 2
    for view in found.values():
        assert view.truth.shape == (6, 162, 162)
        assert view.pan.shape == (1, 108, 108)
        assert 0.9 < view.seen.mean() <= 1
        visible = view.landsat[:3].mean(0)
        pan = view.pan[0].reshape(54, 2, 54, 2).mean((1, 3))
        fits = {k: np.corrcoef(np.roll(pan, k, (0, 1))[2:-2, 2:-2].ravel(), visible[2:-2, 2:-2].ravel())[0, 1]
                for k in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))}  # fmt: skip
        assert max(fits, key=lambda k: fits[k]) == (0, 0)
        assert fits[0, 0] > 0.8


@pytest.mark.shared
def test_half_a_set_is_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="india-l8-pan does not hold"):
        india.scenes(tmp_path)
