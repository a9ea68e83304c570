"""Object stores: how long one is waited for, what it says in words, and why no forked process may ask it."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import obstore.store
import zarr.storage
from obstore.exceptions import BaseError

from pipeline import settings
from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

T = TypeVar("T")

BRIEF = 8.0
"""Seconds in which a store must answer for the first time: an address that is wrong is told at once."""
REQUEST, CONNECT = 120.0, 10.0
"""Seconds for one request and for its connection: a part of 5 MB gets through at 350 kbit/s."""
# obstore by itself gives up after ten attempts, which are over in three seconds: as long as one refusal of a busy
# store lasts. What ends our attempts is the clock alone.
FIRST_PAUSE, LONGEST_PAUSE, GROWTH, ATTEMPTS = 0.2, 10.0, 3, 100_000

_PREFIXES = {"gs": "GOOGLE", "az": "AZURE", "abfs": "AZURE", "adl": "AZURE"}
_SWITCHES = ("allow_http", "allow_invalid_certificates")
_OPTIONS = (
    *_SWITCHES,
    "timeout",
    "connect_timeout",
    "read_timeout",
    "proxy_url",
    "proxy_ca_certificate",
    "proxy_excludes",
)
_XML = re.compile(r"<\?xml.*", re.DOTALL)
_SAID = re.compile(r"<(Code|Message)>([^<]*)</")
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S*")
_asked = False
_forked = False


def plainly(error: BaseException) -> str:
    """What went wrong without the store's inner state, which obstore appends for its developers, and without what may
    be secret: queries of addresses (shared access signatures) and all of an answer but its code and message."""
    text = str(error).partition("Debug source")[0]
    said = ": ".join(found for _, found in _SAID.findall(text))
    return _QUERY.sub(r"\1", _XML.sub(said, text)).strip()


@lru_cache(maxsize=64)
def client(url: str, patience: float | None = None) -> obstore.store.ObjectStore:
    """The one client of this process for an object store; credentials and endpoint come from the environment
    (AWS_..., GOOGLE_..., AZURE_...). It repeats what fails for `patience` seconds, by default MARSTFN_STORE_PATIENCE.

    Raises StoreError in a process forked from one that has asked an object store before: there it would hang.
    """
    global _asked
    if _forked:
        raise StoreError(
            f"{url} cannot be asked from here: this process was forked from one that has used an object store, and "
            "both would hang; nothing was read or written. Start processes by spawn (Dask: "
            "distributed.worker.multiprocessing-method: spawn)"
        )
    _asked = True
    seconds = settings.load().store_patience if patience is None else patience
    return obstore.store.from_url(
        url,
        client_options=options(url),
        retry_config={
            "max_retries": ATTEMPTS,
            "retry_timeout": timedelta(seconds=seconds),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_PAUSE),
                "max_backoff": timedelta(seconds=min(LONGEST_PAUSE, seconds / 4)),
                "base": GROWTH,
            },
        },
    )


def options(url: str) -> obstore.store.ClientConfig:
    """How requests to a store are made: our timeouts, and what the environment says (AWS_ALLOW_HTTP, AWS_PROXY_URL,
    AWS_TIMEOUT and so on), which obstore forgets once it is given any."""
    prefix = next((p for scheme, p in _PREFIXES.items() if url.startswith(scheme)), "AWS")
    found: dict[str, Any] = {"timeout": timedelta(seconds=REQUEST), "connect_timeout": timedelta(seconds=CONNECT)}
    for name in _OPTIONS:
        value = os.environ.get(f"{prefix}_{name.upper()}", "").strip()
        if value:
            found[name] = value.lower() in ("1", "true", "yes", "on") if name in _SWITCHES else value
    return cast("obstore.store.ClientConfig", found)


def _after_fork() -> None:
    global _forked
    _forked = _asked
    client.cache_clear()


os.register_at_fork(after_in_child=_after_fork)


class Objects(zarr.storage.ObjectStore[Any]):
    """A Zarr store in an object store whose failures are StoreError, in words."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        return await self._read(key, super().get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return await self._read("parts of arrays", super().get_partial_values(prototype, key_ranges))

    async def exists(self, key: str) -> bool:
        return await self._read(key, super().exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        await self._write(key, super().set(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await self._write(key, super().set_if_not_exists(key, value))

    async def delete(self, key: str) -> None:
        await self._write(key, super().delete(key))

    async def delete_dir(self, prefix: str) -> None:
        await self._write(prefix, super().delete_dir(prefix))

    async def _read(self, key: str, asked: Awaitable[T]) -> T:
        with told(lambda: f"cannot read {key} of {self.store}", "check that the store can be reached"):
            return await asked

    async def _write(self, key: str, asked: Awaitable[T]) -> T:
        with told(
            lambda: f"cannot write {key} of {self.store}",
            "nothing was changed there. Check that the store can be reached and that you may write to it",
        ):
            return await asked


@contextmanager
def told(what: Callable[[], str], remedy: str) -> Iterator[None]:
    """Turn what obstore raises within the context into StoreError; FileNotFoundError passes as it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except BaseError as error:
        raise StoreError(f"{what()}: {plainly(error)}; {remedy}") from error
