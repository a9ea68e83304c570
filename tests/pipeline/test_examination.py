"""An evaluation as asked for, and done case by case: what is refused beforehand, and what stays of a case."""

from __future__ import annotations

import shlex
import shutil
import weakref
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from flows import cli
from flows.commands import comparisons
from marstfn import contestants, situations
from marstfn.comparison import Case, Counted, Outcome
from marstfn.scoring import AVERAGE
from pipeline import cases, examination
from pipeline.errors import AssetError, PlanError, WeightsError
from pipeline.events import Event, Note, StageDone, StageMoved, StageStarted
from pipeline.examination import Examination, command, contest, gathered, is_area, make, report
from pipeline.folder import Rules
from pipeline.page import Findings
from pipeline.store import Store
from pipeline.yearly import Draw

QUICK = {"methods": ("additive", "bicubic"), "side": 36, "draws": 100}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """In which a user stands."""
    (tmp_path / "field.geojson").write_text("{}")
    (tmp_path / "scenes").mkdir()
    (tmp_path / "one.npz").touch()
    shutil.copy(str(files("marstfn").joinpath("shipped", "marstfn-nopan.safetensors")), tmp_path / "own.safetensors")
    return tmp_path


def test_only_a_source_must_be_given(folder: Path) -> None:
    exam = make(sources=("simulated",), base=folder, methods=None, side=None, out=None)
    assert exam == Examination(sources=("simulated",), base=folder)
    assert exam.methods == contestants.DEFAULT
    assert exam.area is None
    assert exam.rules == Rules("other-day")
    assert exam.draw == Draw()


@pytest.mark.parametrize(
    ("source", "area"),
    [
        ("field.geojson", True),
        ("missing.json", True),
        ("hailar", True),
        ("http://h/field.geojson", True),
        ('{"type":"Point"}', True),
        ("scenes", False),
        ("simulated", False),
        ("s3://bucket/store", False),
        ("one.npz", False),
        ("flanders:data", False),
    ],
)
def test_areas_are_told_from_other_sources(folder: Path, source: str, area: bool) -> None:
    assert is_area(source, folder) == area
    exam = make(sources=(source,), base=folder)
    assert (exam.area is not None) == area
    if area:
        with pytest.raises(PlanError, match=r"is an area of interest and is evaluated alone; give the other sources"):
            make(sources=("simulated", source), base=folder)


def test_a_folder_goes_before_the_bundled_area_of_its_name(folder: Path) -> None:
    assert make(sources=("hailar",), base=folder).area == "hailar"
    (folder / "hailar").mkdir()
    exam = make(sources=("hailar",), base=folder)
    assert exam.area is None
    assert exam.sources == (str(folder / "hailar"),)


def test_paths_are_those_of_the_callers_folder(folder: Path) -> None:
    given = ("scenes", "one.npz", "simulated", "india:data", "s3://bucket/store", "/abs/scenes")
    exam = make(sources=given, base=folder, methods=("own.safetensors", "copy"))
    assert exam.sources == (
        str(folder / "scenes"),
        str(folder / "one.npz"),
        "simulated",
        f"india:{folder}/data",
        "s3://bucket/store",
        "/abs/scenes",
    )
    assert exam.methods == (str(folder / "own.safetensors"), "copy")
    assert make(sources=("field.geojson",), base=folder).sources == ("field.geojson",)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sources": ()}, "nothing to evaluate was named"),
        ({"sources": ("simulated", " ")}, "nothing to evaluate was named"),
        ({"methods": ("additive", "")}, "a method without a name"),
        ({"methods": ()}, "methods"),
        ({"side": 50}, "side = 50: input should be a multiple of 18"),
        ({"side": 18}, "side = 18"),
        ({"side": 3978}, "side = 3978"),
        ({"windows": 0}, "windows = 0"),
        ({"windows": 401}, "windows = 401"),
        ({"share": 0}, "share = 0"),
        ({"share": 1.1}, "share = 1.1"),
        ({"draws": 99}, "draws = 99"),
        ({"seed": -1}, "seed = -1"),
        ({"threads": -1}, "threads = -1"),
        ({"protocol": "magic"}, "protocol = 'magic'"),
        ({"printed": "wuhan"}, "printed = 'wuhan'"),
        ({"device": "tpu"}, "device = 'tpu'"),
        ({"against": "fsdaf", "methods": ("copy",)}, "fsdaf is to be held against, and takes no part; methods: copy"),
        ({"sources": ("simulated", "simulated")}, "simulated is given twice"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_values_are_named_before_anything_starts(folder: Path, given: dict[str, object], words: str) -> None:
    with pytest.raises(PlanError) as caught:
        make(**({"sources": ("simulated",), "base": folder} | given))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_bad_values_are_told_at_once(folder: Path) -> None:
    with pytest.raises(PlanError, match=r"side = 50(.|\n)*draws = 1"):
        make(sources=("simulated",), base=folder, side=50, draws=1)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (("magic",), "'magic' is no method and no weights file; known methods: network"),
        (("copy", "copy"), "copy would go by the name of another method"),
        (("missing.safetensors",), "is no method and no weights file"),
        (("copy", "one.npz"), "no complete safetensors file"),
        (("own.safetensors", "x/own.safetensors"), "would go by the name of another method, own"),
    ],
)
def test_unknown_methods_are_refused_before_anything_starts(folder: Path, methods: tuple[str, ...], words: str) -> None:
    (folder / "x").mkdir()
    shutil.copy(folder / "own.safetensors", folder / "x" / "own.safetensors")
    with pytest.raises(WeightsError, match="nothing was started") as caught:
        make(sources=("simulated",), base=folder, methods=methods)
    assert words in str(caught.value)


def test_a_protocol_that_a_source_does_not_know_is_refused(folder: Path) -> None:
    for source, protocol in (("simulated", "reduced"), ("scenes", "cross-sensor"), ("a.npz", "paper")):
        with pytest.raises(PlanError, match=f"protocol {protocol} is not one of"):
            make(sources=(source,), base=folder, protocol=protocol)
    assert make(sources=("scenes",), base=folder, protocol="reduced").rules.protocol == "reduced"


def test_the_papers_own_data_are_taken_by_its_protocol() -> None:
    assert Examination(sources=("data/hailar-2019",)).rules.protocol == "paper"
    assert Examination(sources=("data/mine",), printed="dezhou").rules.protocol == "paper"


def test_one_protocol_serves_folders_and_areas() -> None:
    def asked(protocol: str) -> Examination:
        return Examination(sources=("x",), protocol=protocol, windows=7, side=108, seed=3, share=0.2)  # type: ignore[arg-type]

    assert {p: asked(p).rules.protocol for p in ("auto", "paper", "other-day", "cross-sensor", "reduced")} == {
        "auto": "other-day",
        "paper": "paper",
        "other-day": "other-day",
        "cross-sensor": "other-day",
        "reduced": "reduced",
    }
    assert asked("reduced").draw == Draw("reduced", 7, 108, seed=3)
    assert asked("auto").draw.protocol == "cross-sensor"
    assert (asked("auto").rules.side, asked("auto").rules.test_share) == (108, 0.2)


@pytest.mark.parametrize(
    "given",
    [
        {},
        QUICK,
        {"against": "copy", "protocol": "other-day", "share": 0.2, "windows": 9, "seed": 4, "printed": "dezhou"},
    ],
)
def test_the_command_of_a_report_asks_for_the_same_again(
    folder: Path, given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is typed, and what reaches the evaluation is compared."""
    exam = make(sources=("my scenes", "simulated"), base=folder, **given)
    words = shlex.split(command(exam))
    assert words[:3] == ["marstfn", "evaluate", str(folder / "my scenes")]
    seen: list[Examination] = []

    def examine(asked: Examination, *others: object, **more: object) -> object:
        seen.append(asked)
        return examination.Examined("page", "folder", (), 0, 0, 0.0)

    monkeypatch.setattr("flows.examine.examine", examine)
    monkeypatch.chdir(folder)
    assert cli.run(words[1:]) == 0
    assert seen == [exam]


def test_the_report_lies_where_it_is_asked_for_or_beside_what_it_is_of(folder: Path) -> None:
    def place(store: str | None = None, **given: object) -> Path:
        return examination._folder(make(sources=("simulated",), base=folder, **given), store)

    assert place() == folder / "evaluation"
    assert place(out="here") == folder / "here"
    assert place(out="/abs/here") == Path("/abs/here")
    assert place(str(folder / "field-2023")) == folder / "field-2023" / "evaluation"
    assert place(str(folder / "field-2023"), out="here") == folder / "here"
    assert place("s3://bucket/store") == folder / "evaluation"


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[weakref.ref[Case]]]:
    """`made_up(most, names)`: the simulator's first scene stands for all cases, each a new one; returns those alive."""

    def make_up(most: int, names: list[str]) -> list[weakref.ref[Case]]:
        alive: list[weakref.ref[Case]] = []

        def coming() -> Iterator[Case]:
            for name in names:
                found = next(situations.each(36))
                case = Case(name, found.group, found.view, found.data, found.simulated)
                alive.append(weakref.ref(case))
                yield case
                del case, found

        monkeypatch.setattr(cases, "each", lambda *a, **k: Counted(most, coming()))
        return alive

    return make_up


def test_no_image_of_a_case_outlives_it(made_up, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = made_up(5, [f"d{k}, r0c{part}" for k in range(2) for part in range(2)])
    images: list[weakref.ref[np.ndarray]] = []
    counts: list[tuple[int, int]] = []
    add = Findings.add

    def counted(self: Findings, made: tuple[Outcome, ...], methods: tuple[str, ...]) -> None:
        images.extend(weakref.ref(o.image) for o in made)
        add(self, made, methods)
        counts.append((sum(r() is not None for r in alive), sum(r() is not None for r in images)))

    monkeypatch.setattr(Findings, "add", counted)
    exam = make(sources=("simulated",), base=folder, **QUICK)
    findings = gathered(exam, contest(exam))
    assert counts == [(1, 2)] * 4
    assert not any(r() for r in alive)
    assert not any(r() is not None for r in images)
    made = report(exam, findings)
    assert (made.cases, made.methods) == (4, 2)
    scores = findings.scoring.scores()
    assert [r.name for r in scores.rows] == ["d0", "d1"]
    assert scores.record("simulated", AVERAGE, "additive").pixels == 4 * 36 * 36
    pictures = sorted(p.name for p in (folder / "evaluation" / "figures").iterdir())
    assert len(pictures) == 2 * 3 + 1
    text = (folder / "evaluation" / "report.html").read_text()
    assert "one of the 2 parts of this date that are scored together: d1, r0c0." in text
    assert "2 dates in 4 parts of 36 x 36 px" in text


def test_progress_is_told_of_a_total_that_is_the_most_there_can_be(made_up, folder: Path) -> None:
    made_up(5, ["a", "b", "c"])
    heard: list[Event] = []
    exam = make(sources=("simulated",), base=folder, **QUICK)
    assert [o[0].case.name for o in contest(exam, heard.append)] == ["a", "b", "c"]
    assert heard[0] == StageStarted("compare", 5, unit="cases")
    moves = [(e.done, e.total) for e in heard if isinstance(e, StageMoved)]
    assert moves == [(1, 5), (2, 5), (3, 5), (3, 3)]
    assert isinstance(heard[-1], StageDone)
    assert heard[-1].done == 3


def test_more_cases_than_foreseen_are_told_as_they_come(made_up, folder: Path) -> None:
    made_up(0, ["a", "b"])
    heard: list[Event] = []
    assert len(list(contest(make(sources=("simulated",), base=folder, **QUICK), heard.append))) == 2
    assert [(e.done, e.total) for e in heard if isinstance(e, StageMoved)] == [(1, 1), (2, 2)]


def test_a_source_without_a_case_says_so_before_the_stage_begins(folder: Path) -> None:
    heard: list[Event] = []
    exam = make(sources=("scenes",), base=folder, **QUICK)
    with pytest.raises(AssetError, match="scenes holds no landsat"):
        list(contest(exam, heard.append))
    assert heard == []


def test_cases_that_tables_cannot_tell_apart_are_refused(made_up, folder: Path) -> None:
    made_up(2, ["a", "a"])
    exam = make(sources=("simulated",), base=folder, **QUICK)
    with pytest.raises(PlanError, match="two sources have a case a of the group simulated"):
        gathered(exam, contest(exam))


def test_what_was_made_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's tables stand beside where they are asked for; the lines of the command end with the page."""
    heard: list[Event] = []
    exam = make(sources=("simulated",), base=folder, printed="hailar", out="r", **QUICK)
    made = report(exam, gathered(exam, contest(exam)), heard.append, title="A title")
    notes = {e.kind: e for e in heard if isinstance(e, Note)}
    assert notes["report"].text == made.page == str(folder / "r" / "report.html")
    assert "comes nearest to the truth" in notes["evaluation"].text
    text = Path(made.page).read_text()
    assert "<title>A title" in text
    for table in ("Table 2 of Cheng et al. (2024), Hailar", "Table 4 of Cheng et al. (2024), Hailar"):
        assert table in text
        assert f"### {table}" in notes["evaluation"].data
    assert "equality is not to be expected" in text
    lines = comparisons.examined(made)
    assert lines[0].startswith("simulated: On 4 dates, ")
    assert lines[-1] == f"report: {made.page}"


def test_a_draw_and_a_store_go_to_the_source(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    seen: list[tuple[str, object, object]] = []

    def each(source: str, *, side: int, rules: Rules, draw: Draw) -> Iterator[Case]:
        seen.append((source, draw, side))
        return iter(())

    monkeypatch.setattr(cases, "each", each)
    exam = make(sources=("hailar",), base=folder, protocol="reduced", methods=("copy",))
    store = Store(str(folder / "hailar-2023")).url
    assert list(contest(exam, store=store)) == []
    assert seen == [(store, Draw("reduced"), situations.SIDE)]
