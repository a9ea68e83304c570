"""Prefect beyond loopback needs an auth string, unless forced."""

import sys

import pytest

from flows import exposure, plugin
from pipeline.errors import ClusterError

START = ["server", "start"]


@pytest.mark.parametrize(
    ("arguments", "environ", "refused"),
    [
        (START, {}, False),
        ([*START, "--host", "127.0.0.1", "--port", "4200"], {}, False),
        ([*START, "--host", "0.0.0.0"], {}, True),
        ([*START, "--host=10.0.0.5"], {}, True),
        (START, {"PREFECT_SERVER_API_HOST": "0.0.0.0"}, True),
        ([*START, "--host", "0.0.0.0"], {"PREFECT_SERVER_API_AUTH_STRING": "a:b"}, False),
        (["server", "status"], {"PREFECT_SERVER_API_HOST": "0.0.0.0"}, False),
        (["deployment", "run", "x/y"], {}, False),
    ],
)
def test_a_server_beyond_loopback_is_refused(arguments, environ, refused, monkeypatch):
    monkeypatch.delenv("MARSTFN_INSECURE", raising=False)
    said = exposure.refusal(arguments, environ)
    assert (said is not None) == refused
    if said:
        assert "MARSTFN_INSECURE=1" in said
        assert "PREFECT_SERVER_API_AUTH_STRING" in said
    monkeypatch.setenv("MARSTFN_INSECURE", "1")
    assert exposure.refusal(arguments, environ) is None


def test_the_command_line_ends_there(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prefect", *START, "--host", "0.0.0.0"])
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    with pytest.raises(SystemExit, match="without an auth string"):
        plugin.setup_environment(ctx=None)


def test_runs_are_not_taken_from_a_server_without_a_password(monkeypatch):
    for url, secret in ((None, False), ("http://127.0.0.1:4200/api", False), ("http://10.0.0.5:4200/api", True)):
        exposure.allowed_api(url, secret)
    with pytest.raises(ClusterError, match=r"10\.0\.0\.5:4200/api.*MARSTFN_INSECURE=1"):
        exposure.allowed_api("http://10.0.0.5:4200/api", False)
    monkeypatch.setenv("MARSTFN_INSECURE", "1")
    exposure.allowed_api("http://10.0.0.5:4200/api", False)
