"""From weights to reflectance: batches of fixed shape through the network, windows out of blended patches."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch

from marstfn.baselines.degrade import Array
from marstfn.model import build
from marstfn.mosaic import blended
from marstfn.patches import blend, fill_holes
from marstfn.weights import Weights

Predict = Callable[[Array, Array, Array | None, Array | None], Array]
"""(n,6,p,p), (n,6,p/3,p/3), (n,1,2p/3,2p/3) or None, context (n,8,p,p) or None -> (n,6,p,p), float32 reflectance;
(n,7,p,p) where uncertainty comes with it."""


class Predictor:
    """A network on one device. The forward pass always sees exactly `batch` patches (short ones padded with zeros),
    so that a patch's result does not depend on how many came with it; `threads` > 0 sets torch's for the process."""

    def __init__(self, weights: Weights, *, device: str = "cpu", batch: int = 8, threads: int = 0) -> None:
        if batch < 1:
            raise ValueError(f"batch of {batch} patches; it must be at least 1")
        if threads > 0:
            torch.set_num_threads(threads)
        self.weights = weights
        self.device = torch.device(device)
        self.batch = batch
        model = build(weights.config)
        model.load_state_dict(weights.state)
        self._model = model.to(self.device).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._lock = threading.Lock()

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

        Raises ValueError where p is not the trained patch side, pan or context is missing, or an input holds NaN.
        """
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
        out = np.empty((len(s2), channels, *s2.shape[2:]), np.float32)
        for first in range(0, len(s2), self.batch):
            part = [None if a is None else self._padded(a[first : first + self.batch]) for a in given.values()]
            with self._lock, torch.inference_mode():
                result = self._model(*part)
            out[first : first + self.batch] = result[: len(s2) - first].float().cpu().numpy()
        return out

    def _padded(self, array: Array) -> torch.Tensor:
        full = np.zeros((self.batch, *array.shape[1:]), np.float32)
        full[: len(array)] = array
        return torch.from_numpy(full).to(self.device).contiguous(memory_format=torch.channels_last)


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
