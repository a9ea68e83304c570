"""From weights to reflectance: batches of fixed shape through the network, windows out of blended patches."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch

from marstfn.baselines.degrade import Array
from marstfn.model import MARSTFN
from marstfn.patches import blend, fill_holes
from marstfn.weights import Weights

Predict = Callable[[Array, Array, Array | None], Array]
"""(n,6,p,p), (n,6,p/3,p/3), (n,1,2p/3,2p/3) or None -> (n,6,p,p), float32 reflectance."""


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
        model = MARSTFN(weights.config)
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

    def __call__(self, s2: Array, landsat: Array, pan: Array | None = None) -> Array:
        """(n,6,p,p), (n,6,p/3,p/3), (n,1,2p/3,2p/3) or None -> (n,6,p,p), float32 reflectance without NaN, any n.

        Raises ValueError where p is not the trained patch side, pan is missing, or an input holds NaN.
        """
        if s2.shape[-2:] != (self.patch, self.patch):
            raise ValueError(
                f"patches of {s2.shape[-2:]} px; these weights were trained on {self.patch} x {self.patch}"
            )
        inputs = [s2, landsat] + ([pan] if pan is not None and self.pan else [])
        if self.pan and pan is None:
            raise ValueError("these weights need the panchromatic band; use the set without pan")
        for name, array in zip(("Sentinel-2", "Landsat", "pan"), inputs, strict=False):
            if not np.isfinite(array).all():
                raise ValueError(f"{name} patches hold NaN; fill them first (marstfn.patches.fill_holes)")
        out = np.empty(s2.shape, np.float32)
        for first in range(0, len(s2), self.batch):
            part = [self._padded(array[first : first + self.batch]) for array in inputs]
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
) -> Array:
    """s2 (6,H,W), landsat (6,H/3,W/3), pan (1,2H/3,2W/3) or None -> (6,H,W), from patches at `rows` x `cols`.

    Offsets are 10 m pixels of this window, multiples of 6. Holes (NaN) are filled patch by patch, so that two windows
    which share a patch compute the same values in it, bit for bit. Pixels under no patch are NaN.
    """
    if not rows or not cols:
        return np.full(s2.shape, np.nan, np.float32)
    cut = [
        fill_holes(
            s2[:, r : r + patch, c : c + patch],
            landsat[:, r // 3 : (r + patch) // 3, c // 3 : (c + patch) // 3],
            None if pan is None else pan[:, r * 2 // 3 : (r + patch) * 2 // 3, c * 2 // 3 : (c + patch) * 2 // 3],
        )
        for r in rows
        for c in cols
    ]
    fine, coarse = np.stack([p[0] for p in cut]), np.stack([p[1] for p in cut])
    sharp = None if pan is None else np.stack([p[2] for p in cut if p[2] is not None])
    predicted = predict(fine, coarse, sharp)
    weights = blend(patch, overlap)
    total = np.zeros(s2.shape, np.float64)
    norm = np.zeros(s2.shape[1:], np.float64)
    offsets = [(r, c) for r in rows for c in cols]
    for (r, c), values in zip(offsets, predicted, strict=True):
        total[:, r : r + patch, c : c + patch] += weights * values
        norm[r : r + patch, c : c + patch] += weights
    with np.errstate(invalid="ignore"):
        out: Array = np.where(norm > 0, total / norm, np.nan).astype(np.float32)
    return out
