"""The paper's tables beside one's own: every printed figure, by the name of a folder or as asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from marstfn import printed
from pipeline import beside, scoretables
from pipeline.beside import DATASETS, of_groups, tables


@pytest.mark.parametrize(("dataset", "number", "trials"), [("hailar", 2, 6), ("dezhou", 3, 5)])
def test_every_printed_figure_of_a_data_set_is_there(dataset: str, number: int, trials: int) -> None:
    fusion, ablation = tables(dataset)
    assert fusion.title == f"Table {number} of Cheng et al. (2024), {dataset.capitalize()}"
    assert ablation.title == f"Table 4 of Cheng et al. (2024), {dataset.capitalize()}"
    assert (fusion.methods, ablation.methods) == (printed.FUSION, printed.ABLATION)
    assert list(fusion.values) == ["psnr", "ssim", "rmse"]
    assert list(ablation.values) == ["ssim", "rmse"]
    ours = sorted(v for p in (fusion, ablation) for rows in p.values.values() for row in rows for v in row)
    own = [p for p in printed.TABLES if p.dataset.lower() == dataset]
    assert ours == sorted(v for p in own for row in (*p.trials, p.average) for v in row)
    shown = scoretables.as_printed(fusion)
    assert [r[1].text for r in shown.rows] == [*[str(k + 1) for k in range(trials)], "Average"] * 3
    assert [r[0].text for r in shown.rows if r[0].text] == ["PSNR as printed (dB) ↑", "SSIM ↑", "RMSE (reflectance) ↓"]
    assert [r[-1].standing for r in shown.rows if r[1].text == "Average"] == ["best"] * 3
    assert [r[1].text for r in scoretables.as_printed(ablation).rows] == ["Average"] * 2
    for table in (fusion, ablation):
        assert "equality is not to be expected" in table.note


def test_a_data_set_that_the_paper_has_not_is_none() -> None:
    with pytest.raises(KeyError, match="wuhan"):
        tables("wuhan")


def test_the_name_of_a_folder_says_which(tmp_path: Path) -> None:
    own, other = tmp_path / "My-Hailar-data", tmp_path / "meadow"
    own.mkdir()
    other.mkdir()
    groups = ("My-Hailar-data, the paper's protocol", "meadow, reduced resolution", "simulated")
    found = of_groups(groups, [str(own), str(other), "simulated", str(tmp_path / "dezhou")])
    assert dict(found) == {groups[0]: tables("hailar")}
    assert dict(of_groups(groups, [str(other)])) == {}
    # an area has the name, and is not the paper's data
    assert dict(of_groups(("hailar 2023, reduced resolution",), ["hailar"])) == {}
    assert dict(of_groups(groups, [str(own)], "dezhou")) == {g: tables("dezhou") for g in groups}
    assert [beside.named(f"/data/{name}_2019/") for name in DATASETS] == list(DATASETS)
