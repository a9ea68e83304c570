"""Methods that need no training, all of one form: f(s2 (b,H,W), landsat (b,H/3,W/3), pan or None) -> (b,H,W)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal, cast

from marstfn.baselines.additive import additive
from marstfn.baselines.bicubic import bicubic
from marstfn.baselines.copy import copy
from marstfn.baselines.degrade import Array, degrade, upsample
from marstfn.baselines.linear import linear

Kind = Literal["nearest", "between"]
"""Which Sentinel-2 a method takes for `s2`: the nearest clear day's, or both sides interpolated to the date."""

LOCAL, REGIONAL = 60, 240
"""Sides of the windows of a run in 10 m pixels: of methods that look at a pixel's neighbours, and of those that fit
classes, variances or variograms to what they see. Windows overlap and are blended, so that neither shows."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A method, and what it is to be given."""

    function: Callable[..., Array]
    kind: Kind = "nearest"
    side: int = LOCAL
    """Of its windows in a run."""
    pan: bool = False
    """Whether the panchromatic band makes a difference to it."""
    holes: bool = False
    """Whether it is given NaN where a mask hides a pixel; else holes are filled beforehand."""


def _late(module: str) -> Callable[..., Array]:
    """The function of the same name in a module that is loaded with the first call: compilers take time to import."""

    def run(*images: Any, **options: Any) -> Array:
        function = getattr(import_module(f"marstfn.baselines.{module}"), module)
        return cast(Array, function(*images, **options))

    return run


METHODS: Mapping[str, Baseline] = MappingProxyType(
    {
        "additive": Baseline(additive),
        "additive-linear": Baseline(additive, "between"),
        "linear": Baseline(linear, "between"),
        "sen2like": Baseline(_late("sen2like"), side=REGIONAL, holes=True),
        "fsdaf": Baseline(_late("fsdaf"), side=REGIONAL, holes=True),
        "starfm-si": Baseline(_late("starfm_si"), side=REGIONAL, holes=True),
        "atprk": Baseline(_late("atprk"), side=REGIONAL, pan=True, holes=True),
        "bicubic": Baseline(bicubic),
        "copy": Baseline(copy),
    }
)
"""By the name a run knows them under."""

__all__ = [
    "METHODS",
    "Array",
    "Baseline",
    "Kind",
    "additive",
    "bicubic",
    "copy",
    "degrade",
    "linear",
    "upsample",
]
