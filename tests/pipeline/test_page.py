"""The report stands by itself: nothing is fetched, everything is named, and no text of a case becomes markup."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from marstfn.comparison import Outcome
from marstfn.measures import MEASURES
from pipeline import page
from pipeline.errors import StoreError
from pipeline.page import About
from pipeline.scoretables import Printed
from tests.pipeline.comparisons import made, two_groups

VOID = {"meta", "link", "img", "br", "line", "circle"}
ABOUT = About(
    "A comparison of <methods>",
    command='marstfn evaluate --methods "good,bad"',
    notes=("What was compared.",),
    methods={"good": "The good one.", "bad": "The <bad> one."},
    versions={"marstfn": "0.1.0"},
    hashes={"weights": "ab" * 32},
    printed={"lands": (Printed("Table 2 as printed", ("FSDAF",), {"psnr": ((30.3507,),)}),)},
    chosen="good",
    made="2026-01-02",
    credits="Simulated by marstfn",
)


class Reader(HTMLParser):
    """Tags with their attributes, text, and whether what was opened is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("comparison") / "new" / "folder"
    assert page.write(target, two_groups(), ABOUT, draws=100) == target / "report.html"
    return target


@pytest.fixture(scope="module")
def read(folder: Path) -> Reader:
    reader = Reader()
    reader.feed((folder / "report.html").read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def test_nothing_is_fetched(folder: Path, read: Reader) -> None:
    for tag, attributes in read.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, value)
    text = (folder / "report.html").read_text(encoding="utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert not {tag for tag, _ in read.tags} & {"script", "iframe", "object"}


def test_every_picture_has_words_and_opens(read: Reader) -> None:
    pictures = [attributes for tag, attributes in read.tags if tag == "img"]
    assert len(pictures) == 4 * 3 + 2
    assert len({p["alt"] for p in pictures}) == len(pictures)
    for picture in pictures:
        assert len(picture["alt"]) > 20
        kind, data = picture["src"].split(",", 1)
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert (str(image.width), str(image.height)) == (picture["width"], picture["height"])


def test_links_lead_somewhere_and_ids_are_single(read: Reader) -> None:
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in read.tags if tag == "a"]
    assert len(links) >= 6
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_everything_is_named(read: Reader) -> None:
    text = " ".join(" ".join(read.text).split())
    for outcome in two_groups():
        assert outcome.method in text
        assert outcome.case.name in text
        assert outcome.case.group in text
        assert outcome.case.data in text
    for measure in MEASURES.values():
        assert measure.title in text
        assert measure.meaning in text
    for said in (ABOUT.title, ABOUT.command, "The <bad> one.", "ab" * 32, "0.1.0", "Table 2 as printed", "30.35"):
        assert said in text
    for said in (
        "What was compared.",
        ABOUT.credits,
        "2026-01-02",
        "partly simulated",
        "On 3 dates, ",
        "On one date, ",
    ):
        assert said in text
    assert "no class means | at all <b>" in text
    assert "b" not in {tag for tag, _ in read.tags}


def test_ties_and_failures_are_marked_for_those_who_cannot_see_them(read: Reader) -> None:
    labels = [attributes.get("aria-label", "") for tag, attributes in read.tags if tag == "span"]
    assert "tied with the best" in labels
    assert "failed here" in labels
    notes = [attributes["title"] for tag, attributes in read.tags if tag == "td" and "title" in attributes]
    assert any(" to " in note and "against" in note for note in notes)


def test_tables_are_grids(read: Reader) -> None:
    """Every row has as many cells as the head of its table has columns."""
    columns, cells, checked = 0, 0, 0
    for tag, attributes in read.tags:
        if tag in ("thead", "tr") and columns and cells:
            assert cells == columns
            checked += 1
        if tag == "thead":
            columns, cells = 0, 0
        elif tag == "tbody":
            columns, cells = cells, 0
        elif tag == "tr":
            cells = 0
        elif tag in ("td", "th"):
            cells += int(attributes.get("colspan", "1"))
    assert checked > 100


def test_the_files_beside_it_are_there(folder: Path) -> None:
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    tables = {f"{n}.{e}" for n in ("scores", "differences") for e in ("csv", "parquet")}
    assert {"report.html", "scores.md"} | tables < names
    pictures = sorted(n for n in names if n.startswith("figures/"))
    assert len(pictures) == 4 * 3 + 2
    assert "figures/01-lands-02-2020-07-01-differences.png" in pictures
    assert "figures/02-field-scatter.png" in pictures
    assert len(names) == len(tables) + 2 + len(pictures)
    assert (folder / "scores.md").read_text(encoding="utf-8").startswith("# A comparison of &lt;methods>\n\nWhat was")


def test_real_data_are_not_marked_simulated(tmp_path: Path) -> None:
    written = page.write(tmp_path, made("field", simulated=False), About("t"), draws=20)
    body = written.read_text(encoding="utf-8").split("<body>")[1]
    assert 'class="stamp"' not in body


def test_intervals_are_drawn_on_one_scale_that_holds_them_and_zero(read: Reader) -> None:
    lines = [a for tag, a in read.tags if tag == "line"]
    zeros = [float(a["x1"]) for a in lines if a["class"] == "zero"]
    spans = [(float(a["x1"]), float(a["x2"])) for a in lines if a["class"] == "interval"]
    assert len(zeros) == len(spans) == 3 + 2
    for zero, (low, high) in zip(zeros, spans, strict=True):
        assert page.EDGE <= low <= high <= page.SPAN - page.EDGE
        assert page.EDGE <= zero <= page.SPAN - page.EDGE
    held = [low <= zero <= high for zero, (low, high) in zip(zeros[:3], spans[:3], strict=True)]
    assert held == [True, False, False]  # the tied one stands first


def test_nothing_to_report_and_nowhere_to_write_are_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no outcome"):
        page.write(tmp_path / "a", [], ABOUT)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match="cannot write the report"):
        page.write(blocked, made("g"), ABOUT, draws=5)


def test_groups_of_one_name_in_files_do_not_overwrite_each_other(tmp_path: Path) -> None:
    outcomes = made("über/land")
    other = [Outcome(replace(o.case, group="ÜBER land"), o.method, o.image, 0) for o in made("x")]
    shared = {o.method: o for o in other}
    held = next(iter(shared.values())).case
    page.write(tmp_path, [*outcomes, *(Outcome(held, o.method, o.image, 0) for o in other)], About("t"), draws=5)
    assert len(list((tmp_path / "figures").iterdir())) == 2 * (3 + 1)
