"""A disk without room: told from other errors, and said in words with what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import FullError, StoreError
from pipeline.store import Store

FULL = (errno.ENOSPC, errno.EDQUOT)
SAID = tuple(os.strerror(number) for number in FULL)


@contextmanager
def noticed(store: Store, what: str) -> Iterator[None]:
    """Turn an error that says that the store's disk is full, whoever raised it, into a FullError about `what`.

    Other errors pass. Nothing has to be undone: what is finished is in the ledger, and nothing else counts.
    """
    try:
        yield
    except FullError:
        raise
    except (OSError, StoreError) as error:
        if not full(error):
            raise
        raise FullError(
            f"{what} cannot be stored: no room is left on the disk of {store.url} ({_free(store)}; {_plainly(error)}). "
            "Nothing half-written counts as done, finished tiles are kept. Make room there (`marstfn plan` tells how "
            "much a run needs) and run the same command again"
        ) from None


def full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that of a full disk or a used-up quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        # obstore tells the number in words only
        if isinstance(error, StoreError) and any(text in str(error) for text in SAID):
            return True
        error = error.__cause__ or error.__context__
    return False


def _free(store: Store) -> str:
    folder = store.local
    if folder is None:
        return "an object store"
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return f"{_size(usage.free)} of {_size(usage.total)} free"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _plainly(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        name = f" at {Path(str(error.filename))}" if error.filename else ""
        return f"{error.strerror}{name}"
    return str(error).partition(";")[0]
