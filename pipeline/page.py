"""The report of a comparison: one HTML page that needs nothing beside it, its tables as files and its pictures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from marstfn.bands import FINE
from marstfn.comparison import Case, Outcome
from marstfn.measures import MEASURES
from marstfn.rows import Row
from marstfn.scoring import Scores, Scoring, by_case
from pipeline import figures, scoretables
from pipeline.errors import StoreError
from pipeline.pixels import Pixels
from pipeline.scoretables import Printed, Rank, Table

SPAN = 240
"""Width of the drawing of an interval, in its own units."""
EDGE = 8


@dataclass(frozen=True)
class About:
    """What the caller knows of a comparison and the outcomes do not say."""

    title: str
    command: str = ""
    """By which the report is made again."""
    notes: Sequence[str] = ()
    """Sentences for the top of the page: what was compared, and why."""
    methods: Mapping[str, str] = field(default_factory=dict)
    """One sentence a method."""
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    printed: Mapping[str, Sequence[Printed]] = field(default_factory=dict)
    """By group, the tables of a paper to hold beside."""
    chosen: str | None = None
    """The method against which all others are held, besides the best."""
    made: str = ""
    credits: str = ""


@dataclass(frozen=True)
class Picture:
    name: str
    alt: str
    caption: str
    png: bytes

    @property
    def source(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    @property
    def size(self) -> tuple[int, int]:
        with Image.open(io.BytesIO(self.png)) as image:
            return image.size

    @property
    def width(self) -> int:
        return self.size[0]

    @property
    def height(self) -> int:
        return self.size[1]


@dataclass(frozen=True)
class Shown:
    """A place in the ranking with its interval as it is drawn and said."""

    rank: Rank
    bar: tuple[float, float, float] | None
    said: str


@dataclass(frozen=True)
class CaseView:
    name: str
    note: str
    figures: tuple[Picture, ...]


@dataclass(frozen=True)
class GroupView:
    name: str
    anchor: str
    simulated: str
    words: str
    data: str
    extent: str
    ranks: tuple[Shown, ...]
    zero: float
    """Of the drawing of intervals: where no difference lies."""
    tables: tuple[Table, ...]
    printed: tuple[Table, ...]
    cases: tuple[CaseView, ...]
    scatter: Picture


class Findings:
    """What is left of cases once their images are gone: sums for the scores, pictures, and a sample of pixels.

    Pictures are drawn of one part of a date's scene, the first, and of the pixels of all.
    """

    def __init__(self, *, chosen: str | None = None, draws: int = 2000) -> None:
        self.scoring = Scoring(chosen=chosen, draws=draws)
        self.pictures: dict[str, dict[str, tuple[str, tuple[Picture, ...]]]] = {}
        """By group and row: the case that is shown, and its pictures."""
        self.pixels: dict[str, Pixels] = {}
        """By group."""
        self._cases: set[tuple[str, str]] = set()

    @property
    def cases(self) -> int:
        return len(self._cases)

    def holds(self, case: Case) -> bool:
        """Whether a case of that group and name was added."""
        return (case.group, case.name) in self._cases

    def add(self, made: Sequence[Outcome], methods: Iterable[str] = ()) -> None:
        """All outcomes of one case; ValueError as `Scoring.add`."""
        wanted = tuple(methods)
        self.scoring.add(made, wanted)
        case = made[0].case
        self.pixels.setdefault(case.group, Pixels()).add(made, wanted)
        rows = self.pictures.setdefault(case.group, {})
        if case.row not in rows:
            number = list(self.pictures).index(case.group) + 1
            name = f"{number:02d}-{_slug(case.group)}-{len(rows) + 1:02d}-{_slug(case.row)}"
            rows[case.row] = case.name, _of_case(case, made, name)
        self._cases.add((case.group, case.name))


def write(folder: str | Path, outcomes: Iterable[Outcome], about: About, *, draws: int = 2000) -> Path:
    """Score `outcomes` and write report.html, scores.md, scores and differences as .csv and .parquet, and
    figures/*.png into `folder`, which is made where it is missing; returns the page's path.

    Raises ValueError where there is nothing to score, StoreError where the folder cannot be written.
    """
    findings = Findings(chosen=about.chosen, draws=draws)
    for made, methods in by_case(outcomes):
        findings.add(made, methods)
    return lay_out(folder, findings.scoring.scores(), findings, about)


def lay_out(folder: str | Path, scores: Scores, findings: Findings, about: About) -> Path:
    """Write what `write` does out of `scores` that are there already."""
    target = Path(folder)
    groups = tuple(_group(scores, findings, group, k, about) for k, group in enumerate(scores.groups, 1))
    told = {"title": about.title, "command": about.command, **about.versions, **about.hashes}
    try:
        (target / "figures").mkdir(parents=True, exist_ok=True)
        for picture in _pictures(groups):
            (target / "figures" / f"{picture.name}.png").write_bytes(picture.png)
        text = scoretables.markdown(scores, about.title, about.printed, about.notes)
        (target / "scores.md").write_text(text, encoding="utf-8")
        scoretables.write_files(target, scores, told)
        page = target / "report.html"
        page.write_text(html(scores, groups, about), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write the report to {target}: {error}; choose another folder") from error
    return page


def html(scores: Scores, groups: Sequence[GroupView], about: About) -> str:
    """The page as text; every value is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = files("pipeline").joinpath("templates_html", "report.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        about=about,
        groups=groups,
        methods=tuple(dict.fromkeys(m for g in scores.groups for m in scores.methods(g))),
        dates=len(scores.rows),
        simulated=_simulated(scores.rows),
        failed=scoretables.failures(scores),
        measures=tuple(MEASURES.values()),
        ranking_head=scoretables.RANKING_HEAD,
        draws=scores.draws,
        span=SPAN,
    )


def _group(scores: Scores, findings: Findings, group: str, number: int, about: About) -> GroupView:
    rows = scores.rows_of(group)
    pixels = findings.pixels[group]
    scatter = Picture(
        f"{number:02d}-{_slug(group)}-scatter",
        f"Density of predicted against true reflectance by method and band, {group}",
        "Density of pixels (logarithmic), a row a method and a column a band, with the 1:1 line. R² is that of the "
        f"prediction itself over {figures.extent(pixels)} of all dates together, so it can differ from the average "
        "over dates above.",
        figures.scatter(pixels, group),
    )
    chosen = scoretables.against_chosen(scores, group)
    tables = scoretables.of_group(scores, group) + (() if chosen is None else (chosen,))
    return GroupView(
        group,
        f"group-{number}",
        _simulated(rows),
        scoretables.in_words(scores, group),
        "Data: " + "; ".join(dict.fromkeys(r.data for r in rows)),
        _extent(rows),
        *_shown(scoretables.ranking(scores, group)),
        tables,
        tuple(scoretables.as_printed(p) for p in about.printed.get(group, ())),
        tuple(_case_view(row, *findings.pictures[group][row.name]) for row in rows),
        scatter,
    )


def _case_view(row: Row, case: str, pictures: tuple[Picture, ...]) -> CaseView:
    parts = len(row.cases)
    note = f"Pictures show one of the {parts} parts of this date that are scored together: {case}." if parts > 1 else ""
    return CaseView(row.name, note, pictures)


def _of_case(case: Case, made: Sequence[Outcome], name: str) -> tuple[Picture, ...]:
    methods = ", ".join(o.method for o in made)
    simulated = "Simulated data. " if case.simulated else ""
    return (
        Picture(
            f"{name}-images",
            f"Natural colour of {case.name}: Landsat, Sentinel-2 reference, truth and the predictions of {methods}",
            f"{simulated}Landsat's own 30 m pixels, the Sentinel-2 reference, the truth and every prediction, all "
            "stretched as the truth is. The box lies where the truth is farthest from the reference; grey: nothing.",
            figures.side_by_side(case, made),
        ),
        Picture(
            f"{name}-differences",
            f"Prediction minus truth for {case.name}, one map for each of {methods}",
            f"{simulated}Prediction minus truth, mean over bands: red is too bright, blue too dark. Errors of opposite "
            "sign in two bands cancel in the map, not in the RMSE, which is over all bands. Grey: not scored, or left "
            "empty.",
            figures.difference_maps(case, made),
        ),
        Picture(
            f"{name}-ndvi",
            f"NDVI error for {case.name}, a map and a histogram for each of {methods}",
            f"{simulated}NDVI of the prediction minus NDVI of the truth: green is too green. Below each map the "
            "histogram of its values on the same scale.",
            figures.vegetation(case, made),
        ),
    )


def _shown(ranks: Sequence[Rank]) -> tuple[tuple[Shown, ...], float]:
    """Intervals on one scale that holds all of them and 0, and the place of 0 on it."""
    known = [r.to_best for r in ranks if r.to_best is not None]
    left, right = min((d.low for d in known), default=0.0), max((d.high for d in known), default=0.0)
    left, right = min(left, 0.0), max(right, 0.0)
    scale = (SPAN - 2 * EDGE) / (right - left) if right > left else 0.0
    out = []
    for rank in ranks:
        d = rank.to_best
        if d is None:
            out.append(Shown(rank, None, "best" if rank.place == 1 else scoretables.NOTHING))
            continue
        low, middle, high = (round(EDGE + (v - left) * scale, 1) for v in (d.low, d.estimate, d.high))
        out.append(Shown(rank, (low, middle, high), f"{scoretables.between(d)}, {d.verdict}"))
    return tuple(out), round(EDGE - left * scale, 1)


def _extent(rows: Sequence[Row]) -> str:
    sizes = dict.fromkeys(f"{width} x {height}" for r in rows for height, width in r.sizes)
    pixels = sum(r.pixels for r in rows)
    dates = f"{len(rows)} dates" if len(rows) != 1 else "One date"
    cases = sum(len(r.cases) for r in rows)
    parts = f" in {cases} parts" if cases > len(rows) else ""
    return f"{dates}{parts} of {', '.join(sizes)} px of {FINE} m; {pixels} scored pixels in all."


def _simulated(rows: Sequence[Row]) -> str:
    count = sum(r.simulated for r in rows)
    return "" if not count else "simulated" if count == len(rows) else "partly simulated"


def _pictures(groups: Sequence[GroupView]) -> tuple[Picture, ...]:
    return tuple(p for g in groups for p in (*(f for c in g.cases for f in c.figures), g.scatter))


def _slug(text: str) -> str:
    """For the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"
