"""From weights to reflectance: batches of fixed shape through the network, windows out of blended patches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marstfn.baselines.degrade import Array
from marstfn.batches import Batches, Model
from marstfn.inference import variant
from marstfn.lane import Lane, Part, empty
from marstfn.mosaic import blended
from marstfn.patches import blend, fill_holes
from marstfn.precision import FLOAT32, calibrate, forward
from marstfn.weights import Weights

Predict = Callable[[Array, Array, Array | None, Array | None], Array]
"""(n,6,p,p), (n,6,p/3,p/3), (n,1,2p/3,2p/3) or None, context (n,8,p,p) or None -> (n,6,p,p), float32 reflectance;
(n,7,p,p) where uncertainty comes with it."""
Patches = tuple[Array, Array, Array | None, Array | None]
"""Arguments of a `Predict`."""


class Predictor:
    """A network on one device. The forward pass always sees exactly `batch` patches (short ones padded with zeros),
    so that a patch's result does not depend on how many came with it; `threads` > 0 sets torch's for the process.

    `precision`: one of `marstfn.precision.PRECISIONS`; "auto" measures here and now, so that whoever needs the same
    pixels again resolves it once (`marstfn.precision.calibrate`) and says the result. Where the device's memory does
    not hold `batch` patches they are halved for good, and `passes` tells. On CUDA TF32 is switched off for the process.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        batch: int = 8,
        threads: int = 0,
        precision: str = FLOAT32,
        model: Model | None = None,
    ) -> None:
        """`model` in place of the weights' own, for trials. Raises ValueError for a batch below 1, an unknown
        precision, or half precision of a network that has no inference form."""
        if batch < 1:
            raise ValueError(f"batch of {batch} patches; it must be at least 1")
        if threads > 0:
            torch.set_num_threads(threads)
        self.weights = weights
        self.device = torch.device(device)
        self.batch = batch
        self._precision = calibrate(weights, device) if precision == "auto" else precision
        self._batches = Batches(model or forward(weights, self.device, self._precision), self.device, batch)
        self._lock = threading.Lock()

    @property
    def precision(self) -> str:
        """In which the network computes; never "auto"."""
        return self._precision

    @property
    def variant(self) -> str:
        """The form of the network that computes: another one may differ by rounding."""
        return variant(self.weights.config)

    @property
    def passes(self) -> Mapping[int, int]:
        """Forward passes so far by their number of patches: below `batch` where memory ran out."""
        return self._batches.passes

    @property
    def captured(self) -> bool:
        """Whether passes are replayed from a CUDA graph; False before the first."""
        return self._batches.captured

    @property
    def patch(self) -> int:
        """Side of the patches in 10 m pixels: the side the weights were trained with."""
        return self.weights.config.patch

    @property
    def pan(self) -> bool:
        """Whether the weights need the panchromatic band."""
        return self.weights.config.pan

    @property
    def context(self) -> bool:
        """Whether `s2` is the reference interpolated to the date and its context must come with it."""
        return self.weights.config.context

    @property
    def interval(self) -> tuple[float, ...] | None:
        """Six factors: the half-width of the 90 % interval of a band is its own times channel 7; None without one."""
        return self.weights.interval

    def __call__(self, s2: Array, landsat: Array, pan: Array | None = None, context: Array | None = None) -> Array:
        """(n,6,p,p), (n,6,p/3,p/3), (n,1,2p/3,2p/3) or None, (n,8,p,p) or None -> (n,6,p,p), float32 reflectance
        without NaN, any n; (n,7,p,p) where `interval` is not None. Pan and context are dropped where they are not used.

        Raises ValueError where p is not the trained patch side, pan or context is missing, or an input holds NaN;
        marstfn.batches.DeviceMemoryError where the device's memory does not hold one patch.
        """
        (out,) = self.series([(s2, landsat, pan, context)])
        return out

    def series(self, parts: Iterable[Patches], *, counts: bool = False) -> Iterator[NDArray[Any]]:
        """The same for many parts (dates, tiles), a result for each, in their order; int16 in units of 1e-4 with
        `counts`, rounded on the device.

        Batches are filled across the parts as these follow one another, and a part's result comes once its last batch
        is back, up to two batches after it was asked for: so the device computes while the next parts are made.
        """
        lane: Lane | None = None
        waiting: deque[Part] = deque()
        flying: deque[Any] = deque()

        def launch(lane: Lane) -> None:
            with self._lock, torch.inference_mode():
                flying.append(lane.launch())
            if len(flying) == 2:
                lane.land(flying.popleft())

        for patches in parts:
            part = self._part(patches, counts)
            waiting.append(part)
            lane = lane or Lane(self._batches, part, whole=counts)
            first = 0
            while first < len(part.out):
                count = min(len(part.out) - first, lane.room)
                lane.fill(part, first, count)
                first += count
                if not lane.room:
                    launch(lane)
            while waiting and not waiting[0].left:
                yield waiting.popleft().out
        if lane is not None:
            if lane.room < self.batch:
                launch(lane)
            while flying:
                lane.land(flying.popleft())
        yield from (part.out for part in waiting)

    def on_device(self, s2: Any, landsat: Any, pan: Any = None, context: Any = None) -> torch.Tensor:
        """The same from tensors that lie on the device already to one that stays there, in order with the current
        stream: nothing is checked, and the host does not wait."""
        given = (s2, landsat, pan if self.pan else None, context if self.context else None)
        with self._lock, torch.inference_mode():
            return self._batches.beside(given)

    def _part(self, patches: Patches, whole: bool) -> Part:
        """The patches, checked, without what the weights do not use."""
        s2, landsat, pan, context = patches
        if s2.shape[-2:] != (self.patch, self.patch):
            raise ValueError(
                f"patches of {s2.shape[-2:]} px; these weights were trained on {self.patch} x {self.patch}"
            )
        if self.pan and pan is None:
            raise ValueError("these weights need the panchromatic band; use the set without pan")
        if self.context and context is None:
            raise ValueError("these weights need the context of the reference (marstfn.reference.Reference.context)")
        given = {
            "Sentinel-2": s2,
            "Landsat": landsat,
            "pan": pan if self.pan else None,
            "context": context if self.context else None,
        }
        for name, array in given.items():
            if array is not None and not np.isfinite(array).all():
                raise ValueError(f"{name} patches hold NaN; fill them first (marstfn.patches.fill_holes)")
        channels = s2.shape[1] + (1 if self.weights.config.uncertainty else 0)
        return Part(tuple(given.values()), empty(len(s2), (channels, *s2.shape[2:]), whole=whole), len(s2))


def window(
    predict: Predict,
    s2: Array,
    landsat: Array,
    pan: Array | None,
    rows: tuple[int, ...],
    cols: tuple[int, ...],
    patch: int,
    overlap: int,
    context: Array | None = None,
    *,
    holes: bool = False,
) -> Array:
    """s2 (6,H,W), landsat (6,H/3,W/3), pan (1,2H/3,2W/3) or None, context (8,H,W) or None -> (6,H,W), or as many
    channels as `predict` gives, from patches at `rows` x `cols`.

    Offsets are 10 m pixels of this window, multiples of 6. Holes (NaN) are filled patch by patch, unless `holes` are
    wanted, so that two windows which share a patch compute the same values in it, bit for bit. Pixels under no patch
    are NaN.
    """
    if not rows or not cols:
        return np.full(s2.shape, np.nan, np.float32)
    filled = _as_they_are if holes else fill_holes
    cut = [
        filled(
            s2[:, r : r + patch, c : c + patch],
            landsat[:, r // 3 : (r + patch) // 3, c // 3 : (c + patch) // 3],
            None if pan is None else pan[:, r * 2 // 3 : (r + patch) * 2 // 3, c * 2 // 3 : (c + patch) * 2 // 3],
        )
        for r in rows
        for c in cols
    ]
    fine, coarse = np.stack([p[0] for p in cut]), np.stack([p[1] for p in cut])
    sharp = None if pan is None else np.stack([p[2] for p in cut if p[2] is not None])
    around = (
        None if context is None else np.stack([context[:, r : r + patch, c : c + patch] for r in rows for c in cols])
    )
    predicted = predict(fine, coarse, sharp, around)
    offsets = [(r, c) for r in rows for c in cols]
    return blended([predicted], offsets, s2.shape[1:], blend(patch, overlap))


def _as_they_are(s2: Array, landsat: Array, pan: Array | None) -> tuple[Array, Array, Array | None]:
    return s2, landsat, pan
