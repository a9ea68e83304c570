"""The flow that compares methods: what the deployment's schema promises, and what the Prefect page is told."""

from __future__ import annotations

import inspect

import pytest
import yaml
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema

from flows import artifacts, cli, services
from flows.commands.comparisons import Comparisons
from flows.evaluate_year import evaluate_year
from pipeline.events import Note, StageDone, StageMoved, StageStarted
from pipeline.examination import READING, Examination


@pytest.fixture(scope="module")
def schema():
    return parameter_schema(evaluate_year).model_dump()


def bounds(schema, name):
    """Keywords of a parameter that may also be null."""
    found = schema["properties"][name]
    options = found.get("anyOf", [found])
    kept = ("minimum", "maximum", "exclusiveMinimum", "multipleOf", "enum", "pattern")
    return {k: v for option in options for k, v in option.items() if k in kept}


def test_only_the_area_is_required_and_all_is_described(schema):
    assert schema["required"] == ["aoi"]
    assert [name for name, p in schema["properties"].items() if not p.get("description")] == []
    assert set(schema["properties"]) == set(inspect.signature(evaluate_year.fn).parameters)


def test_flow_command_and_examination_offer_the_same():
    offered = set(inspect.signature(evaluate_year.fn).parameters)
    assert {"aoi" if name == "sources" else name for name in Examination.model_fields} <= offered
    reading = {"year", "catalog", "store", "store_root", "start", "end", "scheduler", "tile"}
    reading |= {"landsat", "snow", "nbar", "radiometry"}
    assert reading - {"store_root"} == {name.removesuffix("_px") for name in READING}
    assert offered == {"aoi"} | reading | (set(Examination.model_fields) - {"sources"})
    # the folder of the report is a word of the command itself; the command stands where its caller does
    assert offered - {"aoi", "out", "store_root", "base"} == set(Comparisons.__dataclass_fields__)


def test_flow_and_examination_are_bounded_alike(schema):
    own = Examination.model_json_schema()
    names = set(own["properties"]) - {"sources", "methods", "base", "out", "against"}
    assert names >= {"protocol", "windows", "side", "share", "printed", "draws", "seed", "device", "threads"}
    for name in names:
        assert bounds(schema, name) == bounds(own, name), name
        assert bounds(schema, name), name


def test_every_option_of_the_command_is_described(capsys):
    assert cli.run(["evaluate", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in (*Comparisons.__dataclass_fields__, "out", "log"):
        assert f"--{name} " in shown.replace("=", " "), name
    for word in ("flanders:DATA", "a folder of GeoTIFFs by date", "marstfn evaluate hailar-data", "--printed"):
        assert word in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("year", 1900),
        ("methods", "magic"),
        ("methods", [1.5]),
        ("protocol", "magic"),
        ("windows", 0),
        ("side", 50),
        ("share", 0),
        ("printed", "wuhan"),
        ("seed", -1),
        ("draws", 5),
        ("start", "2020-13-01"),
        ("scheduler", "8786"),
        ("tile", 100),
        ("out", ""),
        ("aoi", 7),
    ],
)
def test_what_lies_outside_the_bounds_is_refused(name, value):
    with pytest.raises(ParameterTypeError, match=name):
        evaluate_year.validate_parameters({"aoi": "hailar", name: value})


def test_it_is_deployed():
    definition = yaml.safe_load(services.definition().read_text())
    found = {f"{d['name']}/{d['name']}": d["entrypoint"] for d in definition["deployments"]}
    assert tuple(found) == services.DEPLOYMENTS
    assert found["evaluate-year/evaluate-year"] == f"{evaluate_year.fn.__module__}.{evaluate_year.fn.__name__}"


def test_the_page_is_told_of_the_comparison(monkeypatch):
    told = []
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda share, key, text: told.append((key, share, text)))
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda _, share, text: told.append(("", share, text)))
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda text, key: told.append((key, text)))
    board = artifacts.Board("evaluate-year")
    board(StageStarted("compare", 12, unit="cases"))
    board(StageMoved("compare", 5, 12, "slowest fsdaf"))
    board(StageMoved("compare", 5, 5, "slowest fsdaf"))
    board(StageDone("compare", 3.2, 5, 0))
    board(Note("evaluation", "a is best", "# Comparison"))
    assert told[0] == ("evaluate-year-compare", 0.0, "compare: 0 of 12 cases")
    # no more than 5 of the 12 there could have been: the stage is done all the same
    assert told[-2] == ("", 100.0, "compare: 5 of 5 cases, 3 s")
    assert told[-1][0] == "evaluate-year-evaluation"
