"""Patches on their way to a device and back: two slots of host memory, so that copies and passes overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marstfn.baselines.degrade import Array
from marstfn.batches import Batches, stream

UNIT = 1e-4
"""Reflectance of one count of what is stored."""
LOWEST, HIGHEST, NOTHING = -9998, 32767, -9999


def counts(reflectance: Tensor) -> Tensor:
    """int16 in units of 1e-4 on the same device, rounded to nearest, clipped to -9998..32767; -9999 for NaN."""
    unit = torch.full((), UNIT, device=reflectance.device)
    scaled = torch.round(reflectance.float() / unit).clamp(LOWEST, HIGHEST)
    return torch.nan_to_num(scaled, nan=NOTHING).to(torch.int16)


@dataclass(eq=False)
class Part:
    """Patches that belong together (those of one date, say) and what was predicted for them so far."""

    given: Sequence[Array | None]
    out: NDArray[Any]
    left: int


@dataclass(eq=False)
class _Slot:
    """Host memory of one batch, pinned where the device can then copy it by itself."""

    given: list[Tensor | None]
    made: Tensor
    used: int = 0
    rows: list[tuple[Part, int, int, int]] = field(default_factory=list)
    """By piece: whose, from which of its patches, into which of the batch, how many."""
    landed: Any = None


class Lane:
    """One run of batches through `batches`; parts keep their order, batches are filled across them."""

    def __init__(self, batches: Batches, like: Part, *, whole: bool) -> None:
        """`like`: any part, for its shapes; `whole`: results come back as int16 counts, rounded on the device."""
        self._batches, self._whole = batches, whole
        self._cuda = batches.device.type == "cuda"
        self._slots = [self._slot(like) for _ in range(2)]
        self._turn = 0
        if self._cuda:
            self._up, self._down = stream(batches.device), stream(batches.device)

    @property
    def room(self) -> int:
        """Patches that the present batch still takes."""
        return self._batches.batch - self._slots[self._turn].used

    def fill(self, part: Part, first: int, count: int) -> None:
        """Put `count` patches of the part, from `first`, into the present batch."""
        slot = self._slots[self._turn]
        at = slot.used
        for own, array in zip(slot.given, part.given, strict=True):
            if own is not None and array is not None:
                own.numpy()[at : at + count] = array[first : first + count]
        slot.rows.append((part, first, at, count))
        slot.used += count

    def launch(self) -> _Slot:
        """Send the present batch on its way; the other slot is the next one's. Zeros fill up a short batch."""
        slot = self._slots[self._turn]
        self._turn = 1 - self._turn
        for own in slot.given:
            if own is not None:
                own[slot.used :] = 0
        if self._cuda:
            self._launch_cuda(slot)
        else:
            device = self._batches.device
            given = [None if t is None else t.to(device) for t in slot.given]
            slot.made.copy_(self._result(given))
        return slot

    def land(self, slot: _Slot) -> None:
        """Wait for a batch and hand its results to the parts they belong to."""
        if slot.landed is not None:
            slot.landed.synchronize()
        made = slot.made.numpy()
        for part, first, at, count in slot.rows:
            part.out[first : first + count] = made[at : at + count]
            part.left -= count
        slot.used, slot.rows, slot.landed = 0, [], None

    def _result(self, given: Sequence[Tensor | None]) -> Tensor:
        made = self._batches(given)
        return counts(made) if self._whole else made

    def _launch_cuda(self, slot: _Slot) -> None:
        """Copy in, pass, copy out on three streams, each waiting for the one before it only. Never ran on a GPU yet."""
        compute = self._batches.stream
        assert compute is not None
        with torch.cuda.stream(self._up):
            given = [None if t is None else t.to(self._batches.device, non_blocking=True) for t in slot.given]
        compute.wait_stream(self._up)
        with torch.cuda.stream(compute):
            for t in given:
                if t is not None:
                    t.record_stream(compute)
            made = self._result(given)
        self._down.wait_stream(compute)
        with torch.cuda.stream(self._down):
            made.record_stream(self._down)
            slot.made.copy_(made, non_blocking=True)
            slot.landed = torch.cuda.Event()  # type: ignore[no-untyped-call]
            slot.landed.record(self._down)

    def _slot(self, like: Part) -> _Slot:
        batch = self._batches.batch

        def host(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.empty((batch, *shape), dtype=dtype, pin_memory=self._cuda)

        given = [None if a is None else host(a.shape[1:], torch.float32) for a in like.given]
        return _Slot(given, host(like.out.shape[1:], torch.int16 if self._whole else torch.float32))


def empty(n: int, shape: tuple[int, ...], *, whole: bool) -> NDArray[Any]:
    """Room for the results of a part."""
    return np.empty((n, *shape), np.int16 if whole else np.float32)
