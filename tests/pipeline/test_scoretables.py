"""Tables in the paper's shape: bold for the best and for what ties with it, files that read back as they were."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from marstfn.bands import BANDS
from marstfn.comparison import Case, Outcome
from marstfn.measures import ALL, MEASURES, PARTS
from marstfn.scoring import AVERAGE, POOLED, Scores, score
from pipeline import scoretables
from pipeline.errors import StoreError
from pipeline.scoretables import Cell, Printed
from tests.pipeline.comparisons import failing, made, two_groups


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score(two_groups(), chosen="good", draws=200)


def row(text: str, *start: str) -> list[str]:
    """Cells of the first Markdown row that begins so."""
    head = "| " + " | ".join(start) + " |"
    line = next(line for line in text.splitlines() if line.startswith(head))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_has_a_row_a_date_an_average_and_a_column_a_method(scores: Scores) -> None:
    table = scoretables.by_date(scores, "lands", scoretables.PAPER, "t")
    assert table.head == ("Evaluation", "Date", "good", "twin", "bad", "failing")
    dates = ["2020-06-01", "2020-07-01", "2020-08-01", "Average"]
    assert [r[1].text for r in table.rows] == dates * 4
    assert [r[0].text for r in table.rows if r[0].text] == [
        "PSNR, MAX = 1 (dB) ↑",
        "PSNR, MAX of the truth (dB) ↑",
        "SSIM ↑",
        "RMSE (reflectance) ↓",
    ]
    average = scores.record("lands", AVERAGE, "bad").rmse
    assert table.rows[-1][4].text == f"{average:.4f}"
    assert all(len(r) == len(table.head) for t in scoretables.of_group(scores, "lands") for r in t.rows)


def test_the_best_is_bold_and_so_is_what_ties_with_it(scores: Scores) -> None:
    contest = ("lands", AVERAGE, ALL, POOLED, "rmse")
    standings = {m: scores.standing(contest, m) for m in scores.methods("lands")}
    assert sorted((standings["good"], standings["twin"])) == ["best", "tied"]
    assert standings["bad"] == standings["failing"] == "behind"
    text = scoretables.markdown(scores, "Title")
    section = text[text.index("RMSE (reflectance)") :]
    cells = row(section, "", "*Average*")[2:]
    assert sorted(c.replace("*", "").split()[1:] for c in cells[:2]) == [[], ["≈"]]
    assert all(c.startswith("**") for c in cells[:2])
    assert not any("*" in c or "≈" in c for c in cells[2:])
    assert cells[3].endswith("†")


def test_ties_stand_first_even_behind_a_lower_error(scores: Scores) -> None:
    """The verdict is the interval's, so a sure small loss stands behind an unsure large one."""
    contest = ("lands", AVERAGE, ALL, POOLED, "rmse")
    best = scores.best(contest)
    changed = []
    for d in scores.differences:
        here = (d.group, d.case, d.part, d.band, d.measure) == contest and d.against == "best"
        says = {"bad": "tie", "failing": "worse"}.get(d.method, "worse")
        changed.append(replace(d, verdict=says) if here else d)
    turned = Scores(scores.records, tuple(changed), scores.rows, scores.chosen, scores.draws)
    ranks = scoretables.ranking(turned, "lands")
    assert [(r.place, r.method, r.tied) for r in ranks[:2]] == [(1, best, False), (1, "bad", True)]
    assert [r.place for r in ranks[2:]] == [3, 4]
    words = scoretables.in_words(turned, "lands")
    assert words.startswith(f"On 3 dates, {best} comes nearest to the truth: RMSE 0.01")
    assert "bad is tied with it" in words
    assert " are worse beyond the interval." in words


def test_what_is_undefined_is_a_dash() -> None:
    outcomes = made("flat", constant=True)
    scores = score(outcomes, draws=20)
    table = scoretables.by_date(scores, "flat", ("r2", "ergas"), "t")
    # a constant band leaves R2 undefined, not ERGAS
    values = {r[0].text or r[1].text: [c.text for c in r[2:]] for r in table.rows[:1]}
    assert values == {"R² ↑": ["—"] * 3}
    assert {c.standing for c in table.rows[0][2:]} == {""}
    assert "—" not in [c.text for c in table.rows[-1][2:]]
    assert "nan" not in scoretables.markdown(scores, "t").lower()


def test_a_failure_is_told_with_its_reason(scores: Scores) -> None:
    table = scoretables.failures(scores)
    assert table is not None
    assert [tuple(c.text for c in r) for r in table.rows] == [
        ("lands", "2020-07-01", "failing", "no class means | at\nall <b>")
    ]
    text = scoretables.markdown(scores, "t")
    assert "| lands | 2020-07-01 | failing | no class means \\| at all &lt;b> |" in text
    cost = scoretables.cost(scores, "lands")
    assert [c.text for c in cost.rows[1][2:]] == ["1.000", "1.000", "1.000", "0.000"]
    assert [c.failed for c in cost.rows[1][2:]] == [False, False, False, True]
    assert scoretables.failures(score(made("g"), draws=5)) is None


def test_every_row_of_markdown_has_the_cells_of_its_head(scores: Scores) -> None:
    text = scoretables.markdown(scores, "t | t")
    width = None
    for line in text.splitlines():
        if not line.startswith("|"):
            width = None
            continue
        cells = line.replace("\\|", "").count("|")
        width = width or cells
        assert cells == width, line
    assert text.count("**Simulated**") == 1
    assert all(m.title.replace("|", "\\|") in text or m.title in text for m in MEASURES.values())


def test_simulated_data_are_said_to_be(scores: Scores) -> None:
    assert scoretables.source(scores, "lands") == "**Simulated**. Data: simulator"
    assert scoretables.source(scores, "field") == "Data: a real field"


def test_a_printed_table_stands_beside(scores: Scores) -> None:
    printed = Printed(
        "Table 2", ("A", "B"), {"psnr": ((30.1, 31.0), (29.5, 30.2), (29.8, 30.6)), "rmse": ((0.03, 0.02),)}
    )
    table = scoretables.as_printed(printed)
    assert [r[1].text for r in table.rows] == ["1", "2", "Average", "Average"]
    assert table.rows[0][2:] == (Cell("30.10"), Cell("31.00", "best"))
    assert table.rows[3][2:] == (Cell("0.0300"), Cell("0.0200", "best"))
    text = scoretables.markdown(scores, "t", {"lands": (printed,)})
    assert "### Table 2" in text
    assert "### Table 2" not in scoretables.markdown(scores, "t", {"elsewhere": (printed,)})


def test_files_read_back_as_the_records(scores: Scores, tmp_path: Path) -> None:
    scoretables.write_files(tmp_path, scores, {"command": "marstfn evaluate", "weights": "ab12"})
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.num_rows == len(scores.records) == (4 * (3 + 1) + 3 * (1 + 1)) * len(PARTS) * (1 + len(BANDS))
    assert table.schema.metadata[b"command"] == b"marstfn evaluate"
    field = table.schema.field("rmse_reflectance")
    assert field.metadata[b"unit"] == b"reflectance"
    assert b"Root mean square" in field.metadata[b"definition"]
    rows = table.to_pylist()
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    assert len(told) == len(rows)
    for record, stored, text in zip(scores.records, rows, told, strict=True):
        for name in ("group", "case", "method", "part", "band", "reason", "data"):
            assert stored[name] == text[name] == getattr(record, name)
        for key, measure in MEASURES.items():
            value = record.value(key)
            if math.isnan(value):
                assert stored[measure.column] is None
                assert text[measure.column] == ""
            else:
                assert stored[measure.column] == value == float(text[measure.column])
    pairs = pq.read_table(tmp_path / "differences.parquet").to_pylist()
    assert len(pairs) == len(scores.differences)
    first = scores.differences[0]
    assert (pairs[0]["method"], pairs[0]["estimate"], pairs[0]["verdict"]) == (
        first.method,
        first.estimate,
        first.verdict,
    )
    assert {p["against"] for p in pairs} == {"best", "chosen"}


def test_a_folder_that_is_none_is_named(scores: Scores, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write tables"):
        scoretables.write_files(tmp_path / "missing", scores, {})


def test_one_method_alone_wins_nothing() -> None:
    held = two_groups()[0].case
    scores = score([Outcome(held, "only", np.asarray(held.view.truth), 0)], draws=5)
    assert scoretables.in_words(scores, "lands") == "On one date only alone took part: RMSE 0.0000."
    assert scoretables.against_chosen(scores, "lands") is None


def test_nothing_scored_is_said() -> None:
    held = two_groups()[0].case
    view = replace(held.view, landsat=np.full_like(held.view.landsat, np.nan))
    dark = Case("dark", "lands", view, "d", True)
    scores = score([Outcome(dark, m, np.asarray(view.truth), 0) for m in "ab"], draws=5)
    assert "no pixel could be scored" in scoretables.in_words(scores, "lands")
    assert failing(dark).reason
