"""Tables of a comparison: in the shape of the paper's Tables 2 and 3 as Markdown, and every record as CSV and Parquet.

A table is built once, as cells that know their standing; `markdown` and the report's page only write it down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from marstfn.bands import BANDS
from marstfn.measures import ALL, CHANGED, MEASURES, PARTS, UNCHANGED
from marstfn.scoring import AVERAGE, POOLED, Difference, Record, Scores, Standing
from pipeline.errors import StoreError

PAPER = ("psnr", "psnr_truth", "ssim", "rmse")
"""Measures of the paper's tables, PSNR by both definitions."""
FURTHER = ("r2", "sam", "ergas", "coherence", "ndvi")
LEAD = "rmse"
"""The measure by which methods are ranked."""
NOTHING = "—"
TIED = "≈"
MINUS = "−"

PART_NAMES = {ALL: "all scored pixels", CHANGED: "changed", UNCHANGED: "unchanged"}


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    standing: Standing = ""
    note: str = ""
    """What a reader sees who points at it: the interval of its difference to the best."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`head` and `rows` of equal length; the first `labels` columns name the row."""

    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int = 1


@dataclass(frozen=True, slots=True)
class Printed:
    """A table as a paper prints it, for a reader to hold beside: by measure one row a date, the average last."""

    title: str
    methods: tuple[str, ...]
    values: Mapping[str, Sequence[Sequence[float]]]
    note: str = ""
    headings: Mapping[str, str] = field(default_factory=dict)
    """By measure, what it is called where that is not what it is called here."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One method of a group: its place (methods tied with the best share the first) and differences in LEAD."""

    place: int
    method: str
    cells: tuple[Cell, ...]
    to_best: Difference | None
    to_chosen: Difference | None
    tied: bool


def number(value: float, digits: int) -> str:
    """An em dash where it is undefined."""
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int) -> str:
    return NOTHING if math.isnan(value) else f"{value:+.{digits}f}".replace("-", MINUS)


def between(d: Difference) -> str:
    """The difference with its interval, for a reader."""
    digits = MEASURES[d.measure].digits + 1
    return f"{signed(d.estimate, digits)} ({signed(d.low, digits)} to {signed(d.high, digits)})"


def of_group(scores: Scores, group: str) -> tuple[Table, ...]:
    """Every table of a group, the paper's first."""
    return (
        by_date(scores, group, PAPER, "As the paper's tables"),
        by_date(scores, group, FURTHER, "Further measures"),
        by_part(scores, group),
        by_band(scores, group),
        cost(scores, group),
    )


def by_date(scores: Scores, group: str, measures: Sequence[str], title: str) -> Table:
    """Methods as columns, one row a date and an average row, measure under measure."""
    methods = scores.methods(group)
    rows = []
    for key in measures:
        cases = [r.name for r in scores.rows_of(group)]
        for case in [*cases, AVERAGE]:
            label = Cell(_heading(key)) if case == cases[0] else Cell("")
            rows.append((label, Cell("Average" if case == AVERAGE else case), *_row(scores, group, case, key, methods)))
    caption = f"One row a date, all bands and scored pixels. {_MARKS}"
    return Table(title, caption, ("Evaluation", "Date", *methods), tuple(rows), 2)


def by_part(scores: Scores, group: str) -> Table:
    """Averages over changed and unchanged pixels."""
    methods = scores.methods(group)
    rows = []
    for key in ("rmse", "ssim", "sam", "coherence", "ndvi"):
        for part in PARTS:
            pixels = scores.record(group, AVERAGE, methods[0], part).pixels
            label = Cell(f"{PART_NAMES[part]} ({pixels} px)")
            first = Cell(_heading(key)) if part == ALL else Cell("")
            rows.append((first, label, *_row(scores, group, AVERAGE, key, methods, part)))
    caption = f"Average over dates. Changed: the truth is more than 0.02 away from the reference. {_MARKS}"
    return Table("Changed and unchanged pixels", caption, ("Evaluation", "Pixels", *methods), tuple(rows), 2)


def by_band(scores: Scores, group: str) -> Table:
    """Averages by band, and of all bands."""
    methods = scores.methods(group)
    rows = []
    for key in ("rmse", "psnr", "psnr_truth", "ssim", "r2", "coherence"):
        for band in (*BANDS, POOLED):
            first = Cell(_heading(key)) if band == BANDS[0] else Cell("")
            rows.append((first, Cell(band), *_row(scores, group, AVERAGE, key, methods, band=band)))
    caption = f"Average over dates, all scored pixels. {_MARKS}"
    return Table("By band", caption, ("Evaluation", "Band", *methods), tuple(rows), 2)


def cost(scores: Scores, group: str) -> Table:
    """Coverage and seconds by date."""
    methods = scores.methods(group)
    rows = []
    for key, heading, digits in (("coverage", "Coverage (share of the scored pixels)", 3), ("seconds", "Seconds", 2)):
        cases = [r.name for r in scores.rows_of(group)]
        for case in [*cases, AVERAGE]:
            label = Cell(heading) if case == cases[0] else Cell("")
            found = [scores.record(group, case, m) for m in methods]
            cells = [Cell(number(r.value(key), digits), note=r.reason, failed=bool(r.reason)) for r in found]
            rows.append((label, Cell("Average" if case == AVERAGE else case), *cells))
    caption = (
        "Coverage: what a method filled itself; the rest is scored as bicubic Landsat. "
        "Seconds: on the machine of this run, once, no contest."
    )
    return Table("Coverage and time", caption, ("Evaluation", "Date", *methods), tuple(rows), 2)


def ranking(scores: Scores, group: str) -> tuple[Rank, ...]:
    """Methods of a group by the average of LEAD, those tied with the best within the interval before the others: a
    small difference can be surer than a large one."""
    contest = (group, AVERAGE, ALL, POOLED, LEAD)

    def order(record: Record) -> tuple[bool, float]:
        value = record.value(LEAD)
        return scores.standing(contest, record.method) not in ("best", "tied"), math.inf if math.isnan(value) else value

    out = []
    found = sorted((scores.record(group, AVERAGE, m) for m in scores.methods(group)), key=order)
    for position, record in enumerate(found, 1):
        method = record.method
        tied = scores.standing(contest, method) == "tied"
        cells = tuple(_row(scores, group, AVERAGE, key, (method,))[0] for key in _RANKED)
        cells += (Cell(number(record.coverage, 3)), Cell(number(record.seconds, 2)))
        to_best, to_chosen = scores.to_best(contest, method), scores.to_chosen(contest, method)
        out.append(Rank(1 if tied else position, method, cells, to_best, to_chosen, tied))
    return tuple(out)


_RANKED = (LEAD, *(k for k in (*PAPER, *FURTHER) if k != LEAD))
_SHORT = {"psnr": "PSNR", "psnr_truth": "PSNR, truth's MAX", "coherence": "coherence"}
RANKING_HEAD = (*(_SHORT.get(k, MEASURES[k].title) for k in _RANKED), "coverage", "seconds")


def in_words(scores: Scores, group: str) -> str:
    """The outcome of a group in a few sentences."""
    ranks = ranking(scores, group)
    dates = len(scores.rows_of(group))
    on = f"On {dates} dates" if dates > 1 else "On one date"
    first, rest = ranks[0], ranks[1:]
    lost = [r for r in scores.failures if r.group == group and r.method in scores.methods(group)]
    if len(lost) == len(ranks) * dates:
        return f"{on} no method made anything: {lost[0].method}: {lost[0].reason}."
    if first.cells[0].text == NOTHING:
        return f"{on} no pixel could be scored: Landsat or the truth is hidden everywhere."
    digits = MEASURES[LEAD].digits
    lead = number(scores.record(group, AVERAGE, first.method).value(LEAD), digits)
    if not rest:
        return f"{on} {first.method} alone took part: RMSE {lead}."
    text = f"{on}, {first.method} comes nearest to the truth: RMSE {lead} on average."
    tied, worse = [r.method for r in rest if r.tied], [r.method for r in rest if not r.tied]
    if tied:
        verb = "is" if len(tied) == 1 else "are"
        text += f" {_listed(tied)} {verb} tied with it: the interval of the difference holds 0."
    if worse:
        text += f" {_listed(worse)} {'is' if len(worse) == 1 else 'are'} worse beyond the interval."
    if dates == 1:
        text += " With one date, the intervals speak of that date alone."
    return text


def against_chosen(scores: Scores, group: str) -> Table | None:
    """Paired differences of every method to the chosen one; None where it took no part."""
    methods = scores.methods(group)
    if scores.chosen not in methods:
        return None
    keys = (*PAPER, *FURTHER)
    rows = []
    for method in methods:
        if method == scores.chosen:
            continue
        found = [scores.to_chosen((group, AVERAGE, ALL, POOLED, key), method) for key in keys]
        rows.append((Cell(method), *(Cell(NOTHING) if d is None else Cell(f"{between(d)} {d.verdict}") for d in found)))
    head = (f"minus {scores.chosen}", *(_heading(k) for k in keys))
    caption = "Average over dates, with 95 % intervals; better, worse or tie is said of the method named by the row."
    return Table(f"Every method against {scores.chosen}", caption, head, tuple(rows)) if rows else None


def as_printed(printed: Printed) -> Table:
    """A printed table in the shape of `by_date`, its best values marked; ties are not known."""
    rows = []
    for key, values in printed.values.items():
        measure = MEASURES[key]
        for k, row in enumerate(values):
            best = min(row) if measure.less_is_better else max(row)
            label = "Average" if k == len(values) - 1 else str(k + 1)
            first = Cell(printed.headings.get(key, _heading(key)) if k == 0 else "")
            cells = [Cell(number(v, measure.digits), "best" if v == best else "") for v in row]
            rows.append((first, Cell(label), *cells))
    caption = printed.note or "As printed: other data or other pixels, held beside and not equal."
    return Table(printed.title, caption, ("Evaluation", "Date", *printed.methods), tuple(rows), 2)


def failures(scores: Scores) -> Table | None:
    rows = [(Cell(r.group), Cell(r.case), Cell(r.method), Cell(r.reason)) for r in scores.failures]
    caption = "Scored as bicubic Landsat there, with coverage 0."
    return (
        Table("Methods that failed", caption, ("Group", "Date", "Method", "Reason"), tuple(rows), 3) if rows else None
    )


def markdown(
    scores: Scores, title: str, printed: Mapping[str, Sequence[Printed]] | None = None, about: Iterable[str] = ()
) -> str:
    """All tables; the best of a row in bold, and every method tied with it in bold and marked."""
    parts = [f"# {_plain(title)}", *about]
    for group in scores.groups:
        parts += [f"## {_plain(group)}", source(scores, group), _plain(in_words(scores, group))]
        parts.append(_written(_ranked(scores, group)))
        chosen = against_chosen(scores, group)
        beside = [as_printed(p) for p in (printed or {}).get(group, ())]
        for table in (chosen, *of_group(scores, group), *beside):
            if table is not None:
                parts.append(_written(table))
    failed = failures(scores)
    if failed is not None:
        parts.append(_written(failed))
    parts.append("## What is measured")
    parts.append("\n".join(f"* **{m.title}** ({m.unit}): {m.meaning}" for m in MEASURES.values()))
    return "\n\n".join(parts) + "\n"


def source(scores: Scores, group: str) -> str:
    """Whose data a group is, and whether it is simulated."""
    rows = scores.rows_of(group)
    data = "; ".join(dict.fromkeys(r.data for r in rows))
    simulated = sum(r.simulated for r in rows)
    if not simulated:
        return f"Data: {data}"
    return f"**Simulated**. Data: {data}" if simulated == len(rows) else f"**Partly simulated**. Data: {data}"


def records(scores: Scores) -> pa.Table:
    """One row a group, date (or average), method, part and band; null where undefined. Units and definitions are in
    the metadata of the columns."""
    texts = ("group", "case", "method", "part", "band")
    columns: dict[str, tuple[pa.DataType, list[object], str, str]] = {
        name: (pa.string(), [getattr(r, name) for r in scores.records], "", "") for name in texts
    }
    columns["pixels"] = (pa.int64(), [r.pixels for r in scores.records], "1", "scored pixels of 10 m")
    for key, m in MEASURES.items():
        columns[m.column] = (pa.float64(), [_null(r.value(key)) for r in scores.records], m.unit, m.meaning)
    columns["coverage"] = (
        pa.float64(),
        [_null(r.coverage) for r in scores.records],
        "1",
        "share of the scored pixels that the method filled itself; the others are scored as bicubic Landsat",
    )
    columns["seconds"] = (pa.float64(), [_null(r.seconds) for r in scores.records], "s", "wall time of the method")
    columns["simulated"] = (pa.bool_(), [r.simulated for r in scores.records], "", "whether the data are simulated")
    columns["data"] = (pa.string(), [r.data for r in scores.records], "", "whose data they are")
    columns["reason"] = (pa.string(), [r.reason for r in scores.records], "", "why the method failed, if it did")
    return _arrow(columns)


def paired(scores: Scores) -> pa.Table:
    """One row a paired difference with its 95 % interval."""
    texts = ("group", "case", "part", "band", "measure", "method", "other", "against", "verdict")
    columns: dict[str, tuple[pa.DataType, list[object], str, str]] = {
        name: (pa.string(), [getattr(d, name) for d in scores.differences], "", "") for name in texts
    }
    units = [MEASURES[d.measure].unit for d in scores.differences]
    columns["unit"] = (pa.string(), list(units), "", "of estimate, low and high")
    for name, meaning in (
        ("estimate", "score of method minus score of other"),
        ("low", "2.5 % quantile of the paired block bootstrap"),
        ("high", "97.5 % quantile of the paired block bootstrap"),
    ):
        columns[name] = (pa.float64(), [_null(getattr(d, name)) for d in scores.differences], "see unit", meaning)
    return _arrow(columns)


def write_files(folder: Path, scores: Scores, about: Mapping[str, str]) -> tuple[Path, ...]:
    """scores.csv, scores.parquet, differences.csv and differences.parquet; `about` goes into the Parquet's metadata.
    Raises StoreError where they cannot be written."""
    written = []
    try:
        for name, table in (("scores", records(scores)), ("differences", paired(scores))):
            pa_csv.write_csv(table, str(folder / f"{name}.csv"))
            told = {k.encode(): v.encode() for k, v in about.items()}
            pq.write_table(table.replace_schema_metadata(told), str(folder / f"{name}.parquet"))
            written += [folder / f"{name}.csv", folder / f"{name}.parquet"]
    except OSError as error:
        raise StoreError(f"cannot write tables to {folder}: {error}; choose another folder") from error
    return tuple(written)


_MARKS = (
    "Bold: the best of its row, and with ≈ every method whose paired difference to it holds 0 in its 95 % interval."
)


def _heading(key: str) -> str:
    measure = MEASURES[key]
    unit = "" if measure.unit == "1" else f" ({measure.unit})"
    return f"{measure.title}{unit} {'↓' if measure.less_is_better else '↑'}"


def _row(
    scores: Scores,
    group: str,
    case: str,
    key: str,
    methods: Sequence[str],
    part: str = ALL,
    band: str = POOLED,
) -> tuple[Cell, ...]:
    cells = []
    for method in methods:
        record = scores.record(group, case, method, part, band)
        place = (group, case, part, band, key)
        found = scores.to_best(place, method)
        note = "" if found is None else f"{between(found)} against {found.other}"
        if record.reason:
            note = f"{record.reason}. {note}" if note else record.reason
        text = number(record.value(key), MEASURES[key].digits)
        cells.append(Cell(text, scores.standing(place, method), note, bool(record.reason)))
    return tuple(cells)


def _ranked(scores: Scores, group: str) -> Table:
    """The ranking as a table of its own, with the interval that placed each method."""
    rows = []
    for rank in ranking(scores, group):
        to_best = "best" if rank.to_best is None else f"{between(rank.to_best)} {rank.to_best.verdict}"
        rows.append((Cell(str(rank.place)), Cell(rank.method), Cell(to_best), *rank.cells))
    head = ("Rank", "Method", "RMSE minus the best's (95 % interval)", *RANKING_HEAD)
    return Table("Ranking by RMSE", f"Average over dates. {_MARKS}", head, tuple(rows), 2)


def _written(table: Table) -> str:
    lines = [f"### {_plain(table.title)}", "", _plain(table.caption), ""]
    lines.append(f"| {' | '.join(_plain(h) for h in table.head)} |")
    lines.append("|---" * table.labels + "|--:" * (len(table.head) - table.labels) + "|")
    for row in table.rows:
        average = any(c.text == "Average" for c in row[: table.labels])
        cells = [f"*{c.text}*" if average and c.text == "Average" else _marked(c) for c in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _marked(cell: Cell) -> str:
    text = _plain(cell.text) + (" †" if cell.failed else "")
    if cell.standing == "best":
        return f"**{text}**"
    return f"**{text}** {TIED}" if cell.standing == "tied" else text


def _plain(text: str) -> str:
    """As Markdown shows it: a bar would end a cell, a line break the row."""
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _arrow(columns: Mapping[str, tuple[pa.DataType, list[object], str, str]]) -> pa.Table:
    fields, arrays = [], []
    for name, (kind, values, unit, meaning) in columns.items():
        told = {k: v for k, v in (("unit", unit), ("definition", meaning)) if v}
        fields.append(pa.field(name, kind, metadata=told or None))
        arrays.append(pa.array(values, kind))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
