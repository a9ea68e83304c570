"""The training flow's face: what the deployment's schema promises, and what the Prefect page is told."""

import inspect
from pathlib import Path

import pytest
import yaml
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema

from flows import artifacts, services
from flows.commands.lessons import Lessons
from flows.train_year import train_year
from pipeline.events import Note, StageDone, StageMoved, StageStarted
from pipeline.lesson import Lesson


@pytest.fixture(scope="module")
def schema():
    return parameter_schema(train_year).model_dump()


def test_only_the_area_is_required_and_all_is_described(schema):
    assert schema["required"] == ["aoi"]
    assert [name for name, p in schema["properties"].items() if not p.get("description")] == []
    assert set(schema["properties"]) == set(inspect.signature(train_year.fn).parameters)


def test_flow_command_and_lesson_offer_the_same():
    offered = set(inspect.signature(train_year.fn).parameters)
    assert offered >= {"max_reference_days" if name == "reach" else name for name in Lesson.model_fields}
    assert offered - {"aoi", "out", "store_root", "base"} == set(Lessons.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("year", 1900),
        ("protocol", "magic"),
        ("preset", "gpu"),
        ("patch", 20),
        ("steps", 0),
        ("rate", 1.0),
        ("near_days", -1),
        ("min_clear", 10),
        ("max_reference_days", 0),
        ("end", "2020-13-01"),
        ("weights", ""),
    ],
)
def test_what_lies_outside_the_bounds_is_refused(name, value):
    with pytest.raises(ParameterTypeError, match=name):
        train_year.validate_parameters({"aoi": "hailar", name: value})


def test_both_flows_are_deployed():
    definition = yaml.safe_load(services.definition().read_text())
    found = {f"{d['name']}/{d['name']}": d["entrypoint"] for d in definition["deployments"]}
    assert tuple(found) == services.DEPLOYMENTS
    assert found["train-year/train-year"] == f"{train_year.fn.__module__}.{train_year.fn.__name__}"


def test_the_page_is_told_of_training(monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda share, key, text: told.append((key, share, text)))
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda _, share, text: told.append(("", share, text)))
    for kind in ("image", "markdown", "table"):
        monkeypatch.setattr(
            artifacts,
            f"create_{kind}_artifact",
            lambda *a, key, kind=kind, **k: told.append((key, kind, a[0] if a else k.get("table"))),
        )
    (tmp_path / "curve.png").write_bytes(b"\x89PNG")
    board = artifacts.Board("train-year")
    board(StageStarted("train", 40, 10, "steps"))
    for step in range(11, 41):
        board(StageMoved("train", step, 40, f"loss {step}"))
    board(StageDone("train", 3.2, 40, 0))
    board(Note("curve", "after 40 steps", str(Path(tmp_path) / "curve.png")))
    board(Note("validations", "so far", [{"step": 40.0, "ratio": 0.9}]))
    board(Note("weights", "/x/w.safetensors", "marstfn run a --weights /x/w.safetensors"))
    assert told[0] == ("train-year-train", 25.0, "train: 10 of 40 steps")
    assert ("", 100.0, "train: 40 of 40 steps, loss 40") in told
    assert ("train-year-curve", "image", "data:image/png;base64,iVBORw==") in told
    assert ("train-year-validations", "table", [{"step": 40.0, "ratio": 0.9}]) in told
    (text,) = [entry[2] for entry in told if entry[0] == "train-year-weights"]
    assert "marstfn run a --weights" in text
