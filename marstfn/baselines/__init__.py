"""Methods that need no training, all of one form: f(s2 (6,H,W), landsat (6,H/3,W/3), pan or None) -> (6,H,W)."""

from collections.abc import Callable

from marstfn.baselines.additive import additive
from marstfn.baselines.bicubic import bicubic
from marstfn.baselines.copy import copy
from marstfn.baselines.degrade import Array, degrade, upsample

METHODS: dict[str, Callable[[Array, Array, Array | None], Array]] = {
    "additive": additive,
    "bicubic": bicubic,
    "copy": copy,
}

__all__ = ["METHODS", "Array", "additive", "bicubic", "copy", "degrade", "upsample"]
