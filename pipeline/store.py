"""Where a run keeps what it makes: one folder, on disk or in an object store, and the objects in it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
import obstore.store
import zarr.storage
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
from zarr.abc.store import Store as ZarrStore

from pipeline import objects
from pipeline.errors import StoreError
from pipeline.objects import plainly as plainly

PLAN, ITEMS, INPUTS, FUSED, LEDGER = "plan.json", "items.json", "inputs.zarr", "fused.zarr", "ledger"

OWN = (INPUTS, FUSED, LEDGER)
"""Folders of a store in which nobody else has anything."""
STAGED = re.compile(r"#\d+$")
"""How obstore names what it has not yet moved into place."""


class Unsupported(StoreError):
    """The store lacks something that is done without."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of objects at `url` (a path, file://, s3://, gs://, az://); pickles as its address alone."""

    url: str

    def __post_init__(self) -> None:
        # a worker may stand in another folder: what a relative path means is settled here
        if "://" not in self.url:
            object.__setattr__(self, "url", str(Path(self.url).expanduser().absolute()))

    @property
    def local(self) -> Path | None:
        """The folder as a path, or None in an object store."""
        parts = urlsplit(self.url)
        if parts.scheme == "file":
            return Path(unquote(parts.path))
        return None if "://" in self.url else Path(self.url)

    @property
    def present(self) -> bool:
        """Whether the folder of a store on a disk is there. Raises StoreError where that cannot be told."""
        try:
            return self.local is None or self.local.exists()
        except OSError as error:
            raise StoreError(
                f"the store {self.url} cannot be looked at: {error.strerror}; nothing was changed. Choose a folder you "
                "may read and write, with names of at most 255 bytes (--store)"
            ) from error

    def join(self, name: str) -> str:
        """Address of the object or folder `name` inside this store."""
        return str(self.local / name) if self.local is not None else f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        """The bytes of object `name`, or None where there is none."""
        if self._absent():
            return None
        found = self.tagged(name)
        return None if found is None else found[0]

    def write(self, name: str, data: bytes) -> None:
        """Write object `name` whole or not at all."""
        try:
            obstore.put(self._objects(), name, data)
        except (BaseError, OSError) as error:
            raise StoreError(
                f"cannot write {self.join(name)}: {plainly(error)}; nothing was changed there. "
                "Choose a store you may write to (--store) or make room"
            ) from error

    def create(self, name: str, data: bytes) -> str | None:
        """Write object `name` where there is none, and return its tag; None, and nothing written, where there is one.

        Raises Unsupported where the store knows no conditional writes.
        """
        return self._conditional(name, data, "create")

    def replace(self, name: str, data: bytes, tag: str) -> str | None:
        """Write object `name` where it still has this `tag`, and return the new one; None where somebody else wrote."""
        return self._conditional(name, data, {"e_tag": tag})

    def tagged(self, name: str) -> tuple[bytes, str] | None:
        """The bytes of object `name` and the tag of this very version, or None where there is none."""
        try:
            found = obstore.get(self._objects(), name)
            return bytes(found.bytes()), str(found.meta["e_tag"])
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StoreError(
                f"cannot read {self.join(name)}: {plainly(error)}; check that the store can be reached"
            ) from error

    def reach(self) -> None:
        """Ask an object store for anything, with little patience. Raises StoreError within seconds where it cannot be
        reached: later, in the middle of a run, it is waited for much longer."""
        if self.local is not None:
            return
        try:
            obstore.head(self._client(self.url, objects.BRIEF), PLAN)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise StoreError(
                f"the store {self.url} cannot be used: {plainly(error)}; nothing was computed. Check its name, and in "
                "the environment the endpoint (AWS_ENDPOINT_URL; AWS_ALLOW_HTTP=true for http://) and credentials"
            ) from error

    def _conditional(self, name: str, data: bytes, mode: Any) -> str | None:
        try:
            return str(obstore.put(self._objects(), name, data, mode=mode)["e_tag"])
        except (AlreadyExistsError, PreconditionError):
            return None
        except (NotSupportedError, NotImplementedError) as error:
            raise Unsupported(f"{self.url} knows no conditional writes: {plainly(error)}") from error
        except (BaseError, OSError) as error:
            raise StoreError(
                f"cannot write {self.join(name)}: {plainly(error)}; nothing was changed there. "
                "Choose a store you may write to (--store)"
            ) from error

    def delete(self, name: str) -> None:
        """Remove object `name`; nothing happens where there is none."""
        try:
            obstore.delete(self._objects(), name)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise StoreError(f"cannot remove {self.join(name)}: {plainly(error)}; it is still there") from error

    def sweep(self) -> int:
        """Remove what a killed process left half-written in the parts of a store on a disk, and count it.

        Only below OWN, and beside the files this program writes: the folder may hold what belongs to others.
        Object stores put an object whole or not at all and leave nothing. Call it only while no task writes.
        """
        if self.local is None:
            return 0
        inside = [p for name in OWN for p in (self.local / name).rglob("*")]
        beside = [p for name in (PLAN, ITEMS) for p in self.local.glob(f"{name}#*")]
        named = [p for p in (*inside, *beside) if p.name.endswith(".partial") or STAGED.search(p.name)]
        stale = [p for p in named if p.is_file() and not p.is_symlink()]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def names(self, prefix: str) -> list[str]:
        """Names of all objects below `prefix`, sorted."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of all objects below `prefix`, by name: one listing, nothing is read."""
        if self._absent():
            return {}
        try:
            found = obstore.list(self._objects(), prefix).collect()
        except FileNotFoundError:
            return {}
        except (BaseError, OSError) as error:
            raise StoreError(
                f"cannot list {self.join(prefix)}: {plainly(error)}; check that it can be reached"
            ) from error
        return {str(meta["path"]): int(meta["size"]) for meta in found}

    def size(self, name: str) -> int | None:
        """Bytes of object `name`, or None where there is none."""
        if self._absent():
            return None
        try:
            return int(obstore.head(self._objects(), name)["size"])
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StoreError(
                f"cannot look at {self.join(name)}: {plainly(error)}; check that the store can be reached"
            ) from error

    def move(self, source: str, target: str) -> None:
        """Move all objects below `source` to below `target`; nothing happens where there are none.

        Interrupted, it can be called again: at once on a disk, in an object store copies come before removals.
        """
        if self.local is not None:
            here, there = self.local / source, self.local / target
            if here.exists():
                there.parent.mkdir(parents=True, exist_ok=True)
                if there.exists():
                    shutil.rmtree(there)
                here.rename(there)
            return
        names = self.names(source)
        try:
            for name in names:
                obstore.copy(self._objects(), name, target + name.removeprefix(source))
        except (BaseError, OSError) as error:
            raise StoreError(f"cannot copy {self.join(source)}: {plainly(error)}; it is still there") from error
        for name in names:
            self.delete(name)

    def clear(self, prefix: str) -> None:
        """Remove all objects below `prefix`, and on a disk the folder."""
        if self.local is not None:
            shutil.rmtree(self.local / prefix, ignore_errors=True)
            return
        for name in self.names(prefix):
            self.delete(name)

    def written(self, name: str) -> datetime | None:
        """When object `name` was last written (UTC), or None where there is none."""
        if self._absent():
            return None
        try:
            return obstore.head(self._objects(), name)["last_modified"]
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StoreError(f"cannot look at {self.join(name)}: {plainly(error)}") from error

    def zarr(self, name: str) -> ZarrStore:
        """The Zarr store `name` in this folder."""
        if self.local is not None:
            return zarr.storage.LocalStore(self.local / name)
        return objects.Objects(self._client(self.join(name)))

    def _absent(self) -> bool:
        """True where reading must not create the folder it finds nothing in."""
        return self.local is not None and not self.present

    def _objects(self) -> obstore.store.ObjectStore:
        try:
            if self.local is not None:
                return obstore.store.LocalStore(prefix=self.local, mkdir=True)
        except (BaseError, OSError, ValueError) as error:
            raise StoreError(
                f"cannot use the store {self.url}: {plainly(error)}. Choose a folder you may write to (--store)"
            ) from error
        return self._client(self.url)

    @staticmethod
    def _client(url: str, patience: float | None = None) -> obstore.store.ObjectStore:
        try:
            return objects.client(url, patience)
        except (BaseError, OSError, ValueError) as error:
            raise StoreError(
                f"cannot use the store {url}: {plainly(error)}. Choose a folder, or s3://BUCKET/..., gs://BUCKET/..., "
                "az://CONTAINER/... with its settings in the environment (AWS_..., GOOGLE_..., AZURE_...)"
            ) from error
