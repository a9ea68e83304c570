"""Defaults from the environment and from a configuration file with profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import settings
from pipeline.errors import PlanError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No MARSTFN_ variable and no configuration of the person who runs the tests."""
    import os

    for name in [n for n in os.environ if n.startswith("MARSTFN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "xdg" / "marstfn" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_defaults_serve_a_stranger_on_the_internet() -> None:
    chosen = settings.load()
    assert chosen.catalog == "planetary-computer"
    assert (chosen.year, chosen.store, chosen.scheduler) == (None, None, None)
    assert (chosen.weights, chosen.method) == ("auto", "auto")
    assert chosen.dashboard.startswith("127.0.0.1:")


def test_environment_wins_over_file_over_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config(tmp_path, 'catalog = "earth-search"\nyear = 2021\nmethod = "additive"\n')
    monkeypatch.setenv("MARSTFN_YEAR", "2022")
    chosen = settings.load(method="bicubic")
    assert (chosen.catalog, chosen.year, chosen.method) == ("earth-search", 2022, "bicubic")


def test_a_profile_overrides_the_top_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config(tmp_path, 'year = 2021\nstore = "/cubes"\n[lab]\nyear = 2020\nscheduler = "tcp://127.0.0.1:8786"\n')
    assert settings.load().year == 2021
    monkeypatch.setenv("MARSTFN_PROFILE", "lab")
    chosen = settings.load()
    assert (chosen.year, chosen.store, chosen.scheduler) == (2020, "/cubes", "tcp://127.0.0.1:8786")


def test_the_file_can_lie_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("year = 2019\n")
    monkeypatch.setenv("MARSTFN_CONFIG", str(path))
    assert settings.load().year == 2019


@pytest.mark.parametrize(
    ("variables", "text", "words"),
    [
        ({"MARSTFN_YEAR": "last"}, None, ["year (MARSTFN_YEAR) = 'last'", "integer"]),
        ({"MARSTFN_METHOD": "magic"}, None, ["method (MARSTFN_METHOD) = 'magic'", "'network'"]),
        ({"MARSTFN_AOI_MAX_KM2": "-1"}, None, ["MARSTFN_AOI_MAX_KM2", "greater than 0"]),
        ({"MARSTFN_MEMORY_LIMIT": "abc"}, None, ["memory_limit (MARSTFN_MEMORY_LIMIT) = 'abc'", "byte"]),
        ({"MARSTFN_MEMORY_LIMIT": "-5"}, None, ["memory_limit (MARSTFN_MEMORY_LIMIT) = '-5'", "4GiB, or auto"]),
        ({"MARSTFN_CONFIG": "/nowhere/c.toml"}, None, ["/nowhere/c.toml", "does not exist", "unset MARSTFN_CONFIG"]),
        ({"MARSTFN_PROFILE": "lab"}, None, ["profile 'lab'", "config.toml", "create it"]),
        ({"MARSTFN_PROFILE": "lba"}, "[lab]\nyear = 2020\n", ["profile 'lba'", "its profiles: lab"]),
        ({}, "year = \n", ["config.toml", "cannot be read", "line 1"]),
        ({}, "yeer = 2020\n", ["yeer", "not permitted"]),
    ],
)
def test_what_is_wrong_is_named(
    variables: dict[str, str], text: str | None, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if text is not None:
        config(tmp_path, text)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PlanError) as caught:
        settings.load()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("value", ["auto", "0", "0.5", "4GiB", "100MB", "2000000000"])
def test_memory_limits_as_dask_reads_them(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARSTFN_MEMORY_LIMIT", value)
    assert settings.load().memory_limit == value


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARSTFN_SCHEDULER", "")
    assert settings.load().scheduler is None
