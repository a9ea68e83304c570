"""How the files of one collection are opened: GDAL settings, keys and signatures of one asset, not of the process."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

import rasterio.env
from rasterio.session import Session

Signing = Literal["none", "planetary-computer"]

HTTP: Mapping[str, str] = MappingProxyType(
    {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # else every open asks for side-car files first
        # a repeat by GDAL keeps what of the file has come already, one by the reader begins it anew; which answers are
        # repeated is left to GDAL (429, 500, 502, 503, 504): of a list of codes it takes every 0 for "no answer", too
        "GDAL_HTTP_MAX_RETRY": "4",
        # seconds, at least doubled each time; who knows a server better says so in the variable of this name
        "GDAL_HTTP_RETRY_DELAY": os.environ.get("GDAL_HTTP_RETRY_DELAY", "0.5"),
        "GDAL_HTTP_CONNECTTIMEOUT": "10",
        "GDAL_HTTP_LOW_SPEED_TIME": "15",  # a stalled transfer ends, and is retried
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
        "GDAL_HTTP_MULTIRANGE": "SERIAL",  # the parallel form does not retry and leaves silent holes
        "VSI_CACHE": "FALSE",
    }
)
"""How any file is read over HTTP; a collection's own settings come on top."""

SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GDAL_HTTP_USERPWD",
    "GDAL_HTTP_BEARER",
    "GDAL_HTTP_HEADERS",
)
"""GDAL options that hold secrets: a profile names the environment variable they come from, never their value."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the assets of a collection are opened."""

    gdal: Mapping[str, str] = field(default_factory=dict)
    """GDAL options beside those of HTTP."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Name of the environment variable that holds each secret, by GDAL option; looked up in the reading task."""
    signing: Signing = "none"
    """Whose tokens hrefs need."""
    alternate: str | None = None
    """Which of an asset's `alternate` addresses is read in place of its own."""

    @property
    def options(self) -> dict[str, str]:
        """All GDAL options that are no secret."""
        return {**HTTP, **self.gdal}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Inside, this thread's GDAL has these options, and on leaving those it had before; other threads keep theirs.

        Secrets come from the environment here, at the last moment; where their variables are not set, GDAL asks the
        cloud's own chain (AWS_*, ~/.aws, the machine's role).
        """
        secrets = {option: os.environ[name] for option, name in self.keys.items() if os.environ.get(name)}
        with rasterio.env.Env(session=_Keys(secrets), **self.options):
            yield

    def href(self, asset: Mapping[str, Any]) -> str:
        """The address at which a STAC asset (JSON) is read: the alternate one where that is wanted and there."""
        other = (asset.get("alternate") or {}).get(self.alternate) or {}
        return str(other.get("href") or asset["href"])

    def sign(self, href: str) -> str:
        """`href` made readable for the next minutes; hosts that need no token come back unchanged.

        Call it as late as possible, in the task that reads: tokens live for less than an hour and must reach no
        plan, log or store. May ask Planetary Computer for a token (anonymous, cached per process).
        """
        if self.signing == "none" or not (urlsplit(href).hostname or "").endswith(".blob.core.windows.net"):
            return href
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its models are of an older pydantic
            import planetary_computer

        account, container = (urlsplit(href).hostname or "").partition(".")[0], urlsplit(href).path.split("/")[1]
        with _TOKENS:  # of many threads without a token one asks for it
            # the signer's own patience is ten attempts, minutes of them in silence: the reader's attempts are told
            planetary_computer.sas.get_token(account, container, retry_total=1)
            return str(planetary_computer.sign_url(href))

    def refused(self, signed: str) -> None:
        """Forget the token that `signed` carries: its server does not take it, whatever its time says.

        The next `sign` asks for a new one. A token that another thread has fetched since is kept.
        """
        if self.signing == "none":
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from planetary_computer import sas

        with _TOKENS:
            for key in [k for k, token in sas.TOKEN_CACHE.items() if signed.endswith(f"?{token.token}")]:
                del sas.TOKEN_CACHE[key]


_TOKENS = threading.Lock()
"""Held while a token is fetched or forgotten: they are kept per process, and its threads read side by side."""

PLAIN = Access()
"""Files that need nothing but HTTP."""


class _Keys(Session):  # type: ignore[misc]
    """Secrets as rasterio wants them handed in: it refuses them as plain options, and would import boto3 otherwise."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = dict(secrets)
        self.credentials = self._secrets

    @classmethod
    def hascreds(cls, config: Mapping[str, Any]) -> bool:
        return True

    def get_credential_options(self) -> dict[str, str]:
        return dict(self._secrets)
