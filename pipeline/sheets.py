"""The output of one tile and block of dates in the making, and how it goes to the store."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn.bands import FINE
from pipeline import cube, ledger
from pipeline.cube import FILL, LAYERS, NOTHING
from pipeline.encoding import QUALITY
from pipeline.grid import Tile
from pipeline.store import FUSED, Store


class Sheet:
    """All layers of one block of dates (dates, H, W); several threads fill it, date by date."""

    def __init__(self, store: Store, tile: Tile, dates: slice, number: int) -> None:
        self.dates, self.number = dates, number
        self._store, self._tile = store, tile
        shape = (dates.stop - dates.start, *tile.shape(FINE))
        # memory is touched where and when a date is made, not before
        self.layers: dict[str, NDArray[Any]] = {
            name: np.empty(shape, np.uint8 if name == "quality" else np.int16) for name in LAYERS
        }
        self.stored: list[Future[tuple[dict[str, str], float]]] = []
        """What comes of each layer's `write`, once the sheet is whole."""
        self._left: int = dates.stop - dates.start
        self.counts: list[list[int]] = [[] for _ in range(self._left)]
        self._lock = threading.Lock()

    def blank(self, at: int) -> dict[str, NDArray[Any]]:
        """The layers (H, W) of date `at`, of which nothing is known yet."""
        found = {name: values[at] for name, values in self.layers.items()}
        for name, values in found.items():
            values[...] = NOTHING if name == "quality" else FILL
        return found

    def count(self, at: int) -> None:
        """Take note of the pixels of each quality of date `at`, which is made."""
        self.counts[at] = np.bincount(self.layers["quality"][at].ravel(), minlength=len(QUALITY)).tolist()

    def whole(self) -> bool:
        """Whether the date just made was the last one."""
        with self._lock:
            self._left -= 1
            return self._left == 0

    def write(self, name: str) -> tuple[dict[str, str], float]:
        """Store a layer, let go of it, and give its object's checksum and the seconds that took; StoreError where it
        cannot be stored for want of room or rights, MarstfnError where for another reason."""
        values = self.layers.pop(name)
        with cube.writing(self._store, f"{FUSED}/{name}", f"tile {self._tile.name}, dates {self._span}"):
            cube.write_block(cube.array(self._store, FUSED, name, "r+"), self.dates, self._tile, FINE, values)
        del values
        start = time.perf_counter()
        entry = cube.shard_object(FUSED, name, self.number, self._tile, FINE)
        return ledger.checksum(self._store, [entry]), time.perf_counter() - start

    @property
    def _span(self) -> str:
        return f"{self.dates.start}..{self.dates.stop - 1}"
