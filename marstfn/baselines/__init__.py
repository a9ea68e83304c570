"""Methods that need no training, all of one form: f(s2 (6,H,W), landsat (6,H/3,W/3), pan or None) -> (6,H,W)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from marstfn.baselines.additive import additive
from marstfn.baselines.bicubic import bicubic
from marstfn.baselines.copy import copy
from marstfn.baselines.degrade import Array, degrade, upsample
from marstfn.baselines.linear import linear

METHODS: dict[str, Callable[[Array, Array, Array | None], Array]] = {
    "additive": additive,
    "additive-linear": additive,
    "linear": linear,
    "bicubic": bicubic,
    "copy": copy,
}

Kind = Literal["nearest", "between"]

REFERENCE: Mapping[str, Kind] = MappingProxyType(
    {"additive": "nearest", "additive-linear": "between", "linear": "between", "bicubic": "nearest", "copy": "nearest"}
)
"""Which Sentinel-2 a method takes for `s2`: the nearest clear day's, or both sides interpolated to the date."""

__all__ = ["METHODS", "REFERENCE", "Array", "Kind", "additive", "bicubic", "copy", "degrade", "linear", "upsample"]
