"""What `up` writes down and `down` takes back, without servers; `test_literal` has those."""

import json
import socket
from dataclasses import replace

import pytest

from flows import profiles, services
from flows.processes import Process, ServiceError
from flows.services import State

MINE = 'active = "work"\n\n[profiles.work]\nA = "1"\n\n[profiles.play]\nB = "2"\n'
DEAD = Process("server", 999_999_999, 0.0, "log")


@pytest.fixture
def state(tmp_path, monkeypatch):
    """The state of services that are up, as far as files go."""
    monkeypatch.setenv("MARSTFN_HOME", str(tmp_path / "home"))
    path = tmp_path / "profiles.toml"
    made = State(4321, "token", DEAD, DEAD, str(path), MINE, profiles.added(MINE, services._settings(4321)))
    profiles.write(path, made.after)
    services._save(made)
    return made


def test_what_was_written_down_is_read_back(state):
    assert services.load() == state
    assert not state.running
    assert state.api == "http://127.0.0.1:4321/api"


def test_down_brings_the_profiles_back_to_the_letter(state, tmp_path):
    assert services.down()
    assert (tmp_path / "profiles.toml").read_text() == MINE
    assert not services.home().exists()
    assert not services.down()


def test_down_removes_a_file_of_profiles_that_was_not_there(state, tmp_path):
    services._save(replace(state, before=None))
    services.down()
    assert not (tmp_path / "profiles.toml").exists()


def test_down_keeps_the_history_where_asked(state):
    (services.home() / "prefect").mkdir()
    (services.home() / services.TEMPORARY / "runner_storage").mkdir(parents=True)
    services.down(keep=True)
    assert not (services.home() / services.TEMPORARY).exists()
    assert (services.home() / "prefect").is_dir()
    assert services.load() is None


def test_a_profile_chosen_meanwhile_stays_chosen(state, tmp_path):
    path = tmp_path / "profiles.toml"
    profiles.write(path, state.after.replace('active = "marstfn"', 'active = "play"'))
    services.down()
    assert path.read_text() == MINE.replace('active = "work"', 'active = "play"')


def test_a_profile_chosen_before_up_is_typed_again_comes_back(state, tmp_path):
    path = tmp_path / "profiles.toml"
    profiles.write(path, state.after.replace('active = "marstfn"', 'active = "play"'))
    again = services._activate(state)
    assert path.read_text() == state.after
    assert services.load() == again
    services.down()
    assert path.read_text() == MINE.replace('active = "work"', 'active = "play"')


def test_a_file_changed_while_ours_was_active_keeps_the_change(state, tmp_path):
    path = tmp_path / "profiles.toml"
    profiles.write(path, state.after.replace('B = "2"', 'B = "3"'))
    services.down()
    assert path.read_text() == MINE.replace('B = "2"', 'B = "3"')


def test_a_record_that_cannot_be_read_is_a_clear_error(state):
    (services.home() / "services.json").write_text(json.dumps({"port": 1}))
    with pytest.raises(ServiceError, match=r"services\.json, cannot be read.*remove that folder"):
        services.down()


def test_a_taken_port_is_a_clear_error(state):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"port {port} of 127\.0\.0\.1 is taken.*--port"):
            services._start(port, None, lambda text: None)


def test_the_definition_is_found():
    assert "entrypoint: flows.fuse_year.fuse_year" in services.definition().read_text()


def test_nothing_of_the_users_prefect_reaches_the_server(monkeypatch, tmp_path):
    from flows import server

    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("PREFECT_PROFILE", "cloud")
    monkeypatch.setenv("MARSTFN_CATALOG", "earth-search")
    env = server.environment(4321, "token", tmp_path)
    assert "PREFECT_API_KEY" not in env
    assert "PREFECT_PROFILE" not in env
    assert env["MARSTFN_CATALOG"] == "earth-search"
    assert env["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert env["PREFECT_PLUGINS_ENABLED"] == "false"
