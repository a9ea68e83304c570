"""Prefect beyond loopback: a server starts whatever it is told to, so nobody may talk to it without an auth string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from pipeline import settings
from pipeline.encryption import FORCE, loopback
from pipeline.errors import ClusterError

REMEDY = (
    "Set PREFECT_SERVER_API_AUTH_STRING for the server and PREFECT_API_AUTH_STRING for its clients to the same "
    f"USER:PASSWORD (deploy/README.md), keep to 127.0.0.1, or force it with {FORCE} where the network is yours alone"
)


def allowed_api(url: str | None, secret: bool) -> None:
    """Raise ClusterError where runs would be taken from a Prefect server beyond loopback that asks for no password,
    unless forced; `secret`: whether an auth string or an API key is set."""
    if not url or secret or loopback(urlsplit(url).hostname or "") or settings.load().insecure:
        return
    raise ClusterError(
        f"the Prefect server at {url} is reached over a network without an auth string: whoever reaches it has this "
        f"machine run what they like; nothing was started. {REMEDY}"
    )


def refusal(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Why `prefect server start` with these arguments must not be, or None: a host beyond loopback, no auth string."""
    words = [word for word in arguments if not word.startswith("-")]
    if words[:2] != ["server", "start"] or environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        return None
    host = environ.get("PREFECT_SERVER_API_HOST") or environ.get("PREFECT_API_HOST") or "127.0.0.1"
    for index, word in enumerate(arguments):
        if word == "--host" and index + 1 < len(arguments):
            host = arguments[index + 1]
        elif word.startswith("--host="):
            host = word.partition("=")[2]
    if loopback(host) or settings.load().insecure:
        return None
    return (
        f"a Prefect server on {host} without an auth string would take orders from whoever reaches it; nothing was "
        f"started. {REMEDY}"
    )
