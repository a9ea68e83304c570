"""The flow's face: what the deployment's schema promises, and what the Prefect page is told."""

import inspect

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema

from flows import artifacts
from flows.fuse_year import fuse_year
from marstfn.baselines import METHODS
from pipeline.events import Note, StageDone, StageStarted, TileDone, TileFailed
from pipeline.request import Request


@pytest.fixture(scope="module")
def schema():
    return parameter_schema(fuse_year).model_dump()


def bounds(schema, name):
    """Keywords of a parameter that may also be null."""
    found = schema["properties"][name]
    return {k: v for option in found.get("anyOf", [found]) for k, v in option.items() if option != {"type": "null"}}


def test_only_the_area_is_required(schema):
    assert schema["required"] == ["aoi"]


def test_every_parameter_is_described(schema):
    silent = [name for name, p in schema["properties"].items() if not p.get("description")]
    assert silent == []
    assert set(schema["properties"]) == set(inspect.signature(fuse_year.fn).parameters)


def test_the_bounds_are_in_the_schema(schema):
    assert bounds(schema, "year") == {"type": "integer", "minimum": 2015, "maximum": 2100}
    assert bounds(schema, "tile") == {"type": "integer", "minimum": 60, "maximum": 1920, "multipleOf": 6}
    assert set(bounds(schema, "method")["enum"]) == {"auto", "network", *METHODS}
    assert bounds(schema, "max_cloud") == {"type": "number", "minimum": 0, "maximum": 100}
    assert bounds(schema, "start") == {"type": "string", "format": "date"}
    assert bounds(schema, "scheduler")["pattern"].startswith("^(tcp|tls")


def test_the_flow_offers_what_a_request_takes():
    offered = set(inspect.signature(fuse_year.fn).parameters)
    assert {"tile" if name == "tile_px" else name for name in Request.model_fields} == offered


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("year", 1900),
        ("year", "soon"),
        ("tile", 100),
        ("method", "magic"),
        ("min_reference_days", -1),
        ("start", "2020-13-01"),
        ("scheduler", "8786"),
        ("store", ""),
        ("aoi", 7),
    ],
)
def test_what_lies_outside_the_bounds_is_refused(name, value):
    with pytest.raises(ParameterTypeError, match=name):
        fuse_year.validate_parameters({"aoi": "hailar", name: value})


def test_the_server_can_be_built():
    from prefect.server.api.server import create_app

    app = create_app()
    assert app.routes


@pytest.fixture
def page(monkeypatch):
    """What the Prefect page was told: (kind, key, content, description)."""
    told = []

    def tell(kind):
        def create(content=None, key=None, description=None, **other):
            told.append((kind, key, content if content is not None else other, description))
            return f"id-{key}"

        return create

    def progress(identifier, share, text):
        told.append(("update", identifier, share, text))

    for kind in ("image", "link", "markdown", "progress"):
        monkeypatch.setattr(artifacts, f"create_{kind}_artifact", tell(kind))
    monkeypatch.setattr(
        artifacts,
        "create_table_artifact",
        lambda table, key, description: told.append(("table", key, table, description)),
    )
    monkeypatch.setattr(artifacts, "update_progress_artifact", progress)
    return told


def test_progress_is_told_now_and_then_and_at_the_end(page):
    board = artifacts.Board()
    board(StageStarted("fuse", 40, 10))
    for k in range(30):
        board(TileDone("fuse", f"r000c{k:03d}", 0.1))
    board(StageDone("fuse", 3.2, 40, 0))
    assert page[0] == ("progress", "fuse-year-fuse", 25.0, "fuse: 10 of 40 tiles")
    assert page[-1] == ("update", "id-fuse-year-fuse", 100.0, "fuse: 40 of 40 tiles, 3 s")
    assert len(page) < 6, "an update a tile locks the server's database"


def test_failed_tiles_are_listed(page):
    board = artifacts.Board()
    board(StageStarted("ingest", 2))
    board(TileFailed("ingest", "r000c000", "asset missing"))
    board(TileFailed("ingest", "r000c001", "asset truncated"))
    board(StageDone("ingest", 1.0, 0, 2))
    tables = [told for told in page if told[0] == "table"]
    assert tables[-1][1] == "fuse-year-failed-tiles"
    assert [row["tile"] for row in tables[-1][2]] == ["r000c000", "r000c001"]
    assert tables[-1][2][0]["why"] == "asset missing"
    assert "Run again" in tables[-1][3]


def test_pictures_links_and_tables(page, tmp_path):
    (tmp_path / "quicklook.png").write_bytes(b"\x89PNG")
    board = artifacts.Board()
    board(Note("dashboard", "http://127.0.0.1:1/status"))
    board(Note("quicklook", "input and output", str(tmp_path / "quicklook.png")))
    board(Note("scenes", "1 Landsat", [{"date": "2020-01-01", "references": {"a": 1.0}, "items": ("x",)}]))
    board(Note("cube", "/x/fused.zarr"))
    kinds = {told[0]: told for told in page}
    assert kinds["link"][2] == "http://127.0.0.1:1/status"
    assert kinds["image"][2] == "data:image/png;base64,iVBORw=="
    assert kinds["table"][2] == [{"date": "2020-01-01", "references": "{'a': 1.0}", "items": "('x',)"}]
    assert 'xr.open_zarr("/x/fused.zarr")' in kinds["markdown"][2]


def test_a_page_that_cannot_be_told_does_not_fail_the_run(monkeypatch, caplog):
    def gone(*a, **k):
        raise ConnectionError("server gone")

    monkeypatch.setattr(artifacts, "create_progress_artifact", gone)
    artifacts.Board()(StageStarted("fuse", 4))
    assert "the Prefect page misses an update (StageStarted): server gone" in caplog.text
